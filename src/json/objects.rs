//! Takes JSON objects and arrays apart into the raw text of their parts, without looking inside them.
//!
//! Promises: nothing is unescaped, reordered or rounded, so what is not understood can be kept as it came; depth costs
//! no stack; the text is read once. Must not know: what the fields mean.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One object taken apart: the fields that were asked for by name, and the others.
///
/// Of a name that comes twice the last one counts, as in the JSON libraries people use.
#[derive(Debug, Clone, Copy)]
pub struct Object<'o, 'a> {
    known: &'o [Option<&'a RawValue>],
    /// The fields nobody asked for, in order: the name as it came, between its quotes, and the value.
    pub others: &'o [(&'a str, &'a RawValue)],
}

impl<'a> Object<'_, 'a> {
    /// The value of the name at `position` in the names asked for; `None` where it is missing or null.
    pub fn known(&self, position: usize) -> Option<&'a RawValue> {
        self.known.get(position).copied().flatten().filter(|raw| raw.get() != "null")
    }

    /// Whether the name at `position` is there, be its value null.
    pub fn has(&self, position: usize) -> bool {
        self.known.get(position).is_some_and(Option::is_some)
    }
}

/// Objects that were all taken apart for the same names. Memory that was used once is used again.
#[derive(Debug)]
pub struct Objects<'n, 'a> {
    names: &'n [&'n str],
    /// As many as there are names for each object.
    known: Vec<Option<&'a RawValue>>,
    others: Vec<(&'a str, &'a RawValue)>,
    /// Where the others of each object end.
    ends: Vec<usize>,
}

impl<'n, 'a> Objects<'n, 'a> {
    /// None yet; `names` are those to look for.
    pub fn new(names: &'n [&'n str]) -> Self {
        Objects { names, known: Vec::new(), others: Vec::new(), ends: Vec::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The object in this place.
    pub fn get(&self, place: usize) -> Option<Object<'_, 'a>> {
        let width = self.names.len();
        let end = *self.ends.get(place)?;
        let begin = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let known = self.known.get(place.checked_mul(width)?..place.checked_add(1)?.checked_mul(width)?)?;
        Some(Object { known, others: self.others.get(begin..end)? })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Object<'_, 'a>> {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.known.clear();
        self.others.clear();
        self.ends.clear();
    }

    /// Takes the object `json` apart and adds it.
    ///
    /// # Errors
    /// Where `json` is not a JSON object; nothing is added then.
    pub fn split(&mut self, json: &'a str) -> Result<(), serde_json::Error> {
        // A name with escapes cannot be borrowed as text, only as it came.
        self.read(json, true, &mut []).or_else(|_| self.read(json, false, &mut []))
    }

    /// Takes the object `json` apart and adds it; the arrays that are the values of the last names go to `arrays`, in the
    /// names' order, each element taken apart in the same pass. Where that is not possible (a name has escapes, or one of
    /// them is something else than an array, or holds something else than it is for), all of them are left among the known
    /// values as they came, and none is found.
    ///
    /// # Errors
    /// As [`Objects::split`].
    pub fn split_with_arrays(&mut self, json: &'a str, arrays: &mut [Array<'n, 'a>]) -> Result<(), serde_json::Error> {
        self.read(json, true, arrays).or_else(|_| self.split(json))
    }

    fn read(
        &mut self,
        json: &'a str,
        plain_names: bool,
        arrays: &mut [Array<'n, 'a>],
    ) -> Result<(), serde_json::Error> {
        arrays.iter_mut().for_each(Array::clear);
        let (known, others) = (self.known.len(), self.others.len());
        let mut reader = serde_json::Deserializer::from_str(json);
        let read = reader.deserialize_map(Splitter { objects: self, plain_names, arrays }).and_then(|()| reader.end());
        if read.is_err() {
            self.known.truncate(known);
            self.others.truncate(others);
            self.ends.truncate(known.checked_div(self.names.len()).unwrap_or(0));
            arrays.iter_mut().for_each(Array::clear);
        }
        read
    }
}

/// The elements of an array.
#[derive(Debug)]
pub struct Array<'n, 'a> {
    /// Whether there was one: neither missing nor null.
    pub found: bool,
    /// What it holds.
    pub elements: Elements<'n, 'a>,
}

/// What an array holds.
#[derive(Debug)]
pub enum Elements<'n, 'a> {
    /// Anything, as it came.
    Raw(Vec<&'a RawValue>),
    /// Objects.
    Objects(Objects<'n, 'a>),
}

impl<'n> Array<'n, '_> {
    /// An array of anything.
    pub fn of_values() -> Self {
        Array { found: false, elements: Elements::Raw(Vec::new()) }
    }

    /// An array of objects that have fields of these names.
    pub fn of_objects(names: &'n [&'n str]) -> Self {
        Array { found: false, elements: Elements::Objects(Objects::new(names)) }
    }

    fn clear(&mut self) {
        self.found = false;
        match &mut self.elements {
            Elements::Raw(values) => values.clear(),
            Elements::Objects(objects) => objects.clear(),
        }
    }
}

/// Reads an object's fields into the last of `objects`, and into `arrays`.
struct Splitter<'s, 'n, 'a> {
    objects: &'s mut Objects<'n, 'a>,
    plain_names: bool,
    arrays: &'s mut [Array<'n, 'a>],
}

impl<'a> Visitor<'a> for Splitter<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Splitter { objects, plain_names, arrays } = self;
        let Objects { names, known, others, ends } = objects;
        let (begin, first_array) = (known.len(), names.len().saturating_sub(arrays.len()));
        known.resize(begin.saturating_add(names.len()), None);
        loop {
            let name = match plain_names {
                true => map.next_key::<&str>()?,
                false => map.next_key::<&RawValue>()?.map(|quoted| inside(quoted.get())),
            };
            let Some(name) = name else { break };
            let Some(position) = position(name, names) else {
                others.push((name, map.next_value()?));
                continue;
            };
            match position.checked_sub(first_array).and_then(|place| arrays.get_mut(place)) {
                Some(array) => map.next_value_seed(array)?,
                None => {
                    let value = map.next_value()?;
                    if let Some(slot) = known.get_mut(begin.saturating_add(position)) {
                        *slot = Some(value);
                    }
                }
            }
        }
        ends.push(others.len());
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for &mut Array<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        self.clear();
        deserializer.deserialize_option(self)
    }
}

impl<'a> Visitor<'a> for &mut Array<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array or null")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        self.found = true;
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        match &mut self.elements {
            Elements::Raw(values) => {
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
            }
            Elements::Objects(objects) => while seq.next_element_seed(Element(objects))?.is_some() {},
        }
        Ok(())
    }
}

/// One more object of an array.
struct Element<'s, 'n, 'a>(&'s mut Objects<'n, 'a>);

impl<'a> DeserializeSeed<'a> for Element<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(Splitter { objects: self.0, plain_names: true, arrays: &mut [] })
    }
}

/// What stands between the quotes of a JSON string.
fn inside(quoted: &str) -> &str {
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(quoted)
}

/// Finds a field's name, as it came, among `names`.
fn position(name: &str, names: &[&str]) -> Option<usize> {
    if let Some(position) = names.iter().position(|known| *known == name) {
        return Some(position);
    }
    if !name.contains('\\') {
        return None;
    }
    let plain: String = serde_json::from_str(&format!("\"{name}\"")).ok()?;
    names.iter().position(|known| *known == plain)
}

/// The raw elements of the array `json`; `None` where it is no array.
pub fn elements(json: &RawValue) -> Option<Vec<&RawValue>> {
    if !json.get().starts_with('[') {
        return None;
    }
    serde_json::from_str(json.get()).ok()
}

#[cfg(test)]
mod tests;
