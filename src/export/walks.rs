//! One export run: joins the stages, asks the API what the pages leave open, and decides which failure to report.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::collect::{Collected, Collector, End, FlushPolicy, OnBadRecord, Unsettled};
use super::fetch::{FetchEnd, Fetcher, Trail};
use super::filter_support::{self, Answer};
use super::govern::Governor;
use super::last_page::NewestSeen;
use super::plan::Planned;
use super::progress::Progress;
use super::sieve::Sieve;
use super::stage::{Meanwhile, SeenPartitions, Stager};
use crate::api::Client;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lake::{FilterSupport, Lake, Ledger, Purpose, RunReport, State, Support, Suppression};
use crate::model::{LakeColumns, PartitionBy, Request};
use crate::policy::PolicyChain;

/// How many fetched pages wait to be flattened. The fetcher also bounds their bytes.
const PAGES_WAITING: usize = 8;
/// How many flushes wait to be staged.
const FLUSHES_WAITING: usize = 1;

/// What an incremental export does if the API is known to ignore `timestamp_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIgnoredFilter {
    /// Stops with exit code 3.
    Fail,
    /// Walks the whole history.
    Full,
}

/// The resources and settings of a run.
pub struct Run<'a> {
    /// The lake to stage to.
    pub lake: &'a Lake,
    /// The columns of its tables.
    pub columns: &'a LakeColumns,
    /// How much time a partition of the lake covers.
    pub partition_by: PartitionBy,
    /// The conversations that must not come back.
    pub suppression: &'a Arc<Suppression>,
    /// The ledger to commit to.
    pub ledger: &'a mut Ledger,
    /// The API.
    pub client: &'a mut Client,
    /// The report to fill in.
    pub report: &'a mut RunReport,
    /// When gathered rows are staged.
    pub policy: FlushPolicy,
    /// What to do with malformed entries.
    pub on_bad_record: OnBadRecord,
    /// The policies of the lake, if it has any.
    pub policies: Option<Arc<PolicyChain>>,
    /// What to do if the API ignores `timestamp_filter`.
    pub on_ignored_filter: OnIgnoredFilter,
    /// The channel for its progress.
    pub progress: &'a watch::Sender<Option<Progress>>,
    /// What it does between two flushes, if anything.
    pub meanwhile: Option<&'a mut dyn Meanwhile>,
    /// What decides which versions are staged; `None` stages all.
    pub sieve: Option<Box<dyn Sieve>>,
    /// The number of its next flush, unique among the files of the run.
    pub next_file: &'a mut u32,
    /// The clock.
    pub clock: Clock,
    /// The signal to stop.
    pub shutdown: &'a CancellationToken,
}

/// Does the planned walk. However it ends, the pages fetched before are staged and committed.
///
/// # Errors
/// Those of the API and the store, and `Interrupted` after the signal to stop.
pub async fn run(run: Run<'_>, planned: Planned) -> Result<()> {
    let mut walks = Walks { run, next_seq: 0, newest_seen: NewestSeen::default() };
    let result = walks.complete(planned).await;
    if let Err(error) = &result {
        walks.keep_page_size(error.kind()).await;
    }
    let Run { report, client, .. } = walks.run;
    let tally = client.tally();
    report.requests = tally.requests;
    report.retries = tally.retries;
    report.page_size = tally.page_size;
    result
}

/// The walks of one run, usually one.
struct Walks<'a> {
    run: Run<'a>,
    /// The position in the run of the next conversation, unique over all its walks.
    next_seq: i64,
    /// The newest conversations that the run has seen in the walk.
    newest_seen: NewestSeen,
}

/// How a walk ended.
enum Walked {
    Ended(End),
    /// The API refuses the stored cursor.
    CursorRefused(Error),
}

/// How a walk ended, after the requests that settle it.
enum Completion {
    Complete,
    /// It cannot fetch the whole range, because the API ignores `timestamp_filter`; it was discarded.
    Impossible,
}

impl Walks<'_> {
    /// Does the planned walk, or if that is impossible and the settings allow it, one over the whole history.
    async fn complete(&mut self, planned: Planned) -> Result<()> {
        let everything = planned.everything();
        let full = planned.purpose == Purpose::Incremental && self.run.on_ignored_filter == OnIgnoredFilter::Full;
        let mut completion = self.complete_one(planned).await?;
        if matches!(completion, Completion::Impossible) && full {
            tracing::warn!("the API ignores timestamp_filter: fetching the whole history");
            completion = self.complete_one(everything).await?;
        }
        match completion {
            Completion::Complete => Ok(()),
            Completion::Impossible => Err(filter_support::ignored()),
        }
    }

    /// Does the planned walk and settles it.
    async fn complete_one(&mut self, planned: Planned) -> Result<Completion> {
        let (purpose, request, began) = (planned.purpose, planned.walk.request.clone(), planned.walk.started_at);
        // The vendor may have fixed it since.
        let in_doubt = self.filter_support().known == Some(Support::Ignored);
        if request.window.depends_on_filter() && in_doubt {
            let mut state = self.run.ledger.state().clone();
            if !self.ask(&request, false).await?.record_before(&mut state.filter_support, began) {
                return Ok(Completion::Impossible);
            }
            self.commit(state).await?;
        }
        let restarted = planned.restarted(self.run.clock.now());
        let mut end = self.walk(planned).await?;
        if let Walked::CursorRefused(error) = end {
            let refusal = error.chain().join(": ");
            tracing::warn!("the API refuses the cursor that an earlier run stored; starting the walk over: {refusal}");
            self.run.report.restarted_walks += 1;
            end = self.walk(restarted).await?;
        }
        match end {
            Walked::Ended(End::Settled) => Ok(Completion::Complete),
            Walked::Ended(End::Unsettled(unsettled)) => self.settle(purpose, &request, *unsettled).await,
            Walked::CursorRefused(error) => Err(error),
        }
    }

    /// Asks the API whether a walk whose last page has come is complete, and closes it.
    async fn settle(&mut self, purpose: Purpose, request: &Request, unsettled: Unsettled) -> Result<Completion> {
        let Unsettled { walk, filter_unknown, last_page } = unsettled;
        if let Some(last_page) = last_page {
            let Run { client, report, shutdown, .. } = &mut self.run;
            last_page.check_is_end(client, request, &self.newest_seen, &report.run_id, shutdown).await?;
        }
        let (mut state, began) = (self.run.ledger.state().clone(), walk.started_at);
        if filter_unknown && filter_support::at(&state.filter_support, began).is_none() {
            // The range of a backfill may be long past, so the canaries may have changed since they were seen.
            let increment = purpose == Purpose::Incremental;
            self.ask(request, increment).await?.record_after(&mut state.filter_support, began, increment);
        }
        let complete = !filter_unknown || state.filter_support.known != Some(Support::Ignored);
        match complete {
            true => state.complete_walk(purpose, &walk),
            false => state.discard_walk(purpose, &walk),
        }
        self.run.report.watermark = state.watermark();
        self.commit(state).await?;
        Ok(if complete { Completion::Complete } else { Completion::Impossible })
    }

    fn filter_support(&self) -> &FilterSupport {
        &self.run.ledger.state().filter_support
    }

    async fn ask(&mut self, request: &Request, absence_counts: bool) -> Result<Answer> {
        let Run { client, ledger, report, shutdown, .. } = &mut self.run;
        let filter_support = &ledger.state().filter_support;
        tracing::debug!(canaries = filter_support.canaries.len(), "asking whether the API honors timestamp_filter");
        filter_support::ask(client, request, filter_support, absence_counts, &report.run_id, shutdown).await
    }

    /// Keeps what a failure of the API taught about the size of pages, so that the next run need not fail to learn it.
    async fn keep_page_size(&mut self, kind: Kind) {
        if matches!(kind, Kind::Api | Kind::Unreachable) {
            let state = self.run.ledger.state().clone();
            if let Err(error) = self.commit(state).await {
                tracing::debug!("cannot keep the size of pages: {}", error.chain().join(": "));
            }
        }
    }

    async fn commit(&mut self, mut state: State) -> Result<()> {
        let Run { ledger, client, report, clock, .. } = &mut self.run;
        state.page_size = client.page_size().learned();
        ledger.commit(state, &report.run_id, clock.now()).await
    }

    /// Fetches, flattens and stages, all at the same time.
    async fn walk(&mut self, planned: Planned) -> Result<Walked> {
        let Planned { purpose, walk: begun, resumed } = planned;
        let Run { policy, on_bad_record, partition_by, suppression, .. } = self.run;
        let Run {
            lake,
            columns,
            ledger,
            client,
            report,
            progress,
            clock,
            shutdown,
            meanwhile,
            sieve,
            next_file,
            policies,
            ..
        } = &mut self.run;
        report.request = Some(begun.request.clone());
        report.resumed = resumed;
        progress.send_replace(Some(Progress::new(begun.request.window, clock.now())));
        let (page_sender, page_receiver) = mpsc::channel(PAGES_WAITING);
        let (flush_sender, flush_receiver) = mpsc::channel(FLUSHES_WAITING);
        let (request, cursor) = (begun.request.clone(), begun.cursor.clone());
        client.page_size().begin_walk(cursor.as_ref(), begun.page_size);
        let collector = Collector {
            run_id: report.run_id.clone(),
            columns: (*columns).clone(),
            clock: *clock,
            suppression: Arc::clone(suppression),
            runtime: Handle::current(),
            policy,
            on_bad_record,
            governor: policies.clone().map(Governor::of).transpose()?,
            partition_by,
            progress: progress.clone(),
            resumed_at: if resumed { begun.newest_change } else { None },
            walk: begun,
            filter_support: ledger.state().filter_support.clone(),
            next_seq: self.next_seq,
            newest_seen: NewestSeen::default(),
            sieve: sieve.take(),
        };
        let collecting = tokio::task::spawn_blocking(move || collector.collect(page_receiver, &flush_sender));
        let seen = SeenPartitions::of(ledger.state(), purpose);
        let meanwhile = meanwhile.as_mut().map(|it| &mut **it as &mut dyn Meanwhile);
        let stager = Stager { lake, columns, ledger, report, clock: *clock, purpose, meanwhile, seen, next_file };
        let stop = shutdown.child_token();
        let fetcher = Fetcher { client, request: &request, trail: Trail::default(), resumed, shutdown: &stop };
        let (fetched, staged) = tokio::join!(fetcher.fetch(cursor, page_sender), stager.stage(flush_receiver, &stop));
        let collected = collecting.await.map_err(|error| Error::bug("the flattening failed").caused_by(error))?;
        // If a stage fails, the stages before it stop without a failure of their own.
        staged?;
        let Collected { end, next_seq, newest_seen, sieve } = collected?;
        (self.next_seq, self.newest_seen, self.run.sieve) = (next_seq, newest_seen, sieve);
        Ok(match fetched? {
            FetchEnd::Complete => Walked::Ended(end),
            FetchEnd::CursorRefused(error) => Walked::CursorRefused(error),
        })
    }
}
