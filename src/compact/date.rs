//! One date: merges its table objects with what is landed for it, and replaces them.

use tokio::runtime::Handle;

use super::inputs::Files;
use crate::error::{Error, Result};
use crate::lake::{Extent, Lake, Lifetime, Upload, table_writer};
use crate::layout::{self, FlushId};
use crate::merge::merge;
use crate::model::{CreatedDate, PerTable, Table};

/// What became of a date.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compacted {
    /// Copies of conversations read.
    pub(super) copies: u64,
    /// Copies that a newer one replaced.
    pub(super) duplicates: u64,
    /// What its tables hold now.
    pub(super) extent: Extent,
}

/// Compacts one date, on a blocking thread. `landed` is oldest first.
pub(super) fn compact_date(
    lake: &Lake,
    date: CreatedDate,
    landed: &[(FlushId, Extent)],
    runtime: &Handle,
) -> Result<Compacted> {
    let mut inputs: Vec<Files> = Files::of_tables(lake, date, runtime)?.into_iter().collect();
    inputs.extend(landed.iter().map(|(flush, extent)| Files::of_flush(lake, date, flush, extent, runtime)));

    for table in Table::ALL {
        lake.sweep_beside(&layout::table_object(table, date))?;
    }
    let mut writers = PerTable::try_from_fn(|table| {
        let upload = Upload::begin(lake, layout::table_object(table, date), runtime.clone());
        table_writer(table, Lifetime::Lasting, upload).map(Some)
    })?;
    let failed = |table: Table| {
        let key = layout::table_object(table, date);
        move |error: parquet::errors::ParquetError| {
            Error::store(format!("cannot write {}/{key}", lake.url())).caused_by(error)
        }
    };
    let merged = merge(inputs, |table, batch| match writers.get_mut(table) {
        Some(writer) => writer.write(&batch).map_err(failed(table)),
        None => Err(Error::bug("a table was closed before its last row")),
    })?;

    let mut bytes = PerTable::default();
    for table in Table::CHILDREN.into_iter().chain([Table::Conversations]) {
        if let Some(writer) = writers.get_mut(table).take() {
            *bytes.get_mut(table) = writer.into_inner().map_err(failed(table))?.finish()?;
        }
    }
    Ok(Compacted { copies: merged.copies, duplicates: merged.duplicates, extent: Extent { rows: merged.rows, bytes } })
}
