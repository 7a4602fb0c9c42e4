//! The bearer key, which nothing but a request header ever shows.

use std::path::Path;

use reqwest::header::HeaderValue;

use crate::error::{Error, Result};

/// An API key. `Debug` and logs show `***`.
#[derive(Clone)]
pub struct ApiKey {
    text: String,
    header: HeaderValue,
}

impl ApiKey {
    /// Takes a key as the user gave it; space around it is dropped.
    ///
    /// # Errors
    /// Where it is empty or holds what no HTTP header may; `origin` names where it came from.
    pub fn new(text: &str, origin: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::usage(format!("the API key in {origin} is empty"))
                .with_hint("set DECAGON_API_KEY, or --api-key-file to a file that holds it"));
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| {
            Error::usage(format!("the API key in {origin} holds characters that no HTTP header may"))
                .with_hint("it should be one line of plain ASCII; was more copied along with it?")
        })?;
        header.set_sensitive(true);
        Ok(ApiKey { text: text.to_owned(), header })
    }

    /// Reads a key from a file.
    ///
    /// # Errors
    /// Where the file cannot be read or holds no key.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::usage(format!("cannot read the API key from {}", path.display()))
                .caused_by(error)
                .with_hint("is --api-key-file right, and may this user read it?")
        })?;
        Self::new(&text, &path.display().to_string())
    }

    /// The value of the `Authorization` header, marked sensitive.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// `text` without the key, which a server may have quoted, as it is or escaped for JSON or a URL.
    pub fn redact(&self, text: &str) -> String {
        let encoded: String = url::form_urlencoded::byte_serialize(self.text.as_bytes()).collect();
        text.replace(&self.text, "***").replace(&self.text.replace('/', "\\/"), "***").replace(&encoded, "***")
    }
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
    fn is_trimmed_and_never_shown() {
        let key = ApiKey::new("  secret-key\n", "DECAGON_API_KEY").unwrap();
        assert_eq!(key.header(), "Bearer secret-key");
        assert!(!format!("{key:?} {:?}", key.header()).contains("secret"));
        assert_eq!(key.redact("bad token secret-key!"), "bad token ***!");
        let key = ApiKey::new("a/b+c", "DECAGON_API_KEY").unwrap();
        assert_eq!(
            key.redact(r#"{"plain": "a/b+c", "json": "a\/b+c", "url": "?k=a%2Fb%2Bc"}"#).matches("***").count(),
            3
        );
    }

    #[test]
    fn refuses_what_cannot_be_sent_without_quoting_it() {
        for text in ["", " \n", "two\nlines", "naïve\u{0}"] {
            let error = ApiKey::new(text, "DECAGON_API_KEY").unwrap_err();
            assert!(error.to_string().contains("DECAGON_API_KEY") && !error.to_string().contains("lines"));
        }
    }
}
