//! Finds the conversations that are in more than one partition.
//!
//! Guarantees: bounded memory. It keeps a hash of eight bytes per id; if there are too many, it reads the ids in
//! several passes. Only ids whose hash occurs twice are compared themselves.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use arrow_array::RecordBatch;
use tokio::runtime::Handle;

use crate::error::Result;
use crate::files::FileReader;
use crate::lake::Lake;
use crate::merge::{Version, latest, other_time, time};
use crate::model::{CreatedDate, Table, big_ints, column, from_micros, texts};
use crate::tables::Tables;

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

/// Finds every id in more than one of the partitions `dates`, with its occurrences, the latest version first. The
/// tables have about `rows` conversations. Must not be called on an async thread.
///
/// # Errors
/// If a table cannot be read.
pub(super) fn across_dates(
    lake: &Lake,
    tables: &Tables,
    dates: &[CreatedDate],
    rows: u64,
    runtime: &Handle,
) -> Result<Vec<(String, Vec<Occurrence>)>> {
    let hasher = RandomState::new();
    let ids = Ids { lake, tables, dates, runtime };
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
            add_times(&ids, table, &mut places)?;
        }
    }
    Ok(places.into_iter().map(|(id, places)| (id, latest_first(places))).collect())
}

/// Adds the times of the children in `table` to the versions without `updated_at`.
fn add_times(ids: &Ids<'_>, table: Table, places: &mut BTreeMap<String, Vec<Occurrence>>) -> Result<()> {
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
    places.sort_by_key(|place| place.in_place);
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
struct Ids<'a> {
    lake: &'a Lake,
    tables: &'a Tables,
    dates: &'a [CreatedDate],
    runtime: &'a Handle,
}

impl Ids<'_> {
    /// Calls `visit` with some columns of one table; perhaps twice for a file that is replaced meanwhile.
    fn each(&self, table: Table, columns: &[&str], mut visit: impl FnMut(CreatedDate, &RecordBatch)) -> Result<()> {
        for date in self.dates {
            let mut tries = 1;
            while let Err(error) = self.read(table, *date, columns, &mut visit) {
                if tries == TRIES {
                    return Err(error);
                }
                tries += 1;
                self.tables.invalidate();
            }
        }
        Ok(())
    }

    fn read(
        &self,
        table: Table,
        date: CreatedDate,
        columns: &[&str],
        visit: &mut impl FnMut(CreatedDate, &RecordBatch),
    ) -> Result<()> {
        let found = self.tables.partition_files(date, self.runtime)?;
        let Some(file) = found.get(table) else { return Ok(()) };
        let mut reader = FileReader::open_columns(self.lake.store(), table, file, columns, self.runtime.clone())?;
        while let Some(batch) = reader.next_batch()? {
            visit(date, &batch);
        }
        Ok(())
    }
}
