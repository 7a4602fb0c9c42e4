//! Reads the partitions of a range, several at a time, and counts their conversations.
//!
//! Guarantees: memory is bounded, because [`Lanes`] bound what is read at a time. A partition that is replaced meanwhile
//! is read again; one that is damaged is left out, with its reason. Must not depend on: what is counted.

use futures::{StreamExt, stream};
use tokio::runtime::Handle;

use super::range::DayRange;
use super::rows::PartitionRows;
use super::tally::RangeTally;
use crate::error::{Error, Kind, Result};
use crate::files::Lanes;
use crate::lake::{Entries, Lake, Ledger};
use crate::model::{CreatedDate, Table};
use crate::tables::{Scan, Tables, scan};

/// How often to read a partition, or a manifest, that is replaced meanwhile.
const TRIES: usize = 8;
/// The tables that are read.
const READ: [Table; 3] = [Table::Conversations, Table::Messages, Table::Tags];

/// How far the reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionsRead {
    /// Partitions read.
    pub done: u64,
    /// All of the range.
    pub all: u64,
}

/// What was read.
pub(super) struct Reading {
    /// What each partition of the lake holds.
    pub(super) entries: Entries,
    pub(super) tally: RangeTally,
    /// Why partitions are left out.
    pub(super) unreadable: Vec<String>,
}

/// Reads the partitions of `range`.
///
/// # Errors
/// If there is no lake, or its store fails.
pub(super) async fn read(
    lake: &Lake,
    range: DayRange,
    with_summaries: bool,
    mut progress: impl FnMut(PartitionsRead),
) -> Result<Reading> {
    let tables = Tables::of(lake.store(), &lake.existing().await?)?;
    let entries = entries(lake, &tables).await?;
    let overlaps = |date: &CreatedDate| {
        let days = date.date().zip(date.last_day());
        days.is_some_and(|(first, last)| first <= range.last && last >= range.first)
    };
    let dates: Vec<_> = entries.keys().copied().filter(overlaps).collect();
    let mut so_far = PartitionsRead { done: 0, all: dates.len() as u64 };
    let lanes = Lanes::of(lake.store());
    let reader = PartitionReader { lake: lake.clone(), tables, lanes: lanes.clone(), range, with_summaries };
    let reads: Vec<_> = dates.into_iter().map(|date| reader.clone().tally(date)).collect();
    let mut results = stream::iter(reads).buffer_unordered(lanes.at_once());
    let (mut tally, mut unreadable) = (RangeTally::default(), Vec::new());
    while let Some(result) = results.next().await {
        match result {
            Ok(of_partition) => tally.merge(of_partition),
            Err(error) if error.kind() == Kind::Integrity || error.is_of_one_object() => {
                unreadable.push(error.chain().join(": "));
            }
            Err(error) => return Err(error),
        }
        so_far.done += 1;
        progress(so_far);
    }
    unreadable.sort_unstable();
    Ok(Reading { entries, tally, unreadable })
}

/// The entries of the manifest; those of the files themselves if there is none.
async fn entries(lake: &Lake, tables: &Tables) -> Result<Entries> {
    let mut tries = 1;
    loop {
        let ledger = Ledger::load(lake.store()).await?;
        let Some(manifest) = &ledger.state().manifest else {
            let Scan { entries, .. } = scan(lake, tables, None).await?;
            return Ok(entries);
        };
        match ledger.shards().entries(manifest).await {
            // A live run may have replaced a shard meanwhile.
            Err(error) if error.kind() == Kind::Integrity && tries < TRIES => tries += 1,
            entries => return entries,
        }
    }
}

#[derive(Clone)]
struct PartitionReader {
    lake: Lake,
    tables: Tables,
    lanes: Lanes,
    range: DayRange,
    with_summaries: bool,
}

impl PartitionReader {
    /// Counts the conversations of a partition.
    async fn tally(self, date: CreatedDate) -> Result<RangeTally> {
        let mut tries = 1;
        loop {
            match self.try_tally(date).await {
                Err(error) if error.kind() == Kind::Held && tries < TRIES => {
                    tries += 1;
                    self.tables.invalidate();
                }
                Err(error) if error.kind() == Kind::Held => {
                    return Err(Error::held(format!("partition {date} is replaced faster than it can be read"))
                        .with_hint("run this again"));
                }
                result => return result,
            }
        }
    }

    async fn try_tally(&self, date: CreatedDate) -> Result<RangeTally> {
        let (files, lane) = self.tables.open_tables(date, &READ).await?.read(&self.lanes).await?;
        let rows = PartitionRows {
            lake: self.lake.clone(),
            columns: self.tables.columns().clone(),
            files,
            with_summaries: self.with_summaries,
            runtime: Handle::current(),
        };
        let range = self.range;
        let count = move || {
            let mut tally = RangeTally::default();
            rows.each(|facts| tally.count(&range, facts))?;
            Ok(tally)
        };
        self.lanes.work(&lane, count).await?
    }
}
