//! One export run: joins the stages, settles what the pages leave open, and decides which failure to tell.

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::collect::{Collector, End, FlushPolicy, OnBadRecord};
use super::filter;
use super::land::Lander;
use super::plan::Planned;
use super::progress::Progress;
use super::walk::walk;
use crate::api::Client;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lake::{Lake, Ledger, Purpose, RunReport, Verdict};
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
/// Of the API, of the store, `Interrupted` when it was asked to stop, and `Integrity` where something was set aside
/// although the walk is complete.
pub async fn run(mut run: Run<'_>, planned: Planned) -> Result<()> {
    let result = run.complete(planned).await;
    let tally = run.client.tally();
    run.report.requests = tally.requests;
    run.report.retries = tally.retries;
    result?;
    match run.report.quarantined {
        0 => Ok(()),
        aside => {
            Err(Error::integrity(format!("{aside} entries of the export are no conversations and were set aside"))
                .with_hint(format!("everything else is landed; see {}/_state/quarantine/", run.lake.url())))
        }
    }
}

impl Run<'_> {
    /// Does the planned walk or, where that cannot bring all of it, the one that can.
    async fn complete(&mut self, planned: Planned) -> Result<()> {
        let everything = planned.everything();
        let increment = planned.purpose == Purpose::Incremental;
        if self.settled(planned).await? {
            return Ok(());
        }
        if increment && self.on_ignored_filter == OnIgnoredFilter::Full {
            tracing::warn!("the API ignores timestamp_filter: fetching the whole history");
            return self.walk(everything).await.map(drop);
        }
        Err(filter::ignored())
    }

    /// Does the planned walk. Returns false where it cannot bring all that was asked for, as the API ignores
    /// `timestamp_filter`; the walk is given up then.
    async fn settled(&mut self, planned: Planned) -> Result<bool> {
        let request = planned.walk.request.clone();
        // The vendor may have mended it since.
        if request.window.depends_on_filter() && self.ledger.state().evidence.verdict == Some(Verdict::Ignored) {
            let verdict = self.ask(&request).await?;
            if verdict != Some(Verdict::Honoured) {
                return Ok(false);
            }
            let mut state = self.ledger.state().clone();
            state.evidence.verdict = verdict;
            self.ledger.commit(state, &self.report.run_id, self.clock.now()).await?;
        }
        if self.walk(planned).await? == End::Settled {
            return Ok(true);
        }
        let verdict = self.ask(&request).await?;
        let mut state = self.ledger.state().clone();
        state.evidence.verdict = verdict;
        let complete = verdict != Some(Verdict::Ignored);
        state.close_incremental(complete);
        self.report.watermark = state.watermark();
        self.ledger.commit(state, &self.report.run_id, self.clock.now()).await?;
        Ok(complete)
    }

    async fn ask(&mut self, request: &Request) -> Result<Option<Verdict>> {
        let evidence = &self.ledger.state().evidence;
        tracing::debug!(witnesses = evidence.witnesses.len(), "asking whether timestamp_filter is honoured");
        filter::ask(self.client, request, evidence, &self.report.run_id, self.shutdown).await
    }

    /// Fetches, flattens and lands, all at the same time.
    async fn walk(&mut self, planned: Planned) -> Result<End> {
        let Planned { purpose, walk: begun, resumed } = planned;
        self.report.request = Some(begun.request.clone());
        self.report.resumed = resumed;
        self.progress.send_replace(Progress::new(begun.request.window, self.clock.now()));

        let (page_sender, page_receiver) = mpsc::channel(PAGES_WAITING);
        let (flush_sender, flush_receiver) = mpsc::channel(FLUSHES_WAITING);
        let (request, cursor) = (begun.request.clone(), begun.cursor.clone());
        let collector = Collector {
            run_id: self.report.run_id.clone(),
            clock: self.clock,
            runtime: Handle::current(),
            policy: self.policy,
            on_bad_record: self.on_bad_record,
            progress: self.progress.clone(),
            // The range of a backfill may be long past, and its witnesses with it.
            needs_verdict: purpose == Purpose::Incremental && request.window.depends_on_filter(),
            walk: begun,
            evidence: self.ledger.state().evidence.clone(),
        };
        let collecting = tokio::task::spawn_blocking(move || collector.collect(page_receiver, &flush_sender));
        let (lake, clock) = (self.lake, self.clock);
        let lander = Lander { lake, ledger: self.ledger, report: self.report, clock, purpose };
        // Once the store has failed there is no use in asking the API for more.
        let stop = self.shutdown.child_token();
        let landing = async {
            let landed = lander.land(flush_receiver).await;
            stop.cancel();
            landed
        };
        let (walked, landed) = tokio::join!(walk(self.client, &request, cursor, page_sender, &stop), landing);
        let collected = collecting.await.map_err(|error| Error::bug("the flattening failed").caused_by(error))?;
        // A failure behind makes the stages before it stop without one of their own.
        landed.and(collected).and_then(|end| match walked {
            Ok(()) => Ok(end),
            // It may be the cursor that an earlier run left which is refused.
            Err(error) if error.kind() == Kind::Api && resumed => {
                let hint = error.hint().map(|hint| format!("{hint}; or ")).unwrap_or_default();
                Err(error.with_hint(format!("{hint}begin the interrupted walk anew with --restart")))
            }
            Err(error) => Err(error),
        })
    }
}
