//! Brings what is landed into the tables, date by date: what `compact` does.
//!
//! Promises: a date's table objects are replaced (plain ones by one put each, those of Delta tables by one commit of each
//! table), the conversations last; only then does a checkpoint forget what was landed for that date, and only then are the
//! landing objects deleted. So it can die anywhere and be repeated. A date with more landed than one merge takes is first brought together in landing, with such commits too.
//! Dates with nothing landed are not touched. When it ends, however it ends, nothing of it is under way.

mod date;
mod inputs;
mod late;
mod publish;
mod remove;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::lake::{Extent, Lake, Lease, Ledger, Replacement, RunReport, StagedFlush};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, Table};
use crate::tables::Tables;
pub use remove::remove_conversations;

use date::{Compacted, DateTables};
use publish::Publisher;

/// How many dates are compacted at a time, each on a thread of its own.
const DATES_AT_ONCE: usize = 2;
/// After how many jobs a checkpoint is written.
const JOBS_PER_COMMIT: usize = 128;
/// The landing of how many flushes is merged at a time, which is what a merge needs memory for: some 5 MB each. Of a date
/// that has more, so many at a time are brought together first.
const MAX_FAN_IN: usize = if cfg!(test) { 3 } else { 16 };
/// How often, at most, it is looked for objects that Delta tables have no use for any more.
const VACUUM_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// What a compaction works with.
pub struct Compaction<'a> {
    /// The lake.
    pub lake: &'a Lake,
    /// Its tables.
    pub tables: &'a Tables,
    /// The right to write to it.
    pub lease: &'a Arc<Lease>,
    /// Its commits.
    pub ledger: &'a mut Ledger,
    /// What the run leaves behind for people.
    pub report: &'a mut RunReport,
    /// The number of the next file that the run names: no name is used twice, by whatever part of the run.
    pub next_file: &'a mut u32,
    /// For how long Delta tables keep the objects that were replaced.
    pub retain: Duration,
    /// What time it is.
    pub clock: Clock,
    /// When it has to stop.
    pub shutdown: &'a CancellationToken,
}

/// What is to be done at one date.
struct Job {
    date: CreatedDate,
    /// What is landed for it, oldest first, or a part of that.
    landed: Vec<(FlushId, Extent)>,
    /// What the new objects are called by.
    file: FlushId,
    /// Whether it is brought together in landing; else it goes into the tables.
    together: bool,
}

/// A job that was done, and what came of it.
type Done = (Job, Compacted);

/// How a compaction goes.
struct Course {
    /// Once one date has failed because of the store, no other is begun.
    stop: CancellationToken,
    /// The first failure.
    failure: Option<Error>,
    /// Dates that failed.
    given_up: BTreeSet<CreatedDate>,
}

impl Course {
    fn fails(&mut self, error: Error) {
        // One date's damage must not keep the others from the tables; a store that fails will fail for all.
        if !error.is_of_one_object() {
            self.stop.cancel();
        }
        self.failure.get_or_insert(error);
    }
}

impl Compaction<'_> {
    /// Compacts every date that has something landed.
    ///
    /// # Errors
    /// Of the store, or `Interrupted`; dates that were done before are committed all the same.
    pub async fn run(mut self) -> Result<()> {
        let told = self.report.late_arrivals;
        self.publisher().go_on().await?;
        let mut course = Course { stop: self.shutdown.child_token(), failure: None, given_up: BTreeSet::new() };
        while !course.stop.is_cancelled() {
            let crowded = self.crowded(&course);
            if crowded.is_empty() {
                break;
            }
            self.carry_out(crowded, &mut course).await;
        }
        let landed = self.landed(&course).into_iter();
        let jobs = landed.map(|(date, landed)| Job { date, landed, file: self.file(), together: false }).collect();
        self.carry_out(jobs, &mut course).await;
        self.report.compacted_dates.sort_unstable();
        // A sync may compact a date several times.
        self.report.compacted_dates.dedup();
        late::warn(self.report, told);
        match course.failure {
            Some(error) => Err(error),
            None if self.shutdown.is_cancelled() => Err(Error::interrupted()),
            None => self.vacuum().await,
        }
    }

    fn file(&mut self) -> FlushId {
        let number = *self.next_file;
        *self.next_file = number.saturating_add(1);
        FlushId { run: self.report.run_id.clone(), number }
    }

    fn publisher(&mut self) -> Publisher<'_> {
        let Compaction { lake, tables, ledger, report, clock, .. } = self;
        Publisher { lake, tables, ledger, run: &report.run_id, clock: *clock }
    }

    /// Removes the objects that Delta tables have no use for any more, once a day.
    async fn vacuum(mut self) -> Result<()> {
        let now = self.clock.now();
        let every = chrono::Duration::from_std(self.retain.min(VACUUM_EVERY)).unwrap_or_default();
        let done = self.ledger.state().vacuumed_at;
        if !self.tables.are_delta() || done.is_some_and(|done| now.signed_duration_since(done) < every) {
            return Ok(());
        }
        self.report.vacuumed_objects = self.tables.vacuum(self.retain, self.lease, now).await?;
        let mut state = self.ledger.state().clone();
        state.vacuumed_at = Some(now);
        self.publisher().commit(state).await
    }

    /// What is landed, by date, where nothing has failed yet.
    fn landed(&self, course: &Course) -> Vec<(CreatedDate, Vec<(FlushId, Extent)>)> {
        let by_date = self.ledger.state().staged_by_date().into_iter();
        by_date
            .filter(|(date, _)| !course.given_up.contains(date))
            .map(|(date, landed)| (date, landed.into_iter().map(|(flush, extent)| (flush.clone(), extent)).collect()))
            .collect()
    }

    /// The jobs that bring together what is landed for dates that have more than one merge takes.
    fn crowded(&mut self, course: &Course) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (date, landed) in self.landed(course).into_iter().filter(|(_, landed)| landed.len() > MAX_FAN_IN) {
            for part in landed.chunks(MAX_FAN_IN).filter(|part| part.len() > 1) {
                jobs.push(Job { date, landed: part.to_vec(), file: self.file(), together: true });
            }
        }
        jobs
    }

    /// Does the jobs and commits what came of them.
    async fn carry_out(&mut self, jobs: Vec<Job>, course: &mut Course) {
        let tasks: Vec<_> = jobs.into_iter().map(|job| self.task(job)).collect();
        let stopped = course.stop.clone();
        let mut results = stream::iter(tasks)
            .take_while(move |_| std::future::ready(!stopped.is_cancelled()))
            .buffer_unordered(DATES_AT_ONCE);

        let mut waiting: Vec<Done> = Vec::new();
        while let Some(result) = results.next().await {
            let (job, result) = match result {
                Ok(done) => done,
                Err(error) => {
                    course.fails(Error::bug("the merge failed").caused_by(error));
                    continue;
                }
            };
            match result {
                Ok(compacted) => {
                    self.note(&job, &compacted);
                    waiting.push((job, compacted));
                }
                Err(error) => {
                    course.given_up.insert(job.date);
                    course.fails(error);
                }
            }
            if waiting.len() >= JOBS_PER_COMMIT
                && let Err(error) = self.commit(std::mem::take(&mut waiting)).await
            {
                course.fails(error);
            }
        }
        drop(results);
        if let Err(error) = self.commit(waiting).await {
            course.fails(error);
        }
    }

    /// Does one job, on a blocking thread.
    fn task(&self, job: Job) -> impl Future<Output = Result<(Job, Result<Compacted>), JoinError>> + use<> {
        let (lake, tables, lease) = (self.lake.clone(), self.tables.clone(), Arc::clone(self.lease));
        let overlap = |(flush, _): &(FlushId, Extent)| Some((flush.clone(), self.ledger.state().overlap(flush)?));
        let overlaps: BTreeMap<_, _> = job.landed.iter().filter_map(overlap).collect();
        async move {
            let runtime = Handle::current();
            let task = tokio::task::spawn_blocking(move || {
                let Job { date, landed, file, together } = &job;
                let (overlaps, runtime, date) = (&overlaps, &runtime, *date);
                let tables = DateTables { lake: &lake, tables: &tables, lease: &lease, date, file, overlaps, runtime };
                let result = if *together { tables.fold(landed) } else { tables.compact(landed) };
                (job, result)
            });
            task.await
        }
    }

    fn note(&mut self, job: &Job, compacted: &Compacted) {
        let report = &mut *self.report;
        report.duplicates_resolved += compacted.duplicates;
        if job.together {
            // The others are read again.
            report.compacted_copies += compacted.duplicates;
            return;
        }
        late::note(report, compacted.late);
        report.compacted_dates.push(job.date);
        report.compacted_copies += compacted.copies;
        report.table_rows.add(&compacted.extent.rows);
        report.table_bytes.add(&compacted.extent.bytes);
    }

    /// Makes what was done visible, and forgets what was landed, as it is in the tables or elsewhere now.
    async fn commit(&mut self, done: Vec<Done>) -> Result<()> {
        let (mut state, written_at) = (self.ledger.state().clone(), self.clock.now());
        let (mut gone, mut dates) = (Vec::new(), BTreeMap::new());
        for (Job { date, landed, file, together }, Compacted { extent, replaces, .. }) in done {
            let landed: Vec<_> = landed.into_iter().map(|(flush, _)| flush).collect();
            if together {
                let keys = |flush| Table::ALL.map(|table| layout::staged_file(table, date, flush));
                gone.extend(landed.iter().flat_map(keys));
                state.replace_staged(
                    date,
                    &landed,
                    StagedFlush { flush: file, dates: [(date, extent)].into(), overlap: None },
                );
            } else {
                dates.insert(date, Replacement { file, written_at, extent, replaces, landed });
            }
        }
        self.publisher().publish(state, dates, gone).await
    }
}
