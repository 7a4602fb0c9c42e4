//! Finds the conversations that are under more than one date, in bounded memory.
//!
//! Of every id a hash of eight bytes is kept, of as many ids at a time as the memory allows; where there are more, the
//! ids are read several times. Only ids whose hash came twice are compared themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use arrow_array::{Array, RecordBatch};
use tokio::runtime::Handle;

use crate::error::Result;
use crate::lake::{FileReader, Lake, Tables};
use crate::model::{CreatedDate, Table, big_ints, column, from_micros, texts, times};

/// How many hashes are kept at a time: 64 MB of them.
const HASHES: u64 = if cfg!(test) { 7 } else { 8 << 20 };

/// How often a file is read that a run replaces meanwhile.
const TRIES: usize = 16;

/// Where a copy is, and what tells how new it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) date: CreatedDate,
    /// Whether that is the date of its `created_at`.
    in_place: bool,
    updated_at: Option<i64>,
    exported_at: Option<i64>,
    seq: i64,
}

impl Place {
    /// Whether the copy is newer than another one: by when it changed, where both say so. Where one does not, its other
    /// times say nothing either, as one of them has changed; so the one that was fetched later is. Of
    /// the same copy under two dates, the one in its place counts.
    fn is_newer_than(&self, other: &Place) -> bool {
        let fetched = (self.exported_at, self.seq).cmp(&(other.exported_at, other.seq));
        let fetched = fetched.then(self.in_place.cmp(&other.in_place));
        match (self.updated_at, other.updated_at) {
            (Some(mine), Some(theirs)) => mine.cmp(&theirs).then(fetched).is_gt(),
            _ => fetched.is_gt(),
        }
    }
}

/// Every id that is under more than one of `dates`, with its places, the newest first. The tables have about `rows`
/// conversations. Must not be called on an async thread.
///
/// # Errors
/// Where a table cannot be read.
pub(super) fn across_dates(
    lake: &Lake,
    tables: &Tables,
    dates: &[CreatedDate],
    rows: u64,
    runtime: &Handle,
) -> Result<Vec<(String, Vec<Place>)>> {
    let hasher = RandomState::new();
    let ids = Ids { lake, tables, dates, runtime };
    let passes = rows.div_ceil(HASHES).max(1);
    let mut twice = HashSet::new();
    for pass in 0..passes {
        let mut hashes = Vec::new();
        ids.each(&[column::CONVERSATION_ID], |_, batch| {
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
    let mut places: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    let columns = [column::CONVERSATION_ID, column::CREATED_AT, column::UPDATED_AT, column::EXPORTED_AT, column::SEQ];
    ids.each(&columns, |date, batch| {
        for (row, id) in texts(batch, column::CONVERSATION_ID).into_iter().flatten().enumerate() {
            if let Some(id) = id.filter(|id| twice.contains(&hasher.hash_one(id))) {
                places.entry(id.to_owned()).or_default().push(place(date, batch, row));
            }
        }
    })?;
    places.retain(|_, places| places.iter().any(|place| places.first().is_some_and(|first| first.date != place.date)));
    Ok(places.into_iter().map(|(id, places)| (id, newest_first(places))).collect())
}

/// The order is not one in which all can be sorted: of three copies, one may lack what the others are compared by.
fn newest_first(mut places: Vec<Place>) -> Vec<Place> {
    let newer_than = |place: &Place| places.iter().filter(|other| place.is_newer_than(other)).count();
    let ranks: Vec<_> = places.iter().map(newer_than).collect();
    let mut ranked: Vec<_> = ranks.into_iter().zip(places.drain(..)).collect();
    ranked.sort_by_key(|(rank, place)| Reverse((*rank, place.exported_at, place.seq)));
    ranked.into_iter().map(|(_, place)| place).collect()
}

fn place(date: CreatedDate, batch: &RecordBatch, row: usize) -> Place {
    let time = |name| times(batch, name).filter(|times| times.is_valid(row)).map(|times| times.value(row));
    Place {
        date,
        in_place: CreatedDate::of(time(column::CREATED_AT).and_then(from_micros)) == date,
        updated_at: time(column::UPDATED_AT),
        exported_at: time(column::EXPORTED_AT),
        seq: big_ints(batch, column::SEQ).map_or(0, |seqs| seqs.value(row)),
    }
}

/// The conversations of some dates.
struct Ids<'a> {
    lake: &'a Lake,
    tables: &'a Tables,
    dates: &'a [CreatedDate],
    runtime: &'a Handle,
}

impl Ids<'_> {
    /// Reads some columns of all of them; those of a file that is replaced meanwhile perhaps twice.
    fn each(&self, columns: &[&str], mut look: impl FnMut(CreatedDate, &RecordBatch)) -> Result<()> {
        for date in self.dates {
            let mut tries = 1;
            while let Err(error) = self.of_date(*date, columns, &mut look) {
                if tries == TRIES {
                    return Err(error);
                }
                tries += 1;
                self.tables.look_again();
            }
        }
        Ok(())
    }

    fn of_date(
        &self,
        date: CreatedDate,
        columns: &[&str],
        look: &mut impl FnMut(CreatedDate, &RecordBatch),
    ) -> Result<()> {
        let (table, runtime) = (Table::Conversations, self.runtime.clone());
        let found = self.tables.of_date(date, self.runtime)?;
        let Some(object) = found.get(table) else { return Ok(()) };
        let mut file = FileReader::open_columns(self.lake, table, object, columns, runtime)?;
        while let Some(batch) = file.next_batch()? {
            look(date, &batch);
        }
        Ok(())
    }
}
