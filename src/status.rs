//! The status of a lake: what it holds, and the progress of its exports.
//!
//! Guarantees: it only reads, and may run beside a writing run. A file that cannot be read is damage only if the table
//! still has it.
//! Must not depend on: how a status is printed.

use chrono::{DateTime, NaiveDate, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::error::{Error, Kind, Result};
use crate::files::FileReader;
use crate::lake::{Extent, Format, Lake, Ledger, Support, Walk};
use crate::model::{CreatedDate, PartitionBy, PerTable, Table, Window};
use crate::tables::Tables;

/// How many files to read at a time, each on a blocking thread.
const FILES_AT_ONCE: usize = 4;
/// How often to read a table that changes meanwhile.
const TRIES: usize = 4;

/// The status of a lake. Fields are only ever added.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The lake's URL or path.
    pub lake: String,
    /// The API whose conversations it holds.
    pub base_url: String,
    /// The format of its tables.
    pub format: Format,
    /// How much time a partition covers.
    pub partition_by: PartitionBy,
    /// The newest change that is known to be in the lake; none before the first complete export.
    pub watermark: Option<DateTime<Utc>>,
    /// How long ago that was, in seconds.
    pub lag_secs: Option<i64>,
    /// When the last complete export began: every change before is in the lake.
    pub exported_at: Option<DateTime<Utc>>,
    /// Whether the API honors the filter that increments depend on, if that is known.
    pub timestamp_filter: Option<Support>,
    /// Unfinished walks, which the same command resumes.
    pub unfinished: Vec<Unfinished>,
    /// The staged files.
    #[serde(rename = "landing")]
    pub staging: Staging,
    /// The tables.
    pub tables: PerTable<TableStatus>,
}

/// An unfinished walk.
#[derive(Debug, Clone, Serialize)]
pub struct Unfinished {
    /// The command that resumes it: `export` or `backfill`.
    pub command: &'static str,
    /// Its window.
    pub window: Window,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// The newest change seen.
    pub newest_change: Option<DateTime<Utc>>,
    /// Pages staged.
    pub pages: u64,
    /// Versions of conversations staged.
    pub conversations: u64,
}

/// The files that wait for compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Staging {
    /// How many.
    #[serde(rename = "objects")]
    pub files: u64,
    /// Their partitions.
    pub dates: u64,
    /// Their rows and bytes.
    #[serde(flatten)]
    pub extent: Extent,
}

/// The content of one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TableStatus {
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

/// Reads the status of a lake.
///
/// # Errors
/// If there is no lake, or its store fails.
pub async fn status(lake: &Lake, now: DateTime<Utc>) -> Result<Status> {
    let identity = lake.existing().await?;
    let ledger = Ledger::load(lake.store()).await?;
    let state = ledger.state();
    let incremental = state.incremental.as_ref();
    let watermark = state.watermark();
    let export = incremental.and_then(|incremental| incremental.walk.as_ref());
    let mut unfinished: Vec<_> = export.map(|walk| unfinished_walk("export", walk)).into_iter().collect();
    unfinished.extend(state.backfills.iter().map(|walk| unfinished_walk("backfill", walk)));

    let by_date = state.staged_by_date();
    let mut staging = Staging { dates: by_date.len() as u64, ..Staging::default() };
    for (_, extent) in by_date.values().flatten() {
        staging.files += Table::ALL.len() as u64;
        staging.extent.add(extent);
    }
    let (of, mut tables) = (Tables::of(lake.store(), &identity)?, PerTable::default());
    for table in Table::ALL {
        *tables.get_mut(table) = table_status(lake, &of, table).await?;
    }
    Ok(Status {
        lake: lake.url().to_owned(),
        base_url: identity.base_url,
        format: identity.format,
        partition_by: identity.partition_by,
        watermark,
        exported_at: incremental.and_then(|incremental| incremental.exported_at),
        lag_secs: watermark.map(|watermark| (now - watermark).num_seconds()),
        timestamp_filter: state.filter_support.known,
        unfinished,
        staging,
        tables,
    })
}

fn unfinished_walk(command: &'static str, walk: &Walk) -> Unfinished {
    Unfinished {
        command,
        window: walk.request.window,
        started_at: walk.started_at,
        newest_change: walk.newest_change,
        pages: walk.pages,
        conversations: walk.conversations,
    }
}

/// Reads the content of a table; again if a file that cannot be read was replaced meanwhile.
async fn table_status(lake: &Lake, tables: &Tables, table: Table) -> Result<TableStatus> {
    for _ in 1..TRIES {
        // Other objects, such as a desktop's own files, do not matter here.
        let (files, _) = tables.files(table).await?;
        let counted = count(lake, files.clone()).await;
        if counted.as_ref().err().is_none_or(|error| error.kind() != Kind::Integrity) {
            return counted;
        }
        tables.invalidate();
        if tables.files(table).await?.0 == files {
            return counted;
        }
    }
    Err(Error::held(format!("the files of {}/{} are replaced faster than they can be read", lake.url(), table.name()))
        .with_hint("run this again"))
}

async fn count(lake: &Lake, files: Vec<(CreatedDate, ObjectMeta)>) -> Result<TableStatus> {
    let runtime = Handle::current();
    let counted = files.into_iter().map(|(date, file)| {
        let (lake, runtime) = (lake.clone(), runtime.clone());
        async move {
            let count = move || FileReader::count_rows(lake.store(), file, &runtime);
            let (rows, bytes) = tokio::task::spawn_blocking(count)
                .await
                .map_err(|error| Error::bug("the reader failed").caused_by(error))??;
            Ok::<_, Error>((date, rows, bytes))
        }
    });
    let mut counted = stream::iter(counted).buffer_unordered(FILES_AT_ONCE);
    let mut status = TableStatus::default();
    while let Some((date, rows, bytes)) = counted.try_next().await? {
        status.rows += rows;
        status.bytes += bytes;
        status.dates += 1;
        if let Some(date) = date.date() {
            status.first_date = Some(status.first_date.map_or(date, |first| first.min(date)));
            status.last_date = status.last_date.max(Some(date));
        }
    }
    Ok(status)
}
