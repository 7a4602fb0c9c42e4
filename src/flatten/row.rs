//! One table being filled row by row from the API's objects.

use arrow_array::RecordBatch;
use serde_json::value::RawValue;

use super::column::ColumnBuilder;
use crate::error::Result;
use crate::model::{Column, Fields, Source, Table};

/// What the program itself adds to a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) conversation_id: &'a str,
    pub(super) index: i64,
    pub(super) message_count: i64,
    pub(super) exported_at_micros: i64,
    pub(super) run_id: &'a str,
    pub(super) seq: i64,
}

/// The API's side of a row: an object taken apart, or a value that is no object.
pub(super) enum Value<'a> {
    /// An object: its fields (the table's [`field_names`] first), and fields the caller could not place.
    Object(&'a Fields<'a>, &'a [(&'a str, &'a RawValue)]),
    /// Anything else, kept whole in `extra`.
    Other(&'a RawValue),
    /// A value that is that of the one field at this position: a bare tag id.
    Single(usize, &'a RawValue),
}

/// The position of a tag's id among the [`field_names`] of its table.
pub(super) const TAG_ID: usize = 0;

/// The API's names of the fields that have a column in `table`, in the columns' order.
pub(super) fn field_names(table: Table) -> Vec<&'static str> {
    let field = |column: &Column| match column.source {
        Source::Field(name) => Some(name),
        _ => None,
    };
    table.columns().iter().filter_map(field).collect()
}

/// A growing table.
#[derive(Debug)]
pub(super) struct TableBuilder {
    table: Table,
    columns: Vec<ColumnBuilder>,
    /// Scratch for `extra`.
    extra: String,
}

impl TableBuilder {
    pub(super) fn new(table: Table) -> Self {
        let columns = table.columns().iter().map(|column| ColumnBuilder::new(column.kind)).collect();
        TableBuilder { table, columns, extra: String::new() }
    }

    /// Appends one row.
    pub(super) fn append(&mut self, context: &Context<'_>, value: &Value<'_>) {
        self.extra.clear();
        match value {
            Value::Object(fields, unplaced) => {
                fields.others.iter().chain(*unplaced).for_each(|(name, raw)| push_extra(&mut self.extra, name, raw));
            }
            Value::Other(raw) => self.extra.push_str(raw.get()),
            Value::Single(..) => {}
        }
        let mut fields_seen = 0;
        let mut fields_set = 0;
        for (column, builder) in self.table.columns().iter().zip(&mut self.columns) {
            match column.source {
                Source::ConversationId => builder.append_str(context.conversation_id),
                Source::Index => builder.append_number(context.index),
                Source::MessageCount => builder.append_number(context.message_count),
                Source::ExportedAt => builder.append_number(context.exported_at_micros),
                Source::RunId => builder.append_str(context.run_id),
                Source::Seq => builder.append_number(context.seq),
                Source::Field(name) => {
                    let raw = match value {
                        Value::Object(fields, _) => fields.known(fields_seen),
                        Value::Single(position, raw) => (*position == fields_seen).then_some(*raw),
                        Value::Other(_) => None,
                    };
                    fields_seen += 1;
                    match raw {
                        None => builder.append_null(),
                        Some(raw) => {
                            fields_set += 1;
                            if !builder.append(raw) {
                                match value {
                                    Value::Object(..) => push_extra(&mut self.extra, &format!("\"{name}\""), raw),
                                    Value::Single(..) | Value::Other(_) => self.extra.push_str(raw.get()),
                                }
                            }
                        }
                    }
                }
                Source::Extra => {
                    close_extra(&mut self.extra, self.table, value, fields_set);
                    match self.extra.as_str() {
                        "" => builder.append_null(),
                        extra => builder.append_str(extra),
                    }
                }
            }
        }
    }

    /// The rows so far; the builder starts anew.
    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        Ok(RecordBatch::try_new(self.table.schema(), columns)?)
    }

    pub(super) fn len(&self) -> usize {
        self.columns.first().map_or(0, ColumnBuilder::len)
    }
}

fn push_extra(extra: &mut String, quoted_name: &str, value: &RawValue) {
    extra.push(if extra.is_empty() { '{' } else { ',' });
    extra.push_str(quoted_name);
    extra.push(':');
    extra.push_str(value.get());
}

/// Ends the object in `extra`. A tag that is an object with nothing but an id gets `{}`, or it would look like a bare
/// id.
fn close_extra(extra: &mut String, table: Table, value: &Value<'_>, fields_set: usize) {
    let Value::Object(fields, _) = value else { return };
    if !extra.is_empty() {
        extra.push('}');
    } else if table == Table::Tags && fields_set == 1 && fields.known(TAG_ID).is_some() {
        extra.push_str("{}");
    }
}
