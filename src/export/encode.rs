//! Encodes the staged files of a flush: for each partition one Parquet file per table, the latest versions first, in
//! the order of the tables. Must not depend on: I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::RecordBatch;
use object_store::path::Path;

use super::collect::FlatPage;
use crate::error::{Error, Result};
use crate::files::{self, WrittenFor};
use crate::layout::{self, FlushId};
use crate::merge::{Gather, Rows, Version, latest};
use crate::model::{CreatedDate, LakeColumns, Table, TableColumns};

/// A staged file, ready for upload.
pub(super) struct EncodedFile {
    pub(super) table: Table,
    pub(super) date: CreatedDate,
    pub(super) key: Path,
    pub(super) rows: u64,
    pub(super) body: Vec<u8>,
}

/// How many files are encoded at a time, each on its own thread.
const ENCODERS: usize = 2;

/// Encodes `pages` and passes each file to `emit`, until that returns false. `written_for` returns what the files of a
/// partition are written for. Runs on a blocking thread and starts more threads.
///
/// # Errors
/// Only on a bug.
pub(super) fn encode(
    pages: &[FlatPage],
    columns: &LakeColumns,
    flush: &FlushId,
    written_for: impl Fn(CreatedDate) -> WrittenFor + Sync,
    emit: impl Fn(EncodedFile) -> bool + Sync,
) -> Result<()> {
    let versions = sorted(pages)?;
    let partitions = versions.chunk_by(|a, b| a.date == b.date).map(Partition::of).collect::<Result<Vec<_>>>()?;
    let partitions: Vec<_> = partitions.into_iter().flatten().collect();
    let files: Vec<_> = partitions.iter().flat_map(|partition| Table::ALL.map(|table| (partition, table))).collect();
    let next = AtomicUsize::new(0);
    let encode_some = || {
        while let Some((partition, table)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !emit(partition.encode(columns.of(*table), flush, written_for(partition.date))?) {
                break;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..ENCODERS).map(|_| scope.spawn(encode_some)).collect();
        let own = encode_some();
        let results =
            others.into_iter().map(|other| other.join().unwrap_or_else(|_| Err(Error::bug("an encoder failed"))));
        results.fold(own, Result::and)
    })
}

/// The versions of one partition: the latest of each conversation, and the older ones, both in the order of their ids.
struct Partition<'a, 'p> {
    date: CreatedDate,
    latest: Vec<&'a FlatVersion<'p>>,
    older: Vec<&'a FlatVersion<'p>>,
}

impl<'a, 'p> Partition<'a, 'p> {
    /// Splits `versions`, which are in the order of their ids; `None` if there are none.
    fn of(versions: &'a [FlatVersion<'p>]) -> Result<Option<Self>> {
        let Some(date) = versions.first().map(|first| first.date) else { return Ok(None) };
        let (mut newest, mut older) = (Vec::with_capacity(versions.len()), Vec::new());
        for of_id in versions.chunk_by(|a, b| a.id == b.id) {
            if let [only] = of_id {
                newest.push(only);
                continue;
            }
            let position = latest(&of_id.iter().map(FlatVersion::version).collect::<Result<Vec<_>>>()?);
            // The older ones keep the order of their positions in the run.
            for (number, version) in of_id.iter().enumerate() {
                if Some(number) == position { newest.push(version) } else { older.push(version) }
            }
        }
        Ok(Some(Partition { date, latest: newest, older }))
    }

    fn encode(&self, columns: &TableColumns, flush: &FlushId, written_for: WrittenFor) -> Result<EncodedFile> {
        let (date, table) = (self.date, columns.table());
        let (latest, older) = (gather(&self.latest, table)?, gather(&self.older, table)?);
        let rows = latest.iter().chain(&older).map(|batch| batch.num_rows() as u64).sum();
        let body = files::encode(columns, written_for, &latest, &older)?;
        Ok(EncodedFile { table, date, key: layout::staged_file(table, date, flush), rows, body })
    }
}

/// Gathers the rows of `versions` in `table`.
fn gather(versions: &[&FlatVersion<'_>], table: Table) -> Result<Vec<RecordBatch>> {
    let mut gather = Gather::default();
    let mut batches = Vec::new();
    for version in versions {
        gather.push(&version.rows(table)?);
        if gather.is_full() {
            batches.extend(gather.take()?);
        }
    }
    batches.extend(gather.take()?);
    Ok(batches)
}

/// One version of a conversation: its partition and id, and where its rows are.
struct FlatVersion<'a> {
    date: CreatedDate,
    id: &'a str,
    page: &'a FlatPage,
    row: usize,
}

impl FlatVersion<'_> {
    fn version(&self) -> Result<Version<'_>> {
        let batch = |table| self.page.batch.tables.get(table).as_ref();
        let of = |table| Ok::<_, Error>((batch(table), self.page.batch.children(table, self.row)?));
        let children = [of(Table::Messages)?, of(Table::AuditLogs)?];
        Version::of(batch(Table::Conversations), self.row, children)
            .ok_or_else(|| Error::bug("flattened rows lack the columns of their table"))
    }

    fn rows(&self, table: Table) -> Result<Rows> {
        let range = match table {
            Table::Conversations => self.row..self.row + 1,
            child => self.page.batch.children(child, self.row)?,
        };
        Ok(Rows { batch: Arc::clone(self.page.batch.tables.get(table)), range })
    }
}

/// Sorts the versions of `pages` by partition, then id, then position in the run.
fn sorted(pages: &[FlatPage]) -> Result<Vec<FlatVersion<'_>>> {
    let mut versions = Vec::new();
    for page in pages {
        let ids = page.batch.conversation_ids()?;
        versions.extend(page.kept.iter().map(|(date, row)| FlatVersion {
            date: *date,
            id: ids.value(*row),
            page,
            row: *row,
        }));
    }
    // A stable sort keeps the versions of one id in the order of their pages.
    versions.sort_by(|a, b| (a.date, a.id).cmp(&(b.date, b.id)));
    Ok(versions)
}
