//! Inspects the rows of a page: which to stage in which partition, when they changed, and what they prove about the
//! API. Must not depend on: I/O.

use arrow_array::RecordBatch;
use chrono::{DateTime, Utc};

use super::filter_support::{Observation, observe};
use crate::error::{Error, Result};
use crate::flatten::Batch;
use crate::lake::FilterSupport;
use crate::merge::{changed_at, time};
use crate::model::{CreatedDate, PartitionBy, Table, TimestampFilter, Window, column, from_micros};

/// The result of [`inspect`].
#[derive(Debug, Default)]
pub(super) struct Inspected {
    /// The rows to stage, with their partitions.
    pub(super) kept: Vec<(CreatedDate, usize)>,
    /// When each conversation changed: the time that the window bounds, else its newest time.
    pub(super) changes: Vec<Option<DateTime<Utc>>>,
    /// The newest change, but never later than the response.
    pub(super) newest_change: Option<DateTime<Utc>>,
    /// The newest of `changes`.
    pub(super) reached: Option<DateTime<Utc>>,
    /// The number of rows outside the window.
    pub(super) outside: u64,
    /// The first row outside even the bounds that were sent: its id, and the time that the window bounds.
    pub(super) stray: Option<(String, DateTime<Utc>)>,
}

/// When a page was requested and answered, by the server's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerTimes {
    /// When the page's walk began.
    pub(super) asked_at: DateTime<Utc>,
    /// When it was answered.
    pub(super) answered_at: DateTime<Utc>,
}

/// Inspects the conversations of `batch`, which the API returned for `window`.
///
/// # Errors
/// Only on a bug.
pub(super) fn inspect(
    batch: &Batch,
    window: &Window,
    times: AnswerTimes,
    partition_by: PartitionBy,
    filter_support: &mut FilterSupport,
) -> Result<Inspected> {
    let rows = batch.tables.get(Table::Conversations);
    let ids = batch.conversation_ids()?;
    let mut found = Inspected { kept: Vec::with_capacity(rows.num_rows()), ..Inspected::default() };
    for row in 0..rows.num_rows() {
        let version = Observation {
            conversation_id: ids.value(row),
            created_at: instant(rows, column::CREATED_AT, row),
            updated_at: instant(rows, column::UPDATED_AT, row),
            changed_at: newest_time(batch, row)?,
        };
        // A version that changed after the response proves nothing.
        if version.changed_at.is_some_and(|changed_at| changed_at <= times.answered_at) {
            observe(filter_support, window, times.asked_at, &version);
        }
        let bounded = bounded_time(window, rows, row);
        let changed = bounded.or(version.changed_at);
        found.changes.push(changed);
        found.newest_change = found.newest_change.max(version.changed_at.map(|time| time.min(times.answered_at)));
        found.reached = found.reached.max(changed);
        // A version without that time is kept, because the API may know it: a late rating may move an `updated_at` that
        // an account never shows. The bounds of a window with an end are sent too wide, so they are made exact here. A
        // window without an end keeps everything.
        let stray = bounded.filter(|time| !window.asks_for(*time));
        let left_out = window.to.is_some() && bounded.is_some_and(|time| !window.contains(time));
        found.outside += u64::from(left_out || stray.is_some());
        if let Some(time) = stray {
            found.stray.get_or_insert_with(|| (version.conversation_id.to_owned(), time));
        }
        if !left_out {
            found.kept.push((partition_by.of(version.created_at), row));
        }
    }
    Ok(found)
}

/// When the conversation in `row` changed: the time that the window bounds, else its newest time.
///
/// # Errors
/// Only on a bug.
pub(super) fn change_time(batch: &Batch, window: &Window, row: usize) -> Result<Option<DateTime<Utc>>> {
    match bounded_time(window, batch.tables.get(Table::Conversations), row) {
        None => newest_time(batch, row),
        bounded => Ok(bounded),
    }
}

/// When the version in `row` last changed, by all its times.
fn newest_time(batch: &Batch, row: usize) -> Result<Option<DateTime<Utc>>> {
    let of = |table| Ok::<_, Error>((batch.tables.get(table).as_ref(), batch.children(table, row)?));
    let children = [of(Table::Messages)?, of(Table::AuditLogs)?];
    Ok(changed_at(batch.tables.get(Table::Conversations), row, children).and_then(from_micros))
}

/// The time of a version that the window bounds; `None` if the version lacks it.
fn bounded_time(window: &Window, rows: &RecordBatch, row: usize) -> Option<DateTime<Utc>> {
    let name = match window.filter {
        TimestampFilter::UpdatedAt => column::UPDATED_AT,
        TimestampFilter::CreatedAt => column::CREATED_AT,
        TimestampFilter::LastMessageTime => column::LAST_MESSAGE_AT,
    };
    instant(rows, name, row)
}

fn instant(rows: &RecordBatch, name: &str, row: usize) -> Option<DateTime<Utc>> {
    time(rows, name, row).and_then(from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flatten::{Origin, flatten};
    use crate::model::{LakeColumns, RunId};

    fn inspected(window: &Window, conversations: &[&str]) -> Inspected {
        let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
        let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
        let batch = flatten(conversations.iter().copied(), &LakeColumns::default(), &origin).unwrap();
        let answered_at = DateTime::from_timestamp(10_000, 0).unwrap();
        let times = AnswerTimes { asked_at: DateTime::UNIX_EPOCH, answered_at };
        inspect(&batch, window, times, PartitionBy::Day, &mut FilterSupport::default()).unwrap()
    }

    #[test]
    fn a_change_after_the_response_moves_the_watermark_only_to_the_response() {
        let rows = [
            r#"{"conversation_id": "a", "updated_at": "1970-01-01T01:00:00Z"}"#,
            r#"{"conversation_id": "b", "updated_at": "2099-01-01T00:00:00Z"}"#,
        ];
        let newest = |count| inspected(&Window::EVERYTHING, &rows[..count]).newest_change.unwrap().timestamp();
        assert_eq!((newest(1), newest(2)), (3_600, 10_000));
    }

    #[test]
    fn rows_outside_the_bounds_sent_are_strays_and_rows_outside_the_window_are_not() {
        let at = |secs| DateTime::from_timestamp(secs, 0);
        let window = Window { from: at(100), to: at(200), ..Window::EVERYTHING };
        let rows = [
            r#"{"conversation_id": "early", "updated_at": "1970-01-01T00:01:39.5Z"}"#,
            r#"{"conversation_id": "inside", "updated_at": "1970-01-01T00:01:40Z"}"#,
            r#"{"conversation_id": "end", "updated_at": "1970-01-01T00:03:20Z"}"#,
            r#"{"conversation_id": "silent"}"#,
        ];
        let found = inspected(&window, &rows);
        assert_eq!(found.kept.iter().map(|(_, row)| *row).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((found.outside, found.stray), (2, None));

        let stray = r#"{"conversation_id": "stray", "updated_at": "1970-01-01T01:00:00Z"}"#;
        let found = inspected(&window, &[rows[1], stray]);
        assert_eq!((found.kept.len(), found.outside), (1, 1));
        assert_eq!(found.stray.unwrap().0, "stray");

        let open = Window { to: None, ..window };
        let found = inspected(&open, &[r#"{"conversation_id": "old", "updated_at": "1970-01-01T00:00:01Z"}"#]);
        assert_eq!((found.kept.len(), found.outside, found.stray.is_some()), (1, 1, true), "kept all the same");
    }
}
