//! Compares the partitions, as they were read, with the manifest.
//!
//! Only what a partition holds is compared, because ETags and sizes differ in a copy of the lake, and if a program
//! rewrites a file with the same rows. Guarantees: what a run that died may have left is no problem, because the
//! checkpoint names the partitions that may be newer than the manifest.
//! Must not depend on: how a manifest is written.

use std::collections::BTreeSet;

use object_store::path::Path;

use super::date::DateRead;
use super::problems::Check;
use crate::error::{Kind, Result};
use crate::lake::{Entries, FileEntry, Lake, Ledger, PartitionEntry};
use crate::layout;
use crate::model::{CreatedDate, RunId, Table};

/// How often to read a manifest whose shards a live run replaces meanwhile.
const TRIES: usize = 8;

/// A partition's contradiction with the manifest.
pub(super) struct Contradiction {
    pub(super) check: Check,
    pub(super) key: Path,
    pub(super) detail: String,
}

/// The manifest of one checkpoint.
pub(super) struct Listed {
    /// The checkpoint's number.
    number: u64,
    /// The run that wrote it.
    run: Option<RunId>,
    /// The partitions that may be newer than the manifest.
    unsettled: BTreeSet<CreatedDate>,
    are_delta: bool,
    /// All entries; `None` if the lake has no manifest, or if it cannot be read.
    entries: Option<Entries>,
    /// What is wrong with the manifest itself.
    pub(super) fault: Option<String>,
}

impl Listed {
    /// Reads the newest manifest.
    ///
    /// # Errors
    /// If the store fails, or the checkpoint is damaged.
    pub(super) async fn load(lake: &Lake, are_delta: bool) -> Result<Self> {
        let mut ledger = Ledger::load(lake.store()).await?;
        let mut tries = 0;
        let (entries, fault) = loop {
            let Some(manifest) = &ledger.state().manifest else { break (None, None) };
            match ledger.shards().entries(manifest).await {
                Ok(entries) => {
                    let differs = || "the totals are not the sums of the entries".to_owned();
                    let fault = (!manifest.has_totals_of(&entries)).then(differs);
                    break (Some(entries), fault);
                }
                Err(error) if error.kind() == Kind::Integrity => {
                    let newest = Ledger::load(lake.store()).await?;
                    tries += 1;
                    if newest.number() == ledger.number() || tries > TRIES {
                        break (None, Some(error.chain().join(": ")));
                    }
                    ledger = newest;
                }
                Err(error) => return Err(error),
            }
        };
        let (number, run) = (ledger.number(), ledger.run().cloned());
        let unsettled = ledger.state().unsettled_dates();
        Ok(Listed { number, run, unsettled, are_delta, entries, fault })
    }

    /// Reads the manifest again if there is a newer checkpoint.
    ///
    /// # Errors
    /// As [`Listed::load`].
    pub(super) async fn refresh(&mut self, lake: &Lake) -> Result<bool> {
        let is_old = Ledger::load(lake.store()).await?.number() != self.number;
        if is_old {
            *self = Self::load(lake, self.are_delta).await?;
        }
        Ok(is_old)
    }

    /// The partitions that it lists; `None` if there is no manifest that can be read.
    pub(super) fn dates(&self) -> Option<impl ExactSizeIterator<Item = CreatedDate>> {
        self.entries.as_ref().map(|entries| entries.keys().copied())
    }

    /// Whether a partition is as the manifest says.
    pub(super) fn agrees(&self, date: CreatedDate, read: &DateRead) -> bool {
        self.contradictions(date, read).is_empty() && !self.is_of_other_writers(date, read)
    }

    /// What of a partition contradicts the manifest.
    pub(super) fn contradictions(&self, date: CreatedDate, read: &DateRead) -> Vec<Contradiction> {
        let Some(entries) = &self.entries else { return Vec::new() };
        let of_all = |check, detail| {
            let key = layout::table_file(Table::Conversations, date);
            vec![Contradiction { check, key, detail }]
        };
        let entry = entries.get(&date);
        if self.is_of_other_writers(date, read) {
            return Vec::new();
        }
        if read.is_gone() {
            return entry.map_or_else(Vec::new, |entry| of_all(Check::Vanished, vanished(entry)));
        }
        if self.unsettled.contains(&date) {
            return Vec::new();
        }
        match (&read.contents.newest_run, &self.run) {
            // Delta logs tell by themselves, because they have the number of a checkpoint.
            (Some(newest), Some(run)) if second(newest) > second(run.as_str()) && !self.are_delta => {
                return of_all(Check::State, newer(newest, run));
            }
            _ => {}
        }
        let Some(entry) = entry else {
            return of_all(Check::Unlisted, "the manifest does not list this partition".to_owned());
        };
        let tables = Table::ALL.into_iter();
        tables.filter_map(|table| replaced(table, entry, read)).collect()
    }

    /// Whether another writer has committed a change of the partition to Delta tables, which it may. Until the next
    /// compaction of the partition, the manifest is older than the tables.
    pub(super) fn is_of_other_writers(&self, date: CreatedDate, read: &DateRead) -> bool {
        let Some(entries) = self.entries.as_ref().filter(|_| self.are_delta) else { return false };
        let entry = entries.get(&date);
        let differs = |table: &Table| {
            let found = read.files.get(*table).as_ref().map(|object| &object.location);
            found != entry.and_then(|entry| entry.key(*table, date)).as_ref()
        };
        !self.unsettled.contains(&date) && Table::ALL.iter().any(differs)
    }
}

/// The contradiction of one table file.
fn replaced(table: Table, entry: &PartitionEntry, read: &DateRead) -> Option<Contradiction> {
    // A file that one table lacks is another check's problem.
    let object = read.files.get(table).as_ref()?;
    let found = |check, detail| Some(Contradiction { check, key: object.location.clone(), detail });
    let Some(file) = entry.files.get(table) else {
        return found(Check::Unlisted, "the manifest does not list this file".to_owned());
    };
    let (listed, rows) = (file.rows?, (*read.contents.rows.get(table))?);
    let who = || written_by(entry, file, object.size);
    if listed != rows {
        return found(Check::Replaced, format!("has {rows} rows, not the {listed} of {}", who()));
    }
    if table == Table::Conversations && entry.times.contradict(&read.contents.times) {
        return found(Check::Replaced, format!("has other times of conversations than {}", who()));
    }
    None
}

/// Names the file that the manifest lists.
fn written_by(entry: &PartitionEntry, file: &FileEntry, bytes: u64) -> String {
    let run = entry.run.as_ref().map_or_else(|| "the manifest".to_owned(), |run| format!("run {run}"));
    let size = if file.bytes == bytes { String::new() } else { format!(", and {bytes} bytes, not {}", file.bytes) };
    format!("{run}{size}")
}

fn vanished(entry: &PartitionEntry) -> String {
    let rows = entry.files.get(Table::Conversations).as_ref().and_then(|file| file.rows);
    let had = rows.map_or_else(String::new, |rows| format!(" with {rows} conversations"));
    match &entry.run {
        Some(run) => format!("the partition is gone; run {run} wrote it{had}"),
        None => format!("the partition{had} is gone"),
    }
}

/// The second in which a run began. Names of runs of the same second are in no order.
fn second(run: &str) -> &str {
    run.split_once('-').map_or(run, |(second, _)| second)
}

fn newer(newest: &str, run: &RunId) -> String {
    format!("has rows of run {newest}, which is newer than the newest checkpoint, of run {run}")
}
