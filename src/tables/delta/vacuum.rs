//! Finds the unused files of a Delta table: files that a commit removed, files that no commit ever named, and old parts
//! of the log that a checkpoint of the log supersedes.
//!
//! Guarantees: a file that a reader of a retained version, or another writer, may need is not found. Files are listed
//! first and the table is read last.
//! Must not depend on: when the files are deleted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::Deserialize;

use super::log::DeltaTable;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::{PerTable, Table};

/// How many commits to read at a time.
pub(super) const READS_AT_ONCE: usize = 8;
/// The least age of log files to delete, as with other writers (`delta.logRetentionDuration`).
const LOG_DAYS: i64 = 30;
/// The least age of a file to delete that no commit ever named, because another writer may be about to commit it.
const UNCOMMITTED_HOURS: i64 = 1;

/// The part of a commit's action that matters here.
#[derive(Deserialize)]
struct Action {
    remove: Option<Removed>,
}

#[derive(Deserialize)]
struct Removed {
    path: String,
}

/// A Delta table's log, and the files that its newest version does not use.
#[derive(Default)]
pub(in crate::tables) struct Unused {
    pub(in crate::tables) log: Vec<ObjectMeta>,
    pub(in crate::tables) files: Vec<ObjectMeta>,
}

impl DeltaTable {
    /// Finds the objects of `table` that existed before `since` and that no version since then uses.
    ///
    /// # Errors
    /// If the store fails.
    pub(in crate::tables) async fn expired(
        tables: Arc<PerTable<Self>>,
        table: Table,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Path>> {
        let own = tables.get(table);
        let Unused { log, mut files } = Self::unused(Arc::clone(&tables), table).await?;
        files.retain(|object| object.last_modified < since);
        let mut expired = files;
        if !expired.is_empty() {
            let uncommitted = now - chrono::Duration::hours(UNCOMMITTED_HOURS);
            let Some(removed) = own.removed_since(&log, since.min(uncommitted)).await? else { return Ok(Vec::new()) };
            expired.retain(|object| match removed.get(&object.location) {
                Some(removed_at) => *removed_at < since,
                // A commit before removed it, or no commit ever named it.
                None => object.last_modified < uncommitted,
            });
        }
        let mut expired: Vec<_> = expired.into_iter().map(|object| object.location).collect();
        expired.extend(superseded(&log, since.min(now - chrono::Duration::days(LOG_DAYS))));
        Ok(expired)
    }

    /// Lists the log of `table`, and the files beside it that the newest version does not use: those of earlier versions,
    /// and those that nobody has committed yet. There are none if there is no table.
    ///
    /// # Errors
    /// If the store fails.
    pub(in crate::tables) async fn unused(tables: Arc<PerTable<Self>>, table: Table) -> Result<Unused> {
        let listed: Vec<_> = tables.get(table).store.list(layout::table_folder(table)).try_collect().await?;
        let (log, mut files): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|object| object.location.prefix_matches(&layout::delta_log(table)));
        // The table is read last, so that a file listed before it was committed counts as used.
        let task = tokio::task::spawn_blocking(move || tables.get(table).refresh());
        let state = task.await.map_err(|error| Error::bug("the log's reader failed").caused_by(error))??;
        let Some(state) = state else { return Ok(Unused::default()) };
        let known: HashSet<_> = state.files.values().flatten().map(|file| &file.location).collect();
        files.retain(|object| is_data(&object.location) && !known.contains(&object.location));
        Ok(Unused { log, files })
    }

    /// The files that commits since `since` removed, with the times of the commits; `None` if they are unknown because
    /// another writer is deleting parts of the log.
    async fn removed_since(
        &self,
        log: &[ObjectMeta],
        since: DateTime<Utc>,
    ) -> Result<Option<HashMap<Path, DateTime<Utc>>>> {
        let commits = log.iter().filter(|object| object.last_modified >= since && is_commit(&object.location));
        let read = commits.map(|object| async move {
            let Some(body) = self.store.get(&object.location).await? else { return Ok(None) };
            let mut removed = Vec::new();
            for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let action: Action = self.store.parse(&object.location, line)?;
                if let Some(Removed { path }) = action.remove {
                    let path = format!("{}/{path}", layout::table_folder(self.table));
                    removed.extend(Path::from_url_path(path).ok().map(|path| (path, object.last_modified)));
                }
            }
            Ok::<_, Error>(Some(removed))
        });
        let read: Vec<Option<Vec<_>>> =
            stream::iter(read.collect::<Vec<_>>()).buffered(READS_AT_ONCE).try_collect().await?;
        let mut newest = HashMap::new();
        for commit in read {
            let Some(removed) = commit else {
                tracing::warn!(
                    "another writer is deleting parts of the log of {}; no unused files are deleted this time",
                    self.url
                );
                return Ok(None);
            };
            for (path, removed_at) in removed {
                let known = newest.entry(path).or_insert(removed_at);
                *known = removed_at.max(*known);
            }
        }
        Ok(Some(newest))
    }
}

/// Whether a key is that of a table file, of this program or another writer.
fn is_data(key: &Path) -> bool {
    layout::date_of(key).is_some() && key.as_ref().ends_with(".parquet")
}

/// Whether a key is that of a commit.
fn is_commit(key: &Path) -> bool {
    layout::number_of(key).is_some()
}

/// The parts of a log that no reader of versions from `since` on needs: those before the newest checkpoint before
/// `since`.
fn superseded(log: &[ObjectMeta], since: DateTime<Utc>) -> Vec<Path> {
    let old: Vec<_> = log.iter().filter(|object| object.last_modified < since).collect();
    let is_checkpoint = |object: &&&ObjectMeta| object.location.as_ref().ends_with(".checkpoint.parquet");
    let newest = old.iter().filter(is_checkpoint).filter_map(|object| version(&object.location)).max();
    let before = |object: &&ObjectMeta| version(&object.location).is_some_and(|version| Some(version) < newest);
    old.into_iter().filter(before).map(|object| object.location.clone()).collect()
}

/// The table version of a part of the log.
pub(super) fn version(key: &Path) -> Option<u64> {
    key.filename()?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;
    use tokio::runtime::Handle;

    use super::*;
    use crate::model::{LakeColumns, PartitionBy};
    use crate::store::Store;

    #[tokio::test(flavor = "multi_thread")]
    async fn removals_are_unknown_if_the_log_is_cut_meanwhile() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let columns = Arc::clone(LakeColumns::default().of(Table::Tags));
        let table = DeltaTable::new(&store, columns, PartitionBy::Day, "test".to_owned(), Handle::current());
        let key = layout::numbered(&layout::delta_log(Table::Tags), 1);
        let removal = "{\"remove\":{\"path\":\"created_date=2024-01-01/x.parquet\"}}\n";
        store.put(&key, removal).await.unwrap();
        let log = [store.head(&key).await.unwrap().unwrap()];
        let removed = table.removed_since(&log, DateTime::UNIX_EPOCH).await.unwrap().unwrap();
        assert_eq!(
            removed.into_iter().collect::<Vec<_>>(),
            [(Path::from("tags/created_date=2024-01-01/x.parquet"), log[0].last_modified)]
        );
        store.delete(vec![key]).await.unwrap();
        assert_eq!(table.removed_since(&log, DateTime::UNIX_EPOCH).await.unwrap(), None);
    }
}
