//! What becomes of one value, how two of these compare, and the key of hashes.
//!
//! Guarantees: the key is in no `Debug` output and no message. Must not depend on: which values are masked.

use std::collections::BTreeSet;

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// What free text is searched for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// E-mail addresses.
    Email,
    /// Phone numbers.
    Phone,
    /// Numbers of payment cards, with a valid check digit.
    Card,
    /// International bank account numbers, with valid check digits.
    Iban,
    /// IP addresses.
    Ip,
    /// A regular expression of the policy's author.
    Regex {
        /// The expression.
        regex: String,
        /// The word that takes the place of what it finds.
        name: String,
    },
}

/// What becomes of a value. If several rules cover it, all apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mask {
    /// It becomes null.
    pub drop: bool,
    /// It becomes its keyed hash.
    pub hash: bool,
    /// What is replaced in its texts.
    pub patterns: BTreeSet<Pattern>,
    /// How many characters of its texts stay.
    pub truncate: Option<u32>,
}

impl Mask {
    /// Whether it keeps the value as it is.
    pub fn is_none(&self) -> bool {
        *self == Mask::default()
    }

    /// Both together.
    pub(super) fn and(mut self, other: &Mask) -> Mask {
        self.drop |= other.drop;
        self.hash |= other.hash;
        self.patterns.extend(other.patterns.iter().cloned());
        self.truncate = match (self.truncate, other.truncate) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self
    }

    /// Whether it shows no more of a value than `other` does.
    pub(super) fn is_as_strict_as(&self, other: &Mask) -> bool {
        if self.drop || other.drop {
            return self.drop;
        }
        if self.hash || other.hash {
            return self.hash;
        }
        let has = |wanted: &Pattern| match wanted {
            Pattern::Regex { regex: wanted, .. } => {
                let same = |own: &Pattern| matches!(own, Pattern::Regex { regex, .. } if regex == wanted);
                self.patterns.iter().any(same)
            }
            plain => self.patterns.contains(plain),
        };
        let is_short = other.truncate.is_none_or(|most| self.truncate.is_some_and(|own| own <= most));
        other.patterns.iter().all(has) && is_short
    }

    /// Describes it as a policy file says it.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Mask { drop: true, .. } => "drop",
            Mask { hash: true, .. } => "hash",
            Mask { patterns, .. } if !patterns.is_empty() => "redact",
            Mask { truncate: Some(_), .. } => "truncate",
            _ => "nothing",
        }
    }
}

/// The fewest characters of a key: hashes of phone numbers and addresses are as secret as the key.
const MIN_CHARACTERS: usize = 16;
/// The text whose hash tells one key from another.
const KEY_CHECK: &[u8] = b"decagon-lake: the key of this lake's policy";

/// HMAC-SHA-256 with a key, as hexadecimal digits.
#[derive(Clone)]
pub struct KeyedHash(Hmac<Sha256>);

impl KeyedHash {
    /// The hash with `key`, which may have any length.
    ///
    /// # Errors
    /// Only on a bug.
    pub fn new(key: &[u8]) -> Result<Self> {
        let mac = Hmac::new_from_slice(key);
        mac.map(KeyedHash).map_err(|error| Error::bug("a key of hashes cannot be used").caused_by(error))
    }

    /// The hash of a value.
    pub fn of(&self, value: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(value);
        hex(&mac.finalize().into_bytes())
    }
}

/// The key of hashes.
#[derive(Clone)]
pub struct PolicyKey {
    text: String,
    hash: KeyedHash,
}

impl PolicyKey {
    /// Accepts a key as the bytes of a variable or file; white space around it is dropped. `origin` names its source in
    /// messages.
    ///
    /// # Errors
    /// Kind `Usage` if it cannot be a key.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Self> {
        let refused = |what: &str| {
            Error::usage(format!("the policy key in {origin} {what}")).with_hint(
                "make one with `openssl rand -hex 32`, keep it safe, and give every run of the lake the same",
            )
        };
        let text = std::str::from_utf8(bytes).map_err(|_| refused("is not text"))?.trim();
        if text.chars().count() < MIN_CHARACTERS {
            return Err(refused(&format!("is shorter than {MIN_CHARACTERS} characters")));
        }
        Ok(PolicyKey { text: text.to_owned(), hash: KeyedHash::new(text.as_bytes())? })
    }

    /// The keyed hash of a value, in hexadecimal digits.
    pub fn hash(&self, value: &[u8]) -> String {
        self.hash.of(value)
    }

    /// What a lake keeps to tell this key from another.
    pub fn check(&self) -> String {
        self.hash(KEY_CHECK)
    }

    /// Removes the key from `text`.
    pub fn hide_in(&self, text: &str) -> String {
        text.replace(&self.text, "***")
    }
}

impl std::fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHash(***)")
    }
}

impl std::fmt::Debug for PolicyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PolicyKey(***)")
    }
}

/// The SHA-256 of a text, in hexadecimal digits.
pub(super) fn digest(text: &[u8]) -> String {
    hex(&Sha256::digest(text))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_hmac_sha_256_in_hexadecimal() {
        let key = PolicyKey::from_bytes(b" 0123456789abcdef\n", "the test").unwrap();
        // printf '%s' jane@example.com | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "a7a54661c75bce906717ca553fdff1b9e2c578d8c764c8e7d23ff39b7b5096b1";
        assert_eq!(key.hash(b"jane@example.com"), expected);
        assert!(!format!("{key:?}").contains("0123") && key.hide_in("a 0123456789abcdef b") == "a *** b");
        let error = PolicyKey::from_bytes(b"short-secret", "its file").unwrap_err();
        assert!(!error.to_string().contains("secret") && error.hint().is_some() && error.kind().exit_code() == 2);
    }

    #[test]
    fn masks_are_ordered_by_what_they_show() {
        let drop = Mask { drop: true, ..Mask::default() };
        let hash = Mask { hash: true, ..Mask::default() };
        let redact = |patterns: &[Pattern]| Mask { patterns: patterns.iter().cloned().collect(), ..Mask::default() };
        let (email, both) = (redact(&[Pattern::Email]), redact(&[Pattern::Email, Pattern::Ip]));
        let cut = |most| Mask { truncate: Some(most), ..Mask::default() };
        for (strict, weak) in [(&drop, &hash), (&hash, &both), (&both, &email), (&hash, &cut(3)), (&cut(3), &cut(4))] {
            assert!(strict.is_as_strict_as(weak) && strict.is_as_strict_as(strict), "{strict:?} {weak:?}");
            assert!(!weak.is_as_strict_as(strict) && weak.is_as_strict_as(&Mask::default()), "{weak:?} {strict:?}");
        }
        assert!(!email.is_as_strict_as(&cut(9)) && !cut(9).is_as_strict_as(&email));
        let named = |name: &str| redact(&[Pattern::Regex { regex: "a+".to_owned(), name: name.to_owned() }]);
        assert!(named("x").is_as_strict_as(&named("y")));
    }
}
