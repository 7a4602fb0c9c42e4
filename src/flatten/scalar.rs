//! Reads single JSON values, as exactly as possible and, if a value has one clear meaning, leniently.
//!
//! Must not depend on: where the values go.

use std::borrow::Cow;

use serde::de::{Deserializer as _, Visitor};

/// Returns the inside of a JSON string without escapes, which is its value.
pub(super) fn unescaped(json: &str) -> Option<&str> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

/// Returns the value of a JSON string.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    match unescaped(json) {
        Some(text) => Some(Cow::Borrowed(text)),
        None if json.starts_with('"') => serde_json::from_str(json).ok().map(Cow::Owned),
        None => None,
    }
}

/// Returns a whole number, and whether it is a JSON number, not text.
pub(super) fn int(json: &str) -> (Option<i64>, bool) {
    match whole_number(json) {
        None => (string(json).and_then(|text| whole_number(text.trim())), false),
        number => (number, true),
    }
}

/// Returns a number that a double can hold, perhaps rounded, and whether it is a JSON number, not text.
pub(super) fn double(json: &str) -> (Option<f64>, bool) {
    let number = |text: &str| {
        // Rust also reads `inf` and `.5`, which are no JSON.
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        text.parse::<f64>().ok().filter(|number| is_json && number.is_finite())
    };
    match string(json) {
        Some(text) => (number(text.trim()), false),
        None => (number(json), true),
    }
}

/// Returns a boolean that is written as text, or as 0 or 1.
pub(super) fn lenient_bool(json: &str) -> Option<bool> {
    if let Some(text) = string(json) {
        let named = |name: &bool| text.trim().eq_ignore_ascii_case(if *name { "true" } else { "false" });
        if let Some(value) = [true, false].iter().copied().find(named) {
            return Some(value);
        }
    }
    match int(json).0 {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    }
}

/// Returns the text of a JSON string whose escapes are not all Unicode.
pub(super) fn lossy_text(json: &str) -> Option<String> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = String;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }
    serde_json::Deserializer::from_str(json).deserialize_bytes(Bytes).ok()
}

/// Returns the value of a JSON number without a fraction, in any notation (`4`, `4.0`, `40e-1`).
pub(super) fn whole_number(json: &str) -> Option<i64> {
    // Below this, a double holds whole numbers exactly; above, `as` would make up digits.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(number) = json.parse() {
        return Some(number);
    }
    if !json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = json.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within the exact range")]
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}
