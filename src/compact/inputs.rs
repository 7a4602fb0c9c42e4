//! The inputs of one partition's merge: its table files, and for each flush the latest versions that it has and, apart
//! from them, the older ones.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{Array, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow_select::filter::filter_record_batch;
use tokio::runtime::Handle;

use super::job::StagedPart;
use crate::error::{Error, Result};
use crate::files::{FileReader, FoundFile, SortedReader};
use crate::lake::{Lake, Overlap, Suppression};
use crate::layout;
use crate::merge::MergeInput;
use crate::model::{CreatedDate, PerTable, RowPolicy, Table, column, texts, times};
use crate::tables::Tables;

/// The files of one input.
pub(super) struct Files {
    tables: PerTable<InputFile>,
    /// See [`MergeInput::overlap`].
    overlap: Option<Overlap>,
}

enum InputFile {
    OfTable(Box<SortedReader>),
    OfFlush(Box<FileReader>),
    Ended,
}

impl Files {
    /// Opens the table files `found` in a partition; `None` if there are none. The conversations are written last, so
    /// if they exist, the others do too, unless another writer has changed Delta tables.
    ///
    /// # Errors
    /// Kind `Integrity` if one is missing nevertheless, or damaged, kind `Store` if it cannot be fetched.
    pub(super) fn of_tables(
        lake: &Lake,
        of: &Tables,
        date: CreatedDate,
        found: &PerTable<Option<FoundFile>>,
        runtime: &Handle,
    ) -> Result<Option<Self>> {
        if found.get(Table::Conversations).is_none() {
            return Ok(None);
        }
        let tables = PerTable::try_from_fn(|table| match found.get(table) {
            Some(file) => SortedReader::open(lake.store(), of.columns().of(table), file, of.policies(), runtime)
                .map(|file| InputFile::OfTable(Box::new(file))),
            None if of.are_delta() => Ok(InputFile::Ended),
            None => {
                let key = layout::table_file(table, date);
                Err(Error::integrity(format!("{}/{key} is missing", lake.url())).with_hint(
                    "restore it from a backup, or delete its partition from all four tables and fetch it again with \
                     `backfill --timestamp-filter created_at`",
                ))
            }
        })?;
        Ok(Some(Files { tables, overlap: None }))
    }

    /// How many rows each table file has.
    pub(super) fn table_rows(&self) -> PerTable<Option<u64>> {
        PerTable::from_fn(|table| match self.tables.get(table) {
            InputFile::OfTable(file) => Some(file.count()),
            InputFile::OfFlush(_) | InputFile::Ended => None,
        })
    }

    /// The policy that the rows of each table file follow.
    pub(super) fn table_policies(&self) -> PerTable<RowPolicy> {
        PerTable::from_fn(|table| match self.tables.get(table) {
            InputFile::OfTable(file) => file.policy().clone(),
            InputFile::OfFlush(_) | InputFile::Ended => RowPolicy::None,
        })
    }

    /// Opens the staged files of one flush and partition.
    ///
    /// # Errors
    /// Kind `Integrity` if one is missing or damaged, kind `Store` if it cannot be fetched.
    pub(super) fn of_flush(lake: &Lake, of: &Tables, staged: &StagedPart, runtime: &Handle) -> Result<Vec<Self>> {
        let mut older = PerTable::from_fn(|_| InputFile::Ended);
        let newest = PerTable::try_from_fn(|table| {
            if *staged.extent.rows.get(table) == 0 {
                return Ok(InputFile::Ended);
            }
            let file = staged.files.get(table);
            let columns = of.columns().of(table);
            let (first, rest) = FileReader::open_staged(lake.store(), columns, file, of.policies(), runtime.clone())?;
            if let Some(rest) = rest {
                *older.get_mut(table) = InputFile::OfFlush(Box::new(rest));
            }
            Ok::<_, Error>(InputFile::OfFlush(Box::new(first)))
        })?;
        let has_older = matches!(older.get(Table::Conversations), InputFile::OfFlush(_));
        let files = |tables| Files { tables, overlap: staged.overlap };
        Ok(std::iter::once(newest).chain(has_older.then_some(older)).map(files).collect())
    }
}

impl MergeInput for Files {
    fn overlap(&self) -> Option<Range<i64>> {
        self.overlap.map(|Overlap { from, to }| from.timestamp_micros()..to.timestamp_micros())
    }

    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        let file = self.tables.get_mut(table);
        let batch = match file {
            InputFile::OfTable(reader) => reader.next_batch()?,
            InputFile::OfFlush(reader) => reader.next_batch()?,
            InputFile::Ended => None,
        };
        if batch.is_none() {
            *file = InputFile::Ended;
        }
        Ok(batch)
    }
}

/// The conversations that a merge leaves out.
#[derive(Clone, Copy)]
pub(super) struct Unwanted<'a> {
    /// Those that must not come back.
    pub(super) suppression: &'a Suppression,
    /// Others; perhaps none.
    pub(super) ids: Option<&'a BTreeSet<String>>,
}

impl Unwanted<'_> {
    fn is_empty(&self) -> bool {
        self.ids.is_none() && self.suppression.is_empty()
    }

    fn has(&self, id: &str) -> bool {
        self.ids.is_some_and(|ids| ids.contains(id)) || self.suppression.contains(id)
    }
}

/// The conversations that are marked as deleted, unless they are marked already.
#[derive(Clone, Copy)]
pub(super) struct Marks<'a> {
    pub(super) ids: &'a BTreeSet<String>,
    /// When they were found to be deleted, in microseconds.
    pub(super) at: i64,
}

/// An input without some of its conversations, or with marks on some.
pub(super) struct Sifted<'a> {
    pub(super) files: Files,
    pub(super) unwanted: Unwanted<'a>,
    pub(super) marks: Option<Marks<'a>>,
    /// How many rows of each table were left out, of all inputs.
    pub(super) left_out: &'a PerTable<AtomicU64>,
}

impl MergeInput for Sifted<'_> {
    fn overlap(&self) -> Option<Range<i64>> {
        self.files.overlap()
    }

    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        let Some(mut batch) = self.files.next(table)? else { return Ok(None) };
        if let Some(marks) = self.marks.filter(|_| table == Table::Conversations) {
            batch = marks.on(batch)?;
        }
        let Some(ids) = texts(&batch, column::CONVERSATION_ID).filter(|_| !self.unwanted.is_empty()) else {
            return Ok(Some(batch));
        };
        // The rows of a conversation are adjacent.
        let mut last = None;
        let mut is_wanted = |id| match last {
            Some((known, wanted)) if known == id => wanted,
            _ => last.insert((id, !self.unwanted.has(id))).1,
        };
        let wanted: BooleanArray = ids.iter().map(|id| Some(id.is_none_or(&mut is_wanted))).collect();
        let left_out = batch.num_rows().saturating_sub(wanted.true_count());
        if left_out == 0 {
            return Ok(Some(batch));
        }
        self.left_out.get(table).fetch_add(left_out as u64, Ordering::Relaxed);
        Ok(Some(filter_record_batch(&batch, &wanted)?))
    }
}

impl Marks<'_> {
    /// The same rows with the marks on them.
    fn on(self, batch: RecordBatch) -> Result<RecordBatch> {
        let missing = || Error::bug("rows of conversations lack the columns of their table");
        let ids = texts(&batch, column::CONVERSATION_ID).ok_or_else(missing)?;
        if !ids.iter().flatten().any(|id| self.ids.contains(id)) {
            return Ok(batch);
        }
        let before = times(&batch, column::DELETED_AT).ok_or_else(missing)?;
        let mark = |(id, before): (Option<&str>, Option<i64>)| {
            before.or_else(|| id.filter(|id| self.ids.contains(*id)).map(|_| self.at))
        };
        let marks: TimestampMicrosecondArray = ids.iter().zip(before).map(mark).collect();
        let marks = marks.with_data_type(before.data_type().clone());
        let position = batch.schema().index_of(column::DELETED_AT)?;
        let (schema, mut columns, _) = batch.into_parts();
        *columns.get_mut(position).ok_or_else(missing)? = Arc::new(marks);
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}
