//! Checks what waits for compaction against the checkpoint that names it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use tokio::runtime::Handle;

use super::findings::{Check, Verification};
use super::rows::CheckedRows;
use crate::error::{Error, Kind, Result};
use crate::lake::{Lake, Ledger, StagedFile, StagedFlush};
use crate::layout;
use crate::model::{CreatedDate, RunId, Table, from_micros};

/// Checks every landing object that the newest checkpoint names, and counts the others.
///
/// # Errors
/// Where the store fails, or the checkpoint is damaged.
pub(super) async fn verify(lake: &Lake, found: &mut Verification) -> Result<()> {
    let ledger = Ledger::load(lake.store()).await?;
    let objects: Vec<_> = ledger.state().landed.iter().flat_map(StagedFlush::objects).collect();
    found.landed_files += u64::try_from(objects.len()).map_err(|_| Error::bug("more files than can be counted"))?;
    found.landed_rows += objects.iter().map(|object| object.rows).sum::<u64>();
    let (lake_read, runtime) = (lake.clone(), Handle::current());
    let task = tokio::task::spawn_blocking(move || faults(&lake_read, objects, &runtime));
    let faults = task.await.map_err(|error| Error::bug("the reading failed").caused_by(error))??;
    // What was compacted meanwhile is deleted: only what is still named by now has to be there.
    let known = Ledger::load(lake.store()).await?.state().staged_keys();
    for (object, fault) in faults.into_iter().filter(|(object, _)| known.contains(&object.key)) {
        found.note(Check::StagedFlush, Some(&object.key), || fault);
    }
    let mut there = lake.store().list(layout::landing());
    while let Some(object) = there.try_next().await? {
        found.unnamed_files += u64::from(!known.contains(&object.location));
    }
    Ok(())
}

/// Gives up what is landed for a date by a flush of which an object is missing or damaged, and returns how often: it can
/// never be compacted, and holds up what else is landed for that date.
///
/// # Errors
/// Where the store fails, and kind `Held` where another run has taken the lake.
pub(super) async fn give_up_damaged(lake: &Lake, ledger: &mut Ledger, run: &RunId, now: DateTime<Utc>) -> Result<u64> {
    let objects: Vec<_> = ledger.state().landed.iter().flat_map(StagedFlush::objects).collect();
    let (lake_read, runtime) = (lake.clone(), Handle::current());
    let find = move || {
        let mut damaged = BTreeSet::new();
        for object in objects {
            if fault(&lake_read, &object, &runtime)?.is_some() {
                damaged.insert((object.flush, object.date));
            }
        }
        Ok::<_, Error>(damaged)
    };
    let damaged =
        tokio::task::spawn_blocking(find).await.map_err(|e| Error::bug("the reading failed").caused_by(e))??;
    let mut state = ledger.state().clone();
    for (flush, date) in &damaged {
        tracing::warn!(
            "gave up what {flush} had landed for {date}: fetch that date again with `backfill --timestamp-filter created_at`"
        );
        state.discard_staged(flush, *date);
    }
    ledger.commit(state, run, now).await?;
    Ok(damaged.len() as u64)
}

/// The landing objects with which something is wrong, and what.
fn faults(lake: &Lake, objects: Vec<StagedFile>, runtime: &Handle) -> Result<Vec<(StagedFile, String)>> {
    let mut faults = Vec::new();
    for object in objects {
        if let Some(fault) = fault(lake, &object, runtime)? {
            faults.push((object, fault));
        }
    }
    Ok(faults)
}

/// What is wrong with one landing object.
fn fault(lake: &Lake, object: &StagedFile, runtime: &Handle) -> Result<Option<String>> {
    let StagedFile { table, date, key, rows, bytes, .. } = object;
    let Some(there) = runtime.block_on(lake.store().head(key))? else { return Ok(Some("is missing".to_owned())) };
    if there.size != *bytes {
        return Ok(Some(format!("has {} bytes, not {bytes}", there.size)));
    }
    let counted = CheckedRows::open(lake, *table, &there, runtime).and_then(|file| count(file, *date));
    match counted {
        Ok((read, _)) if read != *rows => Ok(Some(format!("has {read} rows, not {rows}"))),
        Ok((_, Some(id))) => Ok(Some(format!("has conversation {id} of another date"))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == Kind::Integrity => Ok(Some(error.chain().join(": "))),
        Err(error) => Err(error),
    }
}

/// How many rows a file has, and a conversation that is of another date.
fn count(mut file: CheckedRows, date: CreatedDate) -> Result<(u64, Option<String>)> {
    let mut stray = None;
    while let Some(row) = file.head() {
        if file.table() == Table::Conversations && CreatedDate::of(row.created_at.and_then(from_micros)) != date {
            stray.get_or_insert_with(|| row.id.to_owned());
        }
        file.advance()?;
    }
    Ok((file.read, stray))
}
