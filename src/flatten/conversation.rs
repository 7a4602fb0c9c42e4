//! Turns a conversation of the API into a row of `conversations` and rows of the three child tables.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::row::{Counts, RowContext, TAG_ID, TableBuilder, Value};
use crate::error::{Error, Result};
use crate::json::{Array, Elements, Objects, elements};
use crate::model::{LakeColumns, PerTable, RunId, Table, column, texts};

/// Where the versions of a page come from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The run that fetched the page.
    pub run_id: &'a RunId,
    /// When the server made the response: nothing in it can have changed later.
    pub exported_at: DateTime<Utc>,
    /// The position in the run of the page's first conversation.
    pub first_seq: i64,
}

/// The versions of one page as rows.
#[derive(Debug)]
pub struct Batch {
    /// The rows. The children of a conversation are adjacent, in the order of the conversations.
    pub tables: PerTable<Arc<RecordBatch>>,
    /// For each conversation, where its rows in each child table end. They begin where those of the previous one end.
    pub child_ends: PerTable<Vec<usize>>,
    /// The malformed entries.
    pub rejects: Vec<Reject>,
    /// What was counted.
    pub counts: Counts,
}

impl Batch {
    /// Returns the ids of the conversations, row by row.
    ///
    /// # Errors
    /// Only on a bug.
    pub fn conversation_ids(&self) -> Result<&StringArray> {
        texts(self.tables.get(Table::Conversations), column::CONVERSATION_ID)
            .ok_or_else(|| Error::bug("flattened rows lack their ids"))
    }

    /// Returns the rows of `table` that belong to the conversation in `row`.
    ///
    /// # Errors
    /// Only on a bug: if there is no such conversation.
    pub fn children(&self, table: Table, row: usize) -> Result<Range<usize>> {
        let ends = self.child_ends.get(table);
        let missing =
            |row| Error::bug(format!("cannot read the {} of row {row}: the page has no such row", table.name()));
        let end = |row: usize| ends.get(row).copied().ok_or_else(|| missing(row));
        Ok(row.checked_sub(1).map_or(Ok(0), end)?..end(row)?)
    }
}

/// A malformed entry of `conversations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Its text as it came.
    pub raw: String,
    /// Why it cannot be kept in the tables.
    pub reason: String,
    /// Its position in the run.
    pub seq: i64,
}

/// Flattens the raw conversations of a page to rows with these `columns`.
///
/// # Errors
/// Only on a bug: if the builders and the schemas disagree. Never because of the API's data.
pub fn flatten<'a>(
    conversations: impl IntoIterator<Item = &'a str>,
    columns: &LakeColumns,
    origin: &Origin<'_>,
) -> Result<Batch> {
    flatten_except(conversations, columns, origin, &|_| false)
}

/// The same; conversations whose id is `unwanted` are flattened too, but count nowhere, because the names of their fields
/// may say something about a person.
///
/// # Errors
/// As [`flatten`].
pub fn flatten_except<'a>(
    conversations: impl IntoIterator<Item = &'a str>,
    columns: &LakeColumns,
    origin: &Origin<'_>,
    unwanted: &dyn Fn(&str) -> bool,
) -> Result<Batch> {
    let names = Names::of(columns);
    let mut builder = BatchBuilder::new(columns, &names, unwanted);
    for (seq, raw) in (origin.first_seq..).zip(conversations) {
        if let Err(reason) = builder.append(raw, origin, seq) {
            builder.rejects.push(Reject { raw: raw.to_owned(), reason, seq });
        }
    }
    let counts = builder.take_counts();
    Ok(Batch {
        counts,
        tables: PerTable::try_from_fn(|table| builder.tables.get_mut(table).finish().map(Arc::new))?,
        child_ends: builder.child_ends,
        rejects: builder.rejects,
    })
}

/// The known fields of a conversation: those with a column first, then the id, then the three arrays.
struct Names {
    names: Vec<&'static str>,
    id: usize,
    arrays: usize,
}

impl Names {
    fn of(columns: &LakeColumns) -> Self {
        let mut names = columns.of(Table::Conversations).fields().to_vec();
        let id = names.len();
        names.push(column::CONVERSATION_ID);
        let arrays = names.len();
        names.extend(Table::CHILDREN.map(Table::name));
        Names { names, id, arrays }
    }
}

struct BatchBuilder<'n, 'a> {
    names: &'n Names,
    columns: &'n LakeColumns,
    /// The current conversation, and its arrays in the order of [`Table::CHILDREN`].
    conversation: Objects<'n, 'a>,
    arrays: [Array<'n, 'a>; 3],
    tables: PerTable<TableBuilder>,
    child_ends: PerTable<Vec<usize>>,
    rejects: Vec<Reject>,
    unwanted: &'n dyn Fn(&str) -> bool,
    /// What was counted before the last conversation that counts nowhere.
    counted: Counts,
}

impl<'n, 'a> BatchBuilder<'n, 'a> {
    fn new(columns: &'n LakeColumns, names: &'n Names, unwanted: &'n dyn Fn(&str) -> bool) -> Self {
        BatchBuilder {
            names,
            columns,
            unwanted,
            counted: Counts::default(),
            conversation: Objects::new(&names.names),
            arrays: Table::CHILDREN.map(|table| match table {
                // Tags may be bare ids.
                Table::Tags => Array::of_values(),
                _ => Array::of_objects(columns.of(table).fields()),
            }),
            tables: PerTable::from_fn(|table| TableBuilder::new(columns.of(table))),
            child_ends: PerTable::from_fn(|_| Vec::new()),
            rejects: Vec::new(),
        }
    }

    /// Returns what was counted, and begins anew.
    fn take_counts(&mut self) -> Counts {
        let mut counts = std::mem::take(&mut self.counted);
        Table::ALL.iter().for_each(|table| counts.add(self.tables.get_mut(*table).take_counts()));
        counts
    }

    /// Appends a conversation and its children; fails before the first row if it has no id.
    fn append(&mut self, json: &'a str, origin: &Origin<'_>, seq: i64) -> Result<(), String> {
        let BatchBuilder { names, columns, conversation, arrays, tables, child_ends, unwanted, counted, .. } = self;
        conversation.clear();
        conversation.split_with_arrays(json, arrays).map_err(|_| "not a JSON object".to_owned())?;
        let fields = conversation.get(0).ok_or("not a JSON object")?;
        let id_json = fields.known(names.id).ok_or("no conversation_id")?;
        let (conversation_id, id_is_exact) = identity(id_json).ok_or("conversation_id is not a usable id")?;

        let is_unwanted = unwanted(&conversation_id);
        if is_unwanted {
            Table::ALL.iter().for_each(|table| counted.add(tables.get_mut(*table).take_counts()));
        }
        let mut unplaced = Vec::new();
        if !id_is_exact {
            unplaced.push((column::CONVERSATION_ID, id_json));
        }
        let mut context = RowContext {
            conversation_id: &conversation_id,
            index: 0,
            message_count: 0,
            exported_at_micros: origin.exported_at.timestamp_micros(),
            run_id: origin.run_id.as_str(),
            seq,
        };
        for ((position, array), table) in (names.arrays..).zip(&*arrays).zip(Table::CHILDREN) {
            let (rows, fields_of) = (tables.get_mut(table), columns.of(table).fields());
            let begin = rows.len();
            match (&array.elements, fields.known(position)) {
                // The splitter left the array as it came, because the conversation is unusual.
                (_, Some(raw)) => match elements(raw) {
                    Some(values) => append_values(rows, table, fields_of, &values, &mut context),
                    None => unplaced.push((table.name(), raw)),
                },
                (Elements::Raw(values), None) => append_values(rows, table, fields_of, values, &mut context),
                (Elements::Objects(objects), None) => {
                    for (index, object) in (0..).zip(objects.iter()) {
                        context.index = index;
                        rows.append(&context, &Value::Object(object, &[]));
                    }
                }
            }
            if table == Table::Messages {
                context.message_count = i64::try_from(rows.len() - begin).unwrap_or(i64::MAX);
            }
            child_ends.get_mut(table).push(rows.len());
        }
        tables.get_mut(Table::Conversations).append(&context, &Value::Object(fields, &unplaced));
        if is_unwanted {
            Table::ALL.iter().for_each(|table| drop(tables.get_mut(*table).take_counts()));
        }
        Ok(())
    }
}

/// Appends the elements of an array of any values.
fn append_values(
    rows: &mut TableBuilder,
    table: Table,
    fields: &[&str],
    values: &[&RawValue],
    context: &mut RowContext<'_>,
) {
    let mut object = Objects::new(fields);
    for (index, value) in (0..).zip(values) {
        context.index = index;
        object.clear();
        match object.split(value.get()).ok().and_then(|()| object.get(0)) {
            Some(fields) => rows.append(context, &Value::Object(fields, &[])),
            None if table == Table::Tags && is_bare_id(value) => {
                rows.append(context, &Value::Single(TAG_ID, value));
            }
            None => rows.append(context, &Value::Other(value)),
        }
    }
}

/// Whether a tag is a bare id, as the vendor's OpenAPI file describes tags.
fn is_bare_id(element: &RawValue) -> bool {
    element.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

/// Returns the id of a conversation, and whether it is exactly what the API sent. The digits of a number, or the
/// escaped form of text that is not Unicode, are an id too, because they are always the same.
fn identity(json: &RawValue) -> Option<(Cow<'_, str>, bool)> {
    let text = json.get();
    if let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let (id, exact) = match inner.contains('\\') {
            false => (Cow::Borrowed(inner), true),
            true => match serde_json::from_str(text) {
                Ok(id) => (Cow::Owned(id), true),
                Err(_) => (Cow::Borrowed(inner), false),
            },
        };
        return (!id.is_empty()).then_some((id, exact));
    }
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some((Cow::Borrowed(text), false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int32Type;

    fn rows(conversations: &[&str]) -> Batch {
        let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
        let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 40 };
        flatten(conversations.iter().copied(), &LakeColumns::default(), &origin).unwrap()
    }

    fn text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
        let array = batch.column_by_name(column).unwrap().as_string::<i32>();
        array.iter().nth(row).unwrap().map(str::to_owned)
    }

    #[test]
    fn the_children_of_a_missing_row_are_a_bug() {
        let batch =
            rows(&[r#"{"conversation_id": "a", "messages": [{}, {}]}"#, r#"{"conversation_id": "b", "tags": ["x"]}"#]);
        let range = |table, row| batch.children(table, row).unwrap();
        assert_eq!((range(Table::Messages, 0), range(Table::Messages, 1), range(Table::Tags, 1)), (0..2, 2..2, 0..1));
        for row in [2, 3, usize::MAX] {
            let error = batch.children(Table::Messages, row).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Bug, "{row}");
        }
    }

    #[test]
    fn unwanted_conversations_count_nowhere() {
        let conversation =
            |id: &str, field: &str| format!(r#"{{"conversation_id": "{id}", "{field}": 1, "created_at": "?"}}"#);
        let raw = [conversation("a", "x"), conversation("b", "jane"), conversation("c", "x")];
        let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
        let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
        let columns = LakeColumns::default();
        let batch = flatten_except(raw.iter().map(String::as_str), &columns, &origin, &|id| id == "b").unwrap();
        assert_eq!(batch.tables.get(Table::Conversations).num_rows(), 3, "their times are needed");
        assert_eq!(batch.counts.unreadable_times.count, 2);
        assert_eq!(batch.counts.fields_without_column.iter().collect::<Vec<_>>(), [("conversations.x", 2)]);
    }

    #[test]
    fn a_malformed_entry_does_not_affect_the_others() {
        let batch = rows(&[
            r#"{"conversation_id": "a"}"#,
            r#""what?""#,
            r#"{"user_id": "u", "messages": [{}]}"#,
            r#"{"conversation_id": ""}"#,
            r#"{"conversation_id": {"x": 1}}"#,
            r#"{"conversation_id": "b", "messages": [{"text": "hi"}, "odd"]}"#,
        ]);
        assert_eq!(batch.tables.get(Table::Conversations).num_rows(), 2);
        assert_eq!(batch.child_ends.get(Table::Messages), &[0, 2]);
        let rejected: Vec<_> = batch.rejects.iter().map(|r| (r.seq, r.reason.as_str())).collect();
        assert_eq!(
            rejected,
            [
                (41, "not a JSON object"),
                (42, "no conversation_id"),
                (43, "conversation_id is not a usable id"),
                (44, "conversation_id is not a usable id")
            ]
        );
        assert_eq!(batch.rejects[1].raw, r#"{"user_id": "u", "messages": [{}]}"#);
    }

    #[test]
    fn values_that_do_not_fit_go_to_extra_as_they_came() {
        let batch = rows(&[r#"{"conversation_id": 17, "undeflected": "yes", "channels": {"a" : 1.0},
            "messages": "none", "csat_rating": 4.0, "user_id": 5}"#]);
        let conversations = batch.tables.get(Table::Conversations);
        assert_eq!(text(conversations, "conversation_id", 0).unwrap(), "17");
        assert_eq!(text(conversations, "user_id", 0).unwrap(), "5");
        assert_eq!(
            text(conversations, "extra", 0).unwrap(),
            r#"{"channels":{"a" : 1.0},"conversation_id":17,"messages":"none","user_id":5,"undeflected":"yes"}"#
        );
        let rating = conversations.column_by_name("csat_rating").unwrap().as_primitive::<Int32Type>();
        assert_eq!(rating.value(0), 4);
    }

    #[test]
    fn tags_come_as_objects_and_as_bare_ids() {
        let batch =
            rows(&[r#"{"conversation_id": "a", "tags": ["t1", {"id": "t1"}, {"name": "n", "level": 0}, 7, null]}"#]);
        let tags = batch.tables.get(Table::Tags);
        let row = |row| (text(tags, "tag_id", row), text(tags, "name", row), text(tags, "extra", row));
        assert_eq!(row(0), (Some("t1".into()), None, None));
        assert_eq!(row(1), (Some("t1".into()), None, Some("{}".into())));
        assert_eq!(row(2), (None, Some("n".into()), None));
        assert_eq!(row(3), (Some("7".into()), None, Some("7".into())));
        assert_eq!(row(4), (None, None, Some("null".into())));
    }
}
