//! Verification: reads a lake completely and checks its invariants.
//!
//! Guarantees: bounded memory, however large a file is. A live run causes no false problem, because a partition with a
//! problem is read again while another run is alive.
//! Must not depend on: the API.

mod beside;
mod date;
mod forgotten;
mod ids;
mod manifest;
mod problems;
mod rows;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::try_join_all;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::compact::{rebuild_manifest, remove_conversations};
use crate::error::{Error, Kind, Result};
use crate::files::Lanes;
use crate::lake::{Lake, Lease, Ledger, Suppression};
use crate::layout;
use crate::model::{CreatedDate, RunId, Table};
use crate::tables::Tables;
use beside::{Beside, PAUSE, TRIES};
use date::{DateRead, DateReader};
pub use ids::Ids;
use ids::Occurrence;
use manifest::{Contradiction, Listed};
pub use problems::{Check, Problem, Verification};

/// Checks a lake.
///
/// # Errors
/// If there is no lake, or its store fails; a problem is a result, not an error.
pub async fn verify(lake: &Lake, clock: Clock) -> Result<Verification> {
    check(lake, None, clock).await.map(|(found, _)| found)
}

/// The conversations in more than one partition, each with its occurrences, the latest version first.
type Doubles = Vec<(String, Vec<Occurrence>)>;

/// Checks a lake; `own` is the reading run if it holds the lake itself.
async fn check(lake: &Lake, own: Option<&RunId>, clock: Clock) -> Result<(Verification, Doubles)> {
    let tables = Tables::of(lake.store(), &lake.existing().await?)?;
    let mut found = Verification::of(lake.url());
    let mut listed = Listed::load(lake, tables.are_delta()).await?;
    let dates = dates(&tables, &mut found).await?;
    let mut beside = Beside::new(lake, own, clock);
    let all: BTreeSet<_> = listed.dates().into_iter().flatten().chain(dates.iter().copied()).collect();
    let all = all.into_iter().map(|date| (date, None)).collect();
    let mut doubtful = read(lake, &tables, all, &listed, &mut found).await?;
    for _ in 0..TRIES {
        if doubtful.is_empty() {
            break;
        }
        // The table files of a partition are replaced in turn, and a run may be in the middle of it.
        let alive = beside.is_alive().await?;
        if alive {
            clock.sleep(PAUSE).await;
        }
        tables.invalidate();
        listed.refresh(lake).await?;
        doubtful = read(lake, &tables, doubtful, &listed, &mut found).await?;
        // A commit during the reading may have explained what was read.
        if doubtful.is_empty() || !alive && !listed.refresh(lake).await? {
            break;
        }
    }
    for (date, read) in doubtful {
        let url = lake.url();
        let read = read
            .ok_or_else(|| Error::held(format!("partition {date} of {url} is replaced faster than it can be read")))?;
        for Contradiction { check, key, detail } in listed.contradictions(date, &read) {
            // One partition is proof enough that the state is old.
            if check != Check::State || found.problems_of(check) == 0 {
                found.note(check, Some(&key), || detail);
            }
        }
        found.changed_by_others += u64::from(listed.is_of_other_writers(date, &read));
        found.dates += u64::from(!read.is_gone());
        found.merge(read.found);
    }
    found.listed_dates = listed.dates().map(|dates| dates.len() as u64);
    if let Some(fault) = listed.fault {
        found.note(Check::Manifest, None, || fault);
    }
    let doubles = across_dates(lake, &tables, &dates, &found).await?;
    for (id, places) in &doubles {
        let at: Vec<_> = places.iter().map(|place| place.date.to_string()).collect();
        let key = places.first().map(|place| layout::table_file(Table::Conversations, place.date));
        found.note(Check::UniqueAcrossDates, key.as_ref(), || {
            format!("conversation {id} is in partitions {}", at.join(" and "))
        });
    }
    forgotten::verify(lake, &tables, &mut beside, clock, &mut found).await?;
    staging::verify(lake, tables.columns(), &mut found).await?;
    state(lake, &tables, &mut found).await?;
    Ok((found, doubles))
}

/// Checks that `_state` is as new as the tables.
async fn state(lake: &Lake, tables: &Tables, found: &mut Verification) -> Result<()> {
    // In this order, because a run commits a write intent before it applies it.
    let applied = tables.applied().await?;
    let number = Ledger::load(lake.store()).await?.number();
    if applied > number {
        found.note(Check::State, None, || state_is_behind(lake, applied, number).to_string());
    }
    Ok(())
}

/// The error that Delta tables have applied checkpoint `applied`, but the newest is `number`, perhaps because `_state`
/// was restored from a backup. The tables would ignore new write intents as already applied, and their rows would be
/// lost.
pub fn state_is_behind(lake: &Lake, applied: u64, number: u64) -> Error {
    let url = lake.url();
    Error::integrity(format!(
        "the tables of the lake {url} are newer than its _state: they have checkpoint {applied}, its newest is {number}"
    ))
    .with_hint(
        "restore the tables from the same backup as _state; or keep them with `verify --repair`, which numbers \
         the next checkpoints after theirs, and the next sync fetches again what changed since; nothing was changed",
    )
}

/// Checks a lake, repairs it and checks it again. Removes all but the latest version of every conversation that is in
/// more than one partition, and discards staged files that are missing or damaged. If the manifest is wrong, makes it
/// again from the table files. For the holder of the lease.
///
/// # Errors
/// As [`verify`]; `Held` if another run has taken the lake; `Interrupted`.
pub async fn repair(
    lake: &Lake,
    lease: &Arc<Lease>,
    ledger: &mut Ledger,
    suppression: &Arc<Suppression>,
    clock: Clock,
) -> Result<Verification> {
    let (found, doubles) = check(lake, Some(lease.run_id()), clock).await?;
    let tables = Tables::of(lake.store(), &lake.existing().await?)?;
    let discarded = match found.problems_of(Check::StagedFiles) {
        0 => 0,
        _ => staging::discard_damaged(lake, tables.columns(), ledger, lease.run_id(), clock.now()).await?,
    };
    let mut unwanted: BTreeMap<CreatedDate, BTreeSet<String>> = BTreeMap::new();
    for (id, places) in doubles {
        let Some(latest) = places.first() else { continue };
        for older in places.iter().filter(|place| place.date != latest.date) {
            unwanted.entry(older.date).or_default().insert(id.clone());
        }
    }
    let removed = remove_conversations(lake, &tables, lease, ledger, unwanted, suppression, clock).await?;
    let is_wrong = Check::OF_MANIFEST.iter().any(|check| found.problems_of(*check) > 0);
    let is_in_doubt = ledger.state().manifest.as_ref().is_none_or(|manifest| !manifest.rewriting.is_empty());
    let rebuilt_manifest = is_wrong || is_in_doubt || found.changed_by_others > 0;
    if rebuilt_manifest {
        rebuild_manifest(lake, &tables, ledger, lease.run_id(), clock).await?;
    }
    if (removed, discarded, rebuilt_manifest) == (0, 0, false) {
        return Ok(found);
    }
    let (mut found, _) = check(lake, Some(lease.run_id()), clock).await?;
    found.removed_versions = removed;
    found.discarded_staged = discarded;
    found.rebuilt_manifest = rebuilt_manifest;
    Ok(found)
}

/// Partitions, each with its last reading.
type Dates = Vec<(CreatedDate, Option<DateRead>)>;

/// Reads the partitions that have changed since their last reading. Adds those without a problem to `found`, and
/// returns the others.
async fn read(lake: &Lake, tables: &Tables, dates: Dates, listed: &Listed, found: &mut Verification) -> Result<Dates> {
    let lanes = Lanes::of(lake.store());
    let at_once = lanes.at_once();
    let reader = DateReader { lake: lake.clone(), tables: tables.clone(), lanes };
    let reading = dates.into_iter().map(|(date, before)| {
        let reader = reader.clone();
        async move { (date, reader.verify(date, before).await) }
    });
    let reading: Vec<_> = reading.collect();
    let mut results = stream::iter(reading).buffer_unordered(at_once);
    let mut doubtful = Vec::new();
    while let Some((date, read)) = results.next().await {
        match read {
            Ok(read) if read.found.problems() == 0 && listed.agrees(date, &read) => {
                found.dates += u64::from(!read.is_gone());
                found.merge(read.found);
            }
            Ok(read) => doubtful.push((date, Some(read))),
            // It was replaced during the reading.
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
    let rows = *found.rows.get(Table::Conversations);
    let dates: Vec<_> = dates.iter().copied().filter(|date| found.is_readable(*date)).collect();
    let ids = Ids { lake: lake.clone(), tables: tables.clone(), dates, runtime: Handle::current() };
    tokio::task::spawn_blocking(move || ids::across_dates(&ids, rows))
        .await
        .map_err(|error| Error::bug("the comparison of ids failed").caused_by(error))?
}

/// Lists the partitions that any table has; adds other objects in the tables' folders as problems.
async fn dates(tables: &Tables, found: &mut Verification) -> Result<BTreeSet<CreatedDate>> {
    let mut dates = BTreeSet::new();
    for (files, others) in try_join_all(Table::ALL.map(|table| tables.files(table))).await? {
        dates.extend(files.into_iter().map(|(date, _)| date));
        for key in others {
            found.note(Check::NothingElse, Some(&key), || "is not a table file".to_owned());
        }
    }
    Ok(dates)
}

#[cfg(test)]
mod tests;
