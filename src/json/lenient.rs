//! Repairs malformed JSON if it has one clear meaning.
//!
//! Clear are: control characters in strings, numbers that JSON lacks (`NaN`, `Infinity`: null), literals and
//! unambiguous escapes of Python and JavaScript, a comma before a closing bracket. Everything else is a fault; nothing
//! is guessed. Guarantees: valid JSON stays unchanged; nesting costs no stack; every byte is read once. Must not depend
//! on: what the fields mean.

/// A repaired value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The value as JSON. Bytes that are not UTF-8 became U+FFFD.
    pub json: String,
    /// Where the value ends in the input.
    pub end: usize,
    /// The values that became null: a JSON pointer (RFC 6901) and the original text.
    pub nulls: Vec<(String, String)>,
}

/// Why a value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The reason, in words.
    pub reason: &'static str,
    /// The offset of the fault in the input, in bytes.
    pub at: usize,
}

/// Literals of JSON and other languages, in lower case, and the JSON for each. The original text of a value that
/// becomes null is kept, except for null itself and Python's None.
const WORDS: [(&str, &str); 13] = [
    ("true", "true"),
    ("false", "false"),
    ("null", "null"),
    ("none", "null"),
    ("undefined", "null"),
    ("nan", "null"),
    ("-nan", "null"),
    ("inf", "null"),
    ("-inf", "null"),
    ("+inf", "null"),
    ("infinity", "null"),
    ("-infinity", "null"),
    ("+infinity", "null"),
];

/// Repairs the value that begins at `start` of `text`, after white space.
///
/// # Errors
/// If the value has no clear meaning or is incomplete.
pub fn repair(text: &[u8], start: usize) -> Result<Repaired, Fault> {
    let mut reader = Reader { text, at: start, out: Vec::new(), open: Vec::new(), nulls: Vec::new() };
    reader.value()?;
    let json = String::from_utf8(reader.out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    Ok(Repaired { json, end: reader.at, nulls: reader.nulls })
}

/// The position of the first byte from `at` on that is no white space, or else the end of the text.
pub fn skip_space(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let space = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    at.saturating_add(space).min(text.len())
}

/// An array or object that is not closed yet, and the reader's position in it.
enum Open {
    /// The index of the element.
    Array(usize),
    /// The name of the field, still escaped but without its quotes.
    Object(Vec<u8>),
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
    open: Vec<Open>,
    nulls: Vec<(String, String)>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn fault<T>(&self, reason: &'static str) -> Result<T, Fault> {
        Err(Fault { reason, at: self.at })
    }

    /// Copies white space.
    fn space(&mut self) {
        let end = skip_space(self.text, self.at);
        self.out.extend_from_slice(self.text.get(self.at..end).unwrap_or_default());
        self.at = end;
    }

    fn copy(&mut self, byte: u8) {
        self.out.push(byte);
        self.at += 1;
    }

    /// Reads one value with all nested ones.
    fn value(&mut self) -> Result<(), Fault> {
        self.at = skip_space(self.text, self.at);
        loop {
            // At the beginning of a value.
            self.space();
            match self.peek() {
                Some(b'[') => {
                    self.copy(b'[');
                    self.open.push(Open::Array(0));
                    self.space();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'{') => {
                    self.copy(b'{');
                    self.open.push(Open::Object(Vec::new()));
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(_) => self.word()?,
                None => return self.fault("the text ends before the value"),
            }
            if !self.close()? {
                return Ok(());
            }
        }
    }

    /// Moves from the end of a value past closing brackets to the next value. Returns false if there is none.
    fn close(&mut self) -> Result<bool, Fault> {
        while let Some(open) = self.open.last_mut() {
            let (closing, is_object) = match open {
                Open::Array(_) => (b']', false),
                Open::Object(_) => (b'}', true),
            };
            self.space();
            if self.peek() == Some(b',') {
                let comma = self.out.len();
                self.copy(b',');
                self.space();
                if self.peek() != Some(closing) {
                    if is_object {
                        self.name()?;
                    } else if let Some(Open::Array(index)) = self.open.last_mut() {
                        *index += 1;
                    }
                    return Ok(true);
                }
                // The comma before a closing bracket is dropped.
                self.out.remove(comma);
            }
            match self.peek() {
                Some(byte) if byte == closing => self.copy(byte),
                Some(_) => return self.fault("neither a comma nor the closing bracket follows a value"),
                None => return self.fault("the text ends before the closing bracket"),
            }
            self.open.pop();
        }
        Ok(false)
    }

    /// Reads a field's name and its colon.
    fn name(&mut self) -> Result<(), Fault> {
        if self.peek() != Some(b'"') {
            return self.fault("a field has no name in quotes");
        }
        let begin = self.out.len();
        self.string()?;
        let name = self.out.get(begin.saturating_add(1)..self.out.len().saturating_sub(1)).unwrap_or_default().to_vec();
        if let Some(Open::Object(current)) = self.open.last_mut() {
            *current = name;
        }
        self.space();
        if self.peek() != Some(b':') {
            return self.fault("no colon follows a field's name");
        }
        self.copy(b':');
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.copy(b'"');
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.copy(b'"');
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(control) if control < 0x20 => {
                    self.out.extend_from_slice(format!("\\u{control:04x}").as_bytes());
                    self.at += 1;
                }
                Some(byte) => self.copy(byte),
                None => return self.fault("the text ends before the closing quote"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let digits = |from: usize, count: usize| {
            let digits = self.text.get(from..from.checked_add(count)?)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)
        };
        let after = self.at.saturating_add(2);
        let (written, length): (Vec<u8>, usize) = match self.text.get(self.at.saturating_add(1)) {
            Some(byte @ (b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => (vec![b'\\', *byte], 2),
            Some(b'u') => match digits(after, 4) {
                Some(digits) => ([b"\\u", digits].concat(), 6),
                None => return self.fault("an escape \\u has no four digits"),
            },
            Some(b'x') => match digits(after, 2) {
                Some(digits) => ([b"\\u00", digits].concat(), 4),
                None => return self.fault("an escape \\x has no two digits"),
            },
            Some(b'\'') => (b"'".to_vec(), 2),
            Some(b'v') => (b"\\u000b".to_vec(), 2),
            Some(b'0') if !self.text.get(after).is_some_and(u8::is_ascii_digit) => (b"\\u0000".to_vec(), 2),
            Some(_) => return self.fault("an escape has no clear meaning"),
            None => return self.fault("the text ends in an escape"),
        };
        self.out.extend(written);
        self.at = self.at.saturating_add(length);
        Ok(())
    }

    /// Reads a number or a literal.
    fn word(&mut self) -> Result<(), Fault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')).count();
        let Ok(word) = str::from_utf8(rest.get(..length).unwrap_or_default()) else {
            return self.fault("a value is neither JSON nor text");
        };
        let lower = word.to_ascii_lowercase();
        let known = WORDS.iter().find(|(name, _)| *name == lower).map(|(_, json)| (*json).to_owned());
        let Some(json) = known.or_else(|| number(word)) else {
            return self.fault(if word.is_empty() { "a value is missing" } else { "a value is not JSON" });
        };
        if json == "null" && !matches!(lower.as_str(), "null" | "none") {
            self.nulls.push((self.pointer(), word.to_owned()));
        }
        self.out.extend(json.into_bytes());
        self.at = self.at.saturating_add(length);
        Ok(())
    }

    /// The JSON pointer of the current value.
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for open in &self.open {
            pointer.push('/');
            match open {
                Open::Array(index) => pointer.push_str(&index.to_string()),
                Open::Object(name) => {
                    let quoted = format!("\"{}\"", String::from_utf8_lossy(name));
                    let name = serde_json::from_str(&quoted).unwrap_or(quoted);
                    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                }
            }
        }
        pointer
    }
}

/// Converts a number to JSON; in other languages it may begin with `+` or `.`, or end with `.`.
fn number(word: &str) -> Option<String> {
    let (sign, digits) = match word.strip_prefix(['+', '-']) {
        Some(digits) => (if word.starts_with('-') { "-" } else { "" }, digits),
        None => ("", word),
    };
    let zero = if digits.starts_with('.') { "0" } else { "" };
    let json = format!("{sign}{zero}{}", digits.strip_suffix('.').unwrap_or(digits));
    serde_json::from_str::<serde_json::Number>(&json).ok()?;
    Some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repaired(text: &str) -> Result<String, &'static str> {
        repair(text.as_bytes(), 0).map(|it| it.json).map_err(|fault| fault.reason)
    }

    #[test]
    fn clear_values_are_repaired() {
        for (text, json) in [
            ("{\"a\":\"two\nlines\t\u{1}\"}", r#"{"a":"two\u000alines\u0009\u0001"}"#),
            ("[NaN, -Infinity,+inf , nan]", "[null, null,null , null]"),
            ("[True, False, None, undefined]", "[true, false, null, null]"),
            (r#"["it\'s \x41\v\0."]"#, r#"["it's \u0041\u000b\u0000."]"#),
            ("[1, 2, ]", "[1, 2 ]"),
            (r#"{"a": {"b": 1,},}"#, r#"{"a": {"b": 1}}"#),
            ("[+1, .5, 1., -.25, -0, 1e9]", "[1, 0.5, 1, -0.25, -0, 1e9]"),
            ("{} , 7", "{}"),
        ] {
            let found = repaired(text).unwrap();
            assert_eq!(found, json, "{text}");
            serde_json::from_str::<serde_json::Value>(&found).unwrap();
        }
    }

    #[test]
    fn unclear_values_are_faults() {
        for text in [
            r#"{"a":}"#,
            r#"{"a" 1}"#,
            "{a: 1}",
            "{'a': 1}",
            "[1,,2]",
            "[1 2]",
            "[1",
            r#"["a"#,
            r#"["\q"]"#,
            r#"["\u12"]"#,
            "[007]",
            "[0x1F]",
            "[1.2.3]",
            "[--1]",
            "[nope]",
            "",
            "[}",
            "{\"a\":1]",
            r#"["\x4"]"#,
            r#"["\01"]"#,
            "[é]",
        ] {
            assert!(repaired(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_that_became_null_are_returned_with_their_pointer() {
        let text = r#" {"metadata": {"sc/or~e": NaN, "list": [1, {"é\n": Infinity}]}, "none": None}"#;
        let found = repair(text.as_bytes(), 0).unwrap();
        let expected = [("/metadata/sc~1or~0e", "NaN"), ("/metadata/list/1/é\n", "Infinity")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(found.nulls, expected);
        assert_eq!(found.end, text.len());
    }

    #[test]
    fn deep_nesting_is_read() {
        let text = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(repaired(&text).unwrap(), text);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn valid_json_stays_unchanged(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            prop_assert_eq!(repaired(&text).unwrap(), text);
        }

        #[test]
        fn repaired_values_are_valid_json(text in r#"[\[\]{}:,"\\ntuNaI0-9.+e \n\x01é]{0,40}"#) {
            if let Ok(found) = repair(text.as_bytes(), 0) {
                prop_assert!(serde_json::from_str::<Box<serde_json::value::RawValue>>(&found.json).is_ok(), "{}", found.json);
            }
        }
    }
}
