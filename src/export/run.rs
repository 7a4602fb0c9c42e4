//! One export run: joins the stages and decides which failure to tell.

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::collect::{Collector, FlushPolicy};
use super::land::Lander;
use super::plan::Planned;
use super::progress::Progress;
use super::walk::walk;
use crate::api::Client;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lake::{Lake, Ledger, RunReport};

/// How many fetched pages wait to be flattened.
const PAGES_WAITING: usize = 8;
/// How many flushes wait to be landed.
const FLUSHES_WAITING: usize = 1;

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
pub async fn run(run: Run<'_>, planned: Planned) -> Result<()> {
    let Run { lake, ledger, client, report, policy, progress, clock, shutdown } = run;
    let Planned { purpose, walk: begun, resumed } = planned;
    report.request = Some(begun.request.clone());
    report.resumed = resumed;
    progress.send_replace(Progress::new(begun.request.window, clock.now()));

    let (page_sender, page_receiver) = mpsc::channel(PAGES_WAITING);
    let (flush_sender, flush_receiver) = mpsc::channel(FLUSHES_WAITING);
    let (request, cursor) = (begun.request.clone(), begun.cursor.clone());
    let runtime = Handle::current();
    let collector = Collector { run_id: report.run_id.clone(), clock, runtime, policy, progress, walk: begun };
    let collecting = tokio::task::spawn_blocking(move || collector.collect(page_receiver, &flush_sender));
    let lander = Lander { lake, ledger, report, clock, purpose };
    // Once the store has failed there is no use in asking the API for more.
    let stop = shutdown.child_token();
    let landing = async {
        let landed = lander.land(flush_receiver).await;
        stop.cancel();
        landed
    };
    let (walked, landed) = tokio::join!(walk(client, &request, cursor, page_sender, &stop), landing);
    let collected = collecting.await.map_err(|error| Error::bug("the flattening failed").caused_by(error))?;

    let tally = client.tally();
    report.requests = tally.requests;
    report.retries = tally.retries;
    // A failure behind makes the stages before it stop without one of their own.
    landed.and(collected).and(walked.map_err(|error| match error.kind() {
        // It may be the cursor that an earlier run left which is refused.
        Kind::Api if resumed => {
            let hint = error.hint().map(|hint| format!("{hint}; or ")).unwrap_or_default();
            error.with_hint(format!("{hint}begin the interrupted walk anew with --restart"))
        }
        _ => error,
    }))?;
    match report.quarantined {
        0 => Ok(()),
        aside => {
            Err(Error::integrity(format!("{aside} entries of the export are no conversations and were set aside"))
                .with_hint(format!("everything else is landed; see {}/_state/quarantine/", lake.url())))
        }
    }
}
