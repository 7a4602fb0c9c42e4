//! One date: merges its table objects with what is landed for it, and replaces them.

use object_store::ObjectMeta;
use tokio::runtime::Handle;

use super::inputs::{Files, Without};
use crate::error::{Error, Result};
use crate::lake::{Extent, Lake, Lease, Lifetime, Upload, table_writer};
use crate::layout::{self, FlushId};
use crate::merge::{Copies, Merged, merge};
use crate::model::{CreatedDate, PerTable, Table};

/// What became of a date.
#[derive(Debug, Clone, Copy)]
pub struct Compacted {
    /// Copies of conversations read.
    pub copies: u64,
    /// Copies that a newer one replaced.
    pub duplicates: u64,
    /// What its tables hold now.
    pub extent: Extent,
}

/// The tables of one date, to be replaced by who holds the lake.
pub(super) struct DateTables<'a> {
    pub(super) lake: &'a Lake,
    pub(super) lease: &'a Lease,
    pub(super) date: CreatedDate,
    pub(super) runtime: &'a Handle,
}

/// Replaces the tables of `date` by themselves without the conversations that `unwanted` names. Must not be called on an
/// async thread.
///
/// # Errors
/// Of the store; `Held` where another run has the lake; `Integrity` where a table is damaged.
pub fn remove_conversations(
    lake: &Lake,
    lease: &Lease,
    date: CreatedDate,
    unwanted: &(dyn Fn(&str) -> bool + Sync),
    runtime: &Handle,
) -> Result<Compacted> {
    let tables = DateTables { lake, lease, date, runtime };
    let found = runtime.block_on(lake.table_objects(date))?;
    let inputs = Files::of_tables(lake, date, &found, runtime)?.into_iter().map(|files| Without { files, unwanted });
    tables.replace(&found, inputs.collect())
}

impl DateTables<'_> {
    /// Brings what is landed, oldest first, into the tables.
    pub(super) fn compact(&self, landed: &[(FlushId, Extent)]) -> Result<Compacted> {
        let found = self.runtime.block_on(self.lake.table_objects(self.date))?;
        let mut inputs: Vec<_> = Files::of_tables(self.lake, self.date, &found, self.runtime)?.into_iter().collect();
        for (flush, extent) in landed {
            inputs.push(Files::of_flush(self.lake, self.date, flush, extent, self.runtime));
        }
        self.replace(&found, inputs)
    }

    /// Replaces what was `found` by what `inputs` come to, the children first.
    fn replace<C: Copies>(&self, found: &PerTable<Option<ObjectMeta>>, inputs: Vec<C>) -> Result<Compacted> {
        let key = |table| layout::table_object(table, self.date);
        for table in Table::ALL {
            self.lake.sweep_beside(&key(table))?;
        }
        let mut writers = PerTable::try_from_fn(|table| {
            let upload =
                Upload::begin(self.lake, self.lease, key(table), found.get(table).clone(), self.runtime.clone());
            table_writer(table, Lifetime::Lasting, upload).map(Some)
        })?;
        let failed = |table: Table| {
            let key = key(table);
            move |error: parquet::errors::ParquetError| {
                Error::store(format!("cannot write {}/{key}", self.lake.url())).caused_by(error)
            }
        };
        let Merged { copies, duplicates, rows } = merge(inputs, |table, batch| match writers.get_mut(table) {
            Some(writer) => writer.write(&batch).map_err(failed(table)),
            None => Err(Error::bug("a table was closed before its last row")),
        })?;

        let mut bytes = PerTable::default();
        for table in Table::CHILDREN.into_iter().chain([Table::Conversations]) {
            if let Some(writer) = writers.get_mut(table).take() {
                *bytes.get_mut(table) = writer.into_inner().map_err(failed(table))?.finish(self.lease)?;
            }
        }
        Ok(Compacted { copies, duplicates, extent: Extent { rows, bytes } })
    }
}
