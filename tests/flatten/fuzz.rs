//! Garbled pages, which no library would write.

use decagon_lake::api::Page;
use decagon_lake::model::Table;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::rebuild::{any_conversation, any_json, flatten_all, normal, rebuild};

/// Pieces that are likely to change the meaning of a page.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"-",
    b"0",
    b"1e400",
    b"-0.0",
    b"9007199254740993",
    b"\"\\ud83d\"",
    b"\\udc00",
    b"\\u0000",
    b"\\n",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b" ",
    b"\n",
    b"\"conversation_id\":",
    b"\"messages\":[",
    b"\"messages\":{}",
    b"\"next_cursor\":0",
    b"\"conversations\":[",
    b"\"\":",
    b"\"a\":1,\"a\":2",
    b"{\"conversation_id\":\"x\"}",
    b"[[[[[[[[[[[[",
    b"\"0001-01-01T00:00:00+14:00\"",
    b"\"9999-12-31T23:59:59.9999999-12:00\"",
];

/// Edits of a text: the position (in 65,536ths of its length), the number of bytes to replace, and the piece.
fn edits() -> impl Strategy<Value = Vec<(u16, u8, usize)>> {
    prop::collection::vec((any::<u16>(), 0u8..6, 0..PIECES.len()), 0..6)
}

fn garbled(mut text: Vec<u8>, edits: &[(u16, u8, usize)]) -> Vec<u8> {
    for (position, removed, piece) in edits {
        let at = text.len() * usize::from(*position) / 65_536;
        let end = (at + usize::from(*removed)).min(text.len());
        text.splice(at..end, PIECES[*piece].iter().copied());
    }
    text
}

/// A page of conversations, most with an id, and any other values.
fn any_page() -> impl Strategy<Value = Value> {
    let entry = (any_conversation(), prop::option::weighted(0.9, any_json())).prop_map(|(mut fields, id)| {
        if let Some(id) = id {
            let id = if id.is_string() { id } else { Value::from("c") };
            fields.insert("conversation_id".to_owned(), id);
        }
        Value::Object(fields)
    });
    let entries = prop::collection::vec(prop_oneof![9 => entry, 1 => any_json()], 0..4);
    (entries, any_json(), any_json()).prop_map(|(entries, cursor, other)| {
        let fields = [("conversations", Value::from(entries)), ("next_cursor", cursor), ("other", other)];
        Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<Map<_, _>>())
    })
}

/// Asserts that every entry of a page is whole in its rows, or rejected as it came.
fn assert_nothing_is_lost(page: &Page) {
    let entries: Vec<String> = page.conversations().map(str::to_owned).collect();
    assert_eq!(entries.len(), page.len());
    let batch = flatten_all(&entries);
    assert_eq!(batch.tables.get(Table::Conversations).num_rows() + batch.rejects.len(), entries.len());
    for entry in &entries {
        let one = flatten_all(std::slice::from_ref(entry));
        if let [reject] = one.rejects.as_slice() {
            assert_eq!(&reject.raw, entry);
            continue;
        }
        // The tests of the columns compare text that serde_json refuses, such as half a surrogate pair.
        if let Ok(object) = serde_json::from_str::<Value>(entry) {
            let mut rebuilt = rebuild(&one);
            let (_, rebuilt) = rebuilt.pop_first().unwrap();
            assert_eq!(rebuilt, normal(Table::Conversations, &object));
        }
    }
}

proptest! {
    #![proptest_config(crate::config())]

    #[test]
    fn garbled_pages_are_refused_or_kept_whole(page in any_page(), pretty: bool, edits in edits()) {
        let text = if pretty { serde_json::to_vec_pretty(&page) } else { serde_json::to_vec(&page) }.unwrap();
        if let Ok(page) = Page::parse(garbled(text, &edits)) {
            assert_nothing_is_lost(&page);
        }
    }

    #[test]
    fn a_sound_page_is_never_refused(page in any_page()) {
        let entries = page["conversations"].as_array().unwrap().len();
        let text = serde_json::to_vec(&page).unwrap();
        if matches!(page["next_cursor"], Value::Array(_) | Value::Object(_) | Value::Bool(true)) {
            prop_assert!(Page::parse(text).is_err(), "the next cursor cannot be read");
            return Ok(());
        }
        let page = Page::parse(text).unwrap();
        prop_assert_eq!(page.len(), entries);
        assert_nothing_is_lost(&page);
    }

    #[test]
    fn any_bytes_are_refused_or_kept_whole(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(page) = Page::parse(bytes) {
            assert_nothing_is_lost(&page);
        }
    }
}
