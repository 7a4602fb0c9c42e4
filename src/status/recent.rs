//! How many conversations began on each of the last days.
//!
//! A lake by day knows that from its manifest. In a lake by month, the times of the conversations of at most two months
//! are read. Guarantees: it only reads. Must not depend on: how the days are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{Days, NaiveDate};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use crate::error::Result;
use crate::files::{FileReader, Lanes};
use crate::lake::{Lake, Ledger};
use crate::model::{CreatedDate, PartitionBy, Table, column, from_micros, times};
use crate::tables::Tables;

/// How many days are shown.
const RECENT_DAYS: u64 = 14;

/// One day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentDay {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// Conversations that began on it.
    pub conversations: u64,
}

/// Counts the conversations of each of the 14 days that end with `last`, the oldest first.
///
/// # Errors
/// If the store fails; kind `Integrity` if a file is damaged, kind `Held` if it was replaced meanwhile.
pub async fn recent_days(lake: &Lake, last: NaiveDate) -> Result<Vec<RecentDay>> {
    let first = last.checked_sub_days(Days::new(RECENT_DAYS - 1)).unwrap_or(last);
    let all: Vec<_> = first.iter_days().take_while(|day| *day <= last).collect();
    let identity = lake.existing().await?;
    let partition = |day: &NaiveDate| identity.partition_by.of_day(*day);
    let counts = match identity.partition_by {
        PartitionBy::Day => by_manifest(lake, all.iter().map(partition).collect()).await?,
        PartitionBy::Month => {
            let mut months: Vec<_> = all.iter().map(partition).collect();
            months.dedup();
            let tables = Tables::of(lake.store(), &identity)?;
            let reads: Vec<_> = months.into_iter().map(|month| by_rows(lake, &tables, month, first)).collect();
            let read: Vec<_> = stream::iter(reads).buffered(2).try_collect().await?;
            read.into_iter().flatten().collect()
        }
    };
    let day = |day| RecentDay { day, conversations: counts.get(&day).copied().unwrap_or(0) };
    Ok(all.into_iter().map(day).collect())
}

type DayCounts = BTreeMap<NaiveDate, u64>;

async fn by_manifest(lake: &Lake, partitions: Vec<CreatedDate>) -> Result<DayCounts> {
    let ledger = Ledger::load(lake.store()).await?;
    let Some(manifest) = &ledger.state().manifest else { return Ok(DayCounts::new()) };
    let entries = ledger.shards().entries_of(manifest, &partitions).await?;
    let rows = |(partition, entry): (CreatedDate, crate::lake::PartitionEntry)| {
        Some((partition.date()?, entry.files.get(Table::Conversations).as_ref()?.rows?))
    };
    Ok(entries.into_iter().filter_map(rows).collect())
}

async fn by_rows(lake: &Lake, tables: &Tables, month: CreatedDate, first: NaiveDate) -> Result<DayCounts> {
    let lanes = Lanes::of(lake.store());
    let open = tables.open_tables(month, &[Table::Conversations]).await?;
    let (files, lane) = open.read(&lanes).await?;
    let (lake, columns) = (lake.clone(), Arc::clone(tables.columns().of(Table::Conversations)));
    let runtime = Handle::current();
    let count = move || {
        let mut counts = DayCounts::new();
        let Some(file) = files.get(Table::Conversations) else { return Ok(counts) };
        let wanted = &[column::CREATED_AT];
        let mut reader = FileReader::open_columns(lake.store(), &columns, file, wanted, runtime)?;
        while let Some(batch) = reader.next_batch()? {
            for time in times(&batch, column::CREATED_AT).into_iter().flatten().flatten().filter_map(from_micros) {
                let day = time.date_naive();
                if day >= first {
                    *counts.entry(day).or_default() += 1;
                }
            }
        }
        Ok(counts)
    };
    lanes.work(&lane, count).await?
}
