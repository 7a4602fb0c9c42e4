//! Builds one column from the API's raw JSON values.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use serde::de::{Deserializer as _, Visitor};
use serde_json::value::RawValue;

use crate::model::{ColumnKind, epoch_time, means_no_time, parse_api_time};

/// A growing column of a [`ColumnKind`].
#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Text(StringBuilder),
    Json(StringBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
}

/// How much of a value its column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// All of it.
    Whole,
    /// The nearest value that the column can hold, or null. The original belongs in `extra`.
    InPart,
    /// Null, although the value seems to mean a time. The original belongs in `extra`.
    UnreadableTime,
}

impl Fit {
    fn of(whole: bool) -> Self {
        if whole { Fit::Whole } else { Fit::InPart }
    }
}

impl ColumnBuilder {
    pub(super) fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Text => Self::Text(StringBuilder::new()),
            ColumnKind::Json => Self::Json(StringBuilder::new()),
            ColumnKind::Int => Self::Int(Int32Builder::new()),
            ColumnKind::BigInt => Self::BigInt(Int64Builder::new()),
            ColumnKind::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnKind::Time => {
                Self::Time(TimestampMicrosecondBuilder::new().with_data_type(ColumnKind::Time.data_type()))
            }
        }
    }

    /// Appends the value of `raw`, or the nearest one that the column can hold, or null. A value of another JSON type
    /// is read if it has one clear meaning, but it never fits whole, because the object could not be rebuilt.
    #[must_use]
    pub(super) fn append(&mut self, raw: &RawValue) -> Fit {
        let json = raw.get();
        match self {
            Self::Text(column) => Fit::of(append_text(column, json)),
            Self::Json(column) => {
                column.append_value(json);
                Fit::Whole
            }
            Self::Int(column) => {
                let (number, is_number) = int(json);
                let value = number.and_then(|number| i32::try_from(number).ok());
                column.append_option(value);
                Fit::of(is_number && value.is_some())
            }
            Self::BigInt(column) => {
                let (number, is_number) = int(json);
                column.append_option(number);
                Fit::of(is_number && number.is_some())
            }
            Self::Bool(column) => {
                let value = json.parse().ok();
                column.append_option(value.or_else(|| lenient_bool(json)));
                Fit::of(value.is_some())
            }
            Self::Time(column) => append_time(column, json),
        }
    }

    pub(super) fn append_null(&mut self) {
        match self {
            Self::Text(column) | Self::Json(column) => column.append_null(),
            Self::Int(column) => column.append_null(),
            Self::BigInt(column) => column.append_null(),
            Self::Bool(column) => column.append_null(),
            Self::Time(column) => column.append_null(),
        }
    }

    /// Appends unescaped text; null to a column of another kind.
    pub(super) fn append_str(&mut self, value: &str) {
        match self {
            Self::Text(column) | Self::Json(column) => column.append_value(value),
            other => other.append_null(),
        }
    }

    /// Appends a number (microseconds if the column holds times); null if the column cannot hold it.
    pub(super) fn append_number(&mut self, value: i64) {
        match self {
            Self::Int(column) => column.append_option(i32::try_from(value).ok()),
            Self::BigInt(column) => column.append_value(value),
            Self::Time(column) => column.append_value(value),
            other => other.append_null(),
        }
    }

    /// Returns the values so far, without spare capacity.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let mut column = match self {
            Self::Text(column) | Self::Json(column) => ArrayBuilder::finish(column),
            Self::Int(column) => ArrayBuilder::finish(column),
            Self::BigInt(column) => ArrayBuilder::finish(column),
            Self::Bool(column) => ArrayBuilder::finish(column),
            Self::Time(column) => ArrayBuilder::finish(column),
        };
        if let Some(column) = Arc::get_mut(&mut column) {
            column.shrink_to_fit();
        }
        column
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(column) | Self::Json(column) => column.len(),
            Self::Int(column) => column.len(),
            Self::BigInt(column) => column.len(),
            Self::Bool(column) => column.len(),
            Self::Time(column) => column.len(),
        }
    }
}

/// Returns the inside of a JSON string without escapes, which is its value.
fn unescaped(json: &str) -> Option<&str> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

/// Returns the value of a JSON string.
fn string(json: &str) -> Option<Cow<'_, str>> {
    match unescaped(json) {
        Some(text) => Some(Cow::Borrowed(text)),
        None if json.starts_with('"') => serde_json::from_str(json).ok().map(Cow::Owned),
        None => None,
    }
}

/// Appends a time, which the API writes as text but may write as a number.
fn append_time(column: &mut TimestampMicrosecondBuilder, json: &str) -> Fit {
    let text = string(json);
    let time = match &text {
        Some(text) => parse_api_time(text),
        None => epoch_time(json),
    };
    column.append_option(time.map(|time| time.micros));
    match time {
        Some(time) => Fit::of(time.exact),
        None if means_no_time(text.as_deref().unwrap_or(json)) => Fit::InPart,
        None => Fit::UnreadableTime,
    }
}

/// Returns a whole number, and whether it is a JSON number, not text.
fn int(json: &str) -> (Option<i64>, bool) {
    match whole_number(json) {
        None => (string(json).and_then(|text| whole_number(text.trim())), false),
        number => (number, true),
    }
}

/// Returns a boolean that is written as text, or as 0 or 1.
fn lenient_bool(json: &str) -> Option<bool> {
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

/// Appends a JSON string; returns whether it fits whole.
///
/// A number or boolean becomes its JSON text, so that joins on a numeric user id work. In text that JSON allows and
/// Unicode does not (chats have halves of surrogate pairs), U+FFFD replaces the invalid part, so that the rest can be
/// searched.
fn append_text(column: &mut StringBuilder, json: &str) -> bool {
    if let Some(text) = unescaped(json) {
        column.append_value(text);
        return true;
    }
    match json.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<String>(json) {
            Ok(text) => {
                column.append_value(text);
                true
            }
            Err(_) => {
                column.append_option(lossy_text(json));
                false
            }
        },
        Some(b'{' | b'[') | None => {
            column.append_null();
            false
        }
        Some(_) => {
            column.append_value(json);
            false
        }
    }
}

/// Returns the text of a JSON string whose escapes are not all Unicode.
fn lossy_text(json: &str) -> Option<String> {
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
fn whole_number(json: &str) -> Option<i64> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;

    fn fit(kind: ColumnKind, json: &str) -> (Fit, ArrayRef) {
        let mut column = ColumnBuilder::new(kind);
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        let fit = column.append(&raw);
        (fit, column.finish())
    }

    fn append(kind: ColumnKind, json: &str) -> (bool, ArrayRef) {
        let (fit, column) = fit(kind, json);
        (fit == Fit::Whole, column)
    }

    #[test]
    fn text_is_unescaped_and_half_surrogates_are_replaced() {
        let text = |json: &str| {
            let (whole, array) = append(ColumnKind::Text, json);
            (whole, array.as_string::<i32>().iter().next().unwrap().map(str::to_owned))
        };
        assert_eq!(text(r#""plain""#), (true, Some("plain".into())));
        assert_eq!(text(r#""a\n\u00e9\ud83d\ude00""#), (true, Some("a\né😀".into())));
        let (whole, lossy) = text(r#""ok \ud83d end""#);
        assert!(!whole);
        let lossy = lossy.unwrap();
        assert!(lossy.starts_with("ok \u{fffd}") && lossy.ends_with(" end"), "{lossy}");
        assert_eq!(text("5"), (false, Some("5".into())));
        assert_eq!(text("{}"), (false, None));
    }

    #[test]
    fn only_whole_numbers_in_range_fit() {
        for (json, fits) in [
            ("4", true),
            ("4.0", true),
            ("40e-1", true),
            ("-0", true),
            ("4.5", false),
            ("\"4\"", false),
            ("1e400", false),
            ("2147483648", false),
            ("true", false),
        ] {
            assert_eq!(append(ColumnKind::Int, json).0, fits, "{json}");
        }
    }

    #[test]
    fn lenient_numbers_and_booleans_are_read_but_never_fit_whole() {
        for (json, value) in [
            (r#""4""#, Some(4)),
            (r#"" 5 ""#, Some(5)),
            (r#""5.0""#, Some(5)),
            (r#""\u0034""#, Some(4)),
            (r#""-3""#, Some(-3)),
            (r#""4.5""#, None),
            (r#""2147483648""#, None),
            (r#""four""#, None),
            (r#""""#, None),
            ("[4]", None),
        ] {
            let (fit, array) = fit(ColumnKind::Int, json);
            let ints = array.as_primitive::<arrow_array::types::Int32Type>();
            assert_eq!((fit, ints.iter().next().unwrap()), (Fit::InPart, value), "{json}");
        }
        for (json, expected, value) in [
            ("true", Fit::Whole, Some(true)),
            (r#""true""#, Fit::InPart, Some(true)),
            (r#""False""#, Fit::InPart, Some(false)),
            (r#"" TRUE""#, Fit::InPart, Some(true)),
            ("0", Fit::InPart, Some(false)),
            ("1.0", Fit::InPart, Some(true)),
            (r#""1""#, Fit::InPart, Some(true)),
            ("2", Fit::InPart, None),
            (r#""yes""#, Fit::InPart, None),
        ] {
            let (fit, array) = fit(ColumnKind::Bool, json);
            assert_eq!((fit, array.as_boolean().iter().next().unwrap()), (expected, value), "{json}");
        }
    }

    #[test]
    fn a_time_fits_if_its_instant_says_all_of_it() {
        const SECOND: i64 = 1_704_067_200_000_000;
        for (json, expected, micros) in [
            (r#""2024-01-01T00:00:00Z""#, Fit::Whole, Some(SECOND)),
            (r#""2024-01-01T00:00:00\u002B00:00""#, Fit::Whole, Some(SECOND)),
            (r#""2024\u002d01-01T00:00\u005a""#, Fit::Whole, Some(SECOND)),
            (r#""2024-01-01T00:00:00.123456789Z""#, Fit::InPart, Some(SECOND + 123_456)),
            ("1704067200", Fit::InPart, Some(SECOND)),
            ("1704067200.5", Fit::InPart, Some(SECOND + 500_000)),
            (r#""1704067200000""#, Fit::InPart, Some(SECOND)),
            (r#""0001-01-01T00:00:00Z""#, Fit::InPart, None),
            (r#""""#, Fit::InPart, None),
            ("0", Fit::InPart, None),
            (r#""soon""#, Fit::UnreadableTime, None),
            (r#""\ud800""#, Fit::UnreadableTime, None),
            ("17", Fit::UnreadableTime, None),
            ("true", Fit::UnreadableTime, None),
            (r#"{"secs": 1704067200}"#, Fit::UnreadableTime, None),
        ] {
            let (fit, array) = fit(ColumnKind::Time, json);
            let times = array.as_primitive::<arrow_array::types::TimestampMicrosecondType>();
            assert_eq!((fit, times.iter().next().unwrap()), (expected, micros), "{json}");
        }
    }
}
