//! One date: merges its table objects with what is landed for it, and replaces them. Where there are no tables yet and
//! one flush alone has landed, what is newest in that one becomes the tables as it is.

use std::io::Write;

use futures::future::try_join_all;
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::inputs::{Files, Without};
use crate::error::{Error, Result};
use crate::lake::{Extent, Lake, Lease, Lifetime, TableWriter, Upload, adopt};
use crate::layout::{self, FlushId};
use crate::merge::{Copies, Merged, merge};
use crate::model::{CreatedDate, PerTable, Table};

/// Up to this size, landing objects are read whole to become tables.
const ADOPTED_BYTES: u64 = 32 << 20;

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
        let tables = Files::of_tables(self.lake, self.date, &found, self.runtime)?;
        if let ([(flush, extent)], None) = (landed, &tables)
            && let Some(compacted) = self.adopt(&found, flush, extent)?
        {
            return Ok(compacted);
        }
        let mut inputs: Vec<_> = tables.into_iter().collect();
        inputs.append(&mut self.landed(landed)?);
        self.replace(&found, inputs)
    }

    /// Brings what is landed, oldest first, together under another flush, the newest copies alone.
    pub(super) fn bring_together(&self, landed: &[(FlushId, Extent)], flush: &FlushId) -> Result<Compacted> {
        let key = |table| layout::landing_object(table, self.date, flush);
        let uploads = self.begin(key, &PerTable::default())?;
        self.write(self.landed(landed)?, Lifetime::Passing, key, uploads)
    }

    /// What these flushes have landed, as inputs of a merge.
    fn landed(&self, landed: &[(FlushId, Extent)]) -> Result<Vec<Files>> {
        let mut inputs = Vec::new();
        for (flush, extent) in landed {
            inputs.append(&mut Files::of_flush(self.lake, self.date, flush, extent, self.runtime)?);
        }
        Ok(inputs)
    }

    /// Makes tables of the newest copies of the one flush that there is, without decoding them; `None` where that cannot
    /// be done.
    fn adopt(
        &self,
        found: &PerTable<Option<ObjectMeta>>,
        flush: &FlushId,
        landed: &Extent,
    ) -> Result<Option<Compacted>> {
        if landed.bytes.total() > ADOPTED_BYTES {
            return Ok(None);
        }
        let fetch = |table| {
            let key = layout::landing_object(table, self.date, flush);
            async move { Ok::<_, Error>((table, self.lake.get(&key).await?)) }
        };
        let mut adopted = PerTable::from_fn(|_| None);
        for (table, body) in self.runtime.block_on(try_join_all(Table::ALL.map(fetch)))? {
            let whole = body.filter(|body| u64::try_from(body.len()).ok() == Some(*landed.bytes.get(table)));
            let Some(file) = whole.map(|body| adopt(table, &body)).transpose()?.flatten() else { return Ok(None) };
            *adopted.get_mut(table) = Some(file);
        }
        let mut rows = PerTable::default();
        let uploads = self.begin(self.table_key(), found)?.try_map(|table, mut upload| {
            if let Some(adopted) = adopted.get(table) {
                *rows.get_mut(table) = adopted.rows;
                upload.write_all(&adopted.body).map_err(|error| self.failed(&self.table_key()(table), error))?;
            }
            Ok::<_, Error>(upload)
        })?;
        let copies = *landed.rows.get(Table::Conversations);
        let duplicates = copies.saturating_sub(*rows.get(Table::Conversations));
        Ok(Some(Compacted { copies, duplicates, extent: Extent { rows, bytes: self.finish(uploads)? } }))
    }

    /// Replaces what was `found` by what `inputs` come to, the children first.
    fn replace<C: Copies>(&self, found: &PerTable<Option<ObjectMeta>>, inputs: Vec<C>) -> Result<Compacted> {
        self.write(inputs, Lifetime::Lasting, self.table_key(), self.begin(self.table_key(), found)?)
    }

    /// Writes what `inputs` come to into the objects at `key`, which were begun.
    fn write<C: Copies>(
        &self,
        inputs: Vec<C>,
        lifetime: Lifetime,
        key: impl Fn(Table) -> Path,
        uploads: PerTable<Upload>,
    ) -> Result<Compacted> {
        let failed = |table: Table, error| self.failed(&key(table), error);
        let mut writers = uploads.try_map(|table, upload| TableWriter::begin(table, lifetime, upload))?;
        let Merged { copies, duplicates, rows } =
            merge(inputs, |table, batch| writers.get_mut(table).write(&batch).map_err(|error| failed(table, error)))?;
        let uploads = writers.try_map(|table, writer| writer.into_inner().map_err(|error| failed(table, error)))?;
        Ok(Compacted { copies, duplicates, extent: Extent { rows, bytes: self.finish(uploads)? } })
    }

    /// Ends the objects of the tables, in turn; returns their sizes.
    fn finish(&self, uploads: PerTable<Upload>) -> Result<PerTable<u64>> {
        // The one that goes up in parts may be refused at its end, which must not come after the others are replaced.
        if Table::ALL.iter().any(|table| uploads.get(*table).is_in_parts()) {
            self.runtime.block_on(self.lease.prove())?;
        }
        let mut uploads = uploads.try_map(|_, upload| Ok::<_, Error>(Some(upload)))?;
        let mut bytes = PerTable::default();
        // Who sees a conversation, sees its children too.
        for table in Table::CHILDREN.into_iter().chain([Table::Conversations]) {
            if let Some(upload) = uploads.get_mut(table).take() {
                *bytes.get_mut(table) = upload.finish(self.lease)?;
            }
        }
        Ok(bytes)
    }

    /// Begins the objects at `key` in the place of what was `found` there.
    fn begin(&self, key: impl Fn(Table) -> Path, found: &PerTable<Option<ObjectMeta>>) -> Result<PerTable<Upload>> {
        PerTable::try_from_fn(|table| {
            let (key, found) = (key(table), found.get(table).clone());
            self.lake.sweep_beside(&key)?;
            Ok(Upload::begin(self.lake, self.lease, key, found, self.runtime.clone()))
        })
    }

    fn table_key(&self) -> impl Fn(Table) -> Path + use<> {
        let date = self.date;
        move |table| layout::table_object(table, date)
    }

    fn failed(&self, key: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::store(format!("cannot write {}/{key}", self.lake.url())).caused_by(error)
    }
}
