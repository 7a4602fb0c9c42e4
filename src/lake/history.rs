//! How much history a lake keeps: run reports by number, quarantine files by age.
//!
//! Guarantees: removes only objects with the name of a run report or a quarantine file, the oldest first; no run
//! depends on them. A run makes two listings, whose length the retention bounds.
//! Must not depend on: the content of the objects.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::future::ready;
use object_store::path::Path;

use crate::error::Result;
use crate::layout;
use crate::store::Store;

/// The most objects of a kind that one run removes, so that the first run on a lake with a long history stays short.
pub const AT_ONCE: usize = 2_000;

/// How much history to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The number of run reports.
    pub reports: usize,
    /// The age of quarantine files.
    pub quarantine: Duration,
}

impl Default for History {
    fn default() -> Self {
        History { reports: 1_000, quarantine: Duration::from_secs(90 * 86_400) }
    }
}

/// Removes all run reports but the newest `keep`, and returns how many.
///
/// # Errors
/// If the store fails.
pub async fn prune_reports(store: &Store, keep: usize) -> Result<usize> {
    let mut reports = run_reports(store).await?;
    let surplus = reports.len().saturating_sub(keep);
    // Names sort by time.
    reports.sort_unstable();
    reports.truncate(surplus);
    prune(store, reports).await
}

/// Removes the quarantine files of runs that started before `oldest`, and returns how many.
///
/// # Errors
/// If the store fails.
pub async fn prune_quarantine(store: &Store, oldest: DateTime<Utc>) -> Result<usize> {
    let is_older = |key: &Path| layout::quarantine_start(key).filter(|start| *start < oldest);
    let mut older = named(store, layout::quarantines(), is_older).await?;
    older.sort_unstable();
    prune(store, older).await
}

/// Counts the quarantine files.
///
/// # Errors
/// If the store fails.
pub async fn quarantine_files(store: &Store) -> Result<u64> {
    Ok(named(store, layout::quarantines(), layout::quarantine_start).await?.len() as u64)
}

/// The keys of the run reports.
///
/// # Errors
/// If the store fails.
pub(super) async fn run_reports(store: &Store) -> Result<Vec<Path>> {
    named(store, layout::run_reports(), layout::run_report_start).await
}

/// The keys in a folder for which `start` returns a time.
async fn named(store: &Store, folder: Path, start: impl Fn(&Path) -> Option<DateTime<Utc>>) -> Result<Vec<Path>> {
    let keys = store.list(folder).map_ok(|object| object.location);
    keys.try_filter(|key| ready(start(key).is_some())).try_collect().await
}

async fn prune(store: &Store, mut keys: Vec<Path>) -> Result<usize> {
    keys.truncate(AT_ONCE);
    let count = keys.len();
    if count > 0 {
        store.delete(keys).await?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::layout::FlushId;
    use crate::model::RunId;

    fn run(hour: u32) -> RunId {
        RunId::new(DateTime::from_timestamp(i64::from(hour) * 3_600, 0).unwrap(), 9_999_999 - hour)
    }

    async fn left(store: &Store, folder: Path) -> Vec<Path> {
        let mut keys: Vec<_> = store.list(folder).map_ok(|object| object.location).try_collect().await.unwrap();
        keys.sort();
        keys
    }

    #[tokio::test]
    async fn the_newest_reports_and_other_files_stay() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let others = ["notes.json", "20240101T000000Z-00000g.json", "20240101T000000Z-00000a.txt"];
        for other in others {
            store.put(&layout::run_reports().join(other), "mine").await.unwrap();
        }
        for hour in 0..2_500 {
            store.put(&layout::run_report(&run(hour)), "{}").await.unwrap();
        }
        assert_eq!(prune_reports(&store, 2_500).await.unwrap(), 0);
        assert_eq!(prune_reports(&store, 100).await.unwrap(), AT_ONCE, "the next run removes the others");
        assert_eq!(prune_reports(&store, 100).await.unwrap(), 400);
        assert_eq!(store.calls().list, 3 + 3 + 1, "a page of a listing has a thousand keys");
        let newest = (2_400..2_500).map(|hour| layout::run_report(&run(hour)));
        let mut kept: Vec<_> = newest.chain(others.map(|other| layout::run_reports().join(other))).collect();
        kept.sort();
        assert_eq!(left(&store, layout::run_reports()).await, kept);
    }

    #[tokio::test]
    async fn quarantine_files_go_by_the_start_of_their_run() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let key = |hour, number| layout::quarantine(&FlushId { run: run(hour), number });
        let others = layout::quarantines().join("20240101T000000Z.jsonl");
        for key in [key(1, 0), key(1, 12_345), key(2, 0), key(3, 0), others.clone()] {
            store.put(&key, "{}").await.unwrap();
        }
        let oldest = DateTime::from_timestamp(2 * 3_600, 0).unwrap();
        assert_eq!(prune_quarantine(&store, oldest).await.unwrap(), 2);
        assert_eq!(left(&store, layout::quarantines()).await, [key(2, 0), key(3, 0), others]);
        assert_eq!(prune_quarantine(&store, oldest).await.unwrap(), 0);
    }
}
