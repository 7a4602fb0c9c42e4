//! Brings what is landed into the tables, date by date: what `compact` does.
//!
//! Promises: a date's table objects are replaced one put each, the conversations last; only then does a checkpoint
//! forget what was landed for that date, and only then are the landing objects deleted. So it can die anywhere and be
//! repeated. Dates with nothing landed are not touched. When it ends, however it ends, nothing of it is under way.

mod date;
mod inputs;

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lake::{Lake, Lease, Ledger, RunReport};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, Table};
pub use date::{Compacted, remove_conversations};

use date::DateTables;

/// How many dates are compacted at a time, each on a thread of its own.
const DATES_AT_ONCE: usize = 2;
/// After how many dates a checkpoint is written.
const DATES_PER_COMMIT: usize = 128;

/// What a compaction works with.
pub struct Compaction<'a> {
    /// The lake.
    pub lake: &'a Lake,
    /// The right to write to it.
    pub lease: &'a Arc<Lease>,
    /// Its commits.
    pub ledger: &'a mut Ledger,
    /// What the run leaves behind for people.
    pub report: &'a mut RunReport,
    /// What time it is.
    pub clock: Clock,
    /// When it has to stop.
    pub shutdown: &'a CancellationToken,
}

/// What waits for compaction at one date.
type Waiting = (CreatedDate, Vec<FlushId>);

impl Compaction<'_> {
    /// Compacts every date that has something landed.
    ///
    /// # Errors
    /// Of the store, or `Interrupted`; dates that were done before are committed all the same.
    pub async fn run(mut self) -> Result<()> {
        let landed = self.ledger.state().landed_by_date();
        // Once one date has failed because of the store, no other is begun.
        let stop = self.shutdown.child_token();
        let tasks = landed.into_iter().map(|(date, inputs)| {
            let landed: Vec<_> = inputs.into_iter().map(|(flush, extent)| (flush.clone(), extent)).collect();
            let (lake, lease) = (self.lake.clone(), Arc::clone(self.lease));
            async move {
                let flushes = landed.iter().map(|(flush, _)| flush.clone()).collect();
                let runtime = Handle::current();
                let task = tokio::task::spawn_blocking(move || {
                    DateTables { lake: &lake, lease: &lease, date, runtime: &runtime }.compact(&landed)
                });
                let compacted = task.await.map_err(|error| Error::bug("the merge failed").caused_by(error))??;
                Ok::<_, Error>(((date, flushes), compacted))
            }
        });
        let tasks: Vec<_> = tasks.collect();
        let stopped = stop.clone();
        let mut results = stream::iter(tasks)
            .take_while(move |_| std::future::ready(!stopped.is_cancelled()))
            .buffer_unordered(DATES_AT_ONCE);

        let mut waiting: Vec<Waiting> = Vec::new();
        let mut failure: Option<Error> = None;
        while let Some(result) = results.next().await {
            match result {
                Ok((done, compacted)) => {
                    self.note(done.0, &compacted);
                    waiting.push(done);
                }
                Err(error) => {
                    // One date's damage must not keep the others from the tables; a store that fails will fail for all.
                    if error.kind() != Kind::Integrity {
                        stop.cancel();
                    }
                    failure.get_or_insert(error);
                }
            }
            if waiting.len() >= DATES_PER_COMMIT
                && let Err(error) = self.commit(std::mem::take(&mut waiting)).await
            {
                stop.cancel();
                failure.get_or_insert(error);
            }
        }
        drop(results);
        let committed = self.commit(waiting).await;
        self.report.compacted_dates.sort_unstable();
        match failure {
            Some(error) => Err(error),
            None if self.shutdown.is_cancelled() => committed.and(Err(Error::interrupted())),
            None => committed,
        }
    }

    fn note(&mut self, date: CreatedDate, compacted: &Compacted) {
        let report = &mut *self.report;
        report.compacted_dates.push(date);
        report.compacted_copies += compacted.copies;
        report.duplicates_resolved += compacted.duplicates;
        report.table_rows.add(&compacted.extent.rows);
        report.table_bytes.add(&compacted.extent.bytes);
    }

    /// Forgets what was landed for dates that are in the tables now, then deletes it.
    async fn commit(&mut self, done: Vec<Waiting>) -> Result<()> {
        let mut state = self.ledger.state().clone();
        for (date, _) in &done {
            state.clear_landed(*date);
        }
        self.ledger.commit(state, &self.report.run_id, self.clock.now()).await?;
        let keys = done.iter().flat_map(|(date, flushes)| {
            flushes.iter().flat_map(move |flush| Table::ALL.map(|table| layout::landing_object(table, *date, flush)))
        });
        self.lake.delete(keys.collect()).await
    }
}
