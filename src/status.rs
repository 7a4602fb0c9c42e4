//! What a lake holds and how far it has come: what `status` tells. Reads only.

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::error::{Error, Kind, Result};
use crate::files::FileReader;
use crate::lake::{Extent, Format, Lake, Ledger, Support, Walk};
use crate::model::{CreatedDate, PerTable, Table, Window};
use crate::tables::Tables;

/// How many files are looked at at a time, each holding a blocking thread.
const FILES_AT_ONCE: usize = 4;
/// How often a table is looked at that changes meanwhile.
const TRIES: usize = 4;

/// The state of a lake. Fields only get added.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Where the lake is.
    pub lake: String,
    /// The API whose conversations it holds.
    pub base_url: String,
    /// How its tables are kept.
    pub format: Format,
    /// The newest change that is known to be in the lake; none before the first export has ended.
    pub watermark: Option<DateTime<Utc>>,
    /// How long ago that was, in seconds.
    pub lag_secs: Option<i64>,
    /// When the last complete export began: what had changed before is in the lake.
    pub exported_at: Option<DateTime<Utc>>,
    /// Whether the API bounds the time that increments depend on, as far as the lake has seen.
    pub timestamp_filter: Option<Support>,
    /// Walks that have begun and not ended: running the same command goes on with them.
    pub unfinished: Vec<Unfinished>,
    /// What waits for compaction.
    pub landing: Landing,
    /// What can be queried.
    pub tables: PerTable<TableStatus>,
}

/// A walk that has begun and not ended.
#[derive(Debug, Clone, Serialize)]
pub struct Unfinished {
    /// The command that goes on with it: `export` or `backfill`.
    pub command: &'static str,
    /// Its window.
    pub window: Window,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How far it has come.
    pub newest_change: Option<DateTime<Utc>>,
    /// Pages landed.
    pub pages: u64,
    /// Copies of conversations landed.
    pub conversations: u64,
}

/// What waits for compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Landing {
    /// Objects.
    pub objects: u64,
    /// Dates.
    pub dates: u64,
    /// Rows and bytes.
    #[serde(flatten)]
    pub extent: Extent,
}

/// What one table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// Rows.
    pub rows: u64,
    /// Bytes of Parquet.
    pub bytes: u64,
    /// Dates, which is also the number of files.
    pub dates: u64,
    /// The first date; none where the only one is unknown.
    pub first_date: Option<CreatedDate>,
    /// The last date.
    pub last_date: Option<CreatedDate>,
}

/// Looks at a lake.
///
/// # Errors
/// Where there is none, or its store fails.
pub async fn status(lake: &Lake, now: DateTime<Utc>) -> Result<Status> {
    let file = lake.existing().await?;
    let ledger = Ledger::load(lake.store()).await?;
    let state = ledger.state();
    let incremental = state.incremental.as_ref();
    let watermark = state.watermark();
    let export = incremental.and_then(|incremental| incremental.walk.as_ref());
    let mut unfinished: Vec<_> = export.map(|walk| unfinished_walk("export", walk)).into_iter().collect();
    unfinished.extend(state.backfills.iter().map(|walk| unfinished_walk("backfill", walk)));

    let by_date = state.staged_by_date();
    let mut landing = Landing { dates: by_date.len() as u64, ..Landing::default() };
    for (_, extent) in by_date.values().flatten() {
        landing.objects += Table::ALL.len() as u64;
        landing.extent.add(extent);
    }
    let (of, mut tables) = (Tables::of(lake.store(), &file)?, PerTable::default());
    for table in Table::ALL {
        *tables.get_mut(table) = table_status(lake, &of, table).await?;
    }
    Ok(Status {
        lake: lake.url().to_owned(),
        base_url: file.base_url,
        format: file.format,
        watermark,
        exported_at: incremental.and_then(|incremental| incremental.exported_at),
        lag_secs: watermark.map(|watermark| (now - watermark).num_seconds()),
        timestamp_filter: state.filter_support.known,
        unfinished,
        landing,
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

/// What a table holds. If a file cannot be read that the table does not have any more by then, it is looked at again.
async fn table_status(lake: &Lake, tables: &Tables, table: Table) -> Result<TableStatus> {
    for _ in 1..TRIES {
        // There may be others: a desktop's own files, say.
        let (objects, _) = tables.objects(table).await?;
        let counted = count(lake, objects.clone()).await;
        if counted.as_ref().err().is_none_or(|error| error.kind() != Kind::Integrity) {
            return counted;
        }
        tables.look_again();
        if tables.objects(table).await?.0 == objects {
            return counted;
        }
    }
    Err(Error::held(format!("the files of {}/{} are replaced faster than they can be read", lake.url(), table.name()))
        .with_hint("run this again"))
}

async fn count(lake: &Lake, objects: Vec<(CreatedDate, ObjectMeta)>) -> Result<TableStatus> {
    let runtime = Handle::current();
    let counted = objects.into_iter().map(|(date, object)| {
        let (lake, runtime) = (lake.clone(), runtime.clone());
        async move {
            let count = move || FileReader::count_rows(lake.store(), object, &runtime);
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
        if date.date().is_some() {
            status.first_date = Some(status.first_date.map_or(date, |first| first.min(date)));
            status.last_date = Some(status.last_date.map_or(date, |last| last.max(date)));
        }
    }
    Ok(status)
}
