//! Takes a JSON object or array apart into the raw text of its parts, without looking inside them.
//!
//! Promises: nothing is unescaped, reordered or rounded, so what is not understood can be kept as it came; depth costs
//! no stack. Must not know: what the fields mean.

use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The most names a caller may ask for at once.
const MAX_NAMES: usize = 24;

/// An object's fields: those that were asked for by name, and the others.
///
/// Of a name that comes twice the last one counts, as in the JSON libraries people use.
#[derive(Debug)]
pub struct Fields<'a> {
    known: [Option<&'a RawValue>; MAX_NAMES],
    /// The fields nobody asked for, in order: the name with its quotes and escapes, and the value.
    pub others: Vec<(&'a str, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Splits the object `json`, looking for `names` (24 at most).
    ///
    /// # Errors
    /// Where `json` is not a JSON object.
    pub fn split(json: &'a str, names: &[&str]) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let fields = reader.deserialize_map(Splitter { names })?;
        reader.end()?;
        Ok(fields)
    }

    /// The value of the name at `position` in the names asked for; `None` where it is missing or null.
    pub fn known(&self, position: usize) -> Option<&'a RawValue> {
        self.known.get(position).copied().flatten().filter(|raw| raw.get() != "null")
    }
}

struct Splitter<'n> {
    names: &'n [&'n str],
}

impl<'de> Visitor<'de> for Splitter<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields { known: [None; MAX_NAMES], others: Vec::new() };
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            match position(name.get(), self.names) {
                Some(position) => {
                    let slot = fields.known.get_mut(position).ok_or_else(|| A::Error::custom("too many names"))?;
                    *slot = Some(value);
                }
                None => fields.others.push((name.get(), value)),
            }
        }
        Ok(fields)
    }
}

/// Finds a field name, given with its quotes, among `names`.
fn position(quoted: &str, names: &[&str]) -> Option<usize> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        let name: String = serde_json::from_str(quoted).ok()?;
        return names.iter().position(|known| *known == name);
    }
    names.iter().position(|known| *known == inner)
}

/// The raw elements of the array `json`; `None` where it is no array.
pub fn elements(json: &RawValue) -> Option<Vec<&RawValue>> {
    if !json.get().starts_with('[') {
        return None;
    }
    serde_json::from_str(json.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_without_touching_the_parts() {
        let json = r#"{"a": 1.50, "b\u0061": [1, {"x": "\ud800"}], "a": null, "é\n": "z", "ba": 2}"#;
        let fields = Fields::split(json, &["a", "ba"]).unwrap();
        assert!(fields.known(0).is_none());
        assert_eq!(fields.known(1).unwrap().get(), "2");
        assert_eq!(fields.others.iter().map(|(k, v)| (*k, v.get())).collect::<Vec<_>>(), [(r#""é\n""#, "\"z\"")]);
    }

    #[test]
    fn refuses_what_is_no_object() {
        for json in ["", "[]", "null", "\"a\"", "{\"a\":}", "{} {}", "{\"a\":1"] {
            assert!(Fields::split(json, &["a"]).is_err(), "{json}");
        }
    }

    #[test]
    fn depth_is_no_danger() {
        let json = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(Fields::split(&json, &["a"]).unwrap().known(0).unwrap().get().len(), 400_000);
    }
}
