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
use crate::lake::{
    Before, Described, Ended, History, Holder, Identity, Lake, Lease, Ledger, PolicyReport, RunReport, State,
    Suppression, Upkeep, sweep,
};
use crate::layout;
use crate::model::RunId;
use crate::policy::{PolicyChain, PolicyKey};
use crate::tables::Tables;
use crate::verify;

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
    /// The lake's identity as it was read; `None` if it has none yet.
    pub(super) found: Option<Described>,
    /// The same, once it is decided.
    pub(super) identity: Option<Identity>,
    /// The conversations that must not come back.
    pub(super) suppression: Arc<Suppression>,
    /// The tables of a lake with this identity, and what was read of them.
    tables: Option<(Identity, Tables)>,
    pub(super) report: RunReport,
    /// When this run, or an earlier one, last sent a request to the API.
    pub(super) last_request_at: Option<DateTime<Utc>>,
    /// The number of the next file that the run names, in a flush or a compaction.
    pub(super) next_file: u32,
    /// When a run last died or failed, if it may have left something behind, or calls of it may still arrive.
    disturbed_at: Option<DateTime<Utc>>,
    /// The upkeep that lasts; `None` if it is due.
    pub(super) upkeep: Option<Upkeep>,
    /// Whether this run has looked for leftovers.
    swept: bool,
    /// The API key, which the report must not show.
    pub(super) key: Option<ApiKey>,
    /// The key of the hashes that the lake's policy asks for.
    pub(super) policy_key: Option<PolicyKey>,
    /// The policies of the lake, once they were needed.
    pub(super) policies: Option<Arc<PolicyChain>>,
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
        let read = async |before: &Before| {
            tokio::join!(lake.described(), Ledger::load_near(lake.store(), before.checkpoint()))
        };
        let (lease, (found, ledger)) = Lease::acquire_and(lake.store(), holder, clock, &control.shutdown, read).await?;
        let run_id = lease.run_id().clone();
        let last_request_at = match lease.before() {
            Before::Nobody => None,
            Before::Ended(ended) => ended.last_request_at,
            Before::Died => Some(now),
        };
        let upkeep = lease.before().upkeep(lake.store(), now).cloned();
        let disturbed_at = lease.before().disturbed_at(now);
        match begin(lake, &lease, found, ledger, command == "verify", now).await {
            Ok(Begun { found, suppression, tables, ledger }) => Ok(Session {
                control: control.clone(),
                history,
                clock,
                lake: lake.clone(),
                lease: Arc::new(lease),
                ledger,
                identity: found.as_ref().map(|found| found.identity.clone()),
                suppression: Arc::new(suppression),
                tables: found.as_ref().map(|found| found.identity.clone()).zip(tables),
                found,
                report: RunReport::new(command, run_id, now),
                last_request_at,
                next_file: 0,
                disturbed_at,
                upkeep,
                swept: false,
                key: None,
                policy_key: None,
                policies: None,
            }),
            Err(error) => {
                let error = reason(&lease, error).await;
                release(&lease, Ended { last_request_at, disturbed_at: Some(now), ..Ended::default() }).await;
                Err(error)
            }
        }
    }

    /// Compacts the staged files; Delta tables keep replaced files for `retain`.
    pub(super) async fn compact(&mut self, retain: Duration) -> Result<()> {
        let mut identity = match self.identity.take() {
            Some(identity) => identity,
            None => self.lake.existing().await?,
        };
        if identity.is_older() {
            identity = self.lake.evolve().await?;
        }
        let tables = self.tables_of(&identity)?;
        self.identity = Some(identity);
        self.compaction(&tables, retain).run().await
    }

    /// A compaction of the lake's `tables`; Delta tables keep replaced files for `retain`.
    pub(super) fn compaction<'a>(&'a mut self, tables: &'a Tables, retain: Duration) -> Compaction<'a> {
        let Session { lake, lease, ledger, report, next_file, suppression, .. } = self;
        Compaction { lake, tables, lease, ledger, report, next_file, suppression, retain }
    }

    /// The tables of the lake, with what was read of them before. Their rows follow the lake's policy once they are
    /// read.
    ///
    /// # Errors
    /// As [`Session::policies_of`].
    pub(super) fn tables_of(&mut self, identity: &Identity) -> Result<Tables> {
        let policies = self.policies_of(identity)?;
        let tables = match self.tables.take() {
            Some((of, tables)) if of == *identity => tables,
            _ => Tables::of(self.lake.store(), identity)?,
        };
        let tables = tables.following(policies);
        self.tables = Some((identity.clone(), tables.clone()));
        Ok(tables)
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
        // A store that fails, and a lake that another run holds, are left alone.
        let allows = |error: &Error| !matches!(error.kind(), Kind::Store | Kind::Held) || error.is_of_one_object();
        let mut cleans = result.as_ref().err().is_none_or(allows);
        if cleans && let Err(error) = self.ledger.check().await {
            (result, quarantined, cleans) = (Err(reason(&self.lease, error).await), false, false);
        }
        let is_pruned = self.prune(&result, quarantined).await;
        self.write_report(&result, quarantined);
        for rule in self.report.policy.iter().flat_map(|policy| &policy.unmatched_rules) {
            tracing::warn!("the rule of the policy `{rule}` covered nothing that this run fetched; check its field");
        }
        let cleaning = async {
            match cleans {
                true => self.ledger.clean(self.lease.surplus().to_vec()).await,
                false => Ok(()),
            }
        };
        let (cleaned, ()) = tokio::join!(cleaning, save(&self.report, &self.lake));
        if let Err(error) = cleaned {
            (result, quarantined) = (Err(reason(&self.lease, error).await), false);
            self.write_report(&result, quarantined);
            save(&self.report, &self.lake).await;
        }
        let now = self.clock.now();
        let failed = result.is_err() && !quarantined;
        let upkeep = match self.upkeep {
            Some(upkeep) if is_pruned => Some(upkeep.by(self.history)),
            None if is_pruned && self.swept => Some(Upkeep::done(self.lake.store(), self.history, now)),
            upkeep => upkeep,
        };
        let ended = Ended {
            last_request_at: self.last_request_at,
            checkpoint: Some(self.ledger.number()),
            disturbed_at: if failed { Some(now) } else { self.disturbed_at },
            upkeep,
        };
        release(&self.lease, ended).await;
        (self.report, result)
    }

    /// Says in the report how the run went.
    fn write_report(&mut self, result: &Result<()>, quarantined: bool) {
        self.report.end(result, quarantined, self.clock.now());
        self.report.watermark = self.ledger.state().watermark();
        self.report.tables = self.ledger.state().manifest.as_ref().map(|manifest| manifest.tables);
        self.report.store_calls = self.lake.calls();
        self.report.policy = self
            .identity
            .as_ref()
            .and_then(Identity::policy_hash)
            .map(|hash| PolicyReport { hash: hash.to_owned(), unmatched_rules: self.unmatched_rules() });
        if let Some(key) = &self.key {
            self.report.error.iter_mut().for_each(|line| *line = key.redact(line));
        }
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

    /// Removes the files that dead runs have left behind, unless there can be none.
    pub(super) async fn sweep(&mut self) -> Result<()> {
        if self.upkeep.is_some() && self.disturbed_at.is_none() {
            return Ok(());
        }
        self.swept = true;
        let Session { lake, lease, ledger, report, clock, .. } = self;
        let left =
            sweep::leftovers(lake.store(), &ledger.state().named_keys(), *lease.before() == Before::Died).await?;
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

/// A lake that was just taken, and what was read of it.
struct Begun {
    found: Option<Described>,
    suppression: Suppression,
    tables: Option<Tables>,
    ledger: Ledger,
}

/// Prepares a lake that was just taken, whose identity and ledger were read. Fails if the tables are newer than the
/// ledger, unless the run `repairs` that.
async fn begin(
    lake: &Lake,
    lease: &Lease,
    found: Result<Option<Described>>,
    ledger: Result<Ledger>,
    repairs: bool,
    now: DateTime<Utc>,
) -> Result<Begun> {
    // Fails first if this program is too old for the lake.
    let (found, mut ledger, run_id) = (found?, ledger?, lease.run_id());
    let suppression = match &found {
        Some(found) => lake.suppression(&found.identity).await?,
        None => Suppression::default(),
    };
    let tables = found.as_ref().map(|found| Tables::of(lake.store(), &found.identity)).transpose()?;
    let applied = match &tables {
        Some(tables) => tables.applied().await?,
        None => 0,
    };
    if applied > ledger.number() {
        // A run that takes over in between commits its write intent before it changes the tables. So a ledger that is
        // read after the tables is never behind them, unless it was restored or damaged.
        ledger = Ledger::load(lake.store()).await?;
    }
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
    if *lease.before() == Before::Died {
        ledger.fence(run_id, now).await?;
    }
    Ok(Begun { found, suppression, tables, ledger })
}

/// Saves the report of a run that was admitted. A failure is only logged.
async fn save(report: &RunReport, lake: &Lake) {
    if report.admitted
        && let Err(error) = report.save(lake.store()).await
    {
        tracing::warn!("{}", error.chain().join(": "));
    }
}

/// Returns the cause of a run's failure: `error`, unless another run has taken over, because that causes others.
async fn reason(lease: &Lease, error: Error) -> Error {
    match lease.prove().await {
        Err(held) if held.kind() == Kind::Held => held,
        _ => error,
    }
}

/// Releases the lease. A failure is only logged, because the next run takes over when the lease has expired.
async fn release(lease: &Lease, ended: Ended) {
    if let Err(error) = lease.release(ended).await {
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
    let CompactSettings { retain, history, policy_key, control } = settings;
    let work = async |session: &mut Session| {
        session.policy_key = policy_key.clone();
        session.report.admitted = true;
        session.sweep().await?;
        session.compact(*retain).await
    };
    hold(lake, "compact", control, *history, work).await
}
