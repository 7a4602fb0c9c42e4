//! The inputs of one partition's merge: its table files, and for each flush the latest versions that it has and, apart
//! from them, the older ones.

use std::ops::Range;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use tokio::runtime::Handle;

use super::job::StagedPart;
use crate::error::{Error, Result};
use crate::files::{FileReader, FoundFile, SortedReader};
use crate::lake::{Lake, Overlap};
use crate::layout;
use crate::merge::MergeInput;
use crate::model::{CreatedDate, PerTable, RowPolicy, Table, column, texts};
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

/// An input without some of its conversations. The merge skips their children, which then belong to none.
pub(super) struct Without<'a> {
    pub(super) files: Files,
    pub(super) unwanted: &'a (dyn Fn(&str) -> bool + Sync),
}

impl MergeInput for Without<'_> {
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.files.next(table)? else { return Ok(None) };
        let ids = texts(&batch, column::CONVERSATION_ID);
        match ids.filter(|_| table == Table::Conversations) {
            None => Ok(Some(batch)),
            Some(ids) => {
                let wanted: BooleanArray = ids.iter().map(|id| id.map(|id| !(self.unwanted)(id))).collect();
                Ok(Some(filter_record_batch(&batch, &wanted)?))
            }
        }
    }
}
