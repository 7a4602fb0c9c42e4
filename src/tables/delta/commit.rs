//! Commits to a Delta table: adds new files and removes those that they replace, atomically. The first commit after the
//! lake has grown also adds the new columns to the table.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, new_null_array};
use arrow_schema::{DataType, Field};
use chrono::Datelike;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::expressions::Scalar;
use delta_kernel::schema::{DataType as DeltaType, StructField};
use delta_kernel::transaction::{CommitResult, Transaction, UpdateTableOperation};
use delta_kernel::{FileMeta, KernelError, SnapshotRef};
use delta_kernel_default_engine::build_add_file_metadata;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use object_store::path::Path;
use url::Url;

use super::log::{DeltaTable, LogState};
use crate::error::{Error, Result};
use crate::files::CREATED_BY;
use crate::lake::{Replacement, WriteIntent};
use crate::layout;
use crate::model::CreatedDate;
use crate::tables::change::Change;

/// How often to try a commit that other writers precede.
const TRIES: usize = 16;
/// After how many commits to write a checkpoint of the log. Other writers take 10, but each commit since the last
/// checkpoint costs every run a call.
const COMMITS_PER_CHECKPOINT: u64 = 4;

/// Whether a table can apply a write intent.
#[derive(Clone)]
pub(in crate::tables) enum Readiness {
    /// It has applied it, or a later one.
    Applied,
    /// Another writer committed first to the named table and partition.
    Conflict(String),
    /// It can apply it in this state; `None` if the table has to be created first.
    Ready(Option<LogState>),
}

impl DeltaTable {
    /// Reads the table and decides whether it can apply a write intent.
    ///
    /// # Errors
    /// If the store fails, or another writer has made the table unusable.
    pub(in crate::tables) fn readiness(&self, intent: &WriteIntent) -> Result<Readiness> {
        let Some(state) = self.refresh()? else { return Ok(Readiness::Ready(None)) };
        if self.has_applied(&state, intent)? {
            return Ok(Readiness::Applied);
        }
        Ok(self.conflict(&state, intent).map_or(Readiness::Ready(Some(state)), Readiness::Conflict))
    }

    /// Applies a write intent, unless the table has done so. `found` is what the table was found to be.
    ///
    /// # Errors
    /// As [`DeltaTable::readiness`]; the commit may have succeeded nevertheless.
    pub(in crate::tables) fn publish(&self, intent: &WriteIntent, found: Option<Readiness>) -> Result<Change> {
        let mut readiness = found.map_or_else(|| self.readiness(intent), Ok)?;
        for _ in 0..TRIES {
            match readiness {
                Readiness::Applied => return Ok(Change::Made),
                Readiness::Conflict(place) => return Ok(Change::Conflict(place)),
                Readiness::Ready(None) => self.create(intent.written_at()?)?,
                Readiness::Ready(Some(state)) => {
                    if self.commit(&state, intent)? {
                        return Ok(Change::Made);
                    }
                }
            }
            readiness = self.readiness(intent)?;
        }
        Err(Error::held(format!(
            "cannot commit to Delta table {}/{}: other writers committed first {TRIES} times",
            self.store.url(),
            self.table.name()
        ))
        .with_hint("run this again when they have ended; nothing is lost"))
    }

    /// Commits a write intent to the table in this state. Returns false if another writer committed first, so that the
    /// table has to be read again.
    fn commit(&self, state: &LogState, intent: &WriteIntent) -> Result<bool> {
        let failed = |error| self.failed("commit to", error);
        let lacking = self.lacking_columns(&state.snapshot)?;
        match self.transaction(state, intent, lacking).and_then(|it| it.commit(&self.engine)).map_err(failed)? {
            CommitResult::Committed(committed) => {
                let due = committed.post_commit_stats().commits_since_checkpoint >= COMMITS_PER_CHECKPOINT;
                let snapshot = committed.post_commit_snapshot();
                if let Some(snapshot) = snapshot.filter(|_| due) {
                    self.checkpoint(snapshot);
                }
                self.committed(snapshot);
                Ok(true)
            }
            CommitResult::Conflicted(conflict) => {
                tracing::debug!(
                    version = conflict.conflict_version(),
                    "another writer committed to {} first",
                    self.url
                );
                Ok(false)
            }
            CommitResult::Retryable(failure) => Err(failed(failure.error)),
        }
    }

    fn has_applied(&self, state: &LogState, intent: &WriteIntent) -> Result<bool> {
        Ok(self.applied_in(&state.snapshot)?.is_some_and(|newest| newest >= intent.number))
    }

    /// Names the table and partition whose files are not those that a write intent replaces.
    fn conflict(&self, state: &LogState, intent: &WriteIntent) -> Option<String> {
        let differs = |(date, replacement): &(&CreatedDate, &Replacement)| {
            let has: Vec<_> = state.files.get(date).into_iter().flatten().map(|file| file.location.as_ref()).collect();
            let had: Vec<_> = replacement.replaces.get(self.table).iter().map(String::as_str).collect();
            has != had
        };
        let (date, _) = intent.dates.iter().find(differs)?;
        Some(format!("{}, partition {date}", self.table.name()))
    }

    /// The commit of a write intent, which also adds the columns that the table is `lacking`.
    fn transaction(
        &self,
        state: &LogState,
        intent: &WriteIntent,
        lacking: Vec<StructField>,
    ) -> delta_kernel::KernelResult<Transaction> {
        let number = i64::try_from(intent.number).map_err(KernelError::generic_err)?;
        let update = Arc::clone(&state.snapshot).update_table(UpdateTableOperation::Merge, CREATED_BY, true);
        let mut transaction = lacking
            .into_iter()
            .fold(update, |update, column| update.add_column(column))
            .with_transaction_id(&self.application, number)
            .build(&self.engine, Box::new(FileSystemCommitter::new()))?;
        let write_state = transaction.write_state()?;
        for (date, replacement) in &intent.dates {
            let partition = [(self.partition_by.column().to_owned(), partition_value(*date))];
            let context =
                write_state.write_context_builder().with_partition_values(HashMap::from(partition)).build()?;
            transaction.add_files(build_add_file_metadata(self.added(*date, replacement)?, &context)?);
        }
        let replaced = intent.dates.values().filter_map(|it| it.replaces.get(self.table).as_deref()).collect();
        self.remove(&mut transaction, state, &replaced)?;
        Ok(transaction)
    }

    fn added(&self, date: CreatedDate, replacement: &Replacement) -> delta_kernel::KernelResult<DataFileMetadata> {
        let key = layout::delta_file(self.table, date, &replacement.file);
        let inside = key.prefix_match(&layout::table_folder(self.table)).into_iter().flatten().collect::<Path>();
        let location =
            Url::parse(&self.url).and_then(|url| url.join(inside.as_ref())).map_err(KernelError::generic_err)?;
        let rows = i64::try_from(*replacement.extent.rows.get(self.table)).map_err(KernelError::generic_err)?;
        let count = Arc::new(Int64Array::from(vec![rows])) as ArrayRef;
        let stats = StructArray::from(vec![(Arc::new(Field::new("numRecords", DataType::Int64, true)), count)]);
        // Approximate: reading the time of the file itself would take a call.
        let meta = FileMeta::new(
            location,
            replacement.written_at.timestamp_millis(),
            *replacement.extent.bytes.get(self.table),
        );
        Ok(DataFileMetadata::new(meta, stats))
    }

    /// Marks the files at `keys` as removed.
    fn remove(
        &self,
        transaction: &mut Transaction,
        state: &LogState,
        keys: &BTreeSet<&str>,
    ) -> delta_kernel::KernelResult<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let folder = layout::table_folder(self.table);
        let is_one =
            |path: &str| Path::from_url_path(format!("{folder}/{path}")).is_ok_and(|path| keys.contains(path.as_ref()));
        for part in Arc::clone(&state.snapshot).scan_builder().build()?.scan_metadata(&self.engine)? {
            let (data, selected) = part?.scan_files.into_parts();
            let data = ArrowEngineData::try_from_engine_data(data)?;
            let batch = data.record_batch();
            let paths = batch.column_by_name("path").and_then(|column| column.as_any().downcast_ref::<StringArray>());
            let paths = paths.ok_or_else(|| KernelError::MissingColumn("path".to_owned()))?;
            let wanted: Vec<bool> = (0..batch.num_rows())
                .map(|row| {
                    selected.get(row).copied().unwrap_or(true) && paths.is_valid(row) && is_one(paths.value(row))
                })
                .collect();
            if wanted.contains(&true) {
                let data = Box::new(ArrowEngineData::new(without_statistics(batch)?));
                transaction.remove_files(FilteredEngineData::try_new(data, wanted)?);
            }
        }
        Ok(())
    }

    /// Writes a checkpoint of the log. Its failure does not fail the commit; the next commit tries again.
    fn checkpoint(&self, snapshot: &SnapshotRef) {
        if let Err(error) = self.write_checkpoint(snapshot) {
            tracing::debug!("{}", error.chain().join(": "));
        }
    }

    /// Writes a checkpoint of the log.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) fn write_checkpoint(&self, snapshot: &SnapshotRef) -> Result<()> {
        let written = snapshot.checkpoint(&self.engine, None);
        written.map(drop).map_err(|error| self.failed("write a checkpoint of", error))
    }
}

/// The same rows without the statistics of the files that are removed, which may be values of erased rows.
fn without_statistics(batch: &RecordBatch) -> delta_kernel::KernelResult<RecordBatch> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match field.name().as_str() {
        "stats" => new_null_array(field.data_type(), batch.num_rows()),
        _ => Arc::clone(column),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).map_err(KernelError::generic_err)
}

fn partition_value(date: CreatedDate) -> Scalar {
    /// The first day of Delta's count, in days of the common era.
    const EPOCH: i32 = 719_163;
    date.date().map_or(Scalar::Null(DeltaType::DATE), |date| Scalar::Date(date.num_days_from_ce() - EPOCH))
}
