//! The API key. Guarantees: only a request header shows it; `Debug` and messages do not.

use std::path::Path;

use reqwest::header::HeaderValue;

use crate::error::{Error, Result};
use crate::stray::{code, is_quote};

/// The fewest characters of a key, because redacting a shorter one would garble logs.
const MIN_CHARACTERS: usize = 8;

/// Text that is often pasted along with a key, in lower case.
const PREFIXES: [&str; 4] = ["bearer ", "authorization:", "decagon_api_key=", "export "];

/// An API key. `Debug` and logs show `***`.
#[derive(Clone)]
pub struct ApiKey {
    text: String,
    header: HeaderValue,
}

/// The hint for an invalid key.
const FORMAT: &str = "give only the key: one line of plain ASCII, without quotes, without `Bearer` before it";

impl ApiKey {
    /// Accepts a key as the user gave it; white space around it is dropped. `origin` names its source in messages.
    ///
    /// # Errors
    /// If it cannot be a key. The message has the position of the fault, but never the key.
    pub fn new(text: &str, origin: &str) -> Result<Self> {
        Self::from_bytes(text.as_bytes(), origin)
    }

    /// Accepts a key as the bytes of a variable or file.
    ///
    /// # Errors
    /// As [`ApiKey::new`].
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Self> {
        let refused = |what: String| Error::usage(format!("the API key in {origin} {what}"));
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0) {
            return Err(refused("is in UTF-16, or not text".to_owned())
                .with_hint("save it as plain ASCII; in PowerShell: Set-Content -Encoding ascii"));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let position = error.valid_up_to().saturating_add(1);
            refused(format!("is not plain ASCII: its byte {position} cannot be read")).with_hint(FORMAT)
        })?;
        let is_space = |c: char| c.is_ascii_whitespace();
        let key = text.trim_matches(is_space);
        if key.is_empty() {
            return Err(refused("is empty".to_owned())
                .with_hint("set DECAGON_API_KEY, or --api-key-file to a file with the key"));
        }
        if let Some(prefix) = PREFIXES.into_iter().find(|prefix| begins_with(key, prefix)) {
            return Err(refused(format!("begins with `{}`", prefix.trim_end())).with_hint(FORMAT));
        }
        let before = text.chars().take_while(|c| is_space(*c)).count();
        if let Some((position, c)) = key.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic() || is_quote(*c)) {
            let kind = match c {
                '\u{feff}' => "a byte-order mark",
                c if is_quote(c) => "a quote",
                c if c.is_whitespace() => "white space",
                _ => "a character that is not plain ASCII, or is invisible",
            };
            let position = before.saturating_add(position).saturating_add(1);
            return Err(refused(format!("has {kind} ({}) as character {position}", code(c))).with_hint(FORMAT));
        }
        if key.len() < MIN_CHARACTERS {
            return Err(refused(format!("is shorter than {MIN_CHARACTERS} characters"))
                .with_hint("check that it was not cut: give the whole key"));
        }
        // Plain ASCII is always accepted.
        let mut header = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| refused("cannot be sent in a header".to_owned()).with_hint(FORMAT))?;
        header.set_sensitive(true);
        Ok(ApiKey { text: key.to_owned(), header })
    }

    /// Reads a key from a file.
    ///
    /// # Errors
    /// If the file cannot be read or contains no key.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| {
            Error::usage(format!("cannot read the API key from {}", path.display()))
                .caused_by(error)
                .with_hint("check --api-key-file, and that this user may read the file")
        })?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// The value of the `Authorization` header, marked sensitive.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Removes the key from `text`, in which a server may quote it, plain or escaped for JSON or a URL.
    pub fn redact(&self, text: &str) -> String {
        let encoded: String = url::form_urlencoded::byte_serialize(self.text.as_bytes()).collect();
        text.replace(&self.text, "***").replace(&self.text.replace('/', "\\/"), "***").replace(&encoded, "***")
    }
}

/// Whether `text` begins with `prefix`, which is in lower case.
fn begins_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_trimmed_and_never_shown() {
        let key = ApiKey::new("  secret-key\n", "DECAGON_API_KEY").unwrap();
        assert_eq!(key.header(), "Bearer secret-key");
        assert!(!format!("{key:?} {:?}", key.header()).contains("secret"));
        assert_eq!(key.redact("bad token secret-key!"), "bad token ***!");
        let key = ApiKey::new("aaa/b+ccc", "DECAGON_API_KEY").unwrap();
        assert_eq!(
            key.redact(r#"{"plain": "aaa/b+ccc", "json": "aaa\/b+ccc", "url": "?k=aaa%2Fb%2Bccc"}"#)
                .matches("***")
                .count(),
            3
        );
    }

    #[test]
    fn an_invalid_key_is_refused_with_the_position_of_the_fault() {
        for (bytes, message) in [
            (b"".as_slice(), "is empty"),
            (b" \r\n", "is empty"),
            (b"secret-", "is shorter than 8 characters"),
            (b"secret\nlines", "has white space (U+000A) as character 7"),
            (b"  secret lines", "has white space (U+0020) as character 9"),
            (b"secret-key\x01", "(U+0001) as character 11"),
            (b"\"secret-key\"", "has a quote (U+0022) as character 1"),
            (b"'secret-key'", "has a quote (U+0027) as character 1"),
            (b"secret-key'", "has a quote (U+0027) as character 11"),
            ("\u{201c}secret-key\u{201d}".as_bytes(), "has a quote (U+201C) as character 1"),
            ("\u{feff}secret-key".as_bytes(), "has a byte-order mark (U+FEFF) as character 1"),
            ("secret-\u{200b}key".as_bytes(), "(U+200B) as character 8"),
            ("secret-key\u{a0}".as_bytes(), "has white space (U+00A0) as character 11"),
            ("secret\u{2013}key".as_bytes(), "(U+2013) as character 7"),
            ("na\u{ef}ve-secret".as_bytes(), "(U+00EF) as character 3"),
            (b"secret-key\xff", "byte 11 cannot be read"),
            (b"\xff\xfes\0e\0c\0r\0e\0t\0", "is in UTF-16"),
            (b"\xfe\xff\0s\0e\0c\0r\0e\0t", "is in UTF-16"),
            (b"s\0e\0c\0r\0e\0t\0-\0k\0", "is in UTF-16"),
            (b"Bearer secret-key", "begins with `bearer`"),
            (b"Authorization: Bearer secret-key", "begins with `authorization:`"),
            (b"DECAGON_API_KEY=secret-key", "begins with `decagon_api_key=`"),
            (b"export DECAGON_API_KEY=secret-key", "begins with `export`"),
        ] {
            let error = ApiKey::from_bytes(bytes, "its file").unwrap_err();
            let all = format!("{error:?} {error}");
            assert!(error.to_string().contains(message) && error.to_string().contains("its file"), "{error}");
            assert!(error.kind().exit_code() == 2 && error.hint().is_some());
            assert!(!all.contains("secret") && !all.contains("lines"), "{all}");
        }
        ApiKey::from_bytes(b"\t secret-key_1.2~3/+= \r\n", "its file").unwrap();
    }
}
