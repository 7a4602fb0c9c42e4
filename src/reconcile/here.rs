//! Compares the conversations of a walk with those of the lake, partition by partition, and keeps those to stage.
//!
//! Guarantees: bounded memory, because the ids and change times of a few partitions are kept, those that the walk needed
//! last. Must not depend on: how pages are fetched and staged.

use std::collections::{HashMap, HashSet};

use arrow_array::RecordBatch;
use tokio::runtime::Handle;

use super::hashes::{IdHasher, push};
use crate::error::{Error, Result};
use crate::export::Sieve;
use crate::flatten::Batch;
use crate::lake::{FlushNotes, Lake};
use crate::merge::{Version, other_time, time};
use crate::model::{CreatedDate, Table, column, texts};
use crate::tables::Tables;
use crate::verify::Ids;

/// How many conversations of how many partitions are kept besides those of the current one: some 50 MB.
const MOST: usize = if cfg!(test) { 4 } else { 1 << 20 };

/// What the lake has of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct HeldVersion {
    /// When its version changed; see [`crate::merge::changed_at`].
    changed_at: Option<i64>,
    /// Whether that is later than the response that it came in, so that it cannot be true.
    is_ahead: bool,
    /// Whether it is marked as deleted.
    is_marked: bool,
}

/// How a version that came compares with the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HowHeld {
    Missing,
    Stale,
    Returned,
    Same,
}

impl HeldVersion {
    /// Compares a version that changed at `changed_at` with what the lake has, if anything.
    fn compare(held: Option<&HeldVersion>, changed_at: Option<i64>) -> HowHeld {
        match held {
            None => HowHeld::Missing,
            Some(held) if held.is_marked => HowHeld::Returned,
            // Every later version replaces one whose time cannot be true.
            Some(held) if held.is_ahead && changed_at != held.changed_at => HowHeld::Stale,
            Some(held) if changed_at > held.changed_at => HowHeld::Stale,
            Some(_) => HowHeld::Same,
        }
    }
}

/// The conversations of one partition by the hashes of their ids.
type PartitionVersions = HashMap<u64, HeldVersion>;

/// Compares a walk with the tables of a lake.
pub struct Comparison {
    lake: Lake,
    tables: Tables,
    hasher: IdHasher,
    runtime: Handle,
    /// Partitions that were read, the one that was needed last at the end.
    partitions: Vec<(CreatedDate, PartitionVersions)>,
    noted: FlushNotes,
}

impl Comparison {
    /// A comparison with `tables`. Must be called on an async thread.
    pub fn new(lake: &Lake, tables: &Tables, hasher: IdHasher) -> Self {
        let (lake, tables, runtime) = (lake.clone(), tables.clone(), Handle::current());
        Comparison { lake, tables, hasher, runtime, partitions: Vec::new(), noted: FlushNotes::default() }
    }

    /// The conversations of a partition.
    fn partition(&mut self, date: CreatedDate) -> Result<&mut PartitionVersions> {
        // The API returns conversations by their created_at, so the next is nearly always in the same partition.
        if self.partitions.last().is_none_or(|(of, _)| *of != date) {
            let known = self.partitions.iter().position(|(of, _)| *of == date);
            let partition = match known {
                Some(position) => self.partitions.remove(position),
                None => (date, self.read(date)?),
            };
            let mut size: usize = self.partitions.iter().map(|(_, partition)| partition.len()).sum();
            while size > MOST && !self.partitions.is_empty() {
                let (_, oldest) = self.partitions.remove(0);
                size = size.saturating_sub(oldest.len());
            }
            self.partitions.push(partition);
        }
        let last = self.partitions.last_mut().map(|(_, partition)| partition);
        last.ok_or_else(|| Error::bug("a partition that was read is gone"))
    }

    fn read(&self, date: CreatedDate) -> Result<PartitionVersions> {
        let ids = Ids {
            lake: self.lake.clone(),
            tables: self.tables.clone(),
            dates: vec![date],
            runtime: self.runtime.clone(),
        };
        let columns = [
            column::CONVERSATION_ID,
            column::CREATED_AT,
            column::UPDATED_AT,
            column::LAST_MESSAGE_AT,
            column::LAST_USER_MESSAGE_AT,
            column::EXPORTED_AT,
            column::DELETED_AT,
        ];
        let (mut partition, mut exported) = (PartitionVersions::new(), HashMap::new());
        let mut without_updated_at = HashSet::new();
        ids.each(Table::Conversations, &columns, |_, batch| {
            self.each_id(batch, |hash, row| {
                let updated_at = time(batch, column::UPDATED_AT, row);
                if updated_at.is_none() {
                    without_updated_at.insert(hash);
                }
                exported.insert(hash, time(batch, column::EXPORTED_AT, row));
                let changed_at = updated_at.or_else(|| other_time(batch, row));
                let is_marked = time(batch, column::DELETED_AT, row).is_some();
                partition.insert(hash, HeldVersion { changed_at, is_ahead: false, is_marked });
            });
        })?;
        for table in [Table::Messages, Table::AuditLogs].into_iter().filter(|_| !without_updated_at.is_empty()) {
            ids.each(table, &[column::CONVERSATION_ID, column::CREATED_AT], |_, batch| {
                self.each_id(batch, |hash, row| {
                    if let Some(held) = partition.get_mut(&hash).filter(|_| without_updated_at.contains(&hash)) {
                        held.changed_at = held.changed_at.max(time(batch, column::CREATED_AT, row));
                    }
                });
            })?;
        }
        for (hash, held) in &mut partition {
            let exported_at = exported.get(hash).copied().flatten();
            held.is_ahead = held.changed_at.zip(exported_at).is_some_and(|(changed, exported)| changed > exported);
        }
        Ok(partition)
    }

    fn each_id(&self, batch: &RecordBatch, mut visit: impl FnMut(u64, usize)) {
        for (row, id) in texts(batch, column::CONVERSATION_ID).into_iter().flatten().enumerate() {
            if let Some(id) = id {
                visit(self.hasher.hash(id), row);
            }
        }
    }

    /// Compares the version in `row`, and counts what came of it. Returns whether to stage it.
    fn is_wanted(&mut self, batch: &Batch, date: CreatedDate, row: usize) -> Result<bool> {
        let of = |table| Ok::<_, Error>((batch.tables.get(table).as_ref(), batch.children(table, row)?));
        let children = [of(Table::Messages)?, of(Table::AuditLogs)?];
        let version = Version::of(batch.tables.get(Table::Conversations), row, children)
            .ok_or_else(|| Error::bug("flattened rows lack the columns of their table"))?;
        let hash = self.hasher.hash(batch.conversation_ids()?.value(row));
        let partition = self.partition(date)?;
        let finding = HeldVersion::compare(partition.get(&hash), version.changed_at);
        if finding != HowHeld::Same {
            // It may come again.
            let held = HeldVersion { changed_at: version.changed_at, is_ahead: version.is_ahead(), is_marked: false };
            partition.insert(hash, held);
        }
        let compared = &mut self.noted.compared;
        match finding {
            HowHeld::Missing => compared.missing = compared.missing.saturating_add(1),
            HowHeld::Stale => compared.stale = compared.stale.saturating_add(1),
            HowHeld::Returned => compared.returned = compared.returned.saturating_add(1),
            HowHeld::Same => {}
        }
        Ok(finding != HowHeld::Same)
    }
}

impl Sieve for Comparison {
    fn sift(&mut self, batch: &Batch, malformed: u64, kept: &mut Vec<(CreatedDate, usize)>) -> Result<()> {
        let inside: HashSet<_> = kept.iter().map(|(_, row)| *row).collect();
        for (row, id) in batch.conversation_ids()?.iter().flatten().enumerate() {
            push(&mut self.noted.hashes, self.hasher.hash(id), inside.contains(&row));
            self.noted.compared.ids = self.noted.compared.ids.saturating_add(1);
        }
        self.noted.compared.malformed = self.noted.compared.malformed.saturating_add(malformed);
        let mut wanted = Vec::with_capacity(kept.len());
        for (date, row) in std::mem::take(kept) {
            if self.is_wanted(batch, date, row)? {
                wanted.push((date, row));
            }
        }
        *kept = wanted;
        Ok(())
    }

    fn take(&mut self) -> FlushNotes {
        std::mem::take(&mut self.noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_stale_if_a_newer_one_came_and_returned_if_it_was_marked() {
        let held = HeldVersion { changed_at: Some(10), ..HeldVersion::default() };
        let of = |held: &HeldVersion, changed_at| HeldVersion::compare(Some(held), changed_at);
        assert_eq!(HeldVersion::compare(None, Some(1)), HowHeld::Missing);
        assert_eq!([10, 9, 11].map(|at| of(&held, Some(at))), [HowHeld::Same, HowHeld::Same, HowHeld::Stale]);
        assert_eq!(of(&held, None), HowHeld::Same);
        let ahead = HeldVersion { is_ahead: true, ..held };
        assert_eq!([10, 9].map(|at| of(&ahead, Some(at))), [HowHeld::Same, HowHeld::Stale]);
        assert_eq!(of(&HeldVersion { is_marked: true, ..held }, Some(10)), HowHeld::Returned);
    }
}
