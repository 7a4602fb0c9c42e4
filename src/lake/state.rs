//! The state of a lake, as each checkpoint records it in full, and its transitions.
//!
//! Guarantees: a staged file is named once, until a transition compacts, folds or discards it; the watermark never
//! moves back, and never past the start of the walk that moves it. Everything here is pure.
//! Must not depend on: how walks and merges work, and how a state is committed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::reconciliation::{FlushNotes, Reconciliation};
use super::walk::{Purpose, Walk};
use super::write_intent::{Extent, Replacement, WriteIntent};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, FieldCounts, LearnedPageSize, Table, Window};

/// The state of a lake.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The incremental export, once one has begun.
    #[serde(default)]
    pub incremental: Option<Incremental>,
    /// Unfinished backfills.
    #[serde(default)]
    pub backfills: Vec<Walk>,
    /// The unfinished reconciliation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<Reconciliation>,
    /// The staged files, flush by flush, oldest first.
    #[serde(default, rename = "landed")]
    pub staged: Vec<StagedFlush>,
    /// The write intent that is not yet carried out; only Delta tables need one.
    #[serde(default, rename = "publication", skip_serializing_if = "Option::is_none")]
    pub write_intent: Option<WriteIntent>,
    /// The manifest; `None` until the first compaction, and if an older release has committed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// When unused files of Delta tables were last deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vacuumed_at: Option<DateTime<Utc>>,
    /// Whether the API honors the filter that increments depend on.
    #[serde(default, rename = "evidence")]
    pub filter_support: FilterSupport,
    /// How many conversations a request asks for, as the API's answers taught; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<LearnedPageSize>,
    /// How often the API sent fields without a column.
    #[serde(default, skip_serializing_if = "FieldCounts::is_empty")]
    pub fields_without_column: FieldCounts,
    /// Quarantined entries that no run has reported by its exit code yet.
    #[serde(default, rename = "set_aside")]
    pub quarantined: u64,
}

/// The incremental export of a lake.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Incremental {
    /// The newest change that a finished walk saw, but never later than the walk's start.
    pub watermark: Option<DateTime<Utc>>,
    /// When the newest finished walk began: every change before is in the lake.
    pub exported_at: Option<DateTime<Utc>>,
    /// The unfinished walk.
    pub walk: Option<Walk>,
}

/// The staged files of one flush: in each partition one file per table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedFlush {
    /// The flush.
    pub flush: FlushId,
    /// How much it holds, by partition.
    pub dates: BTreeMap<CreatedDate, Extent>,
    /// The overlap, if an increment wrote the flush. A conversation that changed in it should have been in the lake
    /// already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
}

/// The time before a watermark that an increment fetches again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// The first instant inside.
    pub from: DateTime<Utc>,
    /// The watermark.
    pub to: DateTime<Utc>,
}

impl StagedFlush {
    /// Lists its files.
    pub fn files(&self) -> impl Iterator<Item = StagedFile> {
        self.dates.iter().flat_map(|(date, extent)| {
            Table::ALL.map(|table| StagedFile {
                table,
                flush: self.flush.clone(),
                date: *date,
                key: layout::staged_file(table, *date, &self.flush),
                rows: *extent.rows.get(table),
                bytes: *extent.bytes.get(table),
            })
        })
    }
}

/// One staged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// The table of its rows.
    pub table: Table,
    /// The flush that wrote it.
    pub flush: FlushId,
    /// Its partition.
    pub date: CreatedDate,
    /// Its key.
    pub key: Path,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

impl State {
    /// The newest change that is known to be in the lake.
    pub fn watermark(&self) -> Option<DateTime<Utc>> {
        self.incremental.as_ref().and_then(|incremental| incremental.watermark)
    }

    /// The unfinished backfill over the same window.
    pub fn backfill(&self, window: &Window) -> Option<&Walk> {
        self.backfills.iter().find(|walk| walk.request.window == *window)
    }

    /// The overlap of a flush; see [`StagedFlush::overlap`].
    pub fn overlap(&self, flush: &FlushId) -> Option<Overlap> {
        self.staged.iter().find(|staged| staged.flush == *flush)?.overlap
    }

    /// The flushes that each partition has staged files of, oldest first.
    pub fn staged_by_date(&self) -> BTreeMap<CreatedDate, Vec<(&FlushId, Extent)>> {
        let mut dates: BTreeMap<CreatedDate, Vec<(&FlushId, Extent)>> = BTreeMap::new();
        for staged in &self.staged {
            for (date, extent) in &staged.dates {
                dates.entry(*date).or_default().push((&staged.flush, *extent));
            }
        }
        dates
    }

    /// The keys of all staged files.
    pub fn staged_keys(&self) -> HashSet<Path> {
        self.staged.iter().flat_map(StagedFlush::files).map(|file| file.key).collect()
    }

    /// The keys of everything that only a checkpoint protects from the sweep: the staged files, the manifest's shards,
    /// and what a reconciliation has seen.
    pub fn named_keys(&self) -> HashSet<Path> {
        let mut keys = self.staged_keys();
        keys.extend(self.reconciliation.iter().flat_map(Reconciliation::keys));
        keys.extend(self.manifest.iter().flat_map(Manifest::shard_keys));
        keys
    }

    /// The partitions whose table files may be newer than the manifest, because a run that died may have replaced them
    /// without a commit.
    pub fn unsettled_dates(&self) -> BTreeSet<CreatedDate> {
        let staged = self.staged.iter().flat_map(|staged| staged.dates.keys());
        let intended = self.write_intent.iter().flat_map(|intent| intent.dates.keys());
        let rewritten = self.manifest.iter().flat_map(|manifest| &manifest.rewriting);
        staged.chain(intended).chain(rewritten).copied().collect()
    }

    /// Records the progress of an unfinished walk.
    pub fn advance_walk(&mut self, purpose: Purpose, walk: &Walk) {
        match purpose {
            Purpose::Incremental => self.incremental.get_or_insert_default().walk = Some(walk.clone()),
            Purpose::Backfill => {
                self.discard_walk(purpose, walk);
                self.backfills.push(walk.clone());
            }
            Purpose::Reconcile => self.reconciliation.iter_mut().for_each(|it| it.advance(walk)),
        }
    }

    /// Ends a walk that has seen all of its window; that of an incremental export moves the watermark. A reconciliation
    /// goes on after its walk.
    pub fn complete_walk(&mut self, purpose: Purpose, walk: &Walk) {
        if let (Purpose::Reconcile, Some(reconciliation)) = (purpose, &mut self.reconciliation) {
            reconciliation.advance(walk);
            reconciliation.is_walked = true;
            return;
        }
        self.discard_walk(purpose, walk);
        if purpose == Purpose::Incremental {
            let incremental = self.incremental.get_or_insert_default();
            incremental.watermark = incremental.watermark.max(walk.reached());
            incremental.exported_at = incremental.exported_at.max(Some(walk.started_at));
        }
    }

    /// Ends a walk without a result.
    pub fn discard_walk(&mut self, purpose: Purpose, walk: &Walk) {
        match purpose {
            Purpose::Incremental => self.incremental.get_or_insert_default().walk = None,
            Purpose::Backfill => self.backfills.retain(|known| known.request.window != walk.request.window),
            Purpose::Reconcile => self.reconciliation = None,
        }
    }

    /// Adds what one flush of the reconciliation's `walk` noted.
    pub fn note(&mut self, walk: &Walk, flush: &FlushId, noted: FlushNotes) {
        if let Some(reconciliation) = &mut self.reconciliation {
            reconciliation.advance(walk);
            reconciliation.note(flush, noted);
        }
    }

    /// Adds the staged files of a new flush.
    pub fn stage(&mut self, flush: StagedFlush) {
        self.staged.push(flush);
        self.forget_empty_flushes();
    }

    /// Replaces the staged files of consecutive `flushes` in one partition by those of `folded`, at the oldest one's
    /// place.
    pub fn fold_staged(&mut self, date: CreatedDate, flushes: &[FlushId], folded: StagedFlush) {
        let oldest = self.staged.iter().position(|staged| flushes.contains(&staged.flush));
        for staged in self.staged.iter_mut().filter(|staged| flushes.contains(&staged.flush)) {
            staged.dates.remove(&date);
        }
        self.staged.insert(oldest.unwrap_or(self.staged.len()), folded);
        self.forget_empty_flushes();
    }

    /// Removes the staged files that are in the tables now, as `dates` says; returns their keys.
    pub fn remove_compacted(&mut self, dates: &BTreeMap<CreatedDate, Replacement>) -> Vec<Path> {
        let mut removed = Vec::new();
        for staged in &mut self.staged {
            for (date, _) in dates.iter().filter(|(_, it)| it.flushes.contains(&staged.flush)) {
                staged.dates.remove(date);
                removed.extend(Table::ALL.map(|table| layout::staged_file(table, *date, &staged.flush)));
            }
        }
        self.forget_empty_flushes();
        removed
    }

    /// Removes the staged files that a flush has in one partition.
    pub fn discard_staged(&mut self, flush: &FlushId, date: CreatedDate) {
        for staged in self.staged.iter_mut().filter(|staged| staged.flush == *flush) {
            staged.dates.remove(&date);
        }
        self.forget_empty_flushes();
    }

    fn forget_empty_flushes(&mut self) {
        self.staged.retain(|staged| !staged.dates.is_empty());
    }
}

/// Whether `timestamp_filter` is honored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// The API filters by the timestamp that the request names.
    #[serde(rename = "honoured")]
    Honored,
    /// It filters by another one.
    Ignored,
}

/// A conversation that changed long after it was created. A request for the second of its change returns it if the API
/// honors the filter; a request for the second of its creation returns it if the API filters by `created_at`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Its id.
    pub conversation_id: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it changed.
    pub changed_at: DateTime<Utc>,
    /// Whether `updated_at` says so; else it is the newest of the other times.
    pub said: bool,
}

/// Whether the API honors `timestamp_filter`, and the canaries to find out with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterSupport {
    /// The answer, once there is one.
    #[serde(default, rename = "verdict")]
    pub known: Option<Support>,
    /// When the walk began that last proved that the filter is honored; `None` if it has to be proven again.
    #[serde(default)]
    pub proven_at: Option<DateTime<Utc>>,
    /// The canaries that changed last, newest first.
    #[serde(default, rename = "witnesses")]
    pub canaries: Vec<Canary>,
}

#[cfg(test)]
mod tests;
