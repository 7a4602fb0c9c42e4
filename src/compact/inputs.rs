//! The inputs of one date's merge: its table objects, and the landing objects of one flush after the other.

use arrow_array::RecordBatch;
use object_store::path::Path;
use tokio::runtime::Handle;

use crate::error::Result;
use crate::lake::{Extent, FileReader, Lake};
use crate::layout::{self, FlushId};
use crate::merge::Copies;
use crate::model::{CreatedDate, PerTable, Table};

/// The files of one input, each opened when its first row is wanted.
pub(super) struct Files {
    lake: Lake,
    runtime: Handle,
    tables: PerTable<File>,
}

enum File {
    Closed { key: Path, bytes: u64 },
    Open(Box<FileReader>),
    Ended,
}

impl Files {
    /// The table objects of a date; `None` where there are none. The conversations are written last, so where they are,
    /// the others are too.
    pub(super) fn of_tables(lake: &Lake, date: CreatedDate, runtime: &Handle) -> Result<Option<Self>> {
        let size = |table| runtime.block_on(lake.size(&layout::table_object(table, date)));
        if size(Table::Conversations)?.is_none() {
            return Ok(None);
        }
        let tables = PerTable::try_from_fn(|table| {
            let file = |bytes| File::Closed { key: layout::table_object(table, date), bytes };
            Ok::<_, crate::error::Error>(size(table)?.map_or(File::Ended, file))
        })?;
        Ok(Some(Files { lake: lake.clone(), runtime: runtime.clone(), tables }))
    }

    /// The landing objects of one flush and date.
    pub(super) fn of_flush(lake: &Lake, date: CreatedDate, flush: &FlushId, extent: &Extent, runtime: &Handle) -> Self {
        let tables = PerTable::from_fn(|table| match extent.rows.get(table) {
            0 => File::Ended,
            _ => File::Closed { key: layout::landing_object(table, date, flush), bytes: *extent.bytes.get(table) },
        });
        Files { lake: lake.clone(), runtime: runtime.clone(), tables }
    }
}

impl Copies for Files {
    fn next(&mut self, table: Table) -> Result<Option<RecordBatch>> {
        let file = self.tables.get_mut(table);
        if let File::Closed { key, bytes } = file {
            let reader = FileReader::open(&self.lake, table, key.clone(), *bytes, self.runtime.clone())?;
            *file = File::Open(Box::new(reader));
        }
        let File::Open(reader) = file else { return Ok(None) };
        let batch = reader.next_batch()?;
        if batch.is_none() {
            *file = File::Ended;
        }
        Ok(batch)
    }
}
