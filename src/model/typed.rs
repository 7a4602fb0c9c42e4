//! The columns of a record batch as the arrays they are. `None` where there is no such column, or not of that type.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

/// A column of text or JSON.
pub fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    batch.column_by_name(name)?.as_string_opt()
}

/// A column of whole numbers of 32 bits.
pub fn ints<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a Int32Array> {
    batch.column_by_name(name)?.as_primitive_opt::<Int32Type>()
}

/// A column of whole numbers of 64 bits.
pub fn big_ints<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a Int64Array> {
    batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()
}

/// A column of instants, in microseconds.
pub fn times<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a TimestampMicrosecondArray> {
    batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()
}
