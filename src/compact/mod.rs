//! Compaction: merges staged rows into the tables, partition by partition.
//!
//! Guarantees: it can be killed anywhere and repeated, because it replaces a partition's table files first, the
//! conversations last, then commits a checkpoint that no longer names the staged files, and only then deletes these. A
//! plain table file is replaced by one write, a Delta table changes by one commit. A partition with more staged flushes
//! than one merge takes is folded first, with the same kind of commits. Partitions without staged files are not
//! touched. No task outlives it, because it waits for all that it began.
//! Must not depend on: the API.

mod date;
mod inputs;
mod job;
mod late;
mod publish;
mod record;
mod remove;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::counted::counted;
use crate::error::{Error, Result};
use crate::files::current_form;
use crate::lake::{Extent, Lake, Lease, Ledger, RunReport, StagedFlush, Suppression};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, Table};
use crate::tables::Tables;
pub use publish::rebuild_manifest;
pub use remove::remove_conversations;

use job::{Compacted, Job, JobFlush, Work};
use publish::Publisher;
use work::Worker;

/// How many jobs one checkpoint covers.
const JOBS_PER_COMMIT: usize = 128;
/// How many flushes one merge takes, at some 5 MB of memory each. A partition with more is folded first.
const MAX_FAN_IN: usize = if cfg!(test) { 3 } else { 16 };
/// The shortest time between two vacuums of Delta tables.
const VACUUM_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// One compaction.
pub struct Compaction<'a> {
    /// The lake.
    pub lake: &'a Lake,
    /// Its tables.
    pub tables: &'a Tables,
    /// The lease of the lake.
    pub lease: &'a Arc<Lease>,
    /// The lake's ledger.
    pub ledger: &'a mut Ledger,
    /// The report of the run.
    pub report: &'a mut RunReport,
    /// The number of the run's next flush or file; no part of the run uses a number twice.
    pub next_file: &'a mut u32,
    /// The conversations that must not come back.
    pub suppression: &'a Arc<Suppression>,
    /// How long Delta tables keep replaced files.
    pub retain: Duration,
}

/// What becomes of conversations that are not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Their rows leave all four tables.
    Rows,
    /// Their rows stay and are marked as deleted.
    Mark {
        /// When they were found to be deleted.
        at: DateTime<Utc>,
    },
}

/// A job that was done, with its result.
type Done = (Arc<Job>, Compacted);

/// What has failed during a compaction.
struct Failures {
    /// Cancelled at a failure of the store, so that no other job begins.
    stop: CancellationToken,
    /// The first failure.
    first: Option<Error>,
    /// The partitions that failed.
    dates: BTreeSet<CreatedDate>,
}

impl Failures {
    fn of(shutdown: &CancellationToken) -> Self {
        Failures { stop: shutdown.child_token(), first: None, dates: BTreeSet::new() }
    }

    /// The result of a compaction that has ended.
    fn result(self, shutdown: &CancellationToken) -> Result<()> {
        match self.first {
            Some(error) => Err(error),
            None if shutdown.is_cancelled() => Err(Error::interrupted()),
            None => Ok(()),
        }
    }

    fn add(&mut self, error: Error) {
        // Damage in one partition must not stop the others; a failing store fails for all.
        if !error.is_of_one_object() {
            self.stop.cancel();
        }
        self.first.get_or_insert(error);
    }
}

impl Compaction<'_> {
    /// Compacts every partition that has staged files.
    ///
    /// # Errors
    /// Of the store, or `Interrupted`; partitions done before are committed nevertheless.
    pub async fn run(mut self) -> Result<()> {
        let reported = self.report.late_arrivals;
        self.prepare().await?;
        let mut failures = Failures::of(self.lease.stop());
        while !failures.stop.is_cancelled() {
            let folds = self.folds(&failures);
            if folds.is_empty() {
                break;
            }
            self.run_jobs(folds, &mut failures).await;
        }
        let staged = self.staged(&failures);
        self.compact(staged, &mut failures).await;
        late::warn(self.report, reported);
        failures.result(self.lease.stop())?;
        self.vacuum().await
    }

    /// Compacts those partitions of `dates` that one merge takes; it folds none.
    ///
    /// # Errors
    /// As [`Compaction::run`].
    pub async fn run_on(mut self, dates: &BTreeSet<CreatedDate>) -> Result<()> {
        self.prepare().await?;
        let mut failures = Failures::of(self.lease.stop());
        let mut staged = self.staged(&failures);
        staged.retain(|(date, flushes)| dates.contains(date) && flushes.len() <= MAX_FAN_IN);
        self.compact(staged, &mut failures).await;
        failures.result(self.lease.stop())
    }

    /// Completes what a run that died has begun, and no more.
    ///
    /// # Errors
    /// As [`Compaction::run`].
    pub async fn complete(mut self) -> Result<()> {
        self.prepare().await
    }

    /// Completes what a run that died has begun.
    async fn prepare(&mut self) -> Result<()> {
        let mut publisher = self.publisher();
        publisher.resume().await?;
        publisher.complete_manifest().await
    }

    /// Compacts partitions with their staged flushes.
    async fn compact(&mut self, staged: Vec<(CreatedDate, Vec<JobFlush>)>, failures: &mut Failures) {
        let dates = staged.iter().map(|(date, _)| *date).collect();
        let job = |(date, flushes)| Job { date, flushes, file: self.new_file(), work: Work::Compact };
        let jobs = staged.into_iter().map(job).collect();
        tokio::join!(self.read_ahead(dates), self.run_jobs(jobs, failures));
        self.report.compacted_dates.sort_unstable();
        // A sync may compact a partition several times.
        self.report.compacted_dates.dedup();
    }

    /// Rewrites the partitions whose table files have older columns or encodings. Can be killed and repeated, because
    /// the manifest says which are left.
    ///
    /// # Errors
    /// As [`Compaction::run`].
    pub async fn upgrade(mut self) -> Result<()> {
        let older = self.publisher().older_partitions().await?;
        let works = older.into_iter().map(|date| (date, Work::Rewrite)).collect();
        self.rewrite(works, "upgrading").await
    }

    /// Removes the conversations that must not come back from the tables' files of these partitions. Can be killed and
    /// repeated.
    ///
    /// # Errors
    /// As [`Compaction::run`].
    pub async fn forget(mut self, dates: &[CreatedDate]) -> Result<()> {
        self.prepare().await?;
        let works = dates.iter().map(|date| (*date, Work::Forget)).collect();
        self.rewrite(works, "rewriting").await
    }

    /// Marks conversations of some partitions as deleted, or removes them from all four tables. Can be killed and
    /// repeated. No staged file may hold them, because a later compaction would bring them back.
    ///
    /// # Errors
    /// As [`Compaction::run`].
    pub async fn change(mut self, ids: BTreeMap<CreatedDate, BTreeSet<String>>, change: Removal) -> Result<()> {
        self.prepare().await?;
        let work = |ids| match change {
            Removal::Rows => Work::Remove(Arc::new(ids)),
            Removal::Mark { at } => Work::Mark(Arc::new(ids), at.timestamp_micros()),
        };
        let works = ids.into_iter().map(|(date, ids)| (date, work(ids))).collect();
        self.rewrite(works, "rewriting").await
    }

    /// Rewrites the table files of some partitions, a commit at a time.
    async fn rewrite(&mut self, works: Vec<(CreatedDate, Work)>, verb: &str) -> Result<()> {
        let mut failures = Failures::of(self.lease.stop());
        for (some, before) in works.chunks(JOBS_PER_COMMIT).zip((0..).step_by(JOBS_PER_COMMIT)) {
            if failures.stop.is_cancelled() {
                break;
            }
            match before {
                0 => tracing::info!("{verb} {}", counted(works.len(), "partition")),
                before => tracing::info!("{verb} {}; {before} are done", counted(works.len(), "partition")),
            }
            self.publisher().announce(some.iter().map(|(date, _)| *date)).await?;
            let job = |(date, work): &(CreatedDate, Work)| Job {
                date: *date,
                flushes: Vec::new(),
                file: self.new_file(),
                work: work.clone(),
            };
            let jobs = some.iter().map(job).collect();
            self.run_jobs(jobs, &mut failures).await;
        }
        failures.result(self.lease.stop())
    }

    fn new_file(&mut self) -> FlushId {
        let number = *self.next_file;
        *self.next_file = number.saturating_add(1);
        FlushId { run: self.report.run_id.clone(), number }
    }

    fn publisher(&mut self) -> Publisher<'_> {
        let Compaction { lake, tables, ledger, report, .. } = self;
        Publisher { lake, tables, ledger, run: &report.run_id, clock: lake.clock() }
    }

    /// Deletes the unused files of Delta tables, once a day.
    async fn vacuum(mut self) -> Result<()> {
        let now = self.lake.clock().now();
        let every = chrono::Duration::from_std(self.retain.min(VACUUM_EVERY)).unwrap_or_default();
        let done = self.ledger.state().vacuumed_at;
        if !self.tables.are_delta() || done.is_some_and(|done| now.signed_duration_since(done) < every) {
            return Ok(());
        }
        self.report.vacuumed_files = self.tables.vacuum(self.retain, self.lease, now).await?;
        let mut state = self.ledger.state().clone();
        state.vacuumed_at = Some(now);
        self.publisher().commit(state).await
    }

    /// Reads what the commits need of the manifest's shards, while the jobs are done.
    fn read_ahead(&self, dates: Vec<CreatedDate>) -> impl Future<Output = ()> + use<> {
        let manifest = self.ledger.state().manifest.clone().unwrap_or_default();
        self.ledger.shards().clone().read_ahead(manifest, dates)
    }

    /// The staged flushes of each partition that has not failed.
    fn staged(&self, failures: &Failures) -> Vec<(CreatedDate, Vec<JobFlush>)> {
        let state = self.ledger.state();
        let part = |(flush, extent): (&FlushId, Extent)| JobFlush {
            flush: flush.clone(),
            extent,
            overlap: state.overlap(flush),
        };
        let by_date = state.staged_by_date().into_iter().filter(|(date, _)| !failures.dates.contains(date));
        by_date.map(|(date, flushes)| (date, flushes.into_iter().map(part).collect())).collect()
    }

    /// The jobs that fold the partitions with more flushes than one merge takes.
    fn folds(&mut self, failures: &Failures) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (date, flushes) in self.staged(failures).into_iter().filter(|(_, flushes)| flushes.len() > MAX_FAN_IN) {
            for part in flushes.chunks(MAX_FAN_IN).filter(|part| part.len() > 1) {
                jobs.push(Job { date, flushes: part.to_vec(), file: self.new_file(), work: Work::Fold });
            }
        }
        jobs
    }

    /// Does the jobs and commits their results.
    async fn run_jobs(&mut self, jobs: Vec<Job>, failures: &mut Failures) {
        let worker = Worker::new(self.lake, self.tables, self.lease, self.suppression, failures.stop.clone());
        let (mut jobs, mut running) = (jobs.into_iter(), JoinSet::new());
        let mut done: Vec<Done> = Vec::new();
        loop {
            // The tasks go on while this one commits.
            while running.len() < worker.at_once()
                && !failures.stop.is_cancelled()
                && let Some(job) = jobs.next().map(Arc::new)
            {
                let worker = worker.clone();
                running.spawn(async move {
                    let result = worker.run(&job).await;
                    (job, result)
                });
            }
            match running.join_next().await {
                None => break,
                Some(Err(error)) => failures.add(Error::bug("the merge failed").caused_by(error)),
                Some(Ok((job, Ok(compacted)))) => {
                    self.note(&job, &compacted);
                    done.push((job, compacted));
                }
                Some(Ok((job, Err(error)))) => {
                    failures.dates.insert(job.date);
                    failures.add(error);
                }
            }
            if done.len() >= JOBS_PER_COMMIT
                && let Err(error) = self.commit(std::mem::take(&mut done)).await
            {
                failures.add(error);
            }
        }
        if let Err(error) = self.commit(done).await {
            failures.add(error);
        }
    }

    fn note(&mut self, job: &Job, compacted: &Compacted) {
        let report = &mut *self.report;
        report.duplicates_resolved += compacted.duplicates;
        if !matches!(job.work, Work::Remove(_)) {
            report.forgotten_rows.add(&compacted.left_out);
        }
        if matches!(job.work, Work::Fold) {
            // The others are read and counted again.
            report.compacted_versions += compacted.duplicates;
            return;
        }
        if matches!(job.work, Work::Compact) {
            late::count(report, compacted.late);
            report.compacted_dates.push(job.date);
            report.compacted_versions += compacted.versions;
        } else if matches!(job.work, Work::Forget) {
            report.forgotten_partitions += 1;
        } else if matches!(job.work, Work::Rewrite) {
            report.upgraded_partitions += 1;
        }
        let extent = compacted.extent();
        report.table_rows.add(&extent.rows);
        report.table_bytes.add(&extent.bytes);
    }

    /// Makes the results of jobs visible, and removes the staged files that they were made of.
    async fn commit(&mut self, done: Vec<Done>) -> Result<()> {
        let (mut state, written_at) = (self.ledger.state().clone(), self.lake.clock().now());
        let form = current_form(self.tables.columns());
        let (mut folded, mut dates) = (Vec::new(), BTreeMap::new());
        for (job, compacted) in done {
            let (date, file) = (job.date, job.file.clone());
            let flushes: Vec<_> = job.flushes.iter().map(|part| part.flush.clone()).collect();
            if matches!(job.work, Work::Fold) {
                let keys = |flush| Table::ALL.map(|table| layout::staged_file(table, date, flush));
                folded.extend(flushes.iter().flat_map(keys));
                let dates = [(date, compacted.extent())].into();
                state.fold_staged(date, &flushes, StagedFlush { flush: file, dates, overlap: None });
            } else {
                dates.insert(date, compacted.replacement(file, written_at, form, flushes));
            }
        }
        self.publisher().publish(state, dates, folded).await
    }
}
