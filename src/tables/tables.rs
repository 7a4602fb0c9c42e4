//! The seam between the formats: which file each partition of the four tables has, and the key of a new one.
//!
//! A plain table has one file per partition under one key, and a write replaces it. A Delta table has files under new
//! keys, and a commit to the table's log replaces them.
//! Must not depend on: the content of the files.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::future::try_join_all;
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::change::Change;
use super::delta::{DeltaTable, Readiness};
use super::open::{OpenPartition, OpenTableFile};
use crate::error::{Error, Result};
use crate::lake::{Format, Identity, Lease, WriteIntent};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, LakeColumns, PartitionBy, PerTable, Table};
use crate::policy::PolicyChain;
use crate::store::Store;

/// The tables of a lake.
#[derive(Clone)]
pub struct Tables {
    store: Store,
    partition_by: PartitionBy,
    columns: LakeColumns,
    /// The policies that rows follow once they are read; without them rows stay as they are.
    policies: Option<Arc<PolicyChain>>,
    /// Set if they are Delta tables.
    delta: Option<Arc<PerTable<DeltaTable>>>,
    /// Whose turn it is to read a log. More readers would only wait for each other, on threads that the engine needs.
    turn: Arc<Mutex<()>>,
}

impl Tables {
    /// Checks that this build can keep tables in `format`.
    ///
    /// # Errors
    /// Kind `Usage` if it was built without the feature.
    pub fn check(format: Format) -> Result<()> {
        if format == Format::Parquet || cfg!(feature = "delta") {
            return Ok(());
        }
        Err(Error::usage("this build of decagon-lake does not support Delta tables")
            .with_hint("build it with the feature `delta`, which is on by default"))
    }

    /// Opens the tables of the lake `identity` in `store`. Must be called on an async thread.
    ///
    /// # Errors
    /// As [`Tables::check`].
    pub fn of(store: &Store, identity: &Identity) -> Result<Self> {
        Self::check(identity.format)?;
        let columns = identity.columns();
        let delta = (identity.format == Format::Delta).then(|| {
            let application = format!("decagon-lake {}", identity.created_at.to_rfc3339());
            let (by, runtime, of) = (identity.partition_by, Handle::current(), |table| Arc::clone(columns.of(table)));
            let open = |table| DeltaTable::new(store, of(table), by, application.clone(), runtime.clone());
            Arc::new(PerTable::from_fn(open))
        });
        let partition_by = identity.partition_by;
        Ok(Tables { store: store.clone(), partition_by, columns, policies: None, delta, turn: Arc::default() })
    }

    /// The same tables, whose rows follow `policies` once they are read.
    #[must_use]
    pub fn following(self, policies: Option<Arc<PolicyChain>>) -> Self {
        Tables { policies, ..self }
    }

    /// The policies that rows follow once they are read.
    pub fn policies(&self) -> Option<&PolicyChain> {
        self.policies.as_deref()
    }

    /// Their columns.
    pub fn columns(&self) -> &LakeColumns {
        &self.columns
    }

    /// Whether a new file becomes visible only when a write intent is [published](Tables::publish).
    pub fn are_delta(&self) -> bool {
        self.delta.is_some()
    }

    /// Finds the files of a partition.
    ///
    /// # Errors
    /// If the store fails; kind `Integrity` if another writer has made a Delta table unusable.
    pub async fn partition_files(&self, date: CreatedDate) -> Result<PerTable<Option<ObjectMeta>>> {
        if let Some(delta) = &self.delta {
            let find = move |delta: &PerTable<DeltaTable>| {
                if !Table::ALL.iter().all(|table| delta.get(*table).is_known()) {
                    of_each(delta, &Table::ALL, |_, table| table.state())?;
                }
                PerTable::try_from_fn(|table| delta.get(table).partition_file(date))
            };
            return self.read_logs(delta, find).await;
        }
        let keys = Table::ALL.map(|table| layout::table_file(table, date));
        let mut found = try_join_all(keys.iter().map(|key| self.store.head(key))).await?.into_iter();
        Ok(PerTable::from_fn(|_| found.next().flatten()))
    }

    /// Finds the files of a partition and requests their bytes, if one call to the store does both.
    ///
    /// # Errors
    /// As [`Tables::partition_files`].
    pub async fn open_partition(&self, date: CreatedDate) -> Result<OpenPartition> {
        self.open_tables(date, &Table::ALL).await
    }

    /// The same for the files of some tables.
    ///
    /// # Errors
    /// As [`Tables::partition_files`].
    pub async fn open_tables(&self, date: CreatedDate, wanted: &[Table]) -> Result<OpenPartition> {
        if self.are_delta() || self.store.is_local() {
            let mut found = self.partition_files(date).await?;
            let files = PerTable::from_fn(|table| {
                let found = found.get_mut(table).take().filter(|_| wanted.contains(&table));
                found.map(OpenTableFile::Found)
            });
            return Ok(OpenPartition::new(&self.store, files));
        }
        let open = Table::ALL.map(|table| self.open_plain(table, date, wanted.contains(&table)));
        let mut open = try_join_all(open).await?.into_iter();
        Ok(OpenPartition::new(&self.store, PerTable::from_fn(|_| open.next().flatten())))
    }

    async fn open_plain(&self, table: Table, date: CreatedDate, is_wanted: bool) -> Result<Option<OpenTableFile>> {
        if !is_wanted {
            return Ok(None);
        }
        let key = layout::table_file(table, date);
        match self.store.request(&key).await {
            Ok(open) => Ok(open.map(|open| OpenTableFile::Requested(Box::new(open)))),
            // The reader says what is wrong with this file.
            Err(error) if error.is_of_one_object() => Ok(self.store.head(&key).await?.map(OpenTableFile::Found)),
            Err(error) => Err(error),
        }
    }

    /// The key of a new file that replaces the file of a partition.
    pub fn new_file(&self, table: Table, date: CreatedDate, file: &FlushId) -> Path {
        match self.delta {
            None => layout::table_file(table, date),
            Some(_) => layout::delta_file(table, date, file),
        }
    }

    /// Lists the files of a table with their partitions, and the other objects in the folder of a plain table.
    ///
    /// # Errors
    /// As [`Tables::partition_files`].
    pub async fn files(&self, table: Table) -> Result<(Vec<(CreatedDate, ObjectMeta)>, Vec<Path>)> {
        if let Some(delta) = &self.delta {
            return Ok((self.read_logs(delta, move |delta| delta.get(table).all_files()).await?, Vec::new()));
        }
        let (mut files, mut others) = (Vec::new(), Vec::new());
        let mut listed = self.store.list(layout::table_folder(table));
        while let Some(object) = listed.try_next().await? {
            match layout::table_file_date(table, &object.location) {
                Some(date) if date.by() == self.partition_by => files.push((date, object)),
                _ => others.push(object.location),
            }
        }
        Ok((files, others))
    }

    /// The number of the newest write intent that any Delta table has applied; 0 if there is none. A checkpoint named
    /// it, so a lake whose newest checkpoint has a lower number has lost checkpoints.
    ///
    /// # Errors
    /// If the store fails, or a table's log is damaged.
    pub async fn applied(&self) -> Result<u64> {
        let Some(delta) = &self.delta else { return Ok(0) };
        let applied = |delta: &PerTable<DeltaTable>| of_each(delta, &Table::ALL, |_, table| table.applied());
        let numbers = self.read_logs(delta, applied).await?;
        Ok(Table::ALL.iter().filter_map(|table| numbers.get(*table).flatten()).max().unwrap_or(0))
    }

    /// Reads the logs of Delta tables on a blocking thread, one caller after the other: while a thread waits, the
    /// engine takes threads of the same small pool.
    async fn read_logs<T: Send + 'static>(
        &self,
        delta: &Arc<PerTable<DeltaTable>>,
        read: impl FnOnce(&PerTable<DeltaTable>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (_turn, delta) = (self.turn.lock().await, Arc::clone(delta));
        let task = tokio::task::spawn_blocking(move || read(&delta));
        task.await.map_err(|error| Error::bug("the log's reader failed").caused_by(error))?
    }

    /// Drops the cached table states, so that the next call reads them again.
    pub fn invalidate(&self) {
        for table in Table::ALL {
            if let Some(delta) = &self.delta {
                delta.get(table).invalidate();
            }
        }
    }

    /// Applies a write intent to the Delta tables that have not applied it, by one commit each, the conversations last.
    ///
    /// # Errors
    /// If the store fails; some tables may have applied it then, and a repetition applies it to the others.
    pub async fn publish(&self, intent: &WriteIntent) -> Result<Change> {
        let Some(delta) = self.delta.clone() else { return Ok(Change::Made) };
        let intent = intent.clone();
        let task = tokio::task::spawn_blocking(move || {
            // A conflict in one table changes none.
            let ready = of_each(&delta, &Table::ALL, |_, table| table.readiness(&intent))?;
            for table in Table::ALL {
                if let Some(Readiness::Conflict(place)) = ready.get(table) {
                    return Ok(Change::Conflict(place.clone()));
                }
            }
            // A query that sees a conversation then sees its children too.
            for tables in [Table::CHILDREN.as_slice(), &[Table::Conversations]] {
                let publish = |of, table: &DeltaTable| table.publish(&intent, ready.get(of).clone());
                let changes = of_each(&delta, tables, publish)?;
                let conflict = |table: &Table| changes.get(*table).clone().filter(|change| *change != Change::Made);
                if let Some(conflict) = tables.iter().find_map(conflict) {
                    return Ok(conflict);
                }
            }
            Ok(Change::Made)
        });
        task.await.map_err(|error| Error::bug("the commit failed").caused_by(error))?
    }

    /// Lists the files in the folder of a Delta table that its newest version does not use, with their partitions; a
    /// plain table has none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn unused_files(&self, table: Table) -> Result<Vec<(CreatedDate, ObjectMeta)>> {
        let Some(delta) = &self.delta else { return Ok(Vec::new()) };
        let files = DeltaTable::unused(Arc::clone(delta), table).await?.files;
        let dated = |object: ObjectMeta| Some((layout::date_of(&object.location)?, object));
        Ok(files.into_iter().filter_map(dated).collect())
    }

    /// Deletes the parts of the logs of Delta tables that other writers may have filled with values of rows. Returns how
    /// many, and the tables whose newest version another writer made, so that its commit stays. For the holder of the
    /// lease.
    ///
    /// # Errors
    /// As [`Tables::vacuum`].
    pub async fn cut_logs(&self, lease: &Lease) -> Result<(u64, Vec<Table>)> {
        let Some(delta) = &self.delta else { return Ok((0, Vec::new())) };
        let (mut parts, mut foreign) = (Vec::new(), Vec::new());
        for table in Table::ALL {
            let cut = DeltaTable::cut(Arc::clone(delta), table).await?;
            parts.extend(cut.parts);
            foreign.extend(cut.newest_is_foreign.then_some(table));
        }
        if parts.is_empty() {
            return Ok((0, foreign));
        }
        lease.prove().await?;
        let count = parts.len() as u64;
        self.store.delete(parts).await?;
        Ok((count, foreign))
    }

    /// Deletes the files that no Delta table has used for as long as `retain`; returns how many. For the holder of the
    /// lease.
    ///
    /// # Errors
    /// If the store fails; kind `Held` if another run has taken over.
    pub async fn vacuum(&self, retain: Duration, lease: &Lease, now: DateTime<Utc>) -> Result<usize> {
        let Some(delta) = &self.delta else { return Ok(0) };
        // No file is older than the first time that can be represented.
        let since = chrono::Duration::from_std(retain).ok().and_then(|retain| now.checked_sub_signed(retain));
        let Some(since) = since else { return Ok(0) };
        let mut expired = Vec::new();
        for table in Table::ALL {
            let delta = Arc::clone(delta);
            expired.extend(DeltaTable::expired(delta, table, since, now).await?);
        }
        if expired.is_empty() {
            return Ok(0);
        }
        // Files that were unused before this proof stay unused.
        lease.prove().await?;
        let count = expired.len();
        self.store.delete(expired).await?;
        Ok(count)
    }
}

/// Does the same with each of these Delta tables, at the same time, because all of them wait for the store. Blocks.
fn of_each<T: Send>(
    delta: &PerTable<DeltaTable>,
    tables: &[Table],
    act: impl Fn(Table, &DeltaTable) -> Result<T> + Sync,
) -> Result<PerTable<Option<T>>> {
    let act = &act;
    std::thread::scope(|scope| {
        let begin = |table| tables.contains(&table).then(|| scope.spawn(move || act(table, delta.get(table))));
        let mut threads = PerTable::from_fn(begin);
        let died = |_| Error::bug("the thread of a Delta table has died");
        PerTable::try_from_fn(|table| threads.get_mut(table).take().map(|it| it.join().map_err(died)?).transpose())
    })
}
