//! Makes the landing objects of a flush: for each date one Parquet file per table, the newest copies first, sorted as
//! the tables are. No I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::RecordBatch;
use object_store::path::Path;

use super::collect::FlatPage;
use crate::error::{Error, Result};
use crate::files::{self, WrittenFor};
use crate::layout::{self, FlushId};
use crate::merge::{Gather, Rows, Version, latest};
use crate::model::{CreatedDate, Table};

/// A landing object, ready to be uploaded.
pub(super) struct EncodedFile {
    pub(super) table: Table,
    pub(super) date: CreatedDate,
    pub(super) key: Path,
    pub(super) rows: u64,
    pub(super) body: Vec<u8>,
}

/// How many objects are encoded at a time, each on a thread of its own.
const ENCODERS: usize = 2;

/// Encodes `pages` and passes one object after the other to `emit`, until that returns false. `lifetime` tells how long
/// the objects of a date are meant to stay. Runs on a blocking thread, and on more of them.
///
/// # Errors
/// Only on a bug.
pub(super) fn encode(
    pages: &[FlatPage],
    flush: &FlushId,
    lifetime: impl Fn(CreatedDate) -> WrittenFor + Sync,
    emit: impl Fn(EncodedFile) -> bool + Sync,
) -> Result<()> {
    let copies = sorted(pages)?;
    let dates = copies.chunk_by(|a, b| a.date == b.date).map(OfDate::of).collect::<Result<Vec<_>>>()?;
    let dates: Vec<_> = dates.into_iter().flatten().collect();
    let objects: Vec<_> = dates.iter().flat_map(|of_date| Table::ALL.map(|table| (of_date, table))).collect();
    let next = AtomicUsize::new(0);
    let encode_some = || {
        while let Some((of_date, table)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !emit(of_date.encode(*table, flush, lifetime(of_date.date))?) {
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

/// The copies of one date: the newest of each conversation, and the others, both in the order of the ids.
struct OfDate<'a, 'p> {
    date: CreatedDate,
    newest: Vec<&'a FlatVersion<'p>>,
    older: Vec<&'a FlatVersion<'p>>,
}

impl<'a, 'p> OfDate<'a, 'p> {
    /// Of `copies` in the order of the ids; `None` where there are none.
    fn of(copies: &'a [FlatVersion<'p>]) -> Result<Option<Self>> {
        let Some(date) = copies.first().map(|first| first.date) else { return Ok(None) };
        let (mut newest, mut older) = (Vec::with_capacity(copies.len()), Vec::new());
        for of_id in copies.chunk_by(|a, b| a.id == b.id) {
            if let [only] = of_id {
                newest.push(only);
                continue;
            }
            let place = latest(&of_id.iter().map(FlatVersion::version).collect::<Result<Vec<_>>>()?);
            // The older ones keep the order of their places in the run.
            for (number, copy) in of_id.iter().enumerate() {
                if Some(number) == place { newest.push(copy) } else { older.push(copy) }
            }
        }
        Ok(Some(OfDate { date, newest, older }))
    }

    fn encode(&self, table: Table, flush: &FlushId, lifetime: WrittenFor) -> Result<EncodedFile> {
        let date = self.date;
        let (newest, older) = (gathered(&self.newest, table)?, gathered(&self.older, table)?);
        let rows = newest.iter().chain(&older).map(|batch| batch.num_rows() as u64).sum();
        let body = files::encode(table, lifetime, &newest, &older)?;
        Ok(EncodedFile { table, date, key: layout::staged_file(table, date, flush), rows, body })
    }
}

/// The rows of `copies` in `table`.
fn gathered(copies: &[&FlatVersion<'_>], table: Table) -> Result<Vec<RecordBatch>> {
    let mut gather = Gather::new(table);
    let mut batches = Vec::new();
    for copy in copies {
        gather.push(&copy.rows(table)?);
        if gather.is_full() {
            batches.extend(gather.take()?);
        }
    }
    batches.extend(gather.take()?);
    Ok(batches)
}

/// One copy of a conversation and its place in the order of the tables.
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
            .ok_or_else(|| Error::bug("flattened rows without the columns of their table"))
    }

    fn rows(&self, table: Table) -> Result<Rows> {
        let range = match table {
            Table::Conversations => self.row..self.row + 1,
            child => self.page.batch.children(child, self.row)?,
        };
        Ok(Rows { batch: Arc::clone(self.page.batch.tables.get(table)), range })
    }
}

/// The copies by date, then id, then place in the run: which is the order that they came in.
fn sorted(pages: &[FlatPage]) -> Result<Vec<FlatVersion<'_>>> {
    let mut copies = Vec::new();
    for page in pages {
        let ids = page.batch.conversation_ids()?;
        copies.extend(page.kept.iter().map(|(date, row)| FlatVersion {
            date: *date,
            id: ids.value(*row),
            page,
            row: *row,
        }));
    }
    // Stable, so that copies of one id keep the order of their pages.
    copies.sort_by(|a, b| (a.date, a.id).cmp(&(b.date, b.id)));
    Ok(copies)
}
