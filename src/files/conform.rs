//! Converts the rows of a table file that another program rewrote.
//!
//! Columns match by name, in any order and nullability. Guarantees: only lossless conversions are made (times of
//! another precision, integers of another width, integers that pandas made floats, text without its annotation). All
//! others are refused with a query that rewrites the file. A file may lack the columns that later schemas have added.
//! Must not depend on: where files come from.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};

use crate::model::{ColumnKind, PartitionBy, TableColumns, column};

/// The prefix of the columns in which pandas stores row numbers.
const PANDAS_INDEX: &str = "__index_level_";
/// Makes a value that does not fit an error instead of null.
const EXACTLY: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow_cast::display::FormatOptions::new() };

/// A difference between a file and its table, and how to correct it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The difference, to be put after the file's name: "has no column notes".
    pub(super) what: String,
    /// A DuckDB query for the corrected rows, in which FILE stands for the file.
    pub(super) query: String,
}

impl Misfit {
    fn new(what: String, columns: &str) -> Self {
        Misfit { what, query: format!("SELECT {columns} FROM FILE") }
    }
}

/// Makes sure that the columns `found` in a file can be converted to those of `table`.
///
/// # Errors
/// The first difference that prevents it.
pub(super) fn check(table: &TableColumns, found: &Schema) -> Result<(), Misfit> {
    let wanted = table.schema();
    for (position, field) in found.fields().iter().enumerate() {
        let name = field.name();
        if found.fields().iter().skip(position + 1).any(|other| other.name() == name) {
            return Err(Misfit::new(format!("has two columns {name}"), "…"));
        }
        let is_known = wanted.fields().iter().any(|known| known.name() == name);
        let is_partition = PartitionBy::ALL.iter().any(|by| by.column() == name);
        if !is_known && !is_partition && !name.starts_with(PANDAS_INDEX) {
            let what = format!("has a column {name}, which the table {} lacks", table.name());
            return Err(Misfit::new(what, &format!("* EXCLUDE (\"{name}\")")));
        }
    }
    for column in table.columns() {
        let (name, sql) = (&column.name, column.kind.duckdb_type());
        let Ok(field) = found.field_with_name(name) else {
            if column.is_newer() {
                continue;
            }
            return Err(Misfit::new(format!("has no column {name}"), &format!("*, NULL::{sql} AS {name}")));
        };
        if !can_hold(field.data_type(), column.kind) {
            let what = format!("has a column {name} of type {}, which cannot become {sql}", field.data_type());
            return Err(Misfit::new(what, &format!("* REPLACE (TRY_CAST({name} AS {sql}) AS {name})")));
        }
    }
    Ok(())
}

/// Converts rows of a file that was [checked](check): the columns that it has, in the table's order and types.
///
/// # Errors
/// The value that does not fit.
pub(super) fn apply(table: &TableColumns, batch: &RecordBatch) -> Result<RecordBatch, Misfit> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in table.schema().fields().iter().zip(table.columns()) {
        let Some(found) = batch.column_by_name(field.name()) else { continue };
        let (name, sql) = (&column.name, column.kind.duckdb_type());
        let fitted = fit(found, field).map_err(|error| {
            let what = format!("has a value in {name} that cannot become {sql} ({error})");
            Misfit::new(what, &format!("* REPLACE (TRY_CAST({name} AS {sql}) AS {name})"))
        })?;
        if fitted.null_count() > 0 && is_key(field) {
            let query = format!("SELECT * FROM FILE WHERE {name} IS NOT NULL");
            return Err(Misfit { what: format!("has a row without {name}"), query });
        }
        fields.push(Arc::clone(field));
        columns.push(fitted);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Misfit::new(format!("cannot be used ({error})"), "*"))
}

/// Whether the column identifies the row, so that it must not be null.
fn is_key(field: &Field) -> bool {
    !field.is_nullable() || [column::RUN_ID, column::SEQ].contains(&field.name().as_str())
}

/// Whether a column of this type can be converted to `kind`.
fn can_hold(found: &DataType, kind: ColumnKind) -> bool {
    match (found, kind) {
        // Pandas writes this type if all values are null.
        (DataType::Null, _) | (DataType::Boolean, ColumnKind::Bool) => true,
        (DataType::Utf8 | DataType::Binary, ColumnKind::Text | ColumnKind::Id | ColumnKind::Json) => true,
        (found, ColumnKind::Int | ColumnKind::BigInt | ColumnKind::Double) => {
            found.is_integer() || matches!(found, DataType::Float32 | DataType::Float64)
        }
        (DataType::Timestamp(_, zone), ColumnKind::Time) => zone.as_deref().is_none_or(|zone| zone == "UTC"),
        _ => false,
    }
}

fn fit(found: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    let wanted = field.data_type();
    match found.data_type() {
        same if same == wanted => Ok(Arc::clone(found)),
        DataType::Null => Ok(new_null_array(wanted, found.len())),
        DataType::Float32 | DataType::Float64 if wanted.is_integer() => {
            let numbers = cast_with_options(found, &DataType::Float64, &EXACTLY)?;
            cast_with_options(&whole(numbers.as_primitive::<Float64Type>())?, wanted, &EXACTLY)
        }
        _ => cast_with_options(found, wanted, &EXACTLY),
    }
}

/// Makes sure that all numbers are whole, and turns NaN, which pandas writes for null, into null.
fn whole(numbers: &Float64Array) -> Result<ArrayRef, ArrowError> {
    let whole = numbers.iter().map(|number| match number.filter(|number| !number.is_nan()) {
        Some(number) if number.fract() != 0.0 => Err(ArrowError::CastError(format!("{number} is not whole"))),
        number => Ok(number),
    });
    Ok(Arc::new(whole.collect::<Result<Float64Array, _>>()?))
}

/// The type to read Spark's 96-bit timestamps as, because nanoseconds would overflow.
pub(super) fn int96_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}
