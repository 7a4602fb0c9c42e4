//! The manifest: the lake's own list of table files, with the rows, bytes and ETag of each. Everything here is pure.
//!
//! The newest entries are in the state, so a checkpoint commits them together with what they say. Older entries are in
//! shards, immutable objects of one month each, which the state names. The totals are in the state too. So a commit and
//! a `status` cost the same in a lake of any age.
//! Guarantees: the totals are the sums of all entries, because each change of an entry is a change of the totals.
//! Must not depend on: how shards are read and written (`shards`), and what the files hold.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::write_intent::Replacement;
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, PerTable, RowTimes, RunId, Table};

/// The most entries that the state holds. With more, those of the months that changed least recently go into shards,
/// until half of it is left. An entry takes some 400 bytes of every checkpoint.
const MOST_RECENT: usize = if cfg!(test) { 1 } else { 32 };

/// The manifest of a lake, as its state holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What each table holds.
    pub tables: PerTable<TableTotals>,
    /// How many partitions there are of each form of files, the oldest form first.
    pub forms: Vec<FormCount>,
    /// The partitions whose plain table files a repair may have replaced without a commit.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rewriting: BTreeSet<CreatedDate>,
    /// The entries that changed last.
    recent: BTreeMap<CreatedDate, PartitionEntry>,
    /// The names of the shards with all other entries. An entry here that `recent` has too is an older one.
    shards: BTreeMap<ShardMonth, String>,
}

/// The content of one table. These are fields of `status`, so they are only ever added to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTotals {
    /// Rows.
    pub rows: u64,
    /// Bytes of Parquet.
    pub bytes: u64,
    /// Partitions, each of one file.
    pub dates: u64,
    /// The first date; none if no partition has a known one.
    pub first_date: Option<NaiveDate>,
    /// The last date. A month is named by its first day.
    pub last_date: Option<NaiveDate>,
}

/// How many partitions have files of one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormCount {
    /// The form; see [`PartitionEntry::form`].
    pub form: u32,
    /// The partitions.
    pub partitions: u64,
}

/// What one partition's table files hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionEntry {
    /// The run that wrote them, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The number after the run in the names of a Delta table's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// The form of their columns and encodings; 0 is the oldest.
    #[serde(default, skip_serializing_if = "is_oldest")]
    pub form: u32,
    /// The times of their conversations.
    #[serde(default)]
    pub times: RowTimes,
    /// The file of each table; `None` if it has none, which only another program's change of a Delta table can bring.
    pub files: PerTable<Option<FileEntry>>,
}

/// One table file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its rows; `None` if it could not be read when it was listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Its bytes.
    pub bytes: u64,
    /// Its ETag without quotes. Files of Delta tables need none, because a name is used once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Its key, if another program chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The month of a shard's partitions: `2024-02`, or `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardMonth(String);

/// The entries of one month, as a shard holds them.
pub type Entries = BTreeMap<CreatedDate, PartitionEntry>;

fn is_oldest(form: &u32) -> bool {
    *form == 0
}

/// An ETag without quotes, because listings of some stores have none.
pub fn bare_etag(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

impl ShardMonth {
    /// The month of a partition.
    pub fn of(date: CreatedDate) -> Self {
        ShardMonth(date.date().map_or_else(|| "unknown".to_owned(), |date| date.format("%Y-%m").to_string()))
    }

    /// The name of a shard of this month that the checkpoint with this number will name first. The checksum tells it
    /// from a shard that the same checkpoint was to name, but that did not come to be.
    pub(super) fn shard_name(&self, checkpoint: u64, checksum: u32) -> String {
        format!("{}-{checkpoint}-{checksum:08x}", self.0)
    }
}

/// The checksum in a shard's name.
pub(super) fn checksum_in(name: &str) -> Option<u32> {
    u32::from_str_radix(name.rsplit_once('-')?.1, 16).ok()
}

impl PartitionEntry {
    /// The entry of the new table files of a partition.
    pub fn of(replacement: &Replacement, are_delta: bool) -> Self {
        let Replacement { file, extent, etags, form, times, .. } = replacement;
        let entry = |table| {
            let (rows, bytes) = (Some(*extent.rows.get(table)), *extent.bytes.get(table));
            let etag = etags.get(table).as_deref().filter(|_| !are_delta).map(bare_etag);
            Some(FileEntry { rows, bytes, etag, key: None })
        };
        PartitionEntry {
            run: Some(file.run.clone()),
            number: are_delta.then_some(file.number),
            form: *form,
            times: *times,
            files: PerTable::from_fn(entry),
        }
    }

    /// The key of the file of `table`; `None` if it has none.
    pub fn key(&self, table: Table, date: CreatedDate) -> Option<Path> {
        let file = self.files.get(table).as_ref()?;
        Some(match (&file.key, &self.run, self.number) {
            (Some(key), ..) => Path::from(key.as_str()),
            (None, Some(run), Some(number)) => layout::delta_file(table, date, &FlushId { run: run.clone(), number }),
            _ => layout::table_file(table, date),
        })
    }
}

impl TableTotals {
    fn add(&mut self, date: CreatedDate, file: &FileEntry) {
        self.rows = self.rows.saturating_add(file.rows.unwrap_or(0));
        self.bytes = self.bytes.saturating_add(file.bytes);
        self.dates = self.dates.saturating_add(1);
        if let Some(date) = date.date() {
            self.first_date = Some(self.first_date.map_or(date, |first| first.min(date)));
            self.last_date = self.last_date.max(Some(date));
        }
    }

    /// Leaves the first and the last date, because the partition is about to be added again.
    fn subtract(&mut self, file: &FileEntry) {
        self.rows = self.rows.saturating_sub(file.rows.unwrap_or(0));
        self.bytes = self.bytes.saturating_sub(file.bytes);
        self.dates = self.dates.saturating_sub(1);
    }
}

impl Manifest {
    /// The manifest of these entries.
    pub fn of(entries: Entries) -> Self {
        let mut manifest = Manifest::default();
        for (date, entry) in entries {
            manifest.record(date, entry, None);
        }
        manifest
    }

    /// Sets the entry of a partition. `before` is the entry that a shard has for it, if any.
    pub fn record(&mut self, date: CreatedDate, entry: PartitionEntry, before: Option<&PartitionEntry>) {
        let recent = self.recent.remove(&date);
        let before = recent.as_ref().or(before);
        for table in Table::ALL {
            let totals = self.tables.get_mut(table);
            if let Some(file) = before.and_then(|before| before.files.get(table).as_ref()) {
                totals.subtract(file);
            }
            if let Some(file) = entry.files.get(table) {
                totals.add(date, file);
            }
        }
        if let Some(before) = before {
            self.forms.retain_mut(|of| {
                of.partitions = of.partitions.saturating_sub(u64::from(of.form == before.form));
                of.partitions > 0
            });
        }
        match self.forms.binary_search_by_key(&entry.form, |of| of.form) {
            Ok(place) => self.forms.iter_mut().skip(place).take(1).for_each(|of| of.partitions += 1),
            Err(place) => self.forms.insert(place, FormCount { form: entry.form, partitions: 1 }),
        }
        self.recent.insert(date, entry);
        self.rewriting.remove(&date);
    }

    /// How many partitions have files of a form before this one.
    pub fn older_than(&self, form: u32) -> u64 {
        self.forms.iter().filter(|of| of.form < form).map(|of| of.partitions).sum()
    }

    /// The entry of a partition, if the state has it.
    pub fn recent(&self, date: CreatedDate) -> Option<&PartitionEntry> {
        self.recent.get(&date)
    }

    /// The keys of its shards.
    pub fn shard_keys(&self) -> impl Iterator<Item = Path> {
        self.shards.values().map(|name| layout::manifest_shard(name))
    }

    /// The shards, by month.
    pub(super) fn shards(&self) -> &BTreeMap<ShardMonth, String> {
        &self.shards
    }

    /// The months whose shards may have entries of `dates` that the state lacks.
    pub(super) fn months_of<'a>(&self, dates: impl Iterator<Item = &'a CreatedDate>) -> BTreeSet<ShardMonth> {
        let unknown = dates.filter(|date| !self.recent.contains_key(*date)).map(|date| ShardMonth::of(*date));
        unknown.filter(|month| self.shards.contains_key(month)).collect()
    }

    /// The months whose entries have to leave the state: those that changed least recently.
    pub(super) fn overflow(&self) -> BTreeSet<ShardMonth> {
        let mut left = self.recent.len();
        let mut leaving = BTreeSet::new();
        if left <= MOST_RECENT {
            return leaving;
        }
        let mut months: BTreeMap<ShardMonth, (Option<&RunId>, usize)> = BTreeMap::new();
        for (date, entry) in &self.recent {
            let (newest, count) = months.entry(ShardMonth::of(*date)).or_default();
            *newest = (*newest).max(entry.run.as_ref());
            *count += 1;
        }
        let mut months: Vec<_> = months.into_iter().map(|(month, (newest, count))| (newest, month, count)).collect();
        months.sort_unstable();
        for (_, month, count) in months {
            if left.saturating_mul(2) <= MOST_RECENT {
                break;
            }
            left = left.saturating_sub(count);
            leaving.insert(month);
        }
        leaving
    }

    /// Moves the entries of a month out of the state and into `shard`, which has the month's other entries.
    pub(super) fn move_to(&mut self, month: &ShardMonth, shard: &mut Entries) {
        let recent = std::mem::take(&mut self.recent).into_iter();
        let (leaving, staying) = recent.partition::<Entries, _>(|(date, _)| ShardMonth::of(*date) == *month);
        shard.extend(leaving);
        self.recent = staying;
    }

    /// Names the new shard of a month; returns the name of the one that it replaces.
    pub(super) fn name_shard(&mut self, month: ShardMonth, name: String) -> Option<String> {
        self.shards.insert(month, name).filter(|before| self.shards.values().all(|name| name != before))
    }

    /// All entries, given those of all shards.
    pub(super) fn all(&self, mut shards: Entries) -> Entries {
        shards.extend(self.recent.iter().map(|(date, entry)| (*date, entry.clone())));
        shards
    }

    /// Whether the totals are the sums of `entries`. The first and the last date stay if another program has removed
    /// that partition from one table.
    pub fn has_totals_of(&self, entries: &Entries) -> bool {
        let counted = Manifest::of(entries.clone());
        let sums = |manifest: &Manifest, table| {
            let TableTotals { rows, bytes, dates, .. } = *manifest.tables.get(table);
            (rows, bytes, dates)
        };
        self.forms == counted.forms && Table::ALL.iter().all(|table| sums(self, *table) == sums(&counted, *table))
    }
}

#[cfg(test)]
mod tests;
