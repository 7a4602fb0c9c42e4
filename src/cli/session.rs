//! One run of a command that writes: the lake, the API, the report, and what is told at the end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::MultiProgress;
use tokio_util::sync::CancellationToken;

use super::args::{ApiArgs, CompactArgs, VerifyArgs};
use super::{logging, output};
use crate::api::{ApiKey, Options, RetryPolicy};
use crate::clock::Clock;
use crate::compact::Compaction;
use crate::error::{Error, Kind, Result};
use crate::lake::{Before, Ended, History, Holder, Lake, Lease, Ledger, RunReport, State, sweep};
use crate::model::RunId;
use crate::tables::Tables;
use crate::verify::{self, Verification};

mod fetch;
mod prune;

pub(super) use fetch::{backfill, export, sync};

/// The environment variable that holds the API key. Never a flag: it would show in the list of processes.
const API_KEY: &str = "DECAGON_API_KEY";

/// What every command works with.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) clock: Clock,
    pub(super) shutdown: CancellationToken,
    pub(super) bars: MultiProgress,
    pub(super) quiet: bool,
    /// How much a lake keeps of its past.
    pub(super) history: History,
    /// The report of the run that this process was, for whoever asks after it has ended.
    pub(super) report: Arc<OnceLock<RunReport>>,
}

/// A run of a command that writes to a lake, and holds it until its end.
pub(super) struct Session {
    context: Context,
    lake: Lake,
    lease: Arc<Lease>,
    ledger: Ledger,
    report: RunReport,
    /// When this run, or one before it, last asked the API for something.
    last_request_at: Option<DateTime<Utc>>,
    /// Whether the run is one of this lake: until then it leaves no report there.
    admitted: bool,
    /// The number of the next file that it names: a flush's, or one that a compaction makes.
    next_file: u32,
}

impl Session {
    /// Takes the lake for a run of `command`, and makes good what a run that died there has left.
    async fn open(context: &Context, command: &'static str, lake: Lake) -> Result<Self> {
        let now = context.clock.now();
        let holder = Holder {
            run_id: RunId::new(now, fastrand::u32(..)),
            command: command.to_owned(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            since: now,
        };
        let lease = Lease::acquire(lake.store(), holder, context.clock, &context.shutdown).await?;
        let run_id = lease.run_id().clone();
        let last_request_at = match lease.before() {
            Before::Nobody => None,
            Before::Ended(ended) => ended.last_request_at,
            Before::Died => Some(now),
        };
        match load(&lake, &lease, &run_id, command == "verify", context).await {
            Ok(ledger) => Ok(Session {
                context: context.clone(),
                lake,
                lease: Arc::new(lease),
                ledger,
                report: RunReport::new(command, run_id, now),
                last_request_at,
                admitted: false,
                next_file: 0,
            }),
            Err(error) => {
                let error = reason(&lease, error).await;
                release(&lease, last_request_at).await;
                Err(error)
            }
        }
    }

    /// Compacts what is landed; Delta tables `retain` what was replaced for so long.
    async fn compact(&mut self, retain: Duration) -> Result<()> {
        let Session { context, lake, lease, ledger, report, next_file, .. } = self;
        let (clock, shutdown) = (context.clock, lease.stop().clone());
        let tables = &Tables::of(lake.store(), &lake.existing().await?);
        Compaction { lake, tables, lease, ledger, report, next_file, retain, clock, shutdown: &shutdown }.run().await
    }

    /// Leaves the report in the lake, lets go of it, and tells how the run went.
    async fn end(mut self, mut result: Result<()>, json: bool) -> Result<RunReport> {
        if let Err(error) = result {
            result = Err(reason(&self.lease, error).await);
        }
        let mut set_aside = false;
        // It is the export's to tell, not that of a compaction in between.
        if result.is_ok() && self.report.request.is_some() {
            result = self.report_quarantined().await;
            set_aside = result.as_ref().is_err_and(|error| error.kind() == Kind::Integrity);
        }
        self.prune(&result, set_aside).await;
        self.report.end(&result, set_aside, self.context.clock.now());
        self.report.watermark = self.ledger.state().watermark();
        self.report.store_calls = self.lake.calls();
        self.report.error.iter_mut().for_each(|line| *line = logging::without_secrets(line));
        if self.admitted
            && let Err(error) = self.report.save(self.lake.store()).await
        {
            tracing::warn!("{}", error.chain().join(": "));
        }
        release(&self.lease, self.last_request_at).await;
        if self.admitted {
            output::summary(&self.report);
            if json {
                output::line(&self.report.to_json()?);
            }
        }
        // A demo has several, and nobody asks.
        let _ = self.context.report.set(self.report.clone());
        result.map(|()| self.report)
    }

    /// Ends a run that has done what it was asked to with what was set aside, by it or by one that could not tell.
    async fn report_quarantined(&mut self) -> Result<()> {
        let entries = self.ledger.state().set_aside;
        if entries == 0 {
            return Ok(());
        }
        self.report.quarantined = entries;
        let state = State { set_aside: 0, ..self.ledger.state().clone() };
        self.ledger.commit(state, &self.report.run_id, self.context.clock.now()).await?;
        let entries = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
        Err(Error::integrity(format!("{entries} of the export that are no conversations were set aside"))
            .with_hint(format!("everything else is in the lake; see {}/_state/quarantine/", self.lake.url())))
    }

    /// Removes what dead runs have left.
    async fn sweep(&mut self) -> Result<()> {
        let Session { lake, lease, ledger, report, context, .. } = self;
        let left =
            sweep::leftovers(lake.store(), &ledger.state().staged_keys(), lease.before() == Before::Died).await?;
        if left.is_empty() {
            return Ok(());
        }
        // A commit whose answer was lost may still be on its way, and would name what is to be removed.
        ledger.fence(&report.run_id, context.clock.now()).await?;
        let objects = sweep::remove(lake.store(), left, lease).await?;
        tracing::info!("removed {objects} objects that a run has left behind");
        Ok(())
    }
}

/// The commits of a lake that was just taken. If tables are newer than they are, that is refused, unless the run `mends` it.
async fn load(lake: &Lake, lease: &Lease, run_id: &RunId, mends: bool, context: &Context) -> Result<Ledger> {
    // A lake of a newer version is not to be looked at any closer.
    let file = lake.describe().await?;
    // In this order, and before anything is committed: a run that takes over in between has named in the ledger first what it
    // brings into the tables.
    let taken_up = match file {
        Some(file) => Tables::of(lake.store(), &file).taken_up().await?,
        None => 0,
    };
    let mut ledger = Ledger::load(lake.store()).await?;
    if taken_up > ledger.number() && !mends {
        return Err(verify::state_is_behind(lake, taken_up, ledger.number()));
    }
    if taken_up > ledger.number() {
        ledger.pass(taken_up, run_id, context.clock.now()).await?;
        tracing::warn!(
            "_state is older than the tables: its commits are numbered after theirs from now on; the next sync fetches again \
             what changed since its watermark, and a backfill that ended after that has to be run again"
        );
    }
    if lease.before() == Before::Died {
        ledger.fence(run_id, context.clock.now()).await?;
    }
    Ok(ledger)
}

/// Why a run has failed. Whatever else it failed with: where another run has taken over, that is why.
async fn reason(lease: &Lease, error: Error) -> Error {
    match lease.prove().await {
        Err(held) if held.kind() == Kind::Held => held,
        _ => error,
    }
}

/// Lets go of the lake. That it failed is no failure of the run: the next one waits until this one has expired.
async fn release(lease: &Lease, last_request_at: Option<DateTime<Utc>>) {
    if let Err(error) = lease.release(Ended { last_request_at }).await {
        tracing::warn!("{}", error.chain().join(": "));
    }
}

/// `compact`.
pub(super) async fn compact(args: &CompactArgs, context: &Context) -> Result<RunReport> {
    let context = &Context { history: args.history.history(), ..context.clone() };
    compact_in(args.of.open(context.clock)?, args.of.json, args.keep.retain()?, context).await
}

async fn compact_in(lake: Lake, json: bool, retain: Duration, context: &Context) -> Result<RunReport> {
    lake.existing().await?;
    let mut session = Session::open(context, "compact", lake).await?;
    session.admitted = true;
    let result = match session.sweep().await {
        Ok(()) => session.compact(retain).await,
        swept => swept,
    };
    session.end(result, json).await
}

/// `verify --repair`.
pub(super) async fn repair(args: &VerifyArgs, context: &Context) -> Result<Verification> {
    repair_in(args.of.open(context.clock)?, context).await
}

async fn repair_in(lake: Lake, context: &Context) -> Result<Verification> {
    lake.existing().await?;
    let mut session = Session::open(context, "verify", lake).await?;
    let repaired = match session.sweep().await {
        Ok(()) => {
            let Session { lake, lease, ledger, .. } = &mut session;
            verify::repair(lake, lease, ledger, context.clock).await
        }
        Err(error) => Err(error),
    };
    release(&session.lease, session.last_request_at).await;
    repaired
}

pub(super) fn client_options(args: &ApiArgs) -> Result<Options> {
    let key = api_key(args)?;
    logging::hide(&key);
    Ok(Options {
        base_url: args.base_url.clone(),
        key,
        requests_per_second: args.requests_per_second,
        retry: RetryPolicy {
            max_tries: usize::try_from(args.max_tries).unwrap_or(usize::MAX),
            max_total: args.max_retry_time,
            ..RetryPolicy::default()
        },
        timeout: args.timeout,
        max_response_bytes: args.max_response_bytes.as_u64(),
        allow_http: args.allow_http,
    })
}

fn api_key(args: &ApiArgs) -> Result<ApiKey> {
    let variable = std::env::var_os(API_KEY).filter(|value| !value.is_empty());
    match (&args.key, &args.api_key_file, variable) {
        (Some(key), _, _) => Ok(key.clone()),
        (None, Some(file), _) => ApiKey::from_file(file),
        (None, None, Some(value)) => ApiKey::from_bytes(value.as_encoded_bytes(), API_KEY),
        (None, None, None) => Err(Error::usage("no API key").with_hint(format!("set {API_KEY} or --api-key-file"))),
    }
}

#[cfg(test)]
mod tests;
