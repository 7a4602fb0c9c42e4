//! The inputs of one date's merge: its table objects, and the landing objects of one flush after the other, the newest
//! copies that it brought and the older ones apart.

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::lake::{Extent, FETCH_AGAIN, FileReader, Lake};
use crate::layout::{self, FlushId};
use crate::merge::Copies;
use crate::model::{CreatedDate, PerTable, Table, column, texts};

/// The files of one input.
pub(super) struct Files {
    lake: Lake,
    runtime: Handle,
    tables: PerTable<File>,
    /// How far each was read, where another program may have written them in another order.
    read_up_to: Option<PerTable<Place>>,
    /// See [`Copies::late_before`].
    late_before: Option<i64>,
}

/// How far a file was read.
#[derive(Debug, Clone, Default)]
struct Place {
    key: Path,
    last_id: String,
}

enum File {
    Closed { key: Path, bytes: u64 },
    Open(Box<FileReader>),
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
            Some(object) => Ok(File::Closed { key: object.location.clone(), bytes: object.size }),
            None if are_delta => Ok(File::Ended),
            None => {
                let key = layout::table_object(table, date);
                Err(Error::integrity(format!("{}/{key} is missing", lake.url())).with_hint(
                    "restore it from a backup, or delete its date from all four tables and fetch it again with \
                     `backfill --timestamp-filter created_at`",
                ))
            }
        })?;
        let place = |table| {
            let key = found.get(table).as_ref().map(|object| object.location.clone()).unwrap_or_default();
            Place { key, last_id: String::new() }
        };
        let read_up_to = are_delta.then(|| PerTable::from_fn(place));
        Ok(Some(Files { lake: lake.clone(), runtime: runtime.clone(), tables, read_up_to, late_before: None }))
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
        let mut older = PerTable::from_fn(|_| File::Ended);
        let newest = PerTable::try_from_fn(|table| {
            if *extent.rows.get(table) == 0 {
                return Ok(File::Ended);
            }
            let (key, bytes) = (layout::landing_object(table, date, flush), *extent.bytes.get(table));
            let (first, rest) = FileReader::open_landed(lake, table, key, bytes, runtime.clone())?;
            if let Some(rest) = rest {
                *older.get_mut(table) = File::Open(Box::new(rest));
            }
            Ok::<_, Error>(File::Open(Box::new(first)))
        })?;
        let files = |tables| Files {
            lake: lake.clone(),
            runtime: runtime.clone(),
            tables,
            read_up_to: None,
            late_before: None,
        };
        let has_older = matches!(older.get(Table::Conversations), File::Open(_));
        Ok(std::iter::once(newest).chain(has_older.then_some(older)).map(files).collect())
    }

    /// The same, where what changed before that time came late.
    pub(super) fn late_before(self, late_before: Option<i64>) -> Self {
        Files { late_before, ..self }
    }
}

impl Copies for Files {
    fn late_before(&self) -> Option<i64> {
        self.late_before
    }

    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        let file = self.tables.get_mut(table);
        if let File::Closed { key, bytes } = file {
            let reader = FileReader::open(&self.lake, table, key.clone(), *bytes, self.runtime.clone())?;
            *file = File::Open(Box::new(reader));
        }
        let File::Open(reader) = file else { return Ok(None) };
        let batch = reader.next_batch()?;
        match (&batch, &mut self.read_up_to) {
            (None, _) => *file = File::Ended,
            (Some(batch), Some(places)) => places.get_mut(table).go_on(&self.lake, batch)?,
            (Some(_), None) => {}
        }
        Ok(batch)
    }
}

impl Place {
    /// Makes sure that the rows of `batch`, which come next, are sorted by their conversations.
    fn go_on(&mut self, lake: &Lake, batch: &RecordBatch) -> Result<()> {
        for id in texts(batch, column::CONVERSATION_ID).into_iter().flatten().flatten() {
            if id < self.last_id.as_str() {
                let file = format!("{}/{}", lake.url(), self.key);
                return Err(Error::integrity(format!("{file} is not sorted: another program has written it"))
                    .with_hint(FETCH_AGAIN));
            }
            if id != self.last_id.as_str() {
                id.clone_into(&mut self.last_id);
            }
        }
        Ok(())
    }
}

/// An input without some of its conversations; their children then belong to none, and the merge passes over them.
pub(super) struct Without<'a> {
    pub(super) files: Files,
    pub(super) unwanted: &'a (dyn Fn(&str) -> bool + Sync),
}

impl Copies for Without<'_> {
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
