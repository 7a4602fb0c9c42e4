//! The export's cursor: where the next page begins, in the server's own opaque words.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A cursor as it is sent back to the API. Never empty and never `0`, which both mean "from the oldest on".
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// Reads a cursor from a response: a string or a number; `None` where it is null, empty or 0.
    ///
    /// A number keeps its digits as they came, so that none is lost to a floating-point detour.
    pub fn from_json(raw: &RawValue) -> Option<Self> {
        let text = match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => text,
            Err(_) if raw.get().starts_with(|c: char| c.is_ascii_digit() || c == '-') => raw.get().to_owned(),
            Err(_) => return None,
        };
        (!text.is_empty() && text != "0").then_some(Cursor(text))
    }

    /// The text to send as the `cursor` parameter.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(json: &str) -> Option<String> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        Cursor::from_json(&raw).map(|c| c.as_str().to_owned())
    }

    #[test]
    fn takes_strings_and_integers_of_any_size() {
        assert_eq!(cursor(r#""abc=""#).as_deref(), Some("abc="));
        assert_eq!(cursor("151050148").as_deref(), Some("151050148"));
        assert_eq!(cursor("123456789012345678901").as_deref(), Some("123456789012345678901"));
    }

    #[test]
    fn null_empty_zero_and_other_shapes_are_no_cursor() {
        for json in ["null", r#""""#, "0", r#""0""#, "false", "{}", "[1]"] {
            assert_eq!(cursor(json), None, "{json}");
        }
    }
}
