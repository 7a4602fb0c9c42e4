//! Sample rows for this module's tests.

use std::ops::Range;

use arrow_array::RecordBatch;
use chrono::DateTime;

use crate::flatten::{Origin, flatten};
use crate::model::{LakeColumns, RunId, Table};

/// The rows of the conversations with these numbers; every child table has two rows for each.
pub(super) fn rows(table: Table, numbers: Range<u32>) -> RecordBatch {
    let json: Vec<_> = numbers
        .map(|number| {
            format!(
                r#"{{"conversation_id": "c{number:05}", "user_id": "u{}", "created_at": "2024-01-01T10:00:00Z",
                "summary": "about {number}", "csat": 3, "metadata": {{"n": {number}}}, "more": [{number}],
                "messages": [{{"text": "of {number}", "role": "USER"}}, {{"text": "é"}}],
                "tags": [{{"name": "t", "level": 0}}, {{"id": "of-{number}"}}],
                "audit_logs": [{{"text": "l", "payload": {{"n": {number}}}}}, {{"text": "of {number}"}}]}}"#,
                number % 7
            )
        })
        .collect();
    let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
    let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
    flatten(json.iter().map(String::as_str), &LakeColumns::default(), &origin)
        .unwrap()
        .tables
        .get(table)
        .as_ref()
        .clone()
}
