//! Builds the rows of one table from the API's objects.

use std::sync::Arc;

use arrow_array::RecordBatch;
use serde_json::value::RawValue;

use super::column::{ColumnBuilder, Fit};
use super::metadata;
use crate::error::Result;
use crate::json::Object;
use crate::model::{ColumnSource, FieldCounts, Table, TableColumns, column};

/// The values of a row that do not come from the API's object.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowContext<'a> {
    pub(super) conversation_id: &'a str,
    pub(super) index: i64,
    pub(super) message_count: i64,
    pub(super) exported_at_micros: i64,
    pub(super) run_id: &'a str,
    pub(super) seq: i64,
}

/// The API's value for a row: an object, split into fields, or any other value.
pub(super) enum Value<'o, 'a> {
    /// An object: its fields (the [fields](TableColumns::fields) of the table first), and known fields that do not fit
    /// their table.
    Object(Object<'o, 'a>, &'o [(&'static str, &'a RawValue)]),
    /// Any other value, kept whole in `extra`.
    Other(&'a RawValue),
    /// The value of the only field, at this position: a bare tag id.
    Single(usize, &'a RawValue),
}

impl<'a> Value<'_, 'a> {
    /// Returns the value of the field at `position` among the [fields](TableColumns::fields) of the table.
    fn field(&self, position: usize) -> Option<&'a RawValue> {
        match self {
            Value::Object(object, _) => object.known(position),
            Value::Single(own, raw) => (*own == position).then_some(*raw),
            Value::Other(_) => None,
        }
    }

    /// Writes the fields without a column to `extra`, and counts them.
    fn begin_extra(&self, extra: &mut String, counts: &mut FieldCounts) {
        extra.clear();
        match self {
            Value::Object(object, unplaced) => {
                object.others.iter().for_each(|(name, _)| counts.note(name));
                object.others.iter().chain(*unplaced).for_each(|(name, raw)| push_extra(extra, name, raw));
            }
            Value::Other(raw) => extra.push_str(raw.get()),
            Value::Single(..) => {}
        }
    }

    /// Writes the value of a field that does not fit its column to `extra`.
    fn keep(&self, extra: &mut String, name: &str, raw: &RawValue) {
        match self {
            Value::Object(..) => push_extra(extra, name, raw),
            Value::Single(..) | Value::Other(_) => extra.push_str(raw.get()),
        }
    }
}

/// The position of a tag's id among the fields of its table.
pub(super) const TAG_ID: usize = 0;

/// The times that could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnreadableTimes {
    /// Their number.
    pub count: u64,
    /// One of them: its table and field, and the beginning of its value.
    pub example: Option<(String, String)>,
}

impl UnreadableTimes {
    /// The characters of a value that are kept.
    const EXCERPT: usize = 200;

    fn note(&mut self, table: Table, field: &str, raw: &RawValue) {
        self.count += 1;
        self.example.get_or_insert_with(|| {
            (format!("{}.{field}", table.name()), raw.get().chars().take(Self::EXCERPT).collect())
        });
    }

    /// Adds `other`.
    pub fn add(&mut self, other: UnreadableTimes) {
        self.count += other.count;
        self.example = self.example.take().or(other.example);
    }
}

/// What was counted while rows were built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// The times that cannot be read; their values are in `extra`.
    pub unreadable_times: UnreadableTimes,
    /// The fields without a column, as `conversations.channel`, and the keys of `metadata` without one, as
    /// `metadata.plan`.
    pub fields_without_column: FieldCounts,
    /// By column, the values of `metadata` that do not fit their column; they are in `metadata` alone.
    pub metadata_misfits: FieldCounts,
}

impl Counts {
    /// Adds `other`.
    pub fn add(&mut self, other: Counts) {
        self.unreadable_times.add(other.unreadable_times);
        self.fields_without_column.gather("", &other.fields_without_column);
        self.metadata_misfits.gather("", &other.metadata_misfits);
    }
}

/// A growing table.
#[derive(Debug)]
pub(super) struct TableBuilder {
    columns: Arc<TableColumns>,
    builders: Vec<ColumnBuilder>,
    /// The position of `metadata` among the fields, and its keys that have a column.
    metadata: Option<usize>,
    metadata_keys: Vec<String>,
    /// Scratch for `extra`.
    extra: String,
    unreadable_times: UnreadableTimes,
    /// Fields without a column, and keys of `metadata` without one.
    fields: FieldCounts,
    keys: FieldCounts,
    metadata_misfits: FieldCounts,
}

impl TableBuilder {
    pub(super) fn new(columns: &Arc<TableColumns>) -> Self {
        TableBuilder {
            columns: Arc::clone(columns),
            builders: columns.columns().iter().map(|column| ColumnBuilder::new(column.kind)).collect(),
            metadata: columns.fields().iter().position(|name| *name == column::METADATA),
            metadata_keys: columns.metadata_keys().map(str::to_owned).collect(),
            extra: String::new(),
            unreadable_times: UnreadableTimes::default(),
            fields: FieldCounts::default(),
            keys: FieldCounts::default(),
            metadata_misfits: FieldCounts::default(),
        }
    }

    /// Appends one row.
    pub(super) fn append(&mut self, context: &RowContext<'_>, value: &Value<'_, '_>) {
        let TableBuilder { columns, builders, extra, metadata_keys, unreadable_times, .. } = self;
        let table = columns.table();
        value.begin_extra(extra, &mut self.fields);
        let metadata =
            self.metadata.map(|position| metadata::values(value.field(position), metadata_keys, &mut self.keys));
        let mut copies = metadata.into_iter().flatten();
        let mut position = 0;
        let mut fields_set = 0;
        for (column, builder) in columns.columns().iter().zip(builders) {
            match column.source {
                ColumnSource::ConversationId => builder.append_str(context.conversation_id),
                ColumnSource::Index => builder.append_number(context.index),
                ColumnSource::MessageCount => builder.append_number(context.message_count),
                ColumnSource::ExportedAt => builder.append_number(context.exported_at_micros),
                ColumnSource::RunId => builder.append_str(context.run_id),
                ColumnSource::Seq => builder.append_number(context.seq),
                ColumnSource::DeletedAt => builder.append_null(),
                ColumnSource::Field(name) => {
                    match value.field(position) {
                        None => builder.append_null(),
                        Some(raw) => {
                            fields_set += 1;
                            let fit = builder.append(raw);
                            if fit != Fit::Whole {
                                value.keep(extra, name, raw);
                            }
                            if fit == Fit::UnreadableTime {
                                unreadable_times.note(table, name, raw);
                            }
                        }
                    }
                    position += 1;
                }
                // Their order is that of the keys.
                ColumnSource::Metadata(_) => match copies.next().flatten() {
                    None => builder.append_null(),
                    Some(raw) if builder.append_copy(raw) => {}
                    Some(_) => self.metadata_misfits.note(&column.name),
                },
                // The columns of all fields come before this one.
                ColumnSource::Extra => {
                    close_extra(extra, table, value, fields_set);
                    match extra.as_str() {
                        "" => builder.append_null(),
                        extra => builder.append_str(extra),
                    }
                }
            }
        }
    }

    /// Returns the rows so far; the builder is empty afterwards.
    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let columns = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        Ok(RecordBatch::try_new(self.columns.schema(), columns)?)
    }

    /// Returns what was counted so far, and begins anew.
    pub(super) fn take_counts(&mut self) -> Counts {
        let mut fields_without_column = FieldCounts::default();
        fields_without_column.gather(&format!("{}.", self.columns.name()), &std::mem::take(&mut self.fields));
        fields_without_column.gather("metadata.", &std::mem::take(&mut self.keys));
        let unreadable_times = std::mem::take(&mut self.unreadable_times);
        Counts { unreadable_times, fields_without_column, metadata_misfits: std::mem::take(&mut self.metadata_misfits) }
    }

    pub(super) fn len(&self) -> usize {
        self.builders.first().map_or(0, ColumnBuilder::len)
    }
}

/// Adds a field to the object in `extra`, with its name and value as they came.
pub(super) fn push_extra(extra: &mut String, name: &str, value: &RawValue) {
    extra.push(if extra.is_empty() { '{' } else { ',' });
    extra.push('"');
    extra.push_str(name);
    extra.push_str("\":");
    extra.push_str(value.get());
}

/// Ends the object in `extra`. A tag object with only an id gets `{}`, because otherwise it would look like a bare id.
fn close_extra(extra: &mut String, table: Table, value: &Value<'_, '_>, fields_set: usize) {
    let Value::Object(object, _) = value else { return };
    if !extra.is_empty() {
        extra.push('}');
    } else if table == Table::Tags && fields_set == 1 && object.known(TAG_ID).is_some() {
        extra.push_str("{}");
    }
}
