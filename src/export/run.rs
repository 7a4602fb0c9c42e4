//! One export run: joins the stages, settles what the pages leave open, and decides which failure to tell.

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::collect::{Collected, Collector, End, FlushPolicy, OnBadRecord};
use super::filter::{self, Answer};
use super::land::Lander;
use super::plan::Planned;
use super::progress::Progress;
use super::walk::walk;
use crate::api::Client;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lake::{Checkpoint, Evidence, Lake, Ledger, Purpose, RunReport, Verdict};
use crate::model::Request;

/// How many fetched pages wait to be flattened.
const PAGES_WAITING: usize = 8;
/// How many flushes wait to be landed.
const FLUSHES_WAITING: usize = 1;

/// What an incremental export does where the API is known to ignore `timestamp_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnIgnoredFilter {
    /// It stops with exit code 3
    Fail,
    /// It walks the whole history
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
    pub progress: watch::Sender<Progress>,
    /// What time it is.
    pub clock: Clock,
    /// When it has to stop.
    pub shutdown: &'a CancellationToken,
}

/// Does the planned walk. However it ends, what was fetched before is landed and committed.
///
/// # Errors
/// Of the API, of the store, and `Interrupted` when it was asked to stop.
pub async fn run(run: Run<'_>, planned: Planned) -> Result<()> {
    let mut walks = Walks { run, next_flush: 0, next_seq: 0 };
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
    /// The number of the next flush, and the place in the run of the next conversation: no two walks share any.
    next_flush: u32,
    next_seq: i64,
}

impl Walks<'_> {
    /// Does the planned walk or, where that cannot bring all of it, the one that can.
    async fn complete(&mut self, planned: Planned) -> Result<()> {
        let everything = planned.everything();
        let increment = planned.purpose == Purpose::Incremental;
        if self.settled(planned).await? {
            return Ok(());
        }
        if increment && self.run.on_ignored_filter == OnIgnoredFilter::Full {
            tracing::warn!("the API ignores timestamp_filter: fetching the whole history");
            return self.walk(everything).await.map(drop);
        }
        Err(filter::ignored())
    }

    /// Does the planned walk. Returns false where it cannot bring all that was asked for, as the API ignores
    /// `timestamp_filter`; the walk is given up then.
    async fn settled(&mut self, planned: Planned) -> Result<bool> {
        let (purpose, request, began) = (planned.purpose, planned.walk.request.clone(), planned.walk.started_at);
        // The vendor may have mended it since.
        if request.window.depends_on_filter() && self.evidence().verdict == Some(Verdict::Ignored) {
            let mut state = self.run.ledger.state().clone();
            if !self.ask(&request, false).await?.clears(&mut state.evidence, began) {
                return Ok(false);
            }
            self.commit(state).await?;
        }
        let End::Unsettled(walk) = self.walk(planned).await? else { return Ok(true) };
        let mut state = self.run.ledger.state().clone();
        if state.evidence.known(began).is_none() {
            // The range of a backfill may be long past, and its witnesses may have changed since they were seen.
            let increment = purpose == Purpose::Incremental;
            self.ask(&request, increment).await?.note(&mut state.evidence, began, increment);
        }
        let complete = state.evidence.verdict != Some(Verdict::Ignored);
        state.close(purpose, &walk, complete);
        self.run.report.watermark = state.watermark();
        self.commit(state).await?;
        Ok(complete)
    }

    fn evidence(&self) -> &Evidence {
        &self.run.ledger.state().evidence
    }

    async fn ask(&mut self, request: &Request, absence_disproves: bool) -> Result<Answer> {
        let Run { client, ledger, report, shutdown, .. } = &mut self.run;
        let evidence = &ledger.state().evidence;
        tracing::debug!(witnesses = evidence.witnesses.len(), "asking whether timestamp_filter is honoured");
        filter::ask(client, request, evidence, absence_disproves, &report.run_id, shutdown).await
    }

    async fn commit(&mut self, state: Checkpoint) -> Result<()> {
        let Run { ledger, report, clock, .. } = &mut self.run;
        ledger.commit(state, &report.run_id, clock.now()).await
    }

    /// Fetches, flattens and lands, all at the same time.
    async fn walk(&mut self, planned: Planned) -> Result<End> {
        let Planned { purpose, walk: begun, resumed } = planned;
        let Run { lake, ledger, client, report, progress, clock, shutdown, policy, on_bad_record, .. } = &mut self.run;
        report.request = Some(begun.request.clone());
        report.resumed = resumed;
        progress.send_replace(Progress::new(begun.request.window, clock.now()));

        let (page_sender, page_receiver) = mpsc::channel(PAGES_WAITING);
        let (flush_sender, flush_receiver) = mpsc::channel(FLUSHES_WAITING);
        let (request, cursor) = (begun.request.clone(), begun.cursor.clone());
        let collector = Collector {
            run_id: report.run_id.clone(),
            clock: *clock,
            runtime: Handle::current(),
            policy: *policy,
            on_bad_record: *on_bad_record,
            progress: progress.clone(),
            walk: begun,
            evidence: ledger.state().evidence.clone(),
            next_seq: self.next_seq,
        };
        let collecting = tokio::task::spawn_blocking(move || collector.collect(page_receiver, &flush_sender));
        let lander = Lander { lake, ledger, report, clock: *clock, purpose, next_flush: &mut self.next_flush };
        // Once the store has failed there is no use in asking the API for more.
        let stop = shutdown.child_token();
        let landing = async {
            let landed = lander.land(flush_receiver).await;
            stop.cancel();
            landed
        };
        let (walked, landed) = tokio::join!(walk(client, &request, cursor, page_sender, &stop), landing);
        let collected = collecting.await.map_err(|error| Error::bug("the flattening failed").caused_by(error))?;
        // A failure behind makes the stages before it stop without one of their own.
        landed?;
        let Collected { end, next_seq } = collected?;
        self.next_seq = next_seq;
        match walked {
            Ok(()) => Ok(end),
            // It may be the cursor that an earlier run left which is refused.
            Err(error)
                if error.kind() == Kind::Api && resumed && !error.hint().is_some_and(|h| h.contains("--restart")) =>
            {
                let hint = error.hint().map(|hint| format!("{hint}; or ")).unwrap_or_default();
                Err(error.with_hint(format!("{hint}begin the interrupted walk anew with --restart")))
            }
            Err(error) => Err(error),
        }
    }
}
