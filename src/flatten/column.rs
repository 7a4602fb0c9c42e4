//! Builds one column from the API's raw JSON values.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use serde_json::value::RawValue;

use super::scalar::{double, int, lenient_bool, lossy_text, string, unescaped};
use crate::model::{ColumnKind, epoch_time, means_no_time, parse_api_time};

/// A growing column of a [`ColumnKind`].
#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Text(StringBuilder),
    Id(StringBuilder),
    Json(StringBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Double(Float64Builder),
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
            ColumnKind::Id => Self::Id(StringBuilder::new()),
            ColumnKind::Json => Self::Json(StringBuilder::new()),
            ColumnKind::Int => Self::Int(Int32Builder::new()),
            ColumnKind::BigInt => Self::BigInt(Int64Builder::new()),
            ColumnKind::Double => Self::Double(Float64Builder::new()),
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
            Self::Id(column) => Fit::of(append_id(column, json)),
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
            Self::Double(column) => {
                let (number, is_number) = double(json);
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

    /// Appends the nearest value that the column can hold to one that is kept elsewhere as it came: a key of
    /// `metadata`. Returns false if there is none, so that the column has null.
    #[must_use]
    pub(super) fn append_copy(&mut self, raw: &RawValue) -> bool {
        let json = raw.get();
        if json == "null" {
            self.append_null();
            return true;
        }
        match self {
            Self::Text(column) | Self::Id(column) => {
                append_text(column, json);
                !json.starts_with(['{', '['])
            }
            Self::Time(column) => append_time(column, json) != Fit::UnreadableTime,
            Self::Json(column) => {
                column.append_value(json);
                true
            }
            Self::Int(column) => {
                let value = int(json).0.and_then(|number| i32::try_from(number).ok());
                column.append_option(value);
                value.is_some()
            }
            Self::BigInt(column) => {
                let value = int(json).0;
                column.append_option(value);
                value.is_some()
            }
            Self::Double(column) => {
                let value = double(json).0;
                column.append_option(value);
                value.is_some()
            }
            Self::Bool(column) => {
                let value = json.parse().ok().or_else(|| lenient_bool(json));
                column.append_option(value);
                value.is_some()
            }
        }
    }

    pub(super) fn append_null(&mut self) {
        match self {
            Self::Text(column) | Self::Id(column) | Self::Json(column) => column.append_null(),
            Self::Int(column) => column.append_null(),
            Self::BigInt(column) => column.append_null(),
            Self::Double(column) => column.append_null(),
            Self::Bool(column) => column.append_null(),
            Self::Time(column) => column.append_null(),
        }
    }

    /// Appends unescaped text; null to a column of another kind.
    pub(super) fn append_str(&mut self, value: &str) {
        match self {
            Self::Text(column) | Self::Id(column) | Self::Json(column) => column.append_value(value),
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
            Self::Text(column) | Self::Id(column) | Self::Json(column) => ArrayBuilder::finish(column),
            Self::Int(column) => ArrayBuilder::finish(column),
            Self::BigInt(column) => ArrayBuilder::finish(column),
            Self::Double(column) => ArrayBuilder::finish(column),
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
            Self::Text(column) | Self::Id(column) | Self::Json(column) => column.len(),
            Self::Int(column) => column.len(),
            Self::BigInt(column) => column.len(),
            Self::Double(column) => column.len(),
            Self::Bool(column) => column.len(),
            Self::Time(column) => column.len(),
        }
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

/// Appends an id, which is a whole number or text; returns whether it fits whole. Text that looks like a number does
/// not, so that it can be told from one.
fn append_id(column: &mut StringBuilder, json: &str) -> bool {
    let is_number = |text: &str| text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    let fits = append_text(column, json);
    match string(json) {
        Some(text) => fits && !is_number(&text),
        None => is_number(json),
    }
}

#[cfg(test)]
mod tests;
