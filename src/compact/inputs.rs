//! The inputs of one date's merge: its table objects, and the landing objects of one flush after the other, the newest
//! copies that it brought and the older ones apart.

use std::ops::Range;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use object_store::ObjectMeta;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::files::{FileReader, SortedReader};
use crate::lake::{Extent, Lake, Overlap};
use crate::layout::{self, FlushId};
use crate::merge::MergeInput;
use crate::model::{CreatedDate, PerTable, Table, column, texts};

/// The files of one input.
pub(super) struct Files {
    lake: Lake,
    runtime: Handle,
    tables: PerTable<InputFile>,
    /// See [`MergeInput::overlap`].
    overlap: Option<Overlap>,
}

enum InputFile {
    Closed(ObjectMeta),
    OfTable(Box<SortedReader>),
    StagedFlush(Box<FileReader>),
    Ended,
}

impl Files {
    /// The table objects of a date, as they were found; `None` where there are none. The conversations are written last,
    /// so where they are, the others are too, unless another program has written to Delta tables.
    ///
    /// # Errors
    /// Kind `Integrity` where one is missing all the same.
    pub(super) fn of_tables(
        lake: &Lake,
        are_delta: bool,
        date: CreatedDate,
        found: &PerTable<Option<ObjectMeta>>,
        runtime: &Handle,
    ) -> Result<Option<Self>> {
        if found.get(Table::Conversations).is_none() {
            return Ok(None);
        }
        let tables = PerTable::try_from_fn(|table| match found.get(table) {
            Some(object) => Ok(InputFile::Closed(object.clone())),
            None if are_delta => Ok(InputFile::Ended),
            None => {
                let key = layout::table_file(table, date);
                Err(Error::integrity(format!("{}/{key} is missing", lake.url())).with_hint(
                    "restore it from a backup, or delete its date from all four tables and fetch it again with \
                     `backfill --timestamp-filter created_at`",
                ))
            }
        })?;
        Ok(Some(Files { lake: lake.clone(), runtime: runtime.clone(), tables, overlap: None }))
    }

    /// The landing objects of one flush and date.
    ///
    /// # Errors
    /// Kind `Integrity` where one is missing or damaged, kind `Store` where it cannot be fetched.
    pub(super) fn of_flush(
        lake: &Lake,
        date: CreatedDate,
        flush: &FlushId,
        extent: &Extent,
        runtime: &Handle,
    ) -> Result<Vec<Self>> {
        let mut older = PerTable::from_fn(|_| InputFile::Ended);
        let newest = PerTable::try_from_fn(|table| {
            if *extent.rows.get(table) == 0 {
                return Ok(InputFile::Ended);
            }
            let (key, bytes) = (layout::staged_file(table, date, flush), *extent.bytes.get(table));
            let (first, rest) = FileReader::open_staged(lake.store(), table, key, bytes, runtime.clone())?;
            if let Some(rest) = rest {
                *older.get_mut(table) = InputFile::StagedFlush(Box::new(rest));
            }
            Ok::<_, Error>(InputFile::StagedFlush(Box::new(first)))
        })?;
        let files = |tables| Files { lake: lake.clone(), runtime: runtime.clone(), tables, overlap: None };
        let has_older = matches!(older.get(Table::Conversations), InputFile::StagedFlush(_));
        Ok(std::iter::once(newest).chain(has_older.then_some(older)).map(files).collect())
    }

    /// The same, where what changed in the overlap came late.
    pub(super) fn with_overlap(self, overlap: Option<Overlap>) -> Self {
        Files { overlap, ..self }
    }
}

impl MergeInput for Files {
    fn overlap(&self) -> Option<Range<i64>> {
        self.overlap.map(|Overlap { from, to }| from.timestamp_micros()..to.timestamp_micros())
    }

    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        let file = self.tables.get_mut(table);
        if let InputFile::Closed(object) = file {
            *file = InputFile::OfTable(Box::new(SortedReader::open(self.lake.store(), table, object, &self.runtime)?));
        }
        let batch = match file {
            InputFile::OfTable(reader) => reader.next_batch()?,
            InputFile::StagedFlush(reader) => reader.next_batch()?,
            InputFile::Closed(_) | InputFile::Ended => None,
        };
        if batch.is_none() {
            *file = InputFile::Ended;
        }
        Ok(batch)
    }
}

/// An input without some of its conversations; their children then belong to none, and the merge passes over them.
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
