//! Splits JSON objects and arrays into the raw text of their parts, without parsing those.
//!
//! Guarantees: nothing is unescaped, reordered or rounded, so unknown parts can be kept verbatim; nesting costs no
//! stack; the text is read once. Must not depend on: what the fields mean.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One split object: its known fields, by position in the list of names, and the others.
///
/// If a name occurs twice, the last one counts, as in common JSON libraries.
#[derive(Debug, Clone, Copy)]
pub struct Object<'o, 'a> {
    known: &'o [Option<&'a RawValue>],
    /// The other fields, in order: the name, still escaped but without its quotes, and the value.
    pub others: &'o [(&'a str, &'a RawValue)],
}

impl<'a> Object<'_, 'a> {
    /// The value of the known name at `position`; `None` if it is missing or null.
    pub fn known(&self, position: usize) -> Option<&'a RawValue> {
        self.known.get(position).copied().flatten().filter(|raw| raw.get() != "null")
    }

    /// Whether the known name at `position` is present, even if its value is null.
    pub fn has(&self, position: usize) -> bool {
        self.known.get(position).is_some_and(Option::is_some)
    }
}

/// Objects split by the same known names. Reuses its memory.
#[derive(Debug)]
pub struct Objects<'n, 'a> {
    names: &'n [&'n str],
    /// One slot per name for each object.
    known: Vec<Option<&'a RawValue>>,
    others: Vec<(&'a str, &'a RawValue)>,
    /// Where in `others` the fields of each object end.
    ends: Vec<usize>,
}

impl<'n, 'a> Objects<'n, 'a> {
    /// An empty list; `names` are the known names.
    pub fn new(names: &'n [&'n str]) -> Self {
        Objects { names, known: Vec::new(), others: Vec::new(), ends: Vec::new() }
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The object at `index`.
    pub fn get(&self, index: usize) -> Option<Object<'_, 'a>> {
        let width = self.names.len();
        let end = *self.ends.get(index)?;
        let begin = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let known = self.known.get(index.checked_mul(width)?..index.checked_add(1)?.checked_mul(width)?)?;
        Some(Object { known, others: self.others.get(begin..end)? })
    }

    /// All objects, in order.
    pub fn iter(&self) -> impl Iterator<Item = Object<'_, 'a>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Removes all objects.
    pub fn clear(&mut self) {
        self.known.clear();
        self.others.clear();
        self.ends.clear();
    }

    /// Splits the object `json` and adds it.
    ///
    /// # Errors
    /// If `json` is not a JSON object; nothing is added then.
    pub fn split(&mut self, json: &'a str) -> Result<(), serde_json::Error> {
        // A name with escapes can be borrowed only as raw JSON.
        self.read(json, true, &mut []).or_else(|_| self.read(json, false, &mut []))
    }

    /// Splits the object `json` and adds it. In the same pass, the values of the last names, which are arrays, go to
    /// `arrays` in the order of the names, each element split. If that is not possible (a name has escapes, a value is
    /// no array, or an element is no object), all these values stay raw among the known ones, and no array is found.
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
    /// Whether it was present: neither missing nor null.
    pub found: bool,
    /// The elements.
    pub elements: Elements<'n, 'a>,
}

/// The elements of an array, by kind.
#[derive(Debug)]
pub enum Elements<'n, 'a> {
    /// Raw values of any kind.
    Raw(Vec<&'a RawValue>),
    /// Split objects.
    Objects(Objects<'n, 'a>),
}

impl<'n> Array<'n, '_> {
    /// An array of any values.
    pub fn of_values() -> Self {
        Array { found: false, elements: Elements::Raw(Vec::new()) }
    }

    /// An array of objects with these known names.
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
            match position.checked_sub(first_array).and_then(|index| arrays.get_mut(index)) {
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

/// Adds one object of an array.
struct Element<'s, 'n, 'a>(&'s mut Objects<'n, 'a>);

impl<'a> DeserializeSeed<'a> for Element<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(Splitter { objects: self.0, plain_names: true, arrays: &mut [] })
    }
}

/// The text between the quotes of a JSON string.
fn inside(quoted: &str) -> &str {
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(quoted)
}

/// Finds a field's name, which may have escapes, among `names`.
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

/// The raw elements of the array `json`; `None` if it is no array.
pub fn elements(json: &RawValue) -> Option<Vec<&RawValue>> {
    if !json.get().starts_with('[') {
        return None;
    }
    serde_json::from_str(json.get()).ok()
}

#[cfg(test)]
mod tests;
