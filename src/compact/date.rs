//! One date: merges its table objects with what is landed for it, and writes those that take their place. Where there are no tables yet and
//! one flush alone has landed, what is newest in that one becomes the tables as it is.

use std::collections::BTreeMap;
use std::io::Write;

use futures::future::try_join_all;
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::inputs::{Files, Without};
use crate::error::{Error, Result};
use crate::files::{TableWriter, WrittenFor, promote};
use crate::lake::{Extent, Lake, Lease, Overlap, sweep};
use crate::layout::{self, FlushId};
use crate::merge::{Late, MergeInput, Merged, merge};
use crate::model::{CreatedDate, PerTable, Table};
use crate::store::Upload;
use crate::tables::Tables;

/// Up to this size, landing objects are read whole to become tables.
const ADOPTED_BYTES: u64 = 32 << 20;

/// What became of a date.
#[derive(Debug, Clone)]
pub(super) struct Compacted {
    /// Copies of conversations read.
    pub(super) copies: u64,
    /// Copies that a newer one replaced.
    pub(super) duplicates: u64,
    /// Conversations that came late.
    pub(super) late: Late,
    /// What the new objects hold.
    pub(super) extent: Extent,
    /// The keys of the objects that they take the place of.
    pub(super) replaces: PerTable<Option<String>>,
}

/// The tables of one date, to be replaced by who holds the lake. Its functions must not be called on an async thread.
pub(super) struct DateTables<'a> {
    pub(super) lake: &'a Lake,
    pub(super) tables: &'a Tables,
    pub(super) lease: &'a Lease,
    pub(super) date: CreatedDate,
    /// What the new objects are called by.
    pub(super) file: &'a FlushId,
    /// What the walks asked for again that flushes are of, for those of increments.
    pub(super) overlaps: &'a BTreeMap<FlushId, Overlap>,
    pub(super) runtime: &'a Handle,
}

/// The objects that a date has.
type Found = PerTable<Option<ObjectMeta>>;

impl DateTables<'_> {
    /// Brings what is landed, oldest first, into the tables.
    pub(super) fn compact(&self, landed: &[(FlushId, Extent)]) -> Result<Compacted> {
        let found = self.tables.of_date(self.date, self.runtime)?;
        let tables = self.files(&found)?;
        if let ([(flush, extent)], None) = (landed, &tables)
            && let Some(compacted) = self.promote(&found, flush, extent)?
        {
            return Ok(compacted);
        }
        let mut inputs: Vec<_> = tables.into_iter().collect();
        inputs.append(&mut self.landed(landed)?);
        self.replace(&found, inputs)
    }

    /// Takes the conversations that `unwanted` names out of the tables.
    pub(super) fn remove(&self, unwanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<Compacted> {
        let found = self.tables.of_date(self.date, self.runtime)?;
        let inputs = self.files(&found)?.into_iter().map(|files| Without { files, unwanted });
        self.replace(&found, inputs.collect())
    }

    /// What is in the tables, as an input of a merge.
    fn files(&self, found: &Found) -> Result<Option<Files>> {
        Files::of_tables(self.lake, self.tables.are_delta(), self.date, found, self.runtime)
    }

    /// Brings what is landed, oldest first, together under another flush, the newest copies alone. A copy that claims a change
    /// after it was fetched, and was corrected, is forgotten here: where that correction is older than what the tables have,
    /// and only there, the tables keep theirs.
    pub(super) fn fold(&self, landed: &[(FlushId, Extent)]) -> Result<Compacted> {
        let key = |table| layout::staged_file(table, self.date, self.file);
        let uploads = self.begin(key, &PerTable::default())?;
        self.write(self.landed(landed)?, WrittenFor::Staging, key, uploads)
    }

    /// What these flushes have landed, as inputs of a merge.
    fn landed(&self, landed: &[(FlushId, Extent)]) -> Result<Vec<Files>> {
        let mut inputs = Vec::new();
        for (flush, extent) in landed {
            let overlap = self.overlaps.get(flush).copied();
            let files = Files::of_flush(self.lake, self.date, flush, extent, self.runtime)?;
            inputs.extend(files.into_iter().map(|files| files.with_overlap(overlap)));
        }
        Ok(inputs)
    }

    /// Makes tables of the newest copies of the one flush that there is, without decoding them; `None` where that cannot
    /// be done.
    fn promote(&self, found: &Found, flush: &FlushId, landed: &Extent) -> Result<Option<Compacted>> {
        if landed.bytes.total() > ADOPTED_BYTES {
            return Ok(None);
        }
        let fetch = |table| {
            let key = layout::staged_file(table, self.date, flush);
            async move { Ok::<_, Error>((table, self.lake.store().get(&key).await?)) }
        };
        let mut promoted = PerTable::from_fn(|_| None);
        for (table, body) in self.runtime.block_on(try_join_all(Table::ALL.map(fetch)))? {
            let whole = body.filter(|body| u64::try_from(body.len()).ok() == Some(*landed.bytes.get(table)));
            let Some(file) = whole.map(|body| promote(table, &body)).transpose()?.flatten() else { return Ok(None) };
            *promoted.get_mut(table) = Some(file);
        }
        let mut rows = PerTable::default();
        let uploads = self.begin(self.new_key(), &self.in_place_of(found))?.try_map(|table, mut upload| {
            if let Some(promoted) = promoted.get(table) {
                *rows.get_mut(table) = promoted.rows;
                upload.write_all(&promoted.body).map_err(|error| self.failed(&self.new_key()(table), error))?;
            }
            Ok::<_, Error>(upload)
        })?;
        let copies = *landed.rows.get(Table::Conversations);
        let duplicates = copies.checked_sub(*rows.get(Table::Conversations));
        let duplicates = duplicates.ok_or_else(|| Error::bug("more copies are the newest than have landed"))?;
        let extent = Extent { rows, bytes: self.finish(uploads)? };
        let late = Late::default();
        Ok(Some(Compacted { copies, duplicates, late, extent, replaces: keys(found) }))
    }

    /// Replaces what was `found` by what `inputs` come to, the children first.
    fn replace<I: MergeInput>(&self, found: &Found, inputs: Vec<I>) -> Result<Compacted> {
        let uploads = self.begin(self.new_key(), &self.in_place_of(found))?;
        let written = self.write(inputs, WrittenFor::Table, self.new_key(), uploads)?;
        Ok(Compacted { replaces: keys(found), ..written })
    }

    /// What is under the names of the new objects: what they replace, unless a name is used once.
    fn in_place_of(&self, found: &Found) -> Found {
        if self.tables.are_delta() { Found::default() } else { found.clone() }
    }

    /// Writes what `inputs` come to into the objects at `key`, which were begun.
    fn write<I: MergeInput>(
        &self,
        inputs: Vec<I>,
        lifetime: WrittenFor,
        key: impl Fn(Table) -> Path,
        uploads: PerTable<Upload>,
    ) -> Result<Compacted> {
        let failed = |table: Table, error| self.failed(&key(table), error);
        let mut writers = uploads.try_map(|table, upload| TableWriter::begin(table, lifetime, upload))?;
        let Merged { versions: copies, duplicates, rows, late } =
            merge(inputs, |table, batch| writers.get_mut(table).write(&batch).map_err(|error| failed(table, error)))?;
        let uploads = writers.try_map(|table, writer| writer.into_inner().map_err(|error| failed(table, error)))?;
        let extent = Extent { rows, bytes: self.finish(uploads)? };
        Ok(Compacted { copies, duplicates, late, extent, replaces: PerTable::default() })
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
                *bytes.get_mut(table) = upload.finish(|| self.lease.prove())?;
            }
        }
        Ok(bytes)
    }

    /// Begins the objects at `key` in the place of what was `found` there.
    fn begin(&self, key: impl Fn(Table) -> Path, found: &Found) -> Result<PerTable<Upload>> {
        PerTable::try_from_fn(|table| {
            let (key, found) = (key(table), found.get(table).clone());
            sweep::sweep_beside(self.lake.store(), &key)?;
            let record = layout::upload_record(self.lease.run_id(), &key);
            Ok(Upload::begin(self.lake.store(), key, record, found, self.runtime.clone()))
        })
    }

    fn new_key(&self) -> impl Fn(Table) -> Path {
        |table| self.tables.new_object(table, self.date, self.file)
    }

    fn failed(&self, key: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::store(format!("cannot write {}/{key}", self.lake.url())).caused_by(error)
    }
}

fn keys(found: &Found) -> PerTable<Option<String>> {
    PerTable::from_fn(|table| found.get(table).as_ref().map(|object| object.location.to_string()))
}
