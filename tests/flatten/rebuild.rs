//! Rebuilds API objects from rows, for any JSON, to show that flattening loses nothing.
//!
//! A null field with a column equals a missing one, and an empty or null array equals a missing one, because the API
//! does not distinguish them.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use decagon_lake::flatten::{Batch, Origin, flatten};
use decagon_lake::model::{ColumnKind, ColumnSource, LakeColumns, RunId, Table, parse_api_time};

fn cell(batch: &RecordBatch, column: usize, kind: ColumnKind, row: usize) -> Value {
    let array = batch.column(column);
    if array.is_null(row) {
        return Value::Null;
    }
    match kind {
        ColumnKind::Text => array.as_string::<i32>().value(row).into(),
        ColumnKind::Json => serde_json::from_str(array.as_string::<i32>().value(row)).unwrap(),
        ColumnKind::Int => array.as_primitive::<Int32Type>().value(row).into(),
        ColumnKind::Bool => array.as_boolean().value(row).into(),
        ColumnKind::Time => json!({ "micros": array.as_primitive::<TimestampMicrosecondType>().value(row) }),
        ColumnKind::Id => {
            let text = array.as_string::<i32>().value(row);
            let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            number.map_or_else(|| text.into(), Value::from)
        }
        ColumnKind::Double | ColumnKind::BigInt => Value::Null,
    }
}

/// Rebuilds an API object from a row; returns it with its conversation's id.
fn object(table: Table, batch: &RecordBatch, row: usize) -> (String, Value) {
    let (mut fields, mut id, mut extra) = (Map::new(), String::new(), Value::Null);
    for (position, column) in table.columns().iter().enumerate() {
        let value = cell(batch, position, column.kind, row);
        match column.source {
            ColumnSource::ConversationId => id = value.as_str().unwrap().to_owned(),
            ColumnSource::Extra => extra = value,
            ColumnSource::Field(name) if !value.is_null() => drop(fields.insert(name.to_owned(), value)),
            _ => {}
        }
    }
    if table == Table::Conversations {
        fields.insert("conversation_id".to_owned(), id.clone().into());
    }
    let has_extra = !batch.column_by_name("extra").unwrap().is_null(row);
    let value = match extra {
        Value::Object(extra) => {
            fields.extend(extra);
            Value::Object(fields)
        }
        other if has_extra => other,
        _ if table == Table::Tags && fields.len() == 1 && fields.contains_key("id") => fields["id"].clone(),
        _ => Value::Object(fields),
    };
    (id, value)
}

/// Rebuilds every conversation of a batch, by id.
pub(crate) fn rebuild(batch: &Batch) -> BTreeMap<String, Value> {
    let conversations = batch.tables.get(Table::Conversations);
    let mut objects: BTreeMap<String, Value> =
        (0..conversations.num_rows()).map(|row| object(Table::Conversations, conversations, row)).collect();
    for table in Table::CHILDREN {
        let rows = batch.tables.get(table);
        for row in 0..rows.num_rows() {
            let (id, element) = object(table, rows, row);
            let owner = objects.get_mut(&id).unwrap().as_object_mut().unwrap();
            let list = owner.entry(table.name()).or_insert_with(|| json!([])).as_array_mut().unwrap();
            list.push(element);
        }
    }
    objects
}

/// Normalizes an object as the tables can hold it: times as instants, whole numbers as integers, no nulls.
pub(crate) fn normal(table: Table, value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let mut fields = fields.clone();
    for column in table.columns() {
        let ColumnSource::Field(name) = column.source else { continue };
        match (column.kind, fields.get(name)) {
            (_, Some(Value::Null)) => drop(fields.remove(name)),
            (ColumnKind::Time, Some(Value::String(text))) => {
                if let Some(time) = parse_api_time(text).filter(|time| time.exact) {
                    fields.insert(name.to_owned(), json!({ "micros": time.micros }));
                }
            }
            (ColumnKind::Int, Some(Value::Number(number))) => {
                let whole = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= f64::from(i32::MAX));
                if let Some(whole) = whole {
                    fields.insert(name.to_owned(), format!("{whole}").parse::<i64>().unwrap().into());
                }
            }
            _ => {}
        }
    }
    if table == Table::Conversations {
        for child in Table::CHILDREN {
            match fields.get(child.name()) {
                Some(Value::Array(list)) if !list.is_empty() => {
                    let list = list.iter().map(|element| normal(child, element)).collect();
                    fields.insert(child.name().to_owned(), Value::Array(list));
                }
                Some(Value::Null | Value::Array(_)) => drop(fields.remove(child.name())),
                _ => {}
            }
        }
    }
    Value::Object(fields)
}

/// Any JSON, often with the API's own names and the shapes that nearly fit.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..9).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4.0f64..4.0).prop_map(Value::from),
        Just(json!(4.0)),
        any::<String>().prop_map(Value::from),
        Just(json!("2024-01-01 21:42:10.309970")),
        Just(json!("2024-01-01T21:42:10.309970123+02:00")),
        any_lenient(),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any_name(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Times, numbers and booleans in forms that some servers use.
fn any_lenient() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(1_704_145_330),
        json!(1_704_145_330_309_i64),
        json!(1_704_145_330.5),
        json!("1704145330"),
        json!("2024-01-01T21:42Z"),
        json!("2024-01-01 21:42:10,5 UTC"),
        json!("2024-01-01"),
        json!("Mon, 01 Jan 2024 21:42:10 GMT"),
        json!("0001-01-01T00:00:00Z"),
        json!("4"),
        json!(" 4.0"),
        json!("True"),
        json!("0"),
    ])
}

fn any_name() -> impl Strategy<Value = String> {
    let known: Vec<String> = Table::ALL
        .iter()
        .flat_map(|table| table.columns())
        .map(|column| column.name.to_string())
        .chain(["messages", "tags", "audit_logs", "id", "all_tags", ""].map(str::to_owned))
        .collect();
    prop_oneof![4 => prop::sample::select(known), 1 => any::<String>()]
}

/// The fields of a conversation; the caller sets the id.
pub(crate) fn any_conversation() -> impl Strategy<Value = Map<String, Value>> {
    let elements = || prop::collection::vec(any_json(), 0..4).prop_map(Value::from);
    (prop::collection::btree_map(any_name(), any_json(), 0..12), prop::option::of((elements(), elements(), elements())))
        .prop_map(|(fields, lists)| {
            let mut fields: Map<String, Value> = fields.into_iter().collect();
            if let Some((messages, tags, logs)) = lists {
                fields.extend([("messages".into(), messages), ("tags".into(), tags), ("audit_logs".into(), logs)]);
            }
            fields
        })
}

pub(crate) fn flatten_all(conversations: &[String]) -> Batch {
    let run_id = RunId::new(DateTime::UNIX_EPOCH, 0);
    let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
    flatten(conversations.iter().map(String::as_str), &LakeColumns::default(), &origin).unwrap()
}

proptest! {
    #![proptest_config(crate::config())]

    #[test]
    fn every_object_can_be_rebuilt_from_its_rows(conversations in prop::collection::vec(any_conversation(), 1..4)) {
        let objects: BTreeMap<String, Value> = conversations
            .into_iter()
            .enumerate()
            .map(|(i, mut fields)| {
                let id = format!("c{i}");
                fields.insert("conversation_id".into(), id.clone().into());
                (id, Value::Object(fields))
            })
            .collect();
        let texts: Vec<String> = objects.values().map(Value::to_string).collect();
        let batch = flatten_all(&texts);
        prop_assert!(batch.rejects.is_empty());
        // Both sides went through the JSON parser, because its doubles may differ in the last digit from the text.
        let sent = texts.iter().map(|text| serde_json::from_str(text).unwrap());
        let expected: BTreeMap<_, _> =
            objects.keys().cloned().zip(sent.map(|object: Value| normal(Table::Conversations, &object))).collect();
        prop_assert_eq!(rebuild(&batch), expected);
    }

    #[test]
    fn any_entry_is_kept_or_rejected_as_it_came(values in prop::collection::vec(any_json(), 1..6)) {
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let batch = flatten_all(&texts);
        let kept = batch.tables.get(Table::Conversations).num_rows();
        prop_assert_eq!(kept + batch.rejects.len(), texts.len());
        for reject in &batch.rejects {
            prop_assert!(texts.contains(&reject.raw));
        }
    }
}

/// JSON that no library writes but a server may send. If a name occurs twice, the last one counts.
#[test]
fn unusual_json_is_kept_as_it_came() {
    let sent = [
        r#"{"conversation_id": "c1", "messages": [{"text": "half \ud83d emoji", "role": "U\u0053ER"}], "huge": 1e400}"#,
        r#"{"conversation_id": "x", "conversation_id": "c2", "user_id": "a", "user_id": "b", "na\u006de": 1.50}"#,
        r#"{"conversation_id": 3, "csat_rating": 1e400, "tags": ["\udc00"], "lone \ud800 key": {"deep": [[[]]]}}"#,
        r#"{"conversation_id": "half \ud83d id", "metadata": {"a" : 1.0}}"#,
    ];
    let batch = flatten_all(&sent.map(str::to_owned));
    assert!(batch.rejects.is_empty());
    let column = |table: Table, name: &str| {
        let rows = batch.tables.get(table).column_by_name(name).unwrap().as_string::<i32>().clone();
        rows.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        column(Table::Conversations, "conversation_id"),
        [some("c1"), some("c2"), some("3"), some(r"half \ud83d id")]
    );
    assert_eq!(
        column(Table::Conversations, "extra"),
        [
            some(r#"{"huge":1e400}"#),
            some(r#"{"na\u006de":1.50}"#),
            some(r#"{"lone \ud800 key":{"deep": [[[]]]},"conversation_id":3,"csat_rating":1e400}"#),
            some(r#"{"conversation_id":"half \ud83d id"}"#),
        ]
    );
    assert_eq!(column(Table::Conversations, "user_id")[1], some("b"));
    assert_eq!(column(Table::Conversations, "metadata")[3], some(r#"{"a" : 1.0}"#));
    assert_eq!(column(Table::Messages, "role"), [some("USER")]);
    assert_eq!(column(Table::Messages, "extra"), [some(r#"{"text":"half \ud83d emoji"}"#)]);
    assert_eq!(column(Table::Tags, "extra"), [some(r#""\udc00""#)]);
}
