//! The types of columns, and how Arrow stores them.

use arrow_schema::{DataType, TimeUnit};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// UTF-8 text that stands for a text or a whole number; a number is its digits.
    Id,
    /// Any JSON value, as UTF-8 text, byte for byte as the API sent it.
    Json,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    BigInt,
    /// A number of 64 bits with a fraction.
    Double,
    /// True or false.
    Bool,
    /// An instant in UTC, in microseconds.
    Time,
}

impl ColumnKind {
    /// The Arrow type that values of this kind are stored as.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text | Self::Id | Self::Json => DataType::Utf8,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// The type that DuckDB gives such values, for its views, and for queries in hints.
    pub fn duckdb_type(self) -> &'static str {
        match self {
            Self::Text | Self::Id | Self::Json => "VARCHAR",
            Self::Int => "INTEGER",
            Self::BigInt => "BIGINT",
            Self::Double => "DOUBLE",
            Self::Bool => "BOOLEAN",
            Self::Time => "TIMESTAMPTZ",
        }
    }
}
