//! Makes the new files of one partition: merges its table files with its staged files. A single staged flush in a
//! partition without table files is promoted instead.
//!
//! Guarantees: the children of a conversation are visible before the conversation, because `conversations` is written
//! last.
//! Must not depend on: how files are loaded, and how changes are committed.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::inputs::{Files, Marks, Sifted, Unwanted};
use super::job::{Compacted, Job, ReplacedFile, StagedPart, Work, WrittenFile};
use crate::error::{Error, Result};
use crate::files::{FoundFile, Promoted, TableWriter, WrittenFor, promote};
use crate::lake::{Lake, Lease, Suppression, sweep};
use crate::layout;
use crate::merge::{Late, Merged, merge};
use crate::model::{LakeColumns, PerTable, RowTimes, Table};
use crate::store::{ClosedUpload, Upload};
use crate::tables::Tables;

/// The tables of one partition, for the holder of the lease. Its functions must not be called on an async thread.
pub(super) struct DateTables<'a> {
    pub(super) lake: &'a Lake,
    pub(super) tables: &'a Tables,
    pub(super) lease: &'a Lease,
    /// The conversations that must not come back.
    pub(super) suppression: &'a Suppression,
    pub(super) job: &'a Job,
    /// The table files that the partition has.
    pub(super) found: &'a PerTable<Option<FoundFile>>,
    pub(super) runtime: &'a Handle,
}

/// New files whose bytes are all there, but which are not visible yet.
pub(super) struct MadeFiles {
    uploads: PerTable<Option<ClosedUpload>>,
    merged: Merged,
    replaced: PerTable<Option<ReplacedFile>>,
    left_out: PerTable<u64>,
    times: RowTimes,
}

impl DateTables<'_> {
    /// Makes the files of the job from its `staged` files, oldest first.
    pub(super) fn make(&self, staged: &[StagedPart]) -> Result<MadeFiles> {
        match &self.job.work {
            Work::Fold => self.fold(staged),
            Work::Compact => self.compact(staged),
            Work::Rewrite | Work::Forget | Work::Remove(_) | Work::Mark(..) => self.rewrite(),
        }
    }

    fn compact(&self, staged: &[StagedPart]) -> Result<MadeFiles> {
        let tables = self.files()?;
        let replaced = self.replaced(tables.as_ref());
        if let ([staged], None) = (staged, &tables)
            && let Some(promoted) = promoted(self.tables.columns(), staged)?
        {
            return self.promote(promoted, staged, replaced);
        }
        let mut inputs: Vec<_> = tables.into_iter().collect();
        inputs.append(&mut self.staged(staged)?);
        self.replace(inputs, self.tables.columns(), replaced)
    }

    fn rewrite(&self) -> Result<MadeFiles> {
        let files = self.files()?.ok_or_else(|| {
            let (url, date) = (self.lake.url(), self.job.date);
            Error::integrity(format!("{url} lacks the files of partition {date}, which the manifest lists"))
                .of_one_object()
                .with_hint("see what `verify` says about this partition")
        })?;
        let replaced = self.replaced(Some(&files));
        let columns = self.columns_as_before(Some(&files));
        self.replace(vec![files], &columns, replaced)
    }

    /// Folds staged flushes into one that holds the latest versions only. It drops a version that claims a change after
    /// its response if a later version corrects it. The tables then keep their own version if, and only if, that is
    /// later than the correction.
    fn fold(&self, staged: &[StagedPart]) -> Result<MadeFiles> {
        let key = |table| layout::staged_file(table, self.job.date, &self.job.file);
        let uploads = self.begin(key, |_| None)?;
        let columns = self.tables.columns();
        self.write(self.staged(staged)?, columns, WrittenFor::Staging, key, uploads, PerTable::default())
    }

    /// The columns of new files with the rows of `files` as they are: without the lake's policies at hand, they still
    /// follow the policy that they followed before.
    fn columns_as_before(&self, files: Option<&Files>) -> LakeColumns {
        let columns = self.tables.columns();
        match files.filter(|_| self.tables.policies().is_none()) {
            None => columns.clone(),
            Some(files) => columns.following(&files.table_policies()),
        }
    }

    /// The table files as an input of a merge.
    fn files(&self) -> Result<Option<Files>> {
        Files::of_tables(self.lake, self.tables, self.job.date, self.found, self.runtime)
    }

    /// The staged files of flushes as inputs of a merge.
    fn staged(&self, staged: &[StagedPart]) -> Result<Vec<Files>> {
        let inputs = staged.iter().map(|staged| Files::of_flush(self.lake, self.tables, staged, self.runtime));
        Ok(inputs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// The table files that the new ones replace; `files` are the same as an input.
    fn replaced(&self, files: Option<&Files>) -> PerTable<Option<ReplacedFile>> {
        let rows = files.map(Files::table_rows).unwrap_or_default();
        PerTable::from_fn(|table| {
            let object = self.found.get(table).as_ref()?.object();
            Some(ReplacedFile { key: object.location.to_string(), bytes: object.size, rows: *rows.get(table) })
        })
    }

    /// Makes table files of the latest versions of the partition's only flush.
    fn promote(
        &self,
        mut promoted: PerTable<Option<Promoted>>,
        staged: &StagedPart,
        replaced: PerTable<Option<ReplacedFile>>,
    ) -> Result<MadeFiles> {
        let (mut rows, mut times) = (PerTable::default(), RowTimes::default());
        let uploads = self.begin(self.new_key(), |table| self.overwritten(table))?;
        let uploads = uploads.try_map(|table, mut upload| {
            if let Some(file) = promoted.get_mut(table).take() {
                *rows.get_mut(table) = file.rows;
                if table == Table::Conversations {
                    times = file.times;
                }
                upload.write_owned(file.body).map_err(|error| self.failed(&self.new_key()(table), error))?;
            }
            Ok::<_, Error>(Some(upload.close()))
        })?;
        let versions = *staged.extent.rows.get(Table::Conversations);
        let duplicates = versions.checked_sub(*rows.get(Table::Conversations));
        let duplicates =
            duplicates.ok_or_else(|| Error::bug("a staged file has more latest versions than versions"))?;
        let merged = Merged { versions, duplicates, rows, late: Late::default() };
        Ok(MadeFiles { uploads, merged, replaced, left_out: PerTable::default(), times })
    }

    /// Makes table files of the merged `inputs`.
    fn replace(
        &self,
        inputs: Vec<Files>,
        columns: &LakeColumns,
        replaced: PerTable<Option<ReplacedFile>>,
    ) -> Result<MadeFiles> {
        let uploads = self.begin(self.new_key(), |table| self.overwritten(table))?;
        self.write(inputs, columns, WrittenFor::Table, self.new_key(), uploads, replaced)
    }

    /// The file that exists under the key of the new one: the one that it replaces, unless keys are used once.
    fn overwritten(&self, table: Table) -> Option<ObjectMeta> {
        let found = self.found.get(table).as_ref().filter(|_| !self.tables.are_delta());
        found.map(|file| file.object().clone())
    }

    /// Writes the merged `inputs`, without the conversations that the job does not want, to the files at `key`, whose
    /// uploads were begun.
    fn write(
        &self,
        inputs: Vec<Files>,
        columns: &LakeColumns,
        purpose: WrittenFor,
        key: impl Fn(Table) -> Path,
        uploads: PerTable<Upload>,
        replaced: PerTable<Option<ReplacedFile>>,
    ) -> Result<MadeFiles> {
        let failed = |table: Table, error| self.failed(&key(table), error);
        let mut writers = uploads.try_map(|table, upload| TableWriter::begin(columns.of(table), purpose, upload))?;
        let (mut times, left_out) = (RowTimes::default(), PerTable::from_fn(|_| AtomicU64::new(0)));
        let (ids, marks) = match &self.job.work {
            Work::Remove(ids) => (Some(ids.as_ref()), None),
            Work::Mark(ids, at) => (None, Some(Marks { ids, at: *at })),
            _ => (None, None),
        };
        let unwanted = Unwanted { suppression: self.suppression, ids };
        let inputs = inputs.into_iter().map(|files| Sifted { files, unwanted, marks, left_out: &left_out });
        let merged = merge(inputs.collect(), |table, batch| {
            if table == Table::Conversations {
                times.add(RowTimes::of(&batch));
            }
            writers.get_mut(table).write(&batch).map_err(|error| failed(table, error))
        })?;
        let uploads = writers.try_map(|table, writer| writer.into_inner().map_err(|error| failed(table, error)))?;
        let uploads = uploads.try_map(|_, upload| Ok::<_, Error>(Some(upload.close())))?;
        let left_out = PerTable::from_fn(|table| left_out.get(table).load(Ordering::Relaxed));
        Ok(MadeFiles { uploads, merged, replaced, left_out, times })
    }

    /// Begins the uploads of the files at `key`, which replace those `found` there.
    fn begin(
        &self,
        key: impl Fn(Table) -> Path,
        found: impl Fn(Table) -> Option<ObjectMeta>,
    ) -> Result<PerTable<Upload>> {
        PerTable::try_from_fn(|table| {
            let key = key(table);
            sweep::sweep_beside(self.lake.store(), &key)?;
            let record = layout::upload_record(self.lease.run_id(), &key);
            Ok(Upload::begin(self.lake.store(), key, record, found(table), self.runtime.clone()))
        })
    }

    fn new_key(&self) -> impl Fn(Table) -> Path {
        |table| self.tables.new_file(table, self.job.date, &self.job.file)
    }

    fn failed(&self, key: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::store(format!("cannot write {}/{key}", self.lake.url())).caused_by(error)
    }
}

/// Promotes the latest versions of a flush; `None` if they have to be merged.
fn promoted(columns: &LakeColumns, staged: &StagedPart) -> Result<Option<PerTable<Option<Promoted>>>> {
    let mut promoted = PerTable::from_fn(|_| None);
    for table in Table::ALL {
        let body = staged.files.get(table).body();
        let Some(file) = body.map(|body| promote(columns.of(table), body)).transpose()?.flatten() else {
            return Ok(None);
        };
        *promoted.get_mut(table) = Some(file);
    }
    Ok(Some(promoted))
}

impl MadeFiles {
    /// Makes the files visible: the children at once, then the conversations.
    ///
    /// # Errors
    /// If the store fails; kind `Held` if another run has taken over.
    pub(super) async fn finish(mut self, lease: &Lease) -> Result<Compacted> {
        let mut written = PerTable::default();
        if let Err(error) = self.put(lease, &mut written).await {
            let left = Table::ALL.into_iter().filter_map(|table| self.uploads.get_mut(table).take());
            join_all(left.map(ClosedUpload::abort)).await;
            return Err(error);
        }
        let MadeFiles { merged: Merged { versions, duplicates, late, .. }, replaced, left_out, times, .. } = self;
        Ok(Compacted { versions, duplicates, left_out, late, written, replaced, times })
    }

    async fn put(&mut self, lease: &Lease, written: &mut PerTable<WrittenFile>) -> Result<()> {
        // An upload in parts may be refused at its end, which must not happen after others are replaced.
        if Table::ALL.iter().any(|table| self.uploads.get(*table).as_ref().is_some_and(ClosedUpload::is_in_parts)) {
            lease.prove().await?;
        }
        // A query that sees a conversation then sees its children too.
        for tables in [Table::CHILDREN.as_slice(), &[Table::Conversations]] {
            let mut finishing = Vec::new();
            for table in tables {
                if let Some(upload) = self.uploads.get_mut(*table).take() {
                    finishing.push(upload.finish(lease.prove()).map(|uploaded| (*table, uploaded)));
                }
            }
            for (table, uploaded) in join_all(finishing).await {
                let uploaded = uploaded?;
                let rows = *self.merged.rows.get(table);
                *written.get_mut(table) = WrittenFile { rows, bytes: uploaded.bytes, e_tag: uploaded.e_tag };
            }
        }
        Ok(())
    }
}
