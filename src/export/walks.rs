//! One export run: joins the stages, settles what the pages leave open, and decides which failure to tell.

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::collect::{Collected, Collector, End, FlushPolicy, OnBadRecord, Unsettled};
use super::fetch::{Fetching, Trail, Walked};
use super::filter_support::{self, Answer};
use super::last_page::Shown;
use super::plan::Planned;
use super::progress::Progress;
use super::stage::Stager;
use crate::api::Client;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::lake::{FilterSupport, Lake, Ledger, Purpose, RunReport, State, Support};
use crate::model::Request;

/// How many fetched pages wait to be flattened; how many bytes, is up to the fetching.
const PAGES_WAITING: usize = 8;
/// How many flushes wait to be landed.
const FLUSHES_WAITING: usize = 1;

/// What an incremental export does if the API is known to ignore `timestamp_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIgnoredFilter {
    /// Stops with exit code 3.
    Fail,
    /// Walks the whole history.
    Full,
}

/// Everything a run works with.
pub struct Run<'a> {
    /// Where it lands.
    pub lake: &'a Lake,
    /// What it commits to.
    pub ledger: &'a mut Ledger,
    /// The API.
    pub client: &'a mut Client,
    /// What it leaves behind for people.
    pub report: &'a mut RunReport,
    /// When rows are landed.
    pub policy: FlushPolicy,
    /// What becomes of what is no conversation.
    pub on_bad_record: OnBadRecord,
    /// What becomes of an increment that cannot be had.
    pub on_ignored_filter: OnIgnoredFilter,
    /// Where its progress is shown.
    pub progress: &'a watch::Sender<Progress>,
    /// What it keeps in mind while it is paused.
    pub memory: &'a mut Memory,
    /// The number of its next flush, which no other file of the run has.
    pub next_file: &'a mut u32,
    /// After how many pages of a walk it pauses.
    pub pause_after: u64,
    /// What time it is.
    pub clock: Clock,
    /// When it has to stop.
    pub shutdown: &'a CancellationToken,
}

/// What a run keeps in mind from one part of its walks to the next.
#[derive(Debug, Default)]
pub struct Memory {
    /// The place in the run of the next conversation: no two walks share any.
    next_seq: i64,
    trail: Trail,
    shown: Shown,
    /// How new the walk was when this run went on with it.
    resumed_at: Option<DateTime<Utc>>,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The end: the planned walk is complete.
    End,
    /// As many pages as are walked at a time; [`Begin::rest`](super::Begin::rest) plans the others.
    Pause,
}

/// Does the planned walk, or the next part of it. However it ends, what was fetched before is landed and committed.
///
/// # Errors
/// Of the API, of the store, and `Interrupted` when it was asked to stop.
pub async fn run(run: Run<'_>, planned: Planned) -> Result<Reached> {
    let mut walks = Walks { run };
    let result = walks.complete(planned).await;
    let Run { report, client, .. } = walks.run;
    let tally = client.tally();
    report.requests = tally.requests;
    report.retries = tally.retries;
    result
}

/// The walks of one run: mostly there is but one.
struct Walks<'a> {
    run: Run<'a>,
}

/// What came of a part of a walk.
enum PartEnd {
    Ended(End),
    Paused,
    /// The API refuses the stored cursor that it was to go on from.
    CursorRefused(Error),
}

/// What came of a walk, and what had to be asked behind it.
enum Completion {
    Complete,
    Paused,
    /// It cannot bring all that was asked for, as the API ignores `timestamp_filter`; it was given up.
    Impossible,
}

impl Walks<'_> {
    /// Does the planned walk or, where that cannot bring all of it, the one that can.
    async fn complete(&mut self, planned: Planned) -> Result<Reached> {
        let everything = planned.everything();
        let full = planned.purpose == Purpose::Incremental && self.run.on_ignored_filter == OnIgnoredFilter::Full;
        let mut settled = self.settled(planned).await?;
        if matches!(settled, Completion::Impossible) && full {
            tracing::warn!("the API ignores timestamp_filter: fetching the whole history");
            settled = self.settled(everything).await?;
        }
        match settled {
            Completion::Complete => Ok(Reached::End),
            Completion::Paused => Ok(Reached::Pause),
            Completion::Impossible => Err(filter_support::ignored()),
        }
    }

    /// Does the planned walk.
    async fn settled(&mut self, planned: Planned) -> Result<Completion> {
        let (purpose, request, began) = (planned.purpose, planned.walk.request.clone(), planned.walk.started_at);
        // The vendor may have mended it since.
        let in_doubt = !planned.continued && self.filter_support().known == Some(Support::Ignored);
        if request.window.depends_on_filter() && in_doubt {
            let mut state = self.run.ledger.state().clone();
            if !self.ask(&request, false).await?.clears(&mut state.filter_support, began) {
                return Ok(Completion::Impossible);
            }
            self.commit(state).await?;
        }
        let anew = planned.anew(self.run.clock.now());
        let mut walked = self.walk(planned).await?;
        if let PartEnd::CursorRefused(error) = walked {
            let told = error.chain().join(": ");
            tracing::warn!(
                "the API refuses the cursor that an earlier run has stored, so the walk begins anew: {told}"
            );
            self.run.report.restarted_walks += 1;
            walked = self.walk(anew).await?;
        }
        match walked {
            PartEnd::Ended(End::Settled) => Ok(Completion::Complete),
            PartEnd::Ended(End::Unsettled(unsettled)) => self.settle(purpose, &request, *unsettled).await,
            PartEnd::Paused => Ok(Completion::Paused),
            PartEnd::CursorRefused(error) => Err(error),
        }
    }

    /// Asks what has to be known to end a walk whose last page has come, and ends it.
    async fn settle(&mut self, purpose: Purpose, request: &Request, unsettled: Unsettled) -> Result<Completion> {
        let Unsettled { walk, lacks_verdict, last_page } = unsettled;
        if let Some(last_page) = last_page {
            let Run { client, memory, report, shutdown, .. } = &mut self.run;
            last_page.ask(client, request, &memory.shown, &report.run_id, shutdown).await?;
        }
        let (mut state, began) = (self.run.ledger.state().clone(), walk.started_at);
        if lacks_verdict && filter_support::known(&state.filter_support, began).is_none() {
            // The range of a backfill may be long past, and its canaries may have changed since they were seen.
            let increment = purpose == Purpose::Incremental;
            self.ask(request, increment).await?.note(&mut state.filter_support, began, increment);
        }
        let complete = !lacks_verdict || state.filter_support.known != Some(Support::Ignored);
        state.close(purpose, &walk, complete);
        self.run.report.watermark = state.watermark();
        self.commit(state).await?;
        Ok(if complete { Completion::Complete } else { Completion::Impossible })
    }

    fn filter_support(&self) -> &FilterSupport {
        &self.run.ledger.state().filter_support
    }

    async fn ask(&mut self, request: &Request, absence_disproves: bool) -> Result<Answer> {
        let Run { client, ledger, report, shutdown, .. } = &mut self.run;
        let filter_support = &ledger.state().filter_support;
        tracing::debug!(canaries = filter_support.canaries.len(), "asking whether timestamp_filter is honored");
        filter_support::ask(client, request, filter_support, absence_disproves, &report.run_id, shutdown).await
    }

    async fn commit(&mut self, state: State) -> Result<()> {
        let Run { ledger, report, clock, .. } = &mut self.run;
        ledger.commit(state, &report.run_id, clock.now()).await
    }

    /// Fetches, flattens and lands, all at the same time.
    async fn walk(&mut self, planned: Planned) -> Result<PartEnd> {
        self.begin(&planned);
        let Planned { purpose, walk: begun, resumed, .. } = planned;
        let (policy, on_bad_record, pause_after) = (self.run.policy, self.run.on_bad_record, self.run.pause_after);
        let Run { lake, ledger, client, report, progress, clock, shutdown, memory, next_file, .. } = &mut self.run;
        let (page_sender, page_receiver) = mpsc::channel(PAGES_WAITING);
        let (flush_sender, flush_receiver) = mpsc::channel(FLUSHES_WAITING);
        let (request, cursor) = (begun.request.clone(), begun.cursor.clone());
        let collector = Collector {
            run_id: report.run_id.clone(),
            clock: *clock,
            runtime: Handle::current(),
            policy,
            on_bad_record,
            progress: progress.clone(),
            walk: begun,
            filter_support: ledger.state().filter_support.clone(),
            next_seq: memory.next_seq,
            shown: std::mem::take(&mut memory.shown),
            resumed_at: memory.resumed_at,
        };
        let collecting = tokio::task::spawn_blocking(move || collector.collect(page_receiver, &flush_sender));
        let lander = Stager { lake, ledger, report, clock: *clock, purpose, next_flush: next_file };
        // Once the store has failed there is no use in asking the API for more.
        let stop = shutdown.child_token();
        let landing = async {
            let landed = lander.land(flush_receiver).await;
            stop.cancel();
            landed
        };
        let trail = &mut memory.trail;
        let fetching = Fetching { client, request: &request, trail, pause_after, resumed, shutdown: &stop };
        let (walked, landed) = tokio::join!(fetching.walk(cursor, page_sender), landing);
        let collected = collecting.await.map_err(|error| Error::bug("the flattening failed").caused_by(error))?;
        // A failure behind makes the stages before it stop without one of their own.
        landed?;
        let Collected { end, next_seq, shown } = collected?;
        (memory.next_seq, memory.shown) = (next_seq, shown);
        Ok(match walked? {
            Walked::Through => PartEnd::Ended(end),
            Walked::Paused => PartEnd::Paused,
            Walked::CursorRefused(error) => PartEnd::CursorRefused(error),
        })
    }

    /// Gets ready for a walk, unless it is one that has only paused.
    fn begin(&mut self, planned: &Planned) {
        if planned.continued {
            return;
        }
        let Run { report, progress, clock, memory, .. } = &mut self.run;
        let request = &planned.walk.request;
        report.request = Some(request.clone());
        report.resumed = planned.resumed;
        progress.send_replace(Progress::new(request.window, clock.now()));
        let resumed_at = if planned.resumed { planned.walk.newest_change } else { None };
        **memory = Memory { next_seq: memory.next_seq, resumed_at, ..Memory::default() };
    }
}
