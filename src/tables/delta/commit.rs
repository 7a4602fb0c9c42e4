//! Commits: new objects in, those that they replace out, both at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use chrono::Datelike;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::expressions::Scalar;
use delta_kernel::schema::DataType as DeltaType;
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

/// How often a commit is tried that others come before.
const TRIES: usize = 16;
/// After how many commits the log is summed up in a checkpoint, as other writers do.
const COMMITS_PER_CHECKPOINT: u64 = 10;

/// How a table stands to a publication.
pub(in crate::tables) enum Standing {
    /// It has taken it up, or a later one.
    Has,
    /// Another program has changed what it was made of: where.
    Conflict(String),
    /// It can take it up, as it was seen; where there is no table yet, once there is one.
    Ready(Option<LogState>),
}

impl DeltaTable {
    /// Looks how the table stands to a publication by now.
    ///
    /// # Errors
    /// Where the store fails, or another program has changed the table beyond use.
    pub(in crate::tables) fn standing(&self, publication: &WriteIntent) -> Result<Standing> {
        let Some(seen) = self.see_again()? else { return Ok(Standing::Ready(None)) };
        if self.has(&seen, publication)? {
            return Ok(Standing::Has);
        }
        Ok(self.conflict(&seen, publication).map_or(Standing::Ready(Some(seen)), Standing::Conflict))
    }

    /// Commits a publication, unless that has been done. The table stood to it as `standing` says.
    ///
    /// # Errors
    /// As [`DeltaTable::standing`]; it may have been committed all the same.
    pub(in crate::tables) fn publish(&self, publication: &WriteIntent, mut standing: Standing) -> Result<Change> {
        for _ in 0..TRIES {
            match standing {
                Standing::Has => return Ok(Change::Made),
                Standing::Conflict(place) => return Ok(Change::Conflict(place)),
                Standing::Ready(None) => self.create(publication.written_at()?)?,
                Standing::Ready(Some(seen)) => {
                    if self.commit(&seen, publication)? {
                        return Ok(Change::Made);
                    }
                }
            }
            standing = self.standing(publication)?;
        }
        Err(Error::held(format!("other programs commit to {}/{} all the time", self.store.url(), self.table.name()))
            .with_hint("nothing is lost: run this again when they have ended"))
    }

    /// Commits a publication to the table as it was seen. Returns false where somebody came first: what it was has to be
    /// looked at before it is tried again.
    fn commit(&self, seen: &LogState, publication: &WriteIntent) -> Result<bool> {
        let failed = |error| self.failed("commit to", error);
        match self.transaction(seen, publication).and_then(|it| it.commit(&self.engine)).map_err(failed)? {
            CommitResult::Committed(committed) => {
                let due = committed.post_commit_stats().commits_since_checkpoint >= COMMITS_PER_CHECKPOINT;
                if let Some(snapshot) = committed.post_commit_snapshot().filter(|_| due) {
                    self.sum_up(snapshot);
                }
                self.forget();
                Ok(true)
            }
            CommitResult::Conflicted(conflict) => {
                tracing::debug!(version = conflict.conflict_version(), "another commit to {} came first", self.url);
                Ok(false)
            }
            CommitResult::Retryable(failure) => Err(failed(failure.error)),
        }
    }

    /// Whether the table has taken up a publication, or a later one.
    fn has(&self, seen: &LogState, publication: &WriteIntent) -> Result<bool> {
        Ok(self.taken_up_by(&seen.snapshot)?.is_some_and(|newest| newest >= publication.number))
    }

    /// Where the table has not what a publication was made of.
    fn conflict(&self, seen: &LogState, publication: &WriteIntent) -> Option<String> {
        let differs = |(date, replacement): &(&CreatedDate, &Replacement)| {
            let has: Vec<_> = seen.files.get(date).into_iter().flatten().map(|file| file.location.as_ref()).collect();
            let had: Vec<_> = replacement.replaces.get(self.table).iter().map(String::as_str).collect();
            has != had
        };
        let (date, _) = publication.dates.iter().find(differs)?;
        Some(format!("{} at {date}", self.table.name()))
    }

    fn transaction(&self, seen: &LogState, publication: &WriteIntent) -> delta_kernel::KernelResult<Transaction> {
        let number = i64::try_from(publication.number).map_err(KernelError::generic_err)?;
        let mut transaction = Arc::clone(&seen.snapshot)
            .update_table(UpdateTableOperation::Merge, CREATED_BY, true)
            .with_transaction_id(&self.application, number)
            .build(&self.engine, Box::new(FileSystemCommitter::new()))?;
        let state = transaction.write_state()?;
        for (date, replacement) in &publication.dates {
            let partition = [(layout::PARTITION.to_owned(), partition_value(*date))];
            let context = state.write_context_builder().with_partition_values(HashMap::from(partition)).build()?;
            transaction.add_files(build_add_file_metadata(self.added(*date, replacement)?, &context)?);
        }
        let gone = publication.dates.values().filter_map(|it| it.replaces.get(self.table).as_deref()).collect();
        self.remove(&mut transaction, seen, &gone)?;
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
        // About when it was written: the time of the object itself would take a call.
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
        seen: &LogState,
        keys: &BTreeSet<&str>,
    ) -> delta_kernel::KernelResult<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let folder = layout::table_folder(self.table);
        let is_one =
            |path: &str| Path::from_url_path(format!("{folder}/{path}")).is_ok_and(|path| keys.contains(path.as_ref()));
        for part in Arc::clone(&seen.snapshot).scan_builder().build()?.scan_metadata(&self.engine)? {
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
                transaction.remove_files(FilteredEngineData::try_new(data, wanted)?);
            }
        }
        Ok(())
    }

    /// Writes a checkpoint of the log. That it fails is no failure of the commit: the next one tries again.
    fn sum_up(&self, snapshot: &SnapshotRef) {
        if let Err(error) = snapshot.checkpoint(&self.engine, None) {
            tracing::debug!("no checkpoint of the log of {}: {error}", self.url);
        }
    }
}

fn partition_value(date: CreatedDate) -> Scalar {
    /// The day that Delta counts from, in days of the common era.
    const EPOCH: i32 = 719_163;
    date.date().map_or(Scalar::Null(DeltaType::DATE), |date| Scalar::Date(date.num_days_from_ce() - EPOCH))
}
