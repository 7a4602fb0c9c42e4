//! What a compaction does with one partition, and what came of it.
//!
//! Must not depend on: how it is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::files::FoundFile;
use crate::lake::{Extent, Overlap, Replacement};
use crate::layout::FlushId;
use crate::merge::Late;
use crate::model::{CreatedDate, PerTable, RowTimes};

/// One merge of a partition.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) date: CreatedDate,
    /// The flushes to merge, oldest first.
    pub(super) flushes: Vec<JobFlush>,
    /// The id in the names of the new files.
    pub(super) file: FlushId,
    pub(super) work: Work,
}

/// A flush and how much it has in the partition.
#[derive(Debug, Clone)]
pub(super) struct JobFlush {
    pub(super) flush: FlushId,
    pub(super) extent: Extent,
    /// The overlap, if an increment wrote the flush.
    pub(super) overlap: Option<Overlap>,
}

/// What becomes of the rows.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// The flushes go into the tables.
    Compact,
    /// The flushes become one.
    Fold,
    /// The table files get the columns and encodings that this release writes.
    Rewrite,
    /// The conversations that must not come back leave the tables.
    Forget,
    /// These conversations leave the tables.
    Remove(Arc<BTreeSet<String>>),
    /// These conversations are marked as deleted at this time, in microseconds.
    Mark(Arc<BTreeSet<String>>, i64),
}

/// The staged files of a flush in the partition.
#[derive(Debug)]
pub(super) struct StagedPart {
    pub(super) extent: Extent,
    pub(super) overlap: Option<Overlap>,
    pub(super) files: PerTable<FoundFile>,
}

/// The result of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compacted {
    /// Versions of conversations read.
    pub(super) versions: u64,
    /// Versions that a later one replaced.
    pub(super) duplicates: u64,
    /// Rows of conversations that were left out.
    pub(super) left_out: PerTable<u64>,
    /// Late arrivals.
    pub(super) late: Late,
    /// The new files.
    pub(super) written: PerTable<WrittenFile>,
    /// The table files that they replace.
    pub(super) replaced: PerTable<Option<ReplacedFile>>,
    /// The times of the conversations in the new files.
    pub(super) times: RowTimes,
}

/// A new file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WrittenFile {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// From the store's answer, if it has ETags.
    pub(super) e_tag: Option<String>,
}

/// A table file that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplacedFile {
    pub(super) key: String,
    pub(super) bytes: u64,
    /// `None` if it was not read, because a run died before it wrote the conversations.
    pub(super) rows: Option<u64>,
}

impl Job {
    /// The size of the staged files.
    pub(super) fn staged_bytes(&self) -> u64 {
        self.flushes.iter().fold(0, |sum, flush| sum.saturating_add(flush.extent.bytes.total()))
    }
}

impl Compacted {
    /// How much the new files hold.
    pub(super) fn extent(&self) -> Extent {
        let written = |value: fn(&WrittenFile) -> u64| PerTable::from_fn(|table| value(self.written.get(table)));
        Extent { rows: written(|file| file.rows), bytes: written(|file| file.bytes) }
    }

    /// What the new table files mean for the tables: they have the staged rows of `flushes`.
    pub(super) fn replacement(
        self,
        file: FlushId,
        written_at: DateTime<Utc>,
        form: u32,
        flushes: Vec<FlushId>,
    ) -> Replacement {
        let extent = self.extent();
        let Compacted { mut written, replaced, times, .. } = self;
        let replaces = PerTable::from_fn(|table| replaced.get(table).as_ref().map(|file| file.key.clone()));
        let etags = PerTable::from_fn(|table| written.get_mut(table).e_tag.take());
        Replacement { file, written_at, extent, etags, form, times, replaces, flushes }
    }
}
