//! Finds the objects that a Delta table has no use for any more: those that a commit has removed, those that no commit has
//! ever named, and what a checkpoint of the log has summed up long ago.

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

/// How many commits are read at a time.
const READS_AT_ONCE: usize = 8;
/// For how long the log goes back at least, as with other writers (`delta.logRetentionDuration`).
const LOG_DAYS: i64 = 30;
/// For how long a file stays at least that no commit names: another writer may be about to commit it.
const UNCOMMITTED_HOURS: i64 = 1;

/// What is looked for in a commit.
#[derive(Deserialize)]
struct Action {
    remove: Option<Removed>,
}

#[derive(Deserialize)]
struct Removed {
    path: String,
}

impl DeltaTable {
    /// The objects of `table` that were there before `since`, and that it has not had at any time after. Those that no
    /// commit has ever named are at least an hour old.
    ///
    /// # Errors
    /// Where the store fails.
    pub(in crate::tables) async fn expired(
        tables: Arc<PerTable<Self>>,
        table: Table,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Path>> {
        let own = tables.get(table);
        let listed: Vec<_> = own.store.list(layout::table_folder(table)).try_collect().await?;
        let (log, files): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|object| object.location.prefix_matches(&layout::delta_log(table)));
        // What is in the table is looked at last: what was listed and is not there by then was not meant for it.
        let looking = Arc::clone(&tables);
        let task = tokio::task::spawn_blocking(move || looking.get(table).see_again());
        let seen = task.await.map_err(|error| Error::bug("the log's reader failed").caused_by(error))??;
        let Some(seen) = seen else { return Ok(Vec::new()) };
        let known: HashSet<_> = seen.files.values().flatten().map(|file| &file.location).collect();
        let mut expired: Vec<_> = files
            .into_iter()
            .filter(|object| {
                object.last_modified < since && is_data(&object.location) && !known.contains(&object.location)
            })
            .collect();
        if !expired.is_empty() {
            let uncommitted = now - chrono::Duration::hours(UNCOMMITTED_HOURS);
            let Some(removed) = own.removed_since(&log, since.min(uncommitted)).await? else { return Ok(Vec::new()) };
            expired.retain(|object| match removed.get(&object.location) {
                Some(removed_at) => *removed_at < since,
                // Removed long ago, or never named.
                None => object.last_modified < uncommitted,
            });
        }
        let mut expired: Vec<_> = expired.into_iter().map(|object| object.location).collect();
        expired.extend(summed_up(&log, since.min(now - chrono::Duration::days(LOG_DAYS))));
        Ok(expired)
    }

    /// The objects that the commits since then have removed, and when; `None` if another program has removed a part of the
    /// log meanwhile, so that it is not known.
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
                tracing::warn!("the log of {} is being cut by another program: nothing is removed this time", self.url);
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

/// Whether a key is that of a file of a date, this program's or another writer's.
fn is_data(key: &Path) -> bool {
    layout::date_of(key).is_some() && key.as_ref().ends_with(".parquet")
}

/// Whether a key is that of a commit.
fn is_commit(key: &Path) -> bool {
    layout::number_of(key).is_some()
}

/// The parts of a log that nobody needs who reads versions from `since` on: those before a checkpoint from before that.
fn summed_up(log: &[ObjectMeta], since: DateTime<Utc>) -> Vec<Path> {
    let old: Vec<_> = log.iter().filter(|object| object.last_modified < since).collect();
    let is_checkpoint = |object: &&&ObjectMeta| object.location.as_ref().ends_with(".checkpoint.parquet");
    let newest = old.iter().filter(is_checkpoint).filter_map(|object| version(&object.location)).max();
    let before = |object: &&ObjectMeta| version(&object.location).is_some_and(|version| Some(version) < newest);
    old.into_iter().filter(before).map(|object| object.location.clone()).collect()
}

/// The version of the table that a part of its log is of.
fn version(key: &Path) -> Option<u64> {
    key.filename()?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;
    use tokio::runtime::Handle;

    use super::*;
    use crate::store::Store;

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_log_that_is_cut_meanwhile_nothing_is_said() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let table = DeltaTable::new(&store, Table::Tags, "test".to_owned(), Handle::current());
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
