//! Erases people from the lake's own objects: the state and its older checkpoints, quarantined entries and run reports.
//!
//! Guarantees: each step can be repeated. Nothing that a run depends on is lost, because only the newest checkpoint
//! counts and no run reads reports or the quarantine. Must not depend on: the tables.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde_json::Value;

use super::mentions::Mentions;
use super::receipt::Traces;
use crate::error::Result;
use crate::lake::{Lake, Ledger, Reconciliation, State};
use crate::layout;
use crate::model::RunId;
use crate::store::{Store, to_json};

/// Erases them from the state, and deletes the older checkpoints. Returns how many were deleted. For the holder of the
/// lease.
///
/// # Errors
/// If the store fails; kind `Held` if another run has committed.
pub async fn erase_from_state(lake: &Lake, ledger: &mut Ledger, run: &RunId, mentions: &Mentions) -> Result<u64> {
    let mut state: State = ledger.state().clone();
    let suppression = &mentions.suppression;
    state.filter_support.canaries.retain(|canary| !suppression.contains(&canary.conversation_id));
    state.fields_without_column.retain(|name| !mentions.are_in_name(name));
    // It holds hashes of ids, and the key to them.
    let reconciliation = state.reconciliation.take();
    ledger.commit(state, run, lake.clock().now()).await?;
    ledger.discard(reconciliation.iter().flat_map(Reconciliation::keys).collect()).await?;
    ledger.clean(Vec::new()).await?;
    let older = older_checkpoints(lake.store(), ledger.number()).await?;
    let count = older.len() as u64;
    ledger.clean(older).await?;
    Ok(count)
}

async fn older_checkpoints(store: &Store, newest: u64) -> Result<Vec<Path>> {
    let keys = keys(store, layout::checkpoints()).await?;
    Ok(keys.into_iter().filter(|key| layout::number_of(key).is_some_and(|number| number < newest)).collect())
}

/// Erases them from quarantined entries and run reports.
///
/// # Errors
/// If the store fails.
pub async fn erase_from_history(lake: &Lake, mentions: &Mentions, traces: &mut Traces) -> Result<()> {
    let store = lake.store();
    let in_quarantine = each(store, keys(store, layout::quarantines()).await?, |key| async move {
        erase_from_quarantine(store, &key, mentions).await
    });
    traces.quarantined_entries = in_quarantine.await?;
    let reports = keys(store, layout::run_reports()).await?;
    let in_reports = each(store, reports, |key| async move { erase_from_report(store, &key, mentions).await });
    traces.reports = in_reports.await?;
    Ok(())
}

async fn keys(store: &Store, folder: Path) -> Result<Vec<Path>> {
    store.list(folder).map_ok(|object| object.location).try_collect().await
}

/// Does something with each object, many at a time, and adds up the results.
async fn each<F: Future<Output = Result<u64>>>(store: &Store, keys: Vec<Path>, act: impl Fn(Path) -> F) -> Result<u64> {
    let acts: Vec<_> = keys.into_iter().map(act).collect();
    stream::iter(acts).buffer_unordered(store.concurrency()).try_fold(0, async |sum, count| Ok(sum + count)).await
}

/// Erases entries, and the file if there are no others. Returns how many.
async fn erase_from_quarantine(store: &Store, key: &Path, mentions: &Mentions) -> Result<u64> {
    let Some(body) = store.get(key).await? else { return Ok(0) };
    let text = String::from_utf8_lossy(&body);
    let (erased, kept): (Vec<_>, Vec<_>) = text.lines().partition(|line| mentions.are_in_line(line));
    if erased.is_empty() {
        return Ok(0);
    }
    if kept.is_empty() {
        store.delete(vec![key.clone()]).await?;
    } else {
        let kept: String = kept.iter().flat_map(|line| [line, "\n"]).collect();
        store.put(key, kept).await?;
    }
    Ok(erased.len() as u64)
}

/// Erases what a report says of them. Returns 1 if it said anything.
async fn erase_from_report(store: &Store, key: &Path, mentions: &Mentions) -> Result<u64> {
    let Some(body) = store.get(key).await? else { return Ok(0) };
    // Another program's file is not ours to change.
    let Ok(mut report) = serde_json::from_slice::<Value>(&body) else { return Ok(0) };
    if !mentions.erase_from_report(&mut report) {
        return Ok(0);
    }
    store.put(key, to_json(&report)?).await?;
    Ok(1)
}
