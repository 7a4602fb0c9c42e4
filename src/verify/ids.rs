//! Finds the conversations that are in more than one partition.
//!
//! Guarantees: bounded memory. It keeps a hash of eight bytes per id; if there are too many, it reads the ids in
//! several passes. Only ids whose hash occurs twice are compared themselves.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use arrow_array::RecordBatch;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::files::{FileReader, FoundFile, Lane, Lanes};
use crate::lake::Lake;
use crate::merge::{Version, latest, other_time, time};
use crate::model::{CreatedDate, Table, big_ints, column, from_micros, texts};
use crate::tables::{OpenPartition, Tables};

/// How many hashes to keep at a time: 64 MB.
const HASHES: u64 = if cfg!(test) { 7 } else { 8 << 20 };

/// How often to read a file that is replaced meanwhile.
const TRIES: usize = 16;

/// A version of a conversation in a partition, with what orders it among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occurrence {
    pub(super) date: CreatedDate,
    /// Whether that is the partition of its `created_at`.
    in_place: bool,
    /// Whether it has an `updated_at`; else the times of its children count too.
    has_updated_at: bool,
    changed_at: Option<i64>,
    exported_at: Option<i64>,
    run_id: String,
    seq: i64,
}

impl Occurrence {
    fn version(&self) -> Version<'_> {
        let Occurrence { changed_at, exported_at, run_id, seq, .. } = self;
        Version { changed_at: *changed_at, exported_at: *exported_at, run_id, seq: *seq }
    }
}

/// Finds every id in more than one of some partitions, with its occurrences, the latest version first. The tables have
/// about `rows` conversations. Must not be called on an async thread.
///
/// # Errors
/// If a table cannot be read.
pub(super) fn across_dates(ids: &Ids, rows: u64) -> Result<Vec<(String, Vec<Occurrence>)>> {
    let hasher = RandomState::new();
    let passes = rows.div_ceil(HASHES).max(1);
    let mut twice = HashSet::new();
    for pass in 0..passes {
        let mut hashes = Vec::new();
        ids.each(Table::Conversations, &[column::CONVERSATION_ID], |_, batch| {
            let found = texts(batch, column::CONVERSATION_ID).into_iter().flatten().flatten();
            hashes.extend(found.map(|id| hasher.hash_one(id)).filter(|hash| hash % passes == pass));
        })?;
        hashes.sort_unstable();
        twice.extend(hashes.windows(2).filter_map(|pair| match pair {
            [one, other] if one == other => Some(*one),
            _ => None,
        }));
    }
    if twice.is_empty() {
        return Ok(Vec::new());
    }
    let mut places: BTreeMap<String, Vec<Occurrence>> = BTreeMap::new();
    let columns = [
        column::CONVERSATION_ID,
        column::CREATED_AT,
        column::UPDATED_AT,
        column::LAST_MESSAGE_AT,
        column::LAST_USER_MESSAGE_AT,
        column::EXPORTED_AT,
        column::RUN_ID,
        column::SEQ,
    ];
    ids.each(Table::Conversations, &columns, |date, batch| {
        for (row, id) in texts(batch, column::CONVERSATION_ID).into_iter().flatten().enumerate() {
            if let Some(id) = id.filter(|id| twice.contains(&hasher.hash_one(id))) {
                places.entry(id.to_owned()).or_default().push(place(date, batch, row));
            }
        }
    })?;
    places.retain(|_, places| places.iter().any(|place| places.first().is_some_and(|first| first.date != place.date)));
    if places.values().flatten().any(|place| !place.has_updated_at) {
        for table in [Table::Messages, Table::AuditLogs] {
            add_times(ids, table, &mut places)?;
        }
    }
    Ok(places.into_iter().map(|(id, places)| (id, latest_first(places))).collect())
}

/// Adds the times of the children in `table` to the versions without `updated_at`.
fn add_times(ids: &Ids, table: Table, places: &mut BTreeMap<String, Vec<Occurrence>>) -> Result<()> {
    let columns = [column::CONVERSATION_ID, column::CREATED_AT, column::RUN_ID, column::SEQ];
    ids.each(table, &columns, |date, batch| {
        for (row, id) in texts(batch, column::CONVERSATION_ID).into_iter().flatten().enumerate() {
            let Some(versions) = id.and_then(|id| places.get_mut(id)) else { continue };
            let commit = commit(batch, row);
            let own = |place: &&mut Occurrence| {
                !place.has_updated_at && place.date == date && place.version().commit() == commit
            };
            for version in versions.iter_mut().filter(own) {
                version.changed_at = version.changed_at.max(time(batch, column::CREATED_AT, row));
            }
        }
    })
}

fn commit(batch: &RecordBatch, row: usize) -> (&str, i64) {
    let run_id = texts(batch, column::RUN_ID).map_or("", |runs| runs.value(row));
    (run_id, big_ints(batch, column::SEQ).map_or(0, |seqs| seqs.value(row)))
}

/// Puts the latest version first; of one version in two partitions, the one in its own partition.
fn latest_first(mut places: Vec<Occurrence>) -> Vec<Occurrence> {
    places.sort_by_key(|place| (place.in_place, place.date));
    let versions: Vec<_> = places.iter().map(Occurrence::version).collect();
    if let Some(latest) = latest(&versions) {
        places.swap(0, latest);
    }
    places
}

fn place(date: CreatedDate, batch: &RecordBatch, row: usize) -> Occurrence {
    let updated_at = time(batch, column::UPDATED_AT, row);
    let (run_id, seq) = commit(batch, row);
    Occurrence {
        date,
        in_place: date.by().of(time(batch, column::CREATED_AT, row).and_then(from_micros)) == date,
        has_updated_at: updated_at.is_some(),
        changed_at: updated_at.or_else(|| other_time(batch, row)),
        exported_at: time(batch, column::EXPORTED_AT, row),
        run_id: run_id.to_owned(),
        seq,
    }
}

/// Reads columns of some partitions.
pub struct Ids {
    /// The lake.
    pub lake: Lake,
    /// Its tables.
    pub tables: Tables,
    /// The partitions.
    pub dates: Vec<CreatedDate>,
    /// The runtime that calls the store.
    pub runtime: Handle,
}

/// A partition's file that was read ahead, and its lane.
type ReadAhead = (CreatedDate, Result<(Option<FoundFile>, Lane)>);

impl Ids {
    /// Calls `visit` with some columns of one table, in any order of the partitions; perhaps twice for a file that is
    /// replaced meanwhile. Must not be called on an async thread.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn each(&self, table: Table, columns: &[&str], mut visit: impl FnMut(CreatedDate, &RecordBatch)) -> Result<()> {
        let (sender, mut files) = mpsc::channel(1);
        // It is aborted when this is dropped.
        let mut reading = JoinSet::new();
        reading.spawn_on(self.read_ahead(table, sender), &self.runtime);
        for _ in &self.dates {
            let (date, found) = files.blocking_recv().ok_or_else(|| Error::bug("the reading ahead ended"))?;
            let mut read = found.and_then(|(file, _lane)| self.read(table, date, file.as_ref(), columns, &mut visit));
            let mut tries = 1;
            while let Err(error) = read {
                if tries == TRIES {
                    return Err(error);
                }
                tries += 1;
                self.tables.invalidate();
                // As a stream, because what was read ahead may leave no room in memory.
                let found = self.runtime.block_on(self.tables.open_tables(date, &[table])).map(OpenPartition::not_read);
                read = found.and_then(|found| self.read(table, date, found.get(table).as_ref(), columns, &mut visit));
            }
        }
        Ok(())
    }

    /// Finds the files of one table and reads small ones into memory, until the receiver is dropped.
    fn read_ahead(&self, table: Table, files: mpsc::Sender<ReadAhead>) -> impl Future<Output = ()> + use<> {
        let (tables, dates, lanes) = (self.tables.clone(), self.dates.clone(), Lanes::of(self.lake.store()));
        async move {
            let (mut reading, mut dates) = (JoinSet::new(), dates.into_iter());
            loop {
                // As tasks: a read that stands still while this waits for the receiver would keep permits from it.
                while reading.len() < lanes.at_once()
                    && let Some(date) = dates.next()
                {
                    let (tables, lanes) = (tables.clone(), lanes.clone());
                    reading.spawn(async move { (date, read_file(&tables, &lanes, table, date).await) });
                }
                // In any order, because those that are read hold the memory that the others wait for.
                let Some(Ok(found)) = reading.join_next().await else { break };
                if files.send(found).await.is_err() {
                    break;
                }
            }
        }
    }

    fn read(
        &self,
        table: Table,
        date: CreatedDate,
        file: Option<&FoundFile>,
        columns: &[&str],
        visit: &mut impl FnMut(CreatedDate, &RecordBatch),
    ) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let (store, of) = (self.lake.store(), self.tables.columns().of(table));
        let mut reader = FileReader::open_columns(store, of, file, columns, self.runtime.clone())?;
        while let Some(batch) = reader.next_batch()? {
            visit(date, &batch);
        }
        Ok(())
    }
}

/// Finds the file of a table in a partition, and reads it into memory if it is small.
async fn read_file(
    tables: &Tables,
    lanes: &Lanes,
    table: Table,
    date: CreatedDate,
) -> Result<(Option<FoundFile>, Lane)> {
    let (mut found, lane) = tables.open_tables(date, &[table]).await?.read(lanes).await?;
    Ok((found.get_mut(table).take(), lane))
}
