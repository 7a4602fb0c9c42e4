//! One column being filled with the API's raw JSON values.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use serde::de::{Deserializer as _, Visitor};
use serde_json::value::RawValue;

use crate::model::{Kind, parse_api_time};

/// A growing column of one [`Kind`].
#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Text(StringBuilder),
    Json(StringBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl ColumnBuilder {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Json => Self::Json(StringBuilder::new()),
            Kind::Int => Self::Int(Int32Builder::new()),
            Kind::BigInt => Self::BigInt(Int64Builder::new()),
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Time => Self::Time(TimestampMicrosecondBuilder::new().with_data_type(Kind::Time.data_type())),
        }
    }

    /// Appends the value of `raw`, or the nearest one that the column can hold, or null. Returns whether the column
    /// now says all that `raw` says; where not, `raw` belongs into `extra`.
    #[must_use]
    pub(super) fn append(&mut self, raw: &RawValue) -> bool {
        let json = raw.get();
        match self {
            Self::Text(column) => append_text(column, json),
            Self::Json(column) => {
                column.append_value(json);
                true
            }
            Self::Int(column) => {
                let value = whole_number(json).and_then(|number| i32::try_from(number).ok());
                column.append_option(value);
                value.is_some()
            }
            Self::BigInt(column) => {
                let value = whole_number(json);
                column.append_option(value);
                value.is_some()
            }
            Self::Bool(column) => {
                let value = json.parse().ok();
                column.append_option(value);
                value.is_some()
            }
            Self::Time(column) => {
                let time = unescaped(json).and_then(parse_api_time);
                column.append_option(time.map(|time| time.micros));
                time.is_some_and(|time| time.exact)
            }
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

    /// Appends text that is the program's own or already unescaped; null to a column of another kind.
    pub(super) fn append_str(&mut self, value: &str) {
        match self {
            Self::Text(column) | Self::Json(column) => column.append_value(value),
            other => other.append_null(),
        }
    }

    /// Appends a number of the program's own (for a time: microseconds); null where the column cannot hold it.
    pub(super) fn append_number(&mut self, value: i64) {
        match self {
            Self::Int(column) => column.append_option(i32::try_from(value).ok()),
            Self::BigInt(column) => column.append_value(value),
            Self::Time(column) => column.append_value(value),
            other => other.append_null(),
        }
    }

    /// The values so far, without the room that was kept for more.
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

/// The inside of a JSON string without escapes, which is its value.
fn unescaped(json: &str) -> Option<&str> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

/// Appends a JSON string; of a number or a boolean its JSON text, so that a numeric user id can still be joined on; of
/// text that JSON allows and Unicode does not (half of a surrogate pair: chats have them) the rest, with U+FFFD in its
/// place, so that it can be searched. Of all but the string, the caller keeps the original.
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

/// The text of a JSON string whose escapes are not all Unicode.
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

/// The value of a JSON number without a fraction, however it is written (`4`, `4.0`, `40e-1`).
fn whole_number(json: &str) -> Option<i64> {
    // The numbers that a double holds exactly; beyond them `as` would make up digits.
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

    fn append(kind: Kind, json: &str) -> (bool, ArrayRef) {
        let mut column = ColumnBuilder::new(kind);
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        let told_all = column.append(&raw);
        (told_all, column.finish())
    }

    #[test]
    fn text_is_unescaped_and_half_surrogates_are_marked() {
        let text = |json: &str| {
            let (told_all, array) = append(Kind::Text, json);
            (told_all, array.as_string::<i32>().iter().next().unwrap().map(str::to_owned))
        };
        assert_eq!(text(r#""plain""#), (true, Some("plain".into())));
        assert_eq!(text(r#""a\n\u00e9\ud83d\ude00""#), (true, Some("a\né😀".into())));
        let (told_all, lossy) = text(r#""ok \ud83d end""#);
        assert!(!told_all);
        let lossy = lossy.unwrap();
        assert!(lossy.starts_with("ok \u{fffd}") && lossy.ends_with(" end"), "{lossy}");
        assert_eq!(text("5"), (false, Some("5".into())));
        assert_eq!(text("{}"), (false, None));
    }

    #[test]
    fn numbers_fit_only_whole() {
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
            assert_eq!(append(Kind::Int, json).0, fits, "{json}");
        }
    }

    #[test]
    fn a_time_with_too_many_digits_is_kept_both_ways() {
        let (told_all, array) = append(Kind::Time, r#""2024-01-01T00:00:00.123456789Z""#);
        assert!(!told_all && array.null_count() == 0);
        let (told_all, array) = append(Kind::Time, "1704067200");
        assert!(!told_all && array.null_count() == 1);
    }
}
