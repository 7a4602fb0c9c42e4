//! Reads a lake and checks what it promises: what `verify` does.
//!
//! Every file is read whole, each in bounded memory. What a run that is under way changes meanwhile is looked at again
//! before it counts. Must not know: the API.

mod beside;
mod date;
mod findings;
mod ids;
mod landing;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::compact::remove_conversations;
use crate::error::{Error, Kind, Result};
use crate::lake::{Lake, Lease, Ledger};
use crate::layout;
use crate::model::{CreatedDate, RunId, Table};
use crate::tables::Tables;
use beside::Beside;
use date::DateRead;
pub use findings::{Check, Problem, Verification};
use ids::Occurrence;

/// How many dates are read at a time, each on a thread of its own.
const DATES_AT_ONCE: usize = 2;

/// How often, and how far apart, a date is looked at that is not as it should be while another run is alive.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Checks a lake.
///
/// # Errors
/// Where there is none, or its store fails; what does not hold is no error here.
pub async fn verify(lake: &Lake, clock: Clock) -> Result<Verification> {
    check(lake, None, clock).await.map(|(found, _)| found)
}

/// Every conversation that is under more than one date: its places, the newest copy's first.
type Doubles = Vec<(String, Vec<Occurrence>)>;

/// Checks a lake; `own` is the run that holds it and reads.
async fn check(lake: &Lake, own: Option<&RunId>, clock: Clock) -> Result<(Verification, Doubles)> {
    let tables = Tables::of(lake.store(), &lake.existing().await?)?;
    let mut found = Verification::of(lake.url());
    let dates = dates(&tables, &mut found).await?;
    let mut beside = Beside::new(lake, own, clock);
    let mut doubtful = read(lake, &tables, dates.iter().map(|date| (*date, None)).collect(), &mut found).await?;
    for _ in 0..TRIES {
        if doubtful.is_empty() {
            break;
        }
        // The tables of a date are replaced one after the other: a run may be in the middle of it.
        let alive = beside.is_alive().await?;
        if alive {
            clock.sleep(PAUSE).await;
        }
        tables.look_again();
        doubtful = read(lake, &tables, doubtful, &mut found).await?;
        if !alive {
            break;
        }
    }
    for (date, read) in doubtful {
        let url = lake.url();
        let read =
            read.ok_or_else(|| Error::held(format!("the tables of {date} in {url} are replaced again and again")))?;
        found.dates += 1;
        found.merge(read.found);
    }
    let doubles = across_dates(lake, &tables, &dates, &found).await?;
    for (id, places) in &doubles {
        let at: Vec<_> = places.iter().map(|place| place.date.to_string()).collect();
        let key = places.first().map(|place| layout::table_file(Table::Conversations, place.date));
        found.note(Check::UniqueAcrossDates, key.as_ref(), || {
            format!("conversation {id} is under {}", at.join(" and "))
        });
    }
    landing::verify(lake, &mut found).await?;
    state(lake, &tables, &mut found).await?;
    Ok((found, doubles))
}

/// Makes sure that `_state` is as new as the tables.
async fn state(lake: &Lake, tables: &Tables, found: &mut Verification) -> Result<()> {
    // In this order: a run that commits in between has named first what it brings into tables.
    let taken_up = tables.taken_up().await?;
    let number = Ledger::load(lake.store()).await?.number();
    if taken_up > number {
        found.note(Check::State, None, || state_is_behind(lake, taken_up, number).to_string());
    }
    Ok(())
}

/// That Delta tables have taken up commit `taken_up`, though the newest checkpoint is `number`: `_state` was restored from a
/// backup, say. New commits would be taken for those that the tables have, and be lost.
pub fn state_is_behind(lake: &Lake, taken_up: u64, number: u64) -> Error {
    let url = lake.url();
    Error::integrity(format!(
        "the tables of the lake {url} are newer than its _state: they have commit {taken_up}, its newest checkpoint is {number}"
    ))
    .with_hint(
        "nothing was changed; restore the tables from the same backup as _state, or keep them: `verify --repair` numbers \
         the next commits after theirs, and the next sync fetches again what changed since the checkpoint",
    )
}

/// Checks a lake and mends what can be mended: of every conversation that is under more than one date, all but the newest
/// copy is removed; what is landed but damaged is given up. Then checks it again. For who holds the lake.
///
/// # Errors
/// As [`verify`], where another run has taken the lake, and `Interrupted`.
pub async fn repair(lake: &Lake, lease: &Arc<Lease>, ledger: &mut Ledger, clock: Clock) -> Result<Verification> {
    let (found, doubles) = check(lake, Some(lease.run_id()), clock).await?;
    let given_up = match found.findings_of(Check::StagedFlush) {
        0 => 0,
        _ => landing::give_up_damaged(lake, ledger, lease.run_id(), clock.now()).await?,
    };
    let mut unwanted: BTreeMap<CreatedDate, BTreeSet<String>> = BTreeMap::new();
    for (id, places) in doubles {
        let Some(newest) = places.first() else { continue };
        for older in places.iter().filter(|place| place.date != newest.date) {
            unwanted.entry(older.date).or_default().insert(id.clone());
        }
    }
    let tables = Tables::of(lake.store(), &lake.existing().await?)?;
    let removed = remove_conversations(lake, &tables, lease, ledger, unwanted, clock).await?;
    if (removed, given_up) == (0, 0) {
        return Ok(found);
    }
    let (mut found, _) = check(lake, Some(lease.run_id()), clock).await?;
    found.removed_copies = removed;
    found.given_up_landings = given_up;
    Ok(found)
}

/// Dates, and how they were when they were read last.
type Dates = Vec<(CreatedDate, Option<DateRead>)>;

/// Reads the tables of `dates` that have changed since they were read, and adds what is found there; returns those in
/// which something does not hold instead.
async fn read(lake: &Lake, tables: &Tables, dates: Dates, found: &mut Verification) -> Result<Dates> {
    let reading = dates.into_iter().map(|(date, before)| {
        let (lake, tables, runtime) = (lake.clone(), tables.clone(), Handle::current());
        async move {
            let task = tokio::task::spawn_blocking(move || date::verify(&lake, &tables, date, before, &runtime));
            let read = task.await.map_err(|error| Error::bug("the reading failed").caused_by(error))?;
            Ok::<_, Error>((date, read))
        }
    });
    let reading: Vec<_> = reading.collect();
    let mut results = stream::iter(reading).buffer_unordered(DATES_AT_ONCE);
    let mut doubtful = Vec::new();
    while let Some((date, read)) = results.try_next().await? {
        match read {
            Ok(read) if read.found.findings() == 0 => {
                found.dates += 1;
                found.merge(read.found);
            }
            Ok(read) => doubtful.push((date, Some(read))),
            // Replaced while it was read.
            Err(error) if error.kind() == Kind::Held => doubtful.push((date, None)),
            Err(error) => return Err(error),
        }
    }
    Ok(doubtful)
}

async fn across_dates(
    lake: &Lake,
    tables: &Tables,
    dates: &BTreeSet<CreatedDate>,
    found: &Verification,
) -> Result<Doubles> {
    let (lake, tables, runtime) = (lake.clone(), tables.clone(), Handle::current());
    let rows = *found.rows.get(Table::Conversations);
    let dates: Vec<_> = dates.iter().copied().filter(|date| found.is_readable(*date)).collect();
    tokio::task::spawn_blocking(move || ids::across_dates(&lake, &tables, &dates, rows, &runtime))
        .await
        .map_err(|error| Error::bug("the comparison of ids failed").caused_by(error))?
}

/// The dates that any table has; takes note of what else lies in the tables' folders.
async fn dates(tables: &Tables, found: &mut Verification) -> Result<BTreeSet<CreatedDate>> {
    let mut dates = BTreeSet::new();
    for table in Table::ALL {
        let (objects, others) = tables.objects(table).await?;
        dates.extend(objects.into_iter().map(|(date, _)| date));
        for key in others {
            found.note(Check::NothingElse, Some(&key), || "is no table's object".to_owned());
        }
    }
    Ok(dates)
}

#[cfg(test)]
mod tests;
