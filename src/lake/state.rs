//! The state of a lake: what a checkpoint says. What no checkpoint names is garbage. Must not know: how the walks and the merge
//! go, and how it is committed.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::write_intent::{Extent, Replacement, WriteIntent};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, Cursor, Request, Table, Window};

/// The state of a lake.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The incremental export, once one has begun.
    #[serde(default)]
    pub incremental: Option<Incremental>,
    /// Backfills that have begun and not ended.
    #[serde(default)]
    pub backfills: Vec<Walk>,
    /// What is landed and waits for compaction, oldest first.
    #[serde(default)]
    pub landed: Vec<StagedFlush>,
    /// What is on its way into the tables, where these take more than one put to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<WriteIntent>,
    /// When the objects that no table has any more were last removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vacuumed_at: Option<DateTime<Utc>>,
    /// Whether the API does what increments depend on.
    #[serde(default, rename = "evidence")]
    pub filter_support: FilterSupport,
    /// Entries that were no conversations and were set aside, and that no run has ended with yet.
    #[serde(default)]
    pub set_aside: u64,
}

/// The incremental export of a lake.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Incremental {
    /// The newest change seen in a finished walk, and never later than that walk's start.
    pub watermark: Option<DateTime<Utc>>,
    /// When the newest finished walk began: what had changed before is in the lake.
    pub exported_at: Option<DateTime<Utc>>,
    /// The walk under way.
    pub walk: Option<Walk>,
}

/// A walk over a window, page by page, and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// What it asks for, the same to the end.
    pub request: Request,
    /// When it began, by the server's clock once that has answered.
    pub started_at: DateTime<Utc>,
    /// Where its next page begins; `None` before the first.
    pub cursor: Option<Cursor>,
    /// The newest change seen.
    pub newest_change: Option<DateTime<Utc>>,
    /// Pages landed.
    pub pages: u64,
    /// Copies of conversations landed.
    pub conversations: u64,
    /// How long before its start the watermark is, if none of them says when it changed.
    #[serde(default)]
    pub overlap_secs: u64,
}

/// The landing objects of one flush: for each date one object in each table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedFlush {
    /// Which flush it was.
    pub flush: FlushId,
    /// What it holds, by date.
    pub dates: BTreeMap<CreatedDate, Extent>,
    /// If an increment landed it: what that walk asked for again. A conversation that changed then was to be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
}

/// The time before a watermark that an increment asks for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// The first instant inside.
    pub from: DateTime<Utc>,
    /// The watermark.
    pub to: DateTime<Utc>,
}

impl StagedFlush {
    /// Every object, with how many rows and bytes it has.
    pub fn objects(&self) -> impl Iterator<Item = StagedFile> {
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

/// One landing object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// Whose rows it holds.
    pub table: Table,
    /// Of which flush.
    pub flush: FlushId,
    /// Of which date.
    pub date: CreatedDate,
    /// Where it is.
    pub key: Path,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Whose walk it is: the two kinds are resumed and finished differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The walk of the incremental export.
    Incremental,
    /// The walk of a backfill, known by its request.
    Backfill,
}

impl Walk {
    /// A walk at its beginning.
    pub fn new(request: Request, started_at: DateTime<Utc>) -> Self {
        Walk { request, started_at, cursor: None, newest_change: None, pages: 0, conversations: 0, overlap_secs: 0 }
    }
}

impl Walk {
    /// How far it has come once it is complete: to the newest change seen, or nearly to its start if what it saw does not
    /// say when it changed. `None` if it saw nothing.
    fn reached(&self) -> Option<DateTime<Utc>> {
        match self.newest_change {
            Some(newest) => Some(newest.min(self.started_at)),
            None if self.conversations == 0 => None,
            None => {
                let overlap = i64::try_from(self.overlap_secs).ok().and_then(TimeDelta::try_seconds)?;
                self.started_at.checked_sub_signed(overlap)
            }
        }
    }
}

impl State {
    /// The backfill under way over the same window.
    pub fn backfill(&self, window: &Window) -> Option<&Walk> {
        self.backfills.iter().find(|walk| walk.request.window == *window)
    }

    /// Records how far a walk has come, or that it is done.
    pub fn record(&mut self, purpose: Purpose, walk: &Walk, done: bool) {
        match purpose {
            Purpose::Incremental => {
                let incremental = self.incremental.get_or_insert_default();
                incremental.walk = (!done).then(|| walk.clone());
                if done {
                    incremental.watermark = incremental.watermark.max(walk.reached());
                    incremental.exported_at = incremental.exported_at.max(Some(walk.started_at));
                }
            }
            Purpose::Backfill => {
                self.backfills.retain(|known| known.request.window != walk.request.window);
                if !done {
                    self.backfills.push(walk.clone());
                }
            }
        }
    }

    /// Ends a walk: as complete, or as given up.
    pub fn close(&mut self, purpose: Purpose, walk: &Walk, complete: bool) {
        match (complete, purpose) {
            (true, _) => self.record(purpose, walk, true),
            (false, Purpose::Incremental) => self.incremental.get_or_insert_default().walk = None,
            (false, Purpose::Backfill) => self.backfills.retain(|known| known.request.window != walk.request.window),
        }
    }

    /// The newest change that is known to be in the lake.
    pub fn watermark(&self) -> Option<DateTime<Utc>> {
        self.incremental.as_ref().and_then(|incremental| incremental.watermark)
    }

    /// The overlap of the walk that a flush is of; see [`StagedFlush::overlap`].
    pub fn overlap(&self, flush: &FlushId) -> Option<Overlap> {
        self.landed.iter().find(|landed| landed.flush == *flush)?.overlap
    }

    /// Everything that is landed, by date.
    pub fn staged_by_date(&self) -> BTreeMap<CreatedDate, Vec<(&FlushId, Extent)>> {
        let mut dates: BTreeMap<CreatedDate, Vec<(&FlushId, Extent)>> = BTreeMap::new();
        for landed in &self.landed {
            for (date, extent) in &landed.dates {
                dates.entry(*date).or_default().push((&landed.flush, *extent));
            }
        }
        dates
    }

    /// The keys of everything that is landed.
    pub fn staged_keys(&self) -> HashSet<Path> {
        self.landed.iter().flat_map(StagedFlush::objects).map(|object| object.key).collect()
    }

    /// Gives up what a flush has landed for a date.
    pub fn discard_staged(&mut self, flush: &FlushId, date: CreatedDate) {
        for landed in self.landed.iter_mut().filter(|landed| landed.flush == *flush) {
            landed.dates.remove(&date);
        }
        self.landed.retain(|landed| !landed.dates.is_empty());
    }

    /// Puts `by` in the place of what these flushes, one after the other, have landed for a date.
    pub fn replace_staged(&mut self, date: CreatedDate, flushes: &[FlushId], by: StagedFlush) {
        let oldest = self.landed.iter().position(|landed| flushes.contains(&landed.flush));
        for landed in self.landed.iter_mut().filter(|landed| flushes.contains(&landed.flush)) {
            landed.dates.remove(&date);
        }
        self.landed.insert(oldest.unwrap_or(self.landed.len()), by);
        self.landed.retain(|landed| !landed.dates.is_empty());
    }

    /// Forgets what was landed and is in the tables now; returns the keys of it.
    pub fn settle(&mut self, dates: &BTreeMap<CreatedDate, Replacement>) -> Vec<Path> {
        let mut gone = Vec::new();
        for landed in &mut self.landed {
            for (date, _) in dates.iter().filter(|(_, it)| it.landed.contains(&landed.flush)) {
                landed.dates.remove(date);
                gone.extend(Table::ALL.map(|table| layout::staged_file(table, *date, &landed.flush)));
            }
        }
        self.landed.retain(|landed| !landed.dates.is_empty());
        gone
    }
}

/// Whether `timestamp_filter` is honored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// The API bounds the time that it was asked to.
    #[serde(rename = "honoured")]
    Honored,
    /// It bounds another one.
    Ignored,
}

/// A conversation that changed long after it was created: of the two seconds, a server that honors the filter sends it for
/// the one, and a server that bounds `created_at` for the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Its id.
    pub conversation_id: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it changed.
    pub changed_at: DateTime<Utc>,
    /// Whether the API said so itself (`updated_at`), or it is the newest of the other times.
    pub said: bool,
}

/// What is known, and what can be asked to know more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterSupport {
    /// The answer, once there is one.
    #[serde(default, rename = "verdict")]
    pub known: Option<Support>,
    /// When the walk began that proved last that it is honored; `None` if that is to be proven again.
    #[serde(default)]
    pub proven_at: Option<DateTime<Utc>>,
    /// The conversations that changed last, of those that changed long after they were created; newest first.
    #[serde(default, rename = "witnesses")]
    pub canaries: Vec<Canary>,
}

#[cfg(test)]
mod tests;
