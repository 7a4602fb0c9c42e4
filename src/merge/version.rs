//! Which of two copies of a conversation is the newer one.

use std::ops::Range;

use arrow_array::{Array, RecordBatch};

use crate::model::{big_ints, column, times};

/// The order of the copies of one conversation: when it changed, then when the copy was fetched, then its place in the
/// run. Whether a late rating or tag moves `updated_at` is not documented, so of two copies with the same one, the one
/// fetched later is the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// See [`changed_at`].
    pub changed_at: Option<i64>,
    /// `_exported_at`, in microseconds.
    pub exported_at: Option<i64>,
    /// `_seq`.
    pub seq: i64,
}

impl Version {
    /// The version of the copy whose conversation is in `row` of `conversations`, and its messages and audit logs in
    /// `children`; `None` where the rows are not of the tables.
    pub fn of<'a>(
        conversations: &RecordBatch,
        row: usize,
        children: impl IntoIterator<Item = (&'a RecordBatch, Range<usize>)>,
    ) -> Option<Self> {
        Some(Version {
            changed_at: changed_at(conversations, row, children),
            exported_at: time(conversations, column::EXPORTED_AT, row),
            seq: big_ints(conversations, column::SEQ)?.value(row),
        })
    }
}

/// When the copy in `row` of `conversations` last changed, in microseconds: its `updated_at` or, where it has none, its
/// newest other time, those of its messages and audit logs (`children`) included.
pub fn changed_at<'a>(
    conversations: &RecordBatch,
    row: usize,
    children: impl IntoIterator<Item = (&'a RecordBatch, Range<usize>)>,
) -> Option<i64> {
    if let Some(updated_at) = time(conversations, column::UPDATED_AT, row) {
        return Some(updated_at);
    }
    let own = [column::CREATED_AT, column::LAST_MESSAGE_AT, column::LAST_USER_MESSAGE_AT]
        .into_iter()
        .filter_map(|name| time(conversations, name, row));
    let of_children =
        children.into_iter().flat_map(|(batch, rows)| rows.filter_map(|row| time(batch, column::CREATED_AT, row)));
    own.chain(of_children).max()
}

/// The time in the column `name`, in microseconds; `None` where it is null or there is no such column.
pub fn time(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let times = times(batch, name)?;
    (row < times.len() && times.is_valid(row)).then(|| times.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_change_then_fetch_then_place() {
        let version = |changed_at, exported_at, seq| Version { changed_at, exported_at: Some(exported_at), seq };
        assert!(version(Some(2), 1, 0) > version(Some(1), 9, 9));
        assert!(version(Some(1), 2, 0) > version(Some(1), 1, 9));
        assert!(version(Some(1), 1, 1) > version(Some(1), 1, 0));
        assert!(version(Some(i64::MIN), 0, 0) > version(None, 9, 9));
    }
}
