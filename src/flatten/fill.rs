//! Gives rows of an earlier schema the columns that they lack, with the values that `extra` and `metadata` have kept.
//!
//! Guarantees: the rows are those that flattening the same objects would have made. Must not depend on: where the rows
//! come from.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use serde_json::value::RawValue;

use super::column::{ColumnBuilder, Fit};
use super::metadata;
use super::row::push_extra;
use crate::error::{Error, Result};
use crate::json::Objects;
use crate::model::{ColumnSource, FieldCounts, TableColumns, column, texts};

/// The result of [`fill`].
#[derive(Debug)]
pub struct Filled {
    /// The rows, with all columns of the table.
    pub rows: RecordBatch,
    /// By column, the values of `metadata` that do not fit their column.
    pub misfits: FieldCounts,
}

/// Adds the columns of the table that `rows` lack. A field that fits its new column moves there out of `extra`;
/// `metadata` stays as it is.
///
/// # Errors
/// Kind `Integrity` if `extra` or `metadata` is not as this program writes it.
pub fn fill(columns: &TableColumns, rows: &RecordBatch) -> Result<Filled> {
    let lacking = || columns.columns().iter().filter(|column| rows.column_by_name(&column.name).is_none());
    let field = |source: &ColumnSource| if let ColumnSource::Field(name) = source { Some(*name) } else { None };
    let fields: Vec<_> = lacking().filter_map(|column| Some((field(&column.source)?, column))).collect();
    let keys: Vec<_> = lacking().filter_map(|column| Some((metadata_key(&column.source)?, column))).collect();
    let mut added: Vec<(&str, ArrayRef)> = Vec::new();
    let mut misfits = FieldCounts::default();

    if !fields.is_empty() {
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let mut builders: Vec<_> = fields.iter().map(|(_, column)| ColumnBuilder::new(column.kind)).collect();
        let extra = move_out(&names, &mut builders, kept(columns, rows, column::EXTRA)?)?;
        let filled = fields.iter().zip(&mut builders).map(|((_, column), builder)| (&*column.name, builder.finish()));
        added.extend(filled);
        added.push((column::EXTRA, extra));
    }
    if !keys.is_empty() {
        let mut builders: Vec<_> = keys.iter().map(|(_, column)| ColumnBuilder::new(column.kind)).collect();
        let names: Vec<_> = keys.iter().map(|(key, _)| key.clone()).collect();
        for text in kept(columns, rows, column::METADATA)? {
            let values = metadata::values(text.map(raw).transpose()?, &names, &mut FieldCounts::default());
            for ((value, builder), (_, column)) in values.into_iter().zip(&mut builders).zip(&keys) {
                match value {
                    None => builder.append_null(),
                    Some(value) if builder.append_copy(value) => {}
                    Some(_) => misfits.note(&column.name),
                }
            }
        }
        added.extend(keys.iter().zip(&mut builders).map(|((_, column), builder)| (&*column.name, builder.finish())));
    }

    for column in lacking().filter(|column| column.source == ColumnSource::DeletedAt) {
        // Nothing was ever marked in the files that lack it.
        added.push((&column.name, new_null_array(&column.kind.data_type(), rows.num_rows())));
    }

    let of = |name: &str| {
        let new = added.iter().find(|(added, _)| *added == name).map(|(_, values)| Arc::clone(values));
        let found = new.or_else(|| rows.column_by_name(name).cloned());
        found.ok_or_else(|| Error::bug(format!("rows of {} lack the column {name}", columns.name())))
    };
    let all = columns.columns().iter().map(|column| of(&column.name)).collect::<Result<Vec<_>>>()?;
    Ok(Filled { rows: RecordBatch::try_new(columns.schema(), all)?, misfits })
}

fn metadata_key(source: &ColumnSource) -> Option<String> {
    if let ColumnSource::Metadata(key) = source { Some(key.clone()) } else { None }
}

/// The column of `rows` that keeps what the new columns are filled from.
fn kept<'a>(columns: &TableColumns, rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    texts(rows, name).ok_or_else(|| Error::bug(format!("rows of {} lack the column {name}", columns.name())))
}

/// Moves the fields `names` out of `extra` into `builders`, except for values that do not fit whole; returns the rest.
fn move_out(names: &[&str], builders: &mut [ColumnBuilder], extra: &StringArray) -> Result<ArrayRef> {
    let mut rest = StringBuilder::with_capacity(extra.len(), extra.value_data().len());
    let mut left = String::new();
    for text in extra {
        let mut object = Objects::new(names);
        // A value that is no object is kept whole.
        let split = text.filter(|text| text.starts_with('{')).map(|text| object.split(text)).transpose();
        split.map_err(|error| unreadable(column::EXTRA).caused_by(error))?;
        let fields = object.get(0);
        left.clear();
        for (name, value) in fields.iter().flat_map(|fields| fields.others) {
            push_extra(&mut left, name, value);
        }
        let mut moved = false;
        for (position, (name, builder)) in names.iter().zip(&mut *builders).enumerate() {
            moved |= fields.is_some_and(|fields| fields.has(position));
            match fields.and_then(|fields| fields.known(position)) {
                None => builder.append_null(),
                Some(value) if builder.append(value) == Fit::Whole => {}
                Some(value) => push_extra(&mut left, name, value),
            }
        }
        match text {
            Some(_) if moved && left.is_empty() => rest.append_null(),
            Some(_) if moved => rest.append_value(format_args!("{left}}}").to_string()),
            text => rest.append_option(text),
        }
    }
    Ok(Arc::new(rest.finish()))
}

/// The JSON that a cell of `metadata` holds.
fn raw(text: &str) -> Result<&RawValue> {
    serde_json::from_str(text).map_err(|error| unreadable(column::METADATA).caused_by(error))
}

fn unreadable(name: &str) -> Error {
    Error::integrity(format!("a value in {name} is not JSON"))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::flatten::{Origin, flatten};
    use crate::model::{LakeColumns, MetadataColumn, RunId, SCHEMA_VERSION, Table};

    const SENT: [&str; 5] = [
        r#"{"conversation_id": "a", "channel": "web", "conversation_url": "https://x/a", "all_tags": {"h" : 2.50},
            "metadata": {"plan": "pro", "total": "12.50"}, "messages": [{"id": 7, "mood": 1}, {"id": "7"}, {"id": "m"}]}"#,
        r#"{"conversation_id": "b", "conversation_url": 17, "watchtower_reviews": [], "metadata": {"total": "none"}}"#,
        r#"{"conversation_id": "c", "all_tags": null, "csat": "4", "messages": ["odd", {"id": null}, {}]}"#,
        r#"{"conversation_id": "d", "all_tags": 1, "all_tags": 2, "metadata": [1], "tags": [{"id": "t"}, 7]}"#,
        r#"{"conversation_id": "e", "user_id": "u", "conversation_url": {"no": "text"}, "messages": [{"id": {"x": 1}}]}"#,
    ];

    fn flattened(columns: &LakeColumns, table: Table) -> RecordBatch {
        let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
        let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
        flatten(SENT, columns, &origin).unwrap().tables.get(table).as_ref().clone()
    }

    fn metadata(columns: &[&str]) -> Vec<MetadataColumn> {
        columns.iter().map(|column| column.parse().unwrap()).collect()
    }

    /// Rows of every earlier schema become those of the newest one, because `extra` has kept what they lack.
    #[test]
    fn filled_rows_are_those_that_flattening_makes() {
        let wanted = LakeColumns::new(&metadata(&["plan", "total:double"]));
        for version in 1..=SCHEMA_VERSION {
            for earlier in [&[][..], &["plan"][..]] {
                let columns = LakeColumns::of_schema(version, &metadata(earlier));
                for table in Table::ALL {
                    let filled = fill(wanted.of(table), &flattened(&columns, table)).unwrap();
                    let (found, expected) = (filled.rows, flattened(&wanted, table));
                    assert_eq!(found, expected, "{} {version}", table.name());
                    let misfits: Vec<_> = filled.misfits.iter().map(|(name, count)| (name.to_owned(), count)).collect();
                    let is_of_metadata = table == Table::Conversations;
                    assert_eq!(misfits, [("metadata_total".to_owned(), 1)][..usize::from(is_of_metadata)]);
                }
            }
        }
    }

    #[test]
    fn damaged_json_is_no_panic() {
        let (wanted, table) = (LakeColumns::new(&metadata(&["plan"])), Table::Conversations);
        let rows = flattened(&LakeColumns::of_schema(1, &[]), table);
        for name in [column::EXTRA, column::METADATA] {
            let (schema, mut columns, _) = rows.clone().into_parts();
            let position = schema.index_of(name).unwrap();
            columns[position] = Arc::new(StringArray::from(vec!["{broken"; rows.num_rows()]));
            let damaged = RecordBatch::try_new(schema, columns).unwrap();
            let error = fill(wanted.of(table), &damaged).unwrap_err();
            assert_eq!(error.to_string(), format!("a value in {name} is not JSON"));
        }
    }
}
