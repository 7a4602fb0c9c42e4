//! The earliest and latest times of rows.
//!
//! Must not depend on: where rows come from.

use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};

use super::columns::column;
use super::table::times;

/// The earliest and the latest of some times, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRange {
    /// The earliest.
    pub first: i64,
    /// The latest.
    pub last: i64,
}

/// The times of some rows; `None` if no row has that time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowTimes {
    /// Their `created_at`.
    pub created_at: Option<TimeRange>,
    /// Their `updated_at`.
    pub updated_at: Option<TimeRange>,
}

impl TimeRange {
    /// The range of both.
    #[must_use]
    pub fn join(self, other: TimeRange) -> Self {
        TimeRange { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    fn of(batch: &RecordBatch, name: &str) -> Option<Self> {
        let times = times(batch, name)?;
        let times = times.iter().flatten().map(|time| TimeRange { first: time, last: time });
        times.reduce(TimeRange::join)
    }
}

impl RowTimes {
    /// The times of the rows of `batch`.
    pub fn of(batch: &RecordBatch) -> Self {
        RowTimes {
            created_at: TimeRange::of(batch, column::CREATED_AT),
            updated_at: TimeRange::of(batch, column::UPDATED_AT),
        }
    }

    /// Whether a time is known of both, and its ranges differ.
    pub fn contradict(&self, other: &RowTimes) -> bool {
        let differ =
            |one: Option<TimeRange>, other: Option<TimeRange>| one.zip(other).is_some_and(|(one, other)| one != other);
        differ(self.created_at, other.created_at) || differ(self.updated_at, other.updated_at)
    }

    /// Adds the times of other rows.
    pub fn add(&mut self, other: RowTimes) {
        let join =
            |one: Option<TimeRange>, other: Option<TimeRange>| one.into_iter().chain(other).reduce(TimeRange::join);
        self.created_at = join(self.created_at, other.created_at);
        self.updated_at = join(self.updated_at, other.updated_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_time_contradicts_nothing() {
        let of = |time: Option<i64>| RowTimes {
            created_at: time.map(|time| TimeRange { first: time, last: time }),
            updated_at: None,
        };
        assert!(of(Some(1)).contradict(&of(Some(2))));
        assert!(!of(Some(1)).contradict(&of(None)) && !of(Some(1)).contradict(&of(Some(1))));
    }

    #[test]
    fn rows_without_a_time_do_not_count() {
        let range = |first, last| Some(TimeRange { first, last });
        let mut times = RowTimes::default();
        times.add(RowTimes { created_at: range(5, 9), updated_at: None });
        times.add(RowTimes { created_at: range(2, 6), updated_at: range(7, 7) });
        times.add(RowTimes::default());
        assert_eq!(times, RowTimes { created_at: range(2, 9), updated_at: range(7, 7) });
    }
}
