//! The log of a Delta table: the files that the table has, and the write intents that it has applied.
//!
//! `delta_kernel` reads and writes the log through the lake's own store, so that its calls are bounded and counted too.
//! (The protocol: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>.)
//! Guarantees: a table applies a write intent once, however often it is published, because the intent's number is the
//! transaction identifier of its commit. Commits of other writers stay.
//! Must not depend on: why write intents exist.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use delta_kernel::engine::arrow_conversion::TryFromArrow;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::schema::{DataType, SchemaRef, StructField, StructType};
use delta_kernel::table_features::ColumnMappingMode;
use delta_kernel::{KernelError, Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::log_cache::LogCache;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::{CreatedDate, PartitionBy, Table, TableColumns};
use crate::store::Store;

/// The hint for a table that another writer made unusable. RESTORE is safe, because no run has committed to it since.
const RESTORE: &str = "restore the version before that change with that writer (RESTORE); the table's history lists it";
/// The hint for one unusable partition. RESTORE is not safe, because runs may have committed to other partitions since.
const FETCH_AGAIN: &str = "delete the rows of that partition from all four tables with that writer, and fetch it \
    again with `backfill --timestamp-filter created_at` and `compact`";

/// One of a lake's tables. Its functions block, and must not be called on an async thread.
pub(in crate::tables) struct DeltaTable {
    pub(super) store: Store,
    pub(super) table: Table,
    pub(super) partition_by: PartitionBy,
    pub(super) columns: Arc<TableColumns>,
    /// The application id of its transactions, which differs from that of every other lake, earlier ones here included.
    pub(super) application: String,
    pub(super) url: String,
    pub(super) runtime: Handle,
    pub(super) engine: DefaultEngine<TokioMultiThreadExecutor>,
    known: Mutex<Known>,
}

/// How long a snapshot counts as the newest, in seconds. A commit of another writer in this time is found as a conflict
/// before this run commits.
const FRESH_SECS: i64 = 10;

/// What was last read of a table.
#[derive(Default)]
struct Known {
    /// The newest snapshot, from which later ones are built.
    snapshot: Option<SnapshotRef>,
    /// When it was read.
    read_at: DateTime<Utc>,
    /// The version; none within if there is no table.
    state: Option<Option<LogState>>,
}

/// One version of a table.
#[derive(Clone)]
pub(in crate::tables) struct LogState {
    pub(super) snapshot: SnapshotRef,
    pub(super) files: Arc<BTreeMap<CreatedDate, Vec<ObjectMeta>>>,
}

impl fmt::Debug for DeltaTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaTable({})", self.url)
    }
}

impl DeltaTable {
    pub(in crate::tables) fn new(
        store: &Store,
        columns: Arc<TableColumns>,
        partition_by: PartitionBy,
        application: String,
        runtime: Handle,
    ) -> Self {
        let table = columns.table();
        let executor = Arc::new(TokioMultiThreadExecutor::new(runtime.clone()));
        let engine = DefaultEngineBuilder::new(Arc::new(LogCache::of(Arc::clone(store.objects()))))
            .with_task_executor(executor)
            .build();
        // The store's root is the lake's. The engine decides by the URL whether listings are in order: those of local
        // disks are not, and it takes the listings of a host with this name to be unordered.
        let host = if store.is_local() { "disk--x-s3" } else { "store" };
        let url = format!("lake://{host}/{}/", layout::table_folder(table));
        let (store, known) = (store.clone(), Mutex::default());
        DeltaTable { store, table, partition_by, columns, application, url, runtime, engine, known }
    }

    /// Finds the file of a partition.
    ///
    /// # Errors
    /// Kind `Integrity` if another writer has added more files to it.
    pub(in crate::tables) fn partition_file(&self, date: CreatedDate) -> Result<Option<ObjectMeta>> {
        let Some(state) = self.state()? else { return Ok(None) };
        match state.files.get(&date).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([file]) => Ok(Some(file.clone())),
            Some(several) => {
                let how = format!("has {} files in partition {date}, not one", several.len());
                Err(self.altered(how).with_hint(FETCH_AGAIN))
            }
        }
    }

    /// Lists all files with their partitions.
    pub(in crate::tables) fn all_files(&self) -> Result<Vec<(CreatedDate, ObjectMeta)>> {
        let Some(state) = self.state()? else { return Ok(Vec::new()) };
        let of_partition = |(date, files): (&CreatedDate, &Vec<ObjectMeta>)| {
            files.iter().map(|file| (*date, file.clone())).collect::<Vec<_>>()
        };
        Ok(state.files.iter().flat_map(of_partition).collect())
    }

    /// Forgets what was read.
    pub(in crate::tables) fn invalidate(&self) {
        *self.known() = Known::default();
    }

    /// Forgets what was read before the commit that led to this snapshot.
    pub(super) fn committed(&self, snapshot: Option<&SnapshotRef>) {
        *self.known() = Known { snapshot: snapshot.cloned(), ..Known::default() };
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the version is known, so that nothing has to be read.
    pub(in crate::tables) fn is_known(&self) -> bool {
        self.known().state.is_some()
    }

    /// The version that was read last, read if need be; `None` if there is no table.
    pub(in crate::tables) fn state(&self) -> Result<Option<LogState>> {
        let mut known = self.known();
        match &known.state {
            Some(state) => Ok(state.clone()),
            None => {
                let age = self.store.clock().now() - known.read_at;
                let fresh = known.snapshot.clone().filter(|_| (0..FRESH_SECS).contains(&age.num_seconds()));
                self.read(&mut known, fresh)
            }
        }
    }

    /// Reads the table's latest version.
    pub(in crate::tables) fn refresh(&self) -> Result<Option<LogState>> {
        self.read(&mut self.known(), None)
    }

    /// The latest snapshot of the table, built from the earlier one `before`; `None` if there is no table.
    fn snapshot(&self, before: Option<&SnapshotRef>) -> Result<Option<SnapshotRef>> {
        let snapshot = match before {
            Some(before) => Snapshot::builder_from(Arc::clone(before)).build(&self.engine),
            None => Snapshot::builder_for(&self.url).build(&self.engine),
        };
        match snapshot {
            Err(KernelError::EmptyLog) => Ok(None),
            other => other.map(Some).map_err(|error| self.failed("read", error)),
        }
    }

    /// The number of the newest write intent that the table has applied.
    ///
    /// # Errors
    /// If the store fails, or the log is damaged.
    pub(in crate::tables) fn applied(&self) -> Result<Option<u64>> {
        let mut known = self.known();
        let snapshot = self.snapshot(known.snapshot.as_ref())?;
        *known = Known { snapshot: snapshot.clone(), read_at: self.store.clock().now(), state: None };
        snapshot.map_or(Ok(None), |snapshot| self.applied_in(&snapshot))
    }

    /// The same in one snapshot of the table.
    pub(super) fn applied_in(&self, snapshot: &SnapshotRef) -> Result<Option<u64>> {
        let newest = snapshot.get_app_id_version(&self.application, &self.engine);
        let newest = newest.map_err(|error| self.failed("read", error))?;
        let number = newest.map(u64::try_from).transpose();
        number.map_err(|_| self.altered("has a negative transaction number of this lake".to_owned()))
    }

    /// Reads the table's latest version, which is that of the snapshot `latest` if there is one.
    fn read(&self, known: &mut Known, latest: Option<SnapshotRef>) -> Result<Option<LogState>> {
        let Known { snapshot: before, state, .. } = std::mem::take(known);
        let Some(snapshot) = latest.map_or_else(|| self.snapshot(before.as_ref()), |latest| Ok(Some(latest)))? else {
            known.state = Some(None);
            return Ok(None);
        };
        let is_same = |before: &LogState| before.snapshot.version() == snapshot.version();
        let state = match state.flatten().filter(is_same) {
            Some(state) => state,
            None => {
                self.check_columns(&snapshot)?;
                let files = Arc::new(self.files(&snapshot)?);
                LogState { snapshot: Arc::clone(&snapshot), files }
            }
        };
        *known = Known { snapshot: Some(snapshot), state: Some(Some(state.clone())), ..Known::default() };
        Ok(Some(state))
    }

    /// The files of a snapshot, by partition.
    pub(super) fn files(&self, snapshot: &SnapshotRef) -> Result<BTreeMap<CreatedDate, Vec<ObjectMeta>>> {
        let failed = |error| self.failed("read", error);
        let scan = Arc::clone(snapshot).scan_builder().build().map_err(failed)?;
        let mut found: Vec<ScanFile> = Vec::new();
        for part in scan.scan_metadata(&self.engine).map_err(failed)? {
            found =
                part.and_then(|part| part.visit_scan_files(found, |found, file| found.push(file))).map_err(failed)?;
        }
        let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for file in found {
            if file.dv_info.has_vector() {
                return Err(self.altered(format!("marks rows of {} as deleted", file.path)));
            }
            let by = self.partition_by;
            let date = file.partition_values.get(by.column()).map_or(Ok(by.unknown()), |value| by.parse(value));
            let date =
                date.map_err(|error| self.altered(format!("has a file in no partition of this lake: {error}")))?;
            files.entry(date).or_default().push(self.file_meta(&file)?);
        }
        Ok(files)
    }

    pub(super) fn file_meta(&self, file: &ScanFile) -> Result<ObjectMeta> {
        let location = Path::from_url_path(format!("{}/{}", layout::table_folder(self.table), file.path));
        let location = location.map_err(|error| self.altered(format!("has a file at {}: {error}", file.path)))?;
        let no_size = |_| self.altered(format!("has a file of {} bytes at {}", file.size, file.path));
        let size = u64::try_from(file.size).map_err(no_size)?;
        let last_modified = DateTime::from_timestamp_millis(file.modification_time);
        let no_time = || self.altered(format!("has a file of no time at {}: {}", file.path, file.modification_time));
        let last_modified = last_modified.ok_or_else(no_time)?;
        Ok(ObjectMeta { location, last_modified, size, e_tag: None, version: None })
    }

    /// The table's columns, the partition last.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        let columns = StructType::try_from_arrow(self.columns.schema().as_ref())?;
        let partition = StructField::nullable(self.partition_by.column(), DataType::DATE);
        let schema = StructType::try_new(columns.fields().cloned().chain([partition]));
        schema.map(Arc::new).map_err(|error| Error::bug("cannot write the columns as a Delta schema").caused_by(error))
    }

    /// Checks that the table has no columns but this program's, with their types, because files are written and merged
    /// by these. It may lack those that later schemas have added, and may have them in another order.
    pub(super) fn check_columns(&self, snapshot: &SnapshotRef) -> Result<()> {
        let (wanted, found) = (self.schema()?, snapshot.schema());
        let known = |field: &StructField| {
            wanted.field(field.name()).is_some_and(|known| known.data_type() == field.data_type())
        };
        let lacks = |field: &&StructField| found.field(field.name()).is_none();
        let newer = |name: &str| self.columns.columns().iter().any(|column| column.name == name && column.is_newer());
        let fits = found.fields().all(known) && wanted.fields().filter(lacks).all(|field| newer(field.name()));
        let renames =
            snapshot.table_properties().column_mapping_mode.is_some_and(|mode| mode != ColumnMappingMode::None);
        match fits && !renames {
            true => Ok(()),
            false => Err(self.altered("has other columns than this program writes".to_owned())),
        }
    }

    /// The columns that the table lacks because it was made with an earlier schema.
    pub(super) fn lacking_columns(&self, snapshot: &SnapshotRef) -> Result<Vec<StructField>> {
        let (wanted, found) = (self.schema()?, snapshot.schema());
        Ok(wanted.fields().filter(|field| found.field(field.name()).is_none()).cloned().collect())
    }

    /// The error that another writer has made the table unusable.
    pub(super) fn altered(&self, how: String) -> Error {
        let place = format!("{}/{}", self.store.url(), layout::table_folder(self.table));
        Error::integrity(format!("the Delta table {place} {how}: another writer has changed it")).with_hint(RESTORE)
    }

    pub(super) fn failed(&self, verb: &str, error: KernelError) -> Error {
        let key = layout::delta_log(self.table);
        match error {
            KernelError::ObjectStore(error) => self.store.failed(verb, &key, error),
            error @ (KernelError::IOError(_) | KernelError::FileNotFound(_)) => {
                Error::store(format!("cannot {verb} {}/{key}", self.store.url())).caused_by(error)
            }
            error => Error::integrity(format!("cannot {verb} {}/{key}", self.store.url())).caused_by(error),
        }
    }
}
