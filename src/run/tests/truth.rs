//! Compares the conversations in the tables with the API's own objects.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::lake::Lake;
use crate::model::{Table, parse_api_time};
use crate::tables::Tables;

/// A conversation: when it changed and how many messages it has, then the texts of its messages, the names of its tags
/// and the texts of its logs.
pub(super) type Content = (i64, i32, [Vec<String>; 3]);

/// Conversations by id.
pub(super) type Conversations = BTreeMap<String, Content>;

/// The API's conversations, from one line of JSON each.
pub(super) fn expected(lines: &str) -> Conversations {
    let parse = |line: &str| {
        let conversation: Value = serde_json::from_str(line).unwrap();
        let texts = |array: &str, field: &str| {
            let elements = conversation[array].as_array().unwrap();
            elements.iter().map(|element| element[field].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let messages = texts("messages", "text");
        let updated_at = parse_api_time(conversation["updated_at"].as_str().unwrap()).unwrap().micros;
        let count = i32::try_from(messages.len()).unwrap();
        let id = conversation["conversation_id"].as_str().unwrap().to_owned();
        (id, (updated_at, count, [messages, texts("tags", "name"), texts("audit_logs", "text")]))
    };
    lines.lines().map(parse).collect()
}

/// The conversations in the tables of a lake. Panics if a conversation or the index of a child occurs twice.
pub(super) async fn found(lake: &Lake) -> Conversations {
    let tables = Tables::of(lake.store(), &lake.existing().await.unwrap()).unwrap();
    let mut conversations = Conversations::new();
    for batch in rows(lake, &tables, Table::Conversations).await {
        let ids = batch.column_by_name("conversation_id").unwrap().as_string::<i32>();
        let times = batch.column_by_name("updated_at").unwrap().as_primitive::<TimestampMicrosecondType>();
        let counts = batch.column_by_name("message_count").unwrap().as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            let content = (times.value(row), counts.value(row), [const { Vec::new() }; 3]);
            assert!(conversations.insert(ids.value(row).to_owned(), content).is_none(), "{} twice", ids.value(row));
        }
    }
    for (place, (table, text)) in
        [(Table::Messages, "text"), (Table::Tags, "name"), (Table::AuditLogs, "text")].into_iter().enumerate()
    {
        for batch in rows(lake, &tables, table).await {
            let ids = batch.column_by_name("conversation_id").unwrap().as_string::<i32>();
            let indexes = batch.column(1).as_primitive::<Int32Type>();
            let texts = batch.column_by_name(text).unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                let owner = conversations.get_mut(ids.value(row)).expect("a row without its conversation");
                assert_eq!(usize::try_from(indexes.value(row)).unwrap(), owner.2[place].len(), "of {}", ids.value(row));
                owner.2[place].push(texts.value(row).to_owned());
            }
        }
    }
    conversations
}

/// The rows of a table.
pub(super) async fn rows(lake: &Lake, tables: &Tables, table: Table) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    let (objects, others) = tables.files(table).await.unwrap();
    assert!(others.is_empty(), "{others:?}");
    for (_, object) in objects {
        let bytes = lake.store().get(&object.location).await.unwrap().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        batches.extend(reader.map(Result::unwrap));
    }
    batches
}
