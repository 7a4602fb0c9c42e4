//! Finds the parts of a Delta table's log that may say something about rows which are erased.
//!
//! A commit of this program names files and counts rows. One of another writer may hold the least and greatest values of
//! a file, or the condition of a DELETE.
//! Guarantees: readers of the newest version lose nothing, because a checkpoint of the log stands for what is deleted.
//! Must not depend on: when the parts are deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::Deserialize;

use super::log::DeltaTable;
use super::vacuum::{READS_AT_ONCE, version};
use crate::error::{Error, Result};
use crate::files::OWN;
use crate::layout;
use crate::model::{PerTable, Table};

/// The part of an action that says who made the commit.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "commitInfo")]
    info: Option<Writer>,
}

#[derive(Deserialize)]
struct Writer {
    #[serde(default, rename = "engineInfo")]
    engine: String,
}

/// What may be deleted of a log.
#[derive(Debug, Default)]
pub(in crate::tables) struct LogCut {
    /// The parts.
    pub(in crate::tables) parts: Vec<Path>,
    /// Whether another writer made the newest version, whose commit has to stay.
    pub(in crate::tables) newest_is_foreign: bool,
}

impl DeltaTable {
    /// Finds the parts of the log of `table` before its newest version, if another writer made any of them. Writes a
    /// checkpoint of the log first.
    ///
    /// # Errors
    /// If the store fails.
    pub(in crate::tables) async fn cut(tables: Arc<PerTable<Self>>, table: Table) -> Result<LogCut> {
        let (reading, own) = (Arc::clone(&tables), tables.get(table));
        let task = tokio::task::spawn_blocking(move || reading.get(table).refresh());
        let state = task.await.map_err(|error| Error::bug("the log's reader failed").caused_by(error))??;
        let Some(state) = state else { return Ok(LogCut::default()) };
        let log: Vec<_> = own.store.list(layout::delta_log(table)).try_collect().await?;
        let newest = state.snapshot.version();
        let known = own.own_versions(&log).await?;
        if (0..=newest).all(|version| known.contains(&version)) {
            return Ok(LogCut::default());
        }
        let newest_checkpoint = format!("{newest:020}.checkpoint");
        let has_checkpoint =
            |object: &ObjectMeta| object.location.filename().is_some_and(|name| name.starts_with(&newest_checkpoint));
        if !log.iter().any(has_checkpoint) {
            let writing = Arc::clone(&tables);
            let task = tokio::task::spawn_blocking(move || writing.get(table).write_checkpoint(&state.snapshot));
            task.await.map_err(|error| Error::bug("the log's writer failed").caused_by(error))??;
        }
        let parts = log.into_iter().map(|object| object.location);
        let parts = parts.filter(|key| version(key).is_some_and(|version| version < newest)).collect();
        Ok(LogCut { parts, newest_is_foreign: !known.contains(&newest) })
    }

    /// The versions whose commits are in the log, and by this program.
    async fn own_versions(&self, log: &[ObjectMeta]) -> Result<BTreeSet<u64>> {
        let commits = log.iter().filter_map(|object| Some((layout::number_of(&object.location)?, &object.location)));
        let reads = commits.map(|(version, key)| async move {
            let Some(body) = self.store.get(key).await? else { return Ok(None) };
            let mut actions = body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
            let is_own = actions.any(|Written { info }| info.is_some_and(|info| info.engine.starts_with(OWN)));
            Ok::<_, Error>(is_own.then_some(version))
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_filter_map(async |it| Ok(it)).try_collect().await
    }
}
