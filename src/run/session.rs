//! One run of a command that writes, from taking the lease to releasing it.
//!
//! Guarantees: a run writes nothing before it has taken the lease and fenced dead runs, because [`hold`] does both
//! first. [`hold`] also ends every run, failed ones too: it names another run that took over, saves the report and
//! releases the lease. Must not depend on: what the work is.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::settings::{CompactSettings, Control};
use crate::api::ApiKey;
use crate::clock::Clock;
use crate::compact::Compaction;
use crate::counted::counted;
use crate::error::{Error, Kind, Result};
use crate::lake::{Before, Ended, History, Holder, Lake, Lease, Ledger, RunReport, State, sweep};
use crate::layout;
use crate::model::RunId;
use crate::tables::Tables;
use crate::verify::{self, Verification};

/// A run that failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct RunFailure {
    /// The cause.
    pub error: Error,
    /// The report up to the failure; `None` if the run never held the lake.
    pub report: Option<Box<RunReport>>,
}

impl From<Error> for RunFailure {
    fn from(error: Error) -> Self {
        RunFailure { error, report: None }
    }
}

impl From<RunFailure> for Error {
    fn from(failure: RunFailure) -> Self {
        failure.error
    }
}

/// A run that holds a lake until its end.
pub(super) struct Session {
    pub(super) control: Control,
    pub(super) history: History,
    pub(super) clock: Clock,
    pub(super) lake: Lake,
    pub(super) lease: Arc<Lease>,
    pub(super) ledger: Ledger,
    pub(super) report: RunReport,
    /// When this run, or an earlier one, last sent a request to the API.
    pub(super) last_request_at: Option<DateTime<Utc>>,
    /// The number of the next file that the run names, in a flush or a compaction.
    pub(super) next_file: u32,
    /// The API key, which the report must not show.
    pub(super) key: Option<ApiKey>,
}

/// Takes the lake for a run of `command`, does its `work`, and ends the run.
///
/// # Errors
/// Those of the work; kind `Held` if another run holds the lake or has taken it over.
pub(super) async fn hold(
    lake: &Lake,
    command: &'static str,
    control: &Control,
    history: History,
    work: impl AsyncFnOnce(&mut Session) -> Result<()>,
) -> Result<RunReport, RunFailure> {
    let mut session = Session::open(lake, command, control, history).await?;
    let result = work(&mut session).await;
    let (report, result) = session.end(result).await;
    match result {
        Ok(()) => Ok(report),
        Err(error) => Err(RunFailure { error, report: Some(Box::new(report)) }),
    }
}

impl Session {
    /// Takes the lake for a run of `command`, and fences a dead run.
    async fn open(lake: &Lake, command: &'static str, control: &Control, history: History) -> Result<Self> {
        let clock = lake.clock();
        let now = clock.now();
        let holder = Holder {
            run_id: RunId::new(now, fastrand::u32(..)),
            command: command.to_owned(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            since: now,
        };
        let lease = Lease::acquire(lake.store(), holder, clock, &control.shutdown).await?;
        let run_id = lease.run_id().clone();
        let last_request_at = match lease.before() {
            Before::Nobody => None,
            Before::Ended(ended) => ended.last_request_at,
            Before::Died => Some(now),
        };
        match load(lake, &lease, &run_id, command == "verify", now).await {
            Ok(ledger) => Ok(Session {
                control: control.clone(),
                history,
                clock,
                lake: lake.clone(),
                lease: Arc::new(lease),
                ledger,
                report: RunReport::new(command, run_id, now),
                last_request_at,
                next_file: 0,
                key: None,
            }),
            Err(error) => {
                let error = reason(&lease, error).await;
                release(&lease, last_request_at).await;
                Err(error)
            }
        }
    }

    /// Compacts the staged files; Delta tables keep replaced files for `retain`.
    pub(super) async fn compact(&mut self, retain: Duration) -> Result<()> {
        let Session { clock, lake, lease, ledger, report, next_file, .. } = self;
        let (clock, shutdown) = (*clock, lease.stop().clone());
        let tables = &Tables::of(lake.store(), &lake.existing().await?)?;
        Compaction { lake, tables, lease, ledger, report, next_file, retain, clock, shutdown: &shutdown }.run().await
    }

    /// Saves the report and releases the lease. Returns the report and the run's result.
    async fn end(mut self, mut result: Result<()>) -> (RunReport, Result<()>) {
        if let Err(error) = result {
            result = Err(reason(&self.lease, error).await);
        }
        let mut quarantined = false;
        // An export reports quarantined entries; a command that only compacts does not.
        if result.is_ok() && self.report.request.is_some() {
            result = self.report_quarantined().await;
            quarantined = result.as_ref().is_err_and(|error| error.kind() == Kind::Integrity);
        }
        self.prune(&result, quarantined).await;
        self.report.end(&result, quarantined, self.clock.now());
        self.report.watermark = self.ledger.state().watermark();
        self.report.store_calls = self.lake.calls();
        if let Some(key) = &self.key {
            self.report.error.iter_mut().for_each(|line| *line = key.redact(line));
        }
        if self.report.admitted
            && let Err(error) = self.report.save(self.lake.store()).await
        {
            tracing::warn!("{}", error.chain().join(": "));
        }
        release(&self.lease, self.last_request_at).await;
        (self.report, result)
    }

    /// Fails a run that did everything else, if it or an earlier run that could not report it quarantined entries.
    async fn report_quarantined(&mut self) -> Result<()> {
        let entries = self.ledger.state().quarantined;
        if entries == 0 {
            return Ok(());
        }
        self.report.quarantined = entries;
        let state = State { quarantined: 0, ..self.ledger.state().clone() };
        self.ledger.commit(state, &self.report.run_id, self.clock.now()).await?;
        let verb = if entries == 1 { "was" } else { "were" };
        let folder = format!("{}/{}/", self.lake.url(), layout::quarantines());
        Err(Error::integrity(format!("{} {verb} quarantined", counted(entries, "malformed entry")))
            .with_hint(format!("everything else is in the lake; see the entries and the reasons in {folder}")))
    }

    /// Removes the files that dead runs have left behind.
    pub(super) async fn sweep(&mut self) -> Result<()> {
        let Session { lake, lease, ledger, report, clock, .. } = self;
        let left =
            sweep::leftovers(lake.store(), &ledger.state().staged_keys(), lease.before() == Before::Died).await?;
        if left.is_empty() {
            return Ok(());
        }
        // A dead run's commit may still arrive and name these files; the fence makes it fail.
        ledger.fence(&report.run_id, clock.now()).await?;
        let objects = sweep::remove(lake.store(), left, lease).await?;
        tracing::info!("removed {} that a dead run had left behind", counted(objects, "object"));
        Ok(())
    }
}

/// Loads the ledger of a lake that was just taken. Fails if the tables are newer than the ledger, unless the run
/// `repairs` that.
async fn load(lake: &Lake, lease: &Lease, run_id: &RunId, repairs: bool, now: DateTime<Utc>) -> Result<Ledger> {
    // Fails first if this program is too old for the lake.
    let file = lake.describe().await?;
    // The tables are read before the ledger, because a run that takes over in between commits its write intent before it
    // changes them. So the ledger as read here is never behind the tables as read here, unless it was restored or damaged.
    let applied = match file {
        Some(file) => Tables::of(lake.store(), &file)?.applied().await?,
        None => 0,
    };
    let mut ledger = Ledger::load(lake.store()).await?;
    if applied > ledger.number() && !repairs {
        return Err(verify::state_is_behind(lake, applied, ledger.number()));
    }
    if applied > ledger.number() {
        ledger.pass(applied, run_id, now).await?;
        tracing::warn!(
            "_state is older than the tables: its commits are numbered after theirs from now on; the next sync fetches \
             the changes since its watermark again; repeat every backfill that ended after that watermark"
        );
    }
    if lease.before() == Before::Died {
        ledger.fence(run_id, now).await?;
    }
    Ok(ledger)
}

/// Returns the cause of a run's failure: `error`, unless another run has taken over, because that causes others.
async fn reason(lease: &Lease, error: Error) -> Error {
    match lease.prove().await {
        Err(held) if held.kind() == Kind::Held => held,
        _ => error,
    }
}

/// Releases the lease. A failure is only logged, because the next run takes over when the lease has expired.
async fn release(lease: &Lease, last_request_at: Option<DateTime<Utc>>) {
    if let Err(error) = lease.release(Ended { last_request_at }).await {
        tracing::warn!("{}", error.chain().join(": "));
    }
}

/// Compacts the staged files of a lake into its tables.
///
/// # Errors
/// Kind `Usage` if there is no lake, `Held` if another run holds it, `Store` if the store fails, `Integrity` if staged
/// files are damaged.
pub async fn compact(lake: &Lake, settings: &CompactSettings) -> Result<RunReport, RunFailure> {
    lake.existing().await?;
    let CompactSettings { retain, history, control } = settings;
    let work = async |session: &mut Session| {
        session.report.admitted = true;
        session.sweep().await?;
        session.compact(*retain).await
    };
    hold(lake, "compact", control, *history, work).await
}

/// Verifies a lake, and repairs the problems that can be repaired without the API.
///
/// # Errors
/// As [`compact`].
pub async fn repair(lake: &Lake, control: &Control) -> Result<Verification> {
    lake.existing().await?;
    let mut found = None;
    let work = async |session: &mut Session| {
        session.sweep().await?;
        let Session { lake, lease, ledger, clock, .. } = session;
        found = Some(verify::repair(lake, lease, ledger, *clock).await?);
        Ok(())
    };
    hold(lake, "verify", control, History::default(), work).await?;
    found.ok_or_else(|| Error::bug("a repair ended without a result"))
}
