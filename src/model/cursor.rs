//! The export's cursor: where the next page begins, as an opaque text of the server.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A cursor to send back to the API. Never empty and never `0`, because both mean "from the oldest on".
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

/// A cursor that cannot be sent back. It is not the end: more pages exist, but out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangeCursor;

impl Cursor {
    /// Reads a string or a number; `None` if it is null, false, empty or 0.
    ///
    /// A number keeps its digits as they came, because a floating-point detour would lose some.
    ///
    /// # Errors
    /// If it cannot be sent back: an object, an array, true, or text that is not Unicode.
    pub fn from_json(raw: &RawValue) -> Result<Option<Self>, StrangeCursor> {
        let json = raw.get();
        let (text, is_none) = match json.as_bytes().first() {
            Some(b'"') => {
                let text = serde_json::from_str::<String>(json).map_err(|_| StrangeCursor)?;
                let is_none = text.is_empty() || text == "0";
                (text, is_none)
            }
            Some(b'-' | b'0'..=b'9') => (json.to_owned(), json.parse().is_ok_and(|number: f64| number == 0.0)),
            _ if matches!(json, "null" | "false") => return Ok(None),
            _ => return Err(StrangeCursor),
        };
        Ok((!is_none).then_some(Cursor(text)))
    }

    /// The text to send as the `cursor` parameter.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it may be a number of pages or conversations: a short number. Epoch seconds have had nine digits since
    /// 1973.
    pub fn may_count_pages(&self) -> bool {
        self.0.len() < 9 && self.0.bytes().all(|digit| digit.is_ascii_digit())
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

    fn cursor(json: &str) -> Result<Option<String>, StrangeCursor> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        Cursor::from_json(&raw).map(|cursor| cursor.map(|c| c.as_str().to_owned()))
    }

    #[test]
    fn takes_strings_and_integers_of_any_size() {
        for (json, text) in [
            (r#""abc=""#, "abc="),
            (r#""a\u00e9\n""#, "aé\n"),
            ("151050148", "151050148"),
            ("123456789012345678901", "123456789012345678901"),
            ("-1.50", "-1.50"),
            (r#""0x0""#, "0x0"),
            (r#""0.00""#, "0.00"),
        ] {
            assert_eq!(cursor(json), Ok(Some(text.to_owned())), "{json}");
        }
    }

    #[test]
    fn null_false_empty_and_zero_are_no_cursor() {
        for json in ["null", r#""""#, "0", r#""0""#, "0.0", "-0", "false"] {
            assert_eq!(cursor(json), Ok(None), "{json}");
        }
    }

    #[test]
    fn a_cursor_that_cannot_be_sent_back_is_not_the_end() {
        for json in ["{}", "[1]", "true", r#""a\ud800b""#, r#""\udc00""#] {
            assert_eq!(cursor(json), Err(StrangeCursor), "{json}");
        }
    }
}
