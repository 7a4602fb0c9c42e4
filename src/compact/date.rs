//! Compacts one partition: merges its table files with its staged files into new table files. A single staged flush in
//! a partition without table files is promoted instead.
//!
//! Guarantees: the children of a conversation are visible before the conversation, because `conversations` is written
//! last.
//! Must not depend on: how changes are committed.

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

/// The largest staged flush of a partition that is promoted, because that takes it whole into memory.
const PROMOTED_BYTES: u64 = 32 << 20;

/// The result of compacting or folding a partition.
#[derive(Debug, Clone)]
pub(super) struct Compacted {
    /// Versions of conversations read.
    pub(super) versions: u64,
    /// Versions that a later one replaced.
    pub(super) duplicates: u64,
    /// Late arrivals.
    pub(super) late: Late,
    /// How much the new files hold.
    pub(super) extent: Extent,
    /// The keys of the table files that they replace.
    pub(super) replaces: PerTable<Option<String>>,
}

/// The tables of one partition, for the holder of the lease. Its functions must not be called on an async thread.
pub(super) struct DateTables<'a> {
    pub(super) lake: &'a Lake,
    pub(super) tables: &'a Tables,
    pub(super) lease: &'a Lease,
    pub(super) date: CreatedDate,
    /// The id in the names of the new files.
    pub(super) file: &'a FlushId,
    /// The overlaps of the flushes that increments wrote.
    pub(super) overlaps: &'a BTreeMap<FlushId, Overlap>,
    pub(super) runtime: &'a Handle,
}

/// The table files that a partition has.
type Found = PerTable<Option<ObjectMeta>>;

impl DateTables<'_> {
    /// Merges staged flushes, oldest first, into the tables.
    pub(super) fn compact(&self, staged: &[(FlushId, Extent)]) -> Result<Compacted> {
        let found = self.tables.partition_files(self.date, self.runtime)?;
        let tables = self.files(&found)?;
        if let ([(flush, extent)], None) = (staged, &tables)
            && let Some(compacted) = self.promote(&found, flush, extent)?
        {
            return Ok(compacted);
        }
        let mut inputs: Vec<_> = tables.into_iter().collect();
        inputs.append(&mut self.staged(staged)?);
        self.replace(&found, inputs)
    }

    /// Removes the `unwanted` conversations from the tables.
    pub(super) fn remove(&self, unwanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<Compacted> {
        let found = self.tables.partition_files(self.date, self.runtime)?;
        let inputs = self.files(&found)?.into_iter().map(|files| Without { files, unwanted });
        self.replace(&found, inputs.collect())
    }

    /// The table files as an input of a merge.
    fn files(&self, found: &Found) -> Result<Option<Files>> {
        Files::of_tables(self.lake, self.tables.are_delta(), self.date, found, self.runtime)
    }

    /// Folds staged flushes, oldest first, into one that holds the latest versions only. It drops a version that claims
    /// a change after its response if a later version corrects it. The tables then keep their own version if, and only
    /// if, that is later than the correction.
    pub(super) fn fold(&self, staged: &[(FlushId, Extent)]) -> Result<Compacted> {
        let key = |table| layout::staged_file(table, self.date, self.file);
        let uploads = self.begin(key, &PerTable::default())?;
        self.write(self.staged(staged)?, WrittenFor::Staging, key, uploads)
    }

    /// The staged files of flushes as inputs of a merge.
    fn staged(&self, staged: &[(FlushId, Extent)]) -> Result<Vec<Files>> {
        let mut inputs = Vec::new();
        for (flush, extent) in staged {
            let overlap = self.overlaps.get(flush).copied();
            let files = Files::of_flush(self.lake, self.date, flush, extent, self.runtime)?;
            inputs.extend(files.into_iter().map(|files| files.with_overlap(overlap)));
        }
        Ok(inputs)
    }

    /// Promotes the latest versions of the partition's only flush to table files; `None` if they have to be merged.
    fn promote(&self, found: &Found, flush: &FlushId, staged: &Extent) -> Result<Option<Compacted>> {
        if staged.bytes.total() > PROMOTED_BYTES {
            return Ok(None);
        }
        let fetch = |table| {
            let key = layout::staged_file(table, self.date, flush);
            async move { Ok::<_, Error>((table, self.lake.store().get(&key).await?)) }
        };
        let mut promoted = PerTable::from_fn(|_| None);
        for (table, body) in self.runtime.block_on(try_join_all(Table::ALL.map(fetch)))? {
            let whole = body.filter(|body| u64::try_from(body.len()).ok() == Some(*staged.bytes.get(table)));
            let Some(file) = whole.map(|body| promote(table, &body)).transpose()?.flatten() else { return Ok(None) };
            *promoted.get_mut(table) = Some(file);
        }
        let mut rows = PerTable::default();
        let uploads = self.begin(self.new_key(), &self.overwritten(found))?.try_map(|table, mut upload| {
            if let Some(promoted) = promoted.get(table) {
                *rows.get_mut(table) = promoted.rows;
                upload.write_all(&promoted.body).map_err(|error| self.failed(&self.new_key()(table), error))?;
            }
            Ok::<_, Error>(upload)
        })?;
        let versions = *staged.rows.get(Table::Conversations);
        let duplicates = versions.checked_sub(*rows.get(Table::Conversations));
        let duplicates =
            duplicates.ok_or_else(|| Error::bug("a staged file has more latest versions than versions"))?;
        let extent = Extent { rows, bytes: self.finish(uploads)? };
        let late = Late::default();
        Ok(Some(Compacted { versions, duplicates, late, extent, replaces: keys(found) }))
    }

    /// Replaces the table files `found` by the merged `inputs`, the children first.
    fn replace<I: MergeInput>(&self, found: &Found, inputs: Vec<I>) -> Result<Compacted> {
        let uploads = self.begin(self.new_key(), &self.overwritten(found))?;
        let written = self.write(inputs, WrittenFor::Table, self.new_key(), uploads)?;
        Ok(Compacted { replaces: keys(found), ..written })
    }

    /// The files that exist under the keys of the new ones: those that they replace, unless keys are used once.
    fn overwritten(&self, found: &Found) -> Found {
        if self.tables.are_delta() { Found::default() } else { found.clone() }
    }

    /// Writes the merged `inputs` to the files at `key`, whose uploads were begun.
    fn write<I: MergeInput>(
        &self,
        inputs: Vec<I>,
        purpose: WrittenFor,
        key: impl Fn(Table) -> Path,
        uploads: PerTable<Upload>,
    ) -> Result<Compacted> {
        let failed = |table: Table, error| self.failed(&key(table), error);
        let mut writers = uploads.try_map(|table, upload| TableWriter::begin(table, purpose, upload))?;
        let Merged { versions, duplicates, rows, late } =
            merge(inputs, |table, batch| writers.get_mut(table).write(&batch).map_err(|error| failed(table, error)))?;
        let uploads = writers.try_map(|table, writer| writer.into_inner().map_err(|error| failed(table, error)))?;
        let extent = Extent { rows, bytes: self.finish(uploads)? };
        Ok(Compacted { versions, duplicates, late, extent, replaces: PerTable::default() })
    }

    /// Finishes the uploads, the conversations last; returns their sizes.
    fn finish(&self, uploads: PerTable<Upload>) -> Result<PerTable<u64>> {
        // An upload in parts may be refused at its end, which must not happen after others are replaced.
        if Table::ALL.iter().any(|table| uploads.get(*table).is_in_parts()) {
            self.runtime.block_on(self.lease.prove())?;
        }
        let mut uploads = uploads.try_map(|_, upload| Ok::<_, Error>(Some(upload)))?;
        let mut bytes = PerTable::default();
        // A query that sees a conversation then sees its children too.
        for table in Table::CHILDREN.into_iter().chain([Table::Conversations]) {
            if let Some(upload) = uploads.get_mut(table).take() {
                *bytes.get_mut(table) = upload.finish(|| self.lease.prove())?;
            }
        }
        Ok(bytes)
    }

    /// Begins the uploads of the files at `key`, which replace those `found` there.
    fn begin(&self, key: impl Fn(Table) -> Path, found: &Found) -> Result<PerTable<Upload>> {
        PerTable::try_from_fn(|table| {
            let (key, found) = (key(table), found.get(table).clone());
            sweep::sweep_beside(self.lake.store(), &key)?;
            let record = layout::upload_record(self.lease.run_id(), &key);
            Ok(Upload::begin(self.lake.store(), key, record, found, self.runtime.clone()))
        })
    }

    fn new_key(&self) -> impl Fn(Table) -> Path {
        |table| self.tables.new_file(table, self.date, self.file)
    }

    fn failed(&self, key: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::store(format!("cannot write {}/{key}", self.lake.url())).caused_by(error)
    }
}

fn keys(found: &Found) -> PerTable<Option<String>> {
    PerTable::from_fn(|table| found.get(table).as_ref().map(|object| object.location.to_string()))
}
