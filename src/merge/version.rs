//! The one rule for which version of a conversation is the latest.
//!
//! The SQL of `views` and `examples/spark_compact.py` implement the same rule; `tests/data/latest_versions.json` has
//! the cases that all of them are tested on.

use std::ops::Range;

use arrow_array::{Array, RecordBatch};

use crate::model::{big_ints, column, texts, times};

/// The parts of a version that decide whether it is the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version<'a> {
    /// See [`changed_at`].
    pub changed_at: Option<i64>,
    /// `_exported_at`, in microseconds.
    pub exported_at: Option<i64>,
    /// `_run_id`.
    pub run_id: &'a str,
    /// `_seq`.
    pub seq: i64,
}

impl<'a> Version<'a> {
    /// Reads the version in `row` of `conversations`, with its messages and audit logs in `children`; `None` if the
    /// rows lack columns of the tables.
    pub fn of<'c>(
        conversations: &'a RecordBatch,
        row: usize,
        children: impl IntoIterator<Item = (&'c RecordBatch, Range<usize>)>,
    ) -> Option<Self> {
        Some(Version {
            changed_at: changed_at(conversations, row, children),
            exported_at: time(conversations, column::EXPORTED_AT, row),
            run_id: texts(conversations, column::RUN_ID)?.value(row),
            seq: big_ints(conversations, column::SEQ)?.value(row),
        })
    }

    /// Returns the version's position in the order of commits, which also identifies it. Run ids grow from run to run,
    /// whatever the machines' clocks say, and positions in a run from page to page.
    pub fn commit(&self) -> (&'a str, i64) {
        (self.run_id, self.seq)
    }

    /// Whether its change time is later than the response that it came in, and so cannot be true.
    pub fn is_ahead(&self) -> bool {
        self.changed_at.zip(self.exported_at).is_some_and(|(changed, exported)| changed > exported)
    }
}

/// Returns the position of the latest of `versions` of one conversation; if it occurs twice, the last position.
///
/// The latest is the version that changed last; of several that changed at the same time, the one committed last,
/// because whether a late rating or tag moves `updated_at` is not documented. A version without any time is older than
/// all others. If a version is [ahead](Version::is_ahead), its time and those of the versions committed before it do
/// not count: it replaces them, and every version committed after it replaces it.
pub fn latest(versions: &[Version<'_>]) -> Option<usize> {
    let ahead = versions.iter().filter(|version| version.is_ahead()).map(Version::commit).max();
    let order = |version: &Version<'_>| {
        let counts = ahead.is_none_or(|ahead| version.commit() > ahead);
        version.changed_at.filter(|_| counts)
    };
    let ordered = versions.iter().enumerate().map(|(at, version)| (order(version), version.commit(), at));
    ordered.max().map(|(.., at)| at)
}

/// Returns when the version in `row` of `conversations` last changed, in microseconds: its `updated_at`, or if it has
/// none its newest other time, including those of its messages and audit logs (`children`).
pub fn changed_at<'a>(
    conversations: &RecordBatch,
    row: usize,
    children: impl IntoIterator<Item = (&'a RecordBatch, Range<usize>)>,
) -> Option<i64> {
    if let Some(updated_at) = time(conversations, column::UPDATED_AT, row) {
        return Some(updated_at);
    }
    let of_children =
        children.into_iter().flat_map(|(batch, rows)| rows.filter_map(|row| time(batch, column::CREATED_AT, row)));
    other_time(conversations, row).into_iter().chain(of_children).max()
}

/// Returns the newest time in `row` of `conversations`, except `updated_at`.
pub fn other_time(conversations: &RecordBatch, row: usize) -> Option<i64> {
    let names = [column::CREATED_AT, column::LAST_MESSAGE_AT, column::LAST_USER_MESSAGE_AT];
    names.into_iter().filter_map(|name| time(conversations, name, row)).max()
}

/// Returns the time in the column `name`, in microseconds; `None` if it is null or there is no such column.
pub fn time(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let times = times(batch, name)?;
    (row < times.len() && times.is_valid(row)).then(|| times.value(row))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::parse_api_time;

    /// The cases of `latest_versions.json`, which explains them.
    #[derive(Deserialize)]
    struct Cases {
        dates: Vec<String>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        changed: Vec<Option<String>>,
        latest: usize,
    }

    #[test]
    fn the_shared_cases_hold_in_any_order() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/latest_versions.json");
        let Cases { dates, cases } = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let micros = |text: &str| parse_api_time(text).unwrap().micros;
        for Case { name, changed, latest: expected } in cases {
            let version = |(page, changed): (usize, &Option<String>)| {
                Some(Version {
                    changed_at: changed.as_deref().map(|text| (!text.is_empty()).then(|| micros(text)))?,
                    exported_at: Some(micros(&dates[page]) + 999_999),
                    run_id: if page < 2 { "20240601T000000Z-000000" } else { "20240602T000000Z-000000" },
                    seq: if page < 2 { page.try_into().unwrap() } else { 0 },
                })
            };
            let versions: Vec<_> = changed.iter().enumerate().filter_map(version).collect();
            let pages: Vec<_> = (0..changed.len()).filter(|page| changed[*page].is_some()).collect();
            assert_eq!(latest(&versions).map(|place| pages[place]), Some(expected), "{name}");
            let reversed: Vec<_> = versions.iter().rev().copied().collect();
            let place = latest(&reversed).map(|place| versions.len() - 1 - place);
            assert_eq!(place.map(|place| pages[place]), Some(expected), "{name}, in reverse order");
        }
    }

    #[test]
    fn of_a_version_that_occurs_twice_the_last_position_counts() {
        let version = Version { changed_at: Some(1), exported_at: Some(2), run_id: "a", seq: 3 };
        assert_eq!(latest(&[version, version]), Some(1));
        let ahead = Version { changed_at: Some(3), ..version };
        assert_eq!(latest(&[ahead, ahead]), Some(1));
        assert_eq!(latest(&[]), None);
    }
}
