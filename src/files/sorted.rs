//! Reads a table file in the order of a merge, even if another program wrote it.
//!
//! This program's own files are sorted. Other files are scanned first; if one is not sorted, it is read once for each
//! range of ids that fits into memory. Guarantees: memory is bounded, except for a row group's compressed bytes and the
//! rows of a single conversation. Must not depend on: what rows are read for.

use std::sync::Arc;

use arrow_array::{BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_select::filter::filter_record_batch;
use arrow_select::interleave::interleave_record_batch;
use tokio::runtime::Handle;

use super::found::FoundFile;
use super::reader::{FileReader, OpenFile};
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::model::{RowPolicy, Table, TableColumns, big_ints, column, ints, texts};
use crate::policy::PolicyChain;
use crate::store::Store;

/// How many uncompressed bytes are sorted at a time.
const PART_BYTES: u64 = if cfg!(test) { 2_000 } else { 16 << 20 };
/// How many ids are sampled to find the bounds of each part.
const SAMPLES_PER_PART: usize = 64;

/// Reads one table file, sorted by conversation, version and index.
pub struct SortedReader {
    rows: SortedRows,
    /// How many rows the file has.
    count: u64,
    policy: RowPolicy,
}

enum SortedRows {
    InOrder(Box<FileReader>),
    InParts(Box<SortedParts>),
}

/// A file that is sorted a part at a time.
struct SortedParts {
    file: OpenFile,
    table: Table,
    /// The columns that are read; `None` means all.
    columns: Option<Vec<String>>,
    /// The first id of each part except the first, ascending.
    starts: Vec<String>,
    /// How many parts were read.
    read: usize,
    /// The rows of the current part as they were read, and their order.
    batches: Vec<RecordBatch>,
    order: Vec<(usize, usize)>,
    /// How many of them were returned.
    returned: usize,
}

impl SortedReader {
    /// Opens a file that was found. The rows follow `policies` when they are read; without them they stay as they are.
    ///
    /// # Errors
    /// As [`FileReader::open_columns`].
    pub fn open(
        store: &Store,
        columns: &Arc<TableColumns>,
        file: &FoundFile,
        policies: Option<&PolicyChain>,
        runtime: &Handle,
    ) -> Result<Self> {
        Self::of(OpenFile::open(store, columns, file, policies, runtime.clone())?, columns.table(), None)
    }

    /// Opens some columns of a file that was found. Files may lack those that are newer than the file.
    ///
    /// # Errors
    /// As [`FileReader::open_columns`].
    pub fn open_columns(
        store: &Store,
        columns: &Arc<TableColumns>,
        file: &FoundFile,
        wanted: &[&str],
        runtime: &Handle,
    ) -> Result<Self> {
        Self::of(OpenFile::open(store, columns, file, None, runtime.clone())?, columns.table(), Some(wanted))
    }

    fn of(file: OpenFile, table: Table, wanted: Option<&[&str]>) -> Result<Self> {
        let (count, policy) = (file.rows() as u64, file.policy());
        let rows = match file.is_own() {
            true => SortedRows::InOrder(Box::new(file.all(wanted)?)),
            false => match find_parts(&file, table)? {
                None => SortedRows::InOrder(Box::new(file.all(wanted)?)),
                Some(starts) => SortedRows::InParts(Box::new(SortedParts {
                    file,
                    table,
                    columns: wanted.map(|wanted| with_keys(wanted, table)),
                    starts,
                    read: 0,
                    batches: Vec::new(),
                    order: Vec::new(),
                    returned: 0,
                })),
            },
        };
        Ok(SortedReader { rows, count, policy })
    }

    /// The policy that the file's rows follow.
    pub fn policy(&self) -> &RowPolicy {
        &self.policy
    }

    /// How many rows the file has.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the file is not sorted, so that this reader sorts it.
    pub fn sorts(&self) -> bool {
        matches!(self.rows, SortedRows::InParts(_))
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// As [`SortedReader::open`].
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.rows {
            SortedRows::InOrder(reader) => reader.next_batch(),
            SortedRows::InParts(parts) => parts.next_batch(),
        }
    }
}

/// Scans a file: returns `None` if its rows are sorted, else the first id of each part except the first.
fn find_parts(file: &OpenFile, table: Table) -> Result<Option<Vec<String>>> {
    let parts = usize::try_from(file.uncompressed_bytes().div_ceil(PART_BYTES)).unwrap_or(usize::MAX).max(1);
    let step = file.rows().div_ceil(parts.saturating_mul(SAMPLES_PER_PART)).max(1);
    let (mut samples, mut is_sorted, mut row_number) = (Vec::new(), true, 0_usize);
    let mut last: Option<(String, i64, i32)> = None;
    let mut reader = file.all(Some(&Keys::columns(table)))?;
    while let Some(batch) = reader.next_batch()? {
        let keys = Keys::of(table, &batch)?;
        for row in 0..batch.num_rows() {
            let key = keys.key(row);
            let before = match row.checked_sub(1) {
                Some(before) => Some(keys.key(before)),
                None => last.as_ref().map(|(id, seq, index)| (id.as_str(), *seq, *index)),
            };
            if let Some(before) = before {
                distinct(file, table, before, key)?;
                is_sorted &= before < key;
            }
            if row_number.is_multiple_of(step) {
                samples.push(key.0.to_owned());
            }
            row_number += 1;
        }
        if let Some(row) = batch.num_rows().checked_sub(1) {
            let (id, seq, index) = keys.key(row);
            last = Some((id.to_owned(), seq, index));
        }
    }
    if is_sorted {
        return Ok(None);
    }
    samples.sort_unstable();
    let mut starts: Vec<_> =
        (1..parts).filter_map(|part| samples.get(part.saturating_mul(samples.len()) / parts).cloned()).collect();
    starts.dedup();
    tracing::debug!("{} is not sorted; reading it in {}", file.url(), counted(starts.len() + 1, "part"));
    Ok(Some(starts))
}

/// Makes sure that two adjacent rows differ, because a table has each row once and each conversation once.
fn distinct(file: &OpenFile, table: Table, one: Key<'_>, other: Key<'_>) -> Result<()> {
    let same = if table == Table::Conversations { one.0 == other.0 } else { one == other };
    if !same {
        return Ok(());
    }
    let what = match table {
        Table::Conversations => format!("has conversation {} twice", one.0),
        _ => format!("has row {} of conversation {} twice", one.2, one.0),
    };
    Err(Error::integrity(format!("{} {what}: another program wrote it", file.url()))
        .with_hint("rewrite it with each row once, or restore it from a backup"))
}

impl SortedParts {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while self.returned >= self.order.len() {
            if self.read > self.starts.len() {
                return Ok(None);
            }
            self.fill()?;
        }
        let end = self.returned.saturating_add(self.file.batch_rows()).min(self.order.len());
        let next = self.order.get(self.returned..end).unwrap_or_default();
        let batches: Vec<_> = self.batches.iter().collect();
        let batch = interleave_record_batch(&batches, next)?;
        self.returned = end;
        Ok(Some(batch))
    }

    /// Reads and sorts the next part.
    fn fill(&mut self) -> Result<()> {
        let from = self.read.checked_sub(1).and_then(|before| self.starts.get(before)).map(String::as_str);
        let to = self.starts.get(self.read).map(String::as_str);
        (self.batches, self.order, self.returned) = (Vec::new(), Vec::new(), 0);
        let columns: Option<Vec<_>> = self.columns.as_ref().map(|columns| columns.iter().map(String::as_str).collect());
        let (mut reader, mut keys) = (self.file.all(columns.as_deref())?, Vec::new());
        while let Some(batch) = reader.next_batch()? {
            let ids = &Keys::of(self.table, &batch)?.ids;
            let is_in = |id: &str| from.is_none_or(|from| id >= from) && to.is_none_or(|to| id < to);
            let wanted: BooleanArray = ids.iter().map(|id| id.map(is_in)).collect();
            let batch = filter_record_batch(&batch, &wanted)?;
            if batch.num_rows() > 0 {
                self.order.extend((0..batch.num_rows()).map(|row| (self.batches.len(), row)));
                keys.push(Keys::of(self.table, &batch)?);
                self.batches.push(batch);
            }
        }
        let key = |(batch, row): &(usize, usize)| keys.get(*batch).map(|keys| keys.key(*row));
        self.order.sort_unstable_by_key(key);
        for pair in self.order.windows(2) {
            if let [one, other] = pair
                && let (Some(one), Some(other)) = (key(one), key(other))
            {
                distinct(&self.file, self.table, one, other)?;
            }
        }
        self.read += 1;
        Ok(())
    }
}

/// The sort key of a row: the conversation's id, the version's number and the index.
type Key<'a> = (&'a str, i64, i32);

/// Some columns, and those that rows are sorted by.
fn with_keys(wanted: &[&str], table: Table) -> Vec<String> {
    let mut all: Vec<_> = wanted.iter().copied().chain(Keys::columns(table)).map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The sort keys of a batch.
struct Keys {
    ids: StringArray,
    seqs: Int64Array,
    indexes: Option<Int32Array>,
}

impl Keys {
    fn columns(table: Table) -> Vec<&'static str> {
        [column::CONVERSATION_ID, column::SEQ].into_iter().chain(table.index_column()).collect()
    }

    fn of(table: Table, batch: &RecordBatch) -> Result<Self> {
        let missing = || Error::bug(format!("a file of {} was accepted without its key columns", table.name()));
        Ok(Keys {
            ids: texts(batch, column::CONVERSATION_ID).ok_or_else(missing)?.clone(),
            seqs: big_ints(batch, column::SEQ).ok_or_else(missing)?.clone(),
            indexes: table.index_column().map(|name| ints(batch, name).cloned().ok_or_else(missing)).transpose()?,
        })
    }

    fn key(&self, row: usize) -> Key<'_> {
        (self.ids.value(row), self.seqs.value(row), self.indexes.as_ref().map_or(0, |indexes| indexes.value(row)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow_array::UInt32Array;
    use arrow_select::concat::concat_batches;
    use arrow_select::take::take_record_batch;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use crate::files::samples;
    use crate::model::LakeColumns;

    /// A file of another program.
    fn of_another_program(rows: &RecordBatch) -> Vec<u8> {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
        writer.write(rows).unwrap();
        writer.into_inner().unwrap()
    }

    /// The rows in another order.
    fn shuffled(rows: &RecordBatch) -> RecordBatch {
        let count = u32::try_from(rows.num_rows()).unwrap();
        let order: UInt32Array = (0..count).map(|row| (row * 7_919) % count).collect();
        take_record_batch(rows, &order).unwrap()
    }

    /// The rows read from a file, and whether the reader had to sort them.
    async fn read(table: Table, body: Vec<u8>) -> Result<(RecordBatch, bool)> {
        let (store, key) = (Store::on(InMemory::new(), "memory", Duration::from_secs(60)), Path::from("x"));
        store.put(&key, body).await.unwrap();
        let (object, runtime) = (store.head(&key).await.unwrap().unwrap(), Handle::current());
        let task = tokio::task::spawn_blocking(move || {
            let mut reader = SortedReader::open(
                &store,
                LakeColumns::default().of(table),
                &FoundFile::not_read(object),
                None,
                &runtime,
            )?;
            let mut batches = Vec::new();
            while let Some(batch) = reader.next_batch()? {
                batches.push(batch);
            }
            if let SortedRows::InParts(parts) = &reader.rows {
                assert!(parts.starts.len() > 5, "{:?}", parts.starts);
            }
            Ok((concat_batches(&LakeColumns::default().of(table).schema(), &batches)?, reader.sorts()))
        });
        task.await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_in_any_order_are_read_sorted() {
        for table in Table::ALL {
            let rows = samples::rows(table, 0..500);
            let sorted = read(table, of_another_program(&rows)).await.unwrap();
            assert_eq!(sorted, (rows.clone(), false), "{}", table.name());
            let sorted = read(table, of_another_program(&shuffled(&rows))).await.unwrap();
            assert_eq!(sorted, (rows, true), "{}", table.name());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_duplicate_row_is_refused() {
        for table in Table::ALL {
            let rows = samples::rows(table, 0..500);
            let one = rows.slice(250, 1);
            let twice = concat_batches(&Arc::clone(rows.schema_ref()), [&rows, &one]).unwrap();
            for body in [of_another_program(&twice), of_another_program(&shuffled(&twice))] {
                let error = read(table, body).await.unwrap_err();
                assert!(error.to_string().contains("twice"), "{error}");
            }
            let in_order = concat_batches(rows.schema_ref(), [&rows.slice(0, 251), &rows.slice(250, 250)]).unwrap();
            assert!(read(table, of_another_program(&in_order)).await.is_err());
        }
    }
}
