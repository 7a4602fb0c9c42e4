//! Removes conversations from the tables, partition by partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::job::{Job, Work};
use super::publish::Publisher;
use super::work::Worker;
use crate::clock::Clock;
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::files::current_form;
use crate::lake::{Lake, Lease, Ledger, Suppression};
use crate::layout::FlushId;
use crate::model::CreatedDate;
use crate::tables::Tables;

/// Removes the `unwanted` conversations of each partition from the tables, and returns how many. Staged files stay.
///
/// # Errors
/// Those of the store; kind `Held` if another run holds the lake, `Integrity` if a table file is damaged, `Interrupted`
/// if the lease stops the run. The partitions before the failure are done.
pub async fn remove_conversations(
    lake: &Lake,
    tables: &Tables,
    lease: &Arc<Lease>,
    ledger: &mut Ledger,
    unwanted: BTreeMap<CreatedDate, BTreeSet<String>>,
    suppression: &Arc<Suppression>,
    clock: Clock,
) -> Result<u64> {
    let run = lease.run_id().clone();
    let worker = Worker::new(lake, tables, lease, suppression, lease.stop().clone());
    let mut publisher = Publisher { lake, tables, ledger, run: &run, clock };
    publisher.resume().await?;
    publisher.announce(unwanted.keys().copied()).await?;
    // Without the lake's policies at hand, rows may follow an earlier one.
    let is_current = tables.policies().is_some() || tables.columns().policies() == 0;
    let form = if is_current { current_form(tables.columns()) } else { 0 };
    let mut removed = 0;
    for ((date, ids), number) in unwanted.into_iter().zip(0..) {
        if lease.stop().is_cancelled() {
            return Err(Error::interrupted());
        }
        tracing::info!("removing {} from partition {date}", counted(ids.len(), "version"));
        removed += ids.len() as u64;
        let file = FlushId { run: run.clone(), number };
        let work = Work::Remove(Arc::new(ids));
        let job = Arc::new(Job { date, flushes: Vec::new(), file: file.clone(), work });
        let compacted = worker.run(&job).await?;
        let replacement = compacted.replacement(file, clock.now(), form, Vec::new());
        let state = publisher.ledger.state().clone();
        publisher.publish(state, [(date, replacement)].into(), Vec::new()).await?;
    }
    Ok(removed)
}
