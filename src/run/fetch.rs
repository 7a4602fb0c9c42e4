//! Runs that fetch: `export`, `backfill` and `sync`, which also compacts.
//!
//! Guarantees: a `sync` that the API fails still compacts the staged files, because [`sync`] compacts after such errors
//! too. Must not depend on: how a walk works.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use super::session::{RunFailure, Session, hold};
use super::settings::{BackfillSettings, ExportSettings, FetchSettings, SyncSettings};
use crate::api::Client;
use crate::compact::Compaction;
use crate::counted::counted;
use crate::error::{Error, Kind, Result};
use crate::export::{self, Begin, FlushPolicy, Flushed, Lent, Meanwhile, OnIgnoredFilter, Planned, Run};
use crate::lake::{Governed, Identity, Lake, Lease, RunReport, Suppression, Wanted};
use crate::model::{LakeColumns, PageSize, PartitionBy, Window};
use crate::tables::Tables;

/// How a `sync` compacts.
#[derive(Debug, Clone, Copy)]
struct Compacting {
    /// How long Delta tables keep replaced files.
    retain: Duration,
    /// How many pages a walk fetches between two compactions.
    every_pages: u64,
}

/// What a run fetches.
enum Ask<'a> {
    Changes(&'a ExportSettings),
    Range(&'a BackfillSettings),
}

impl Ask<'_> {
    fn fetch(&self) -> &FetchSettings {
        match self {
            Ask::Changes(settings) => &settings.fetch,
            Ask::Range(settings) => &settings.fetch,
        }
    }

    fn plan(&self, session: &Session) -> Planned {
        let FetchSettings { restart, user_filters, .. } = self.fetch().clone();
        let begin = Begin { restart, user_filters };
        let (state, now) = (session.ledger.state(), session.clock.now());
        match self {
            Ask::Changes(settings) => begin.export(settings.overlap, state, now),
            Ask::Range(settings) => {
                let (from, to) = (Some(settings.from), Some(settings.to));
                begin.backfill(Window { filter: settings.timestamp_filter, from, to }, state, now)
            }
        }
    }

    fn on_ignored_filter(&self) -> OnIgnoredFilter {
        match self {
            Ask::Changes(settings) => settings.on_ignored_filter,
            Ask::Range(_) => OnIgnoredFilter::Fail,
        }
    }
}

/// Fetches the changes since the last export, the first time the whole history, and stages them.
///
/// # Errors
/// Kind `Api` or `Unreachable` if the API fails, `Store` if the store fails, `Integrity` if entries were quarantined,
/// `Held` if another run holds the lake, `Usage` if the lake belongs to another account, `Interrupted` after a
/// shutdown. Pages that were committed before stay.
pub async fn export(lake: &Lake, client: &mut Client, settings: &ExportSettings) -> Result<RunReport, RunFailure> {
    fetch(lake, client, "export", &Ask::Changes(settings), None).await
}

/// Fetches the conversations of a range of time and stages them; the state of the incremental export stays the same.
///
/// # Errors
/// As [`export()`]; kind `Usage` if the range is empty.
pub async fn backfill(lake: &Lake, client: &mut Client, settings: &BackfillSettings) -> Result<RunReport, RunFailure> {
    check_range(settings.from, settings.to)?;
    fetch(lake, client, "backfill", &Ask::Range(settings), None).await
}

/// Exports the changes, then compacts; schedules run this. Compacts the staged files even if the API fails or entries
/// were quarantined.
///
/// ```no_run
/// # use decagon_lake::{api, clock::Clock, error::Result, lake::Lake, run, store::StoreOptions};
/// # async fn hourly() -> Result<()> {
/// let clock = Clock::system();
/// let lake = Lake::open("s3://bucket/decagon", &StoreOptions::default(), clock)?;
/// let key = api::ApiKey::new("the-api-key", "the program")?;
/// let mut client = api::Client::new(api::Options::new(key)?, clock)?;
/// let report = run::sync(&lake, &mut client, &run::SyncSettings::default()).await?;
/// println!("{} pages, watermark {:?}", report.pages, report.watermark);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`export()`], and those of a compaction.
pub async fn sync(lake: &Lake, client: &mut Client, settings: &SyncSettings) -> Result<RunReport, RunFailure> {
    let compacting = Compacting { retain: settings.retain, every_pages: settings.compact_every_pages };
    fetch(lake, client, "sync", &Ask::Changes(&settings.export), Some(compacting)).await
}

/// # Errors
/// Kind `Usage` if the range is empty.
pub(crate) fn check_range(from: DateTime<Utc>, to: DateTime<Utc>) -> Result<()> {
    if from < to {
        return Ok(());
    }
    Err(Error::usage(format!("--from {from} is not before --to {to}"))
        .with_hint("the range is from --from up to, but without, --to"))
}

/// Boxed, so that its code is built with this crate, and not again with each program that calls it; and so that it can
/// move between threads.
fn fetch<'a>(
    lake: &'a Lake,
    client: &'a mut Client,
    command: &'static str,
    ask: &'a Ask<'a>,
    compacting: Option<Compacting>,
) -> BoxFuture<'a, Result<RunReport, RunFailure>> {
    Box::pin(fetch_as(lake, client, command, ask, compacting))
}

async fn fetch_as(
    lake: &Lake,
    client: &mut Client,
    command: &'static str,
    ask: &Ask<'_>,
    compacting: Option<Compacting>,
) -> Result<RunReport, RunFailure> {
    let FetchSettings { control, history, .. } = ask.fetch();
    let work = async |session: &mut Session| {
        session.key = Some(client.key().clone());
        session.policy_key = ask.fetch().policy_key.clone();
        let exported = session.export(ask, compacting, client).await;
        match (exported, compacting) {
            (Ok(()), Some(compacting)) => session.compact(compacting.retain).await,
            (Err(error), Some(compacting)) if session.report.admitted && is_of_the_api(error.kind()) => {
                if let Err(also) = session.compact(compacting.retain).await {
                    tracing::warn!("{}", also.chain().join(": "));
                }
                Err(error)
            }
            (exported, _) => exported,
        }
    };
    hold(lake, command, control, *history, work).await
}

/// Whether the API or its responses caused a failure, so that staged files can still be compacted.
fn is_of_the_api(kind: Kind) -> bool {
    matches!(kind, Kind::Api | Kind::Unreachable | Kind::Integrity)
}

impl Session {
    /// Fetches and stages the conversations of `ask`; with `compacting`, also compacts during a long walk.
    async fn export(&mut self, ask: &Ask<'_>, compacting: Option<Compacting>, client: &mut Client) -> Result<()> {
        let FetchSettings { user_filters, format, partition_by, metadata_columns, policy, policy_key, .. } =
            ask.fetch();
        format.map_or(Ok(()), Tables::check)?;
        let base_url = client.base_url().trim_end_matches('/').to_owned();
        let (user_filters, format, partition_by) = (user_filters.as_ref(), *format, *partition_by);
        let governed = Governed { policy: policy.as_ref(), key: policy_key.as_ref() };
        let wanted = Wanted { base_url: &base_url, user_filters, format, partition_by, metadata_columns, governed };
        let (found, is_new) = (self.found.take(), self.ledger.is_new());
        let identity = self.lake.claim(found, wanted, is_new, self.clock.now()).await?;
        if self.policies_of(&identity)?.is_some() {
            client.hide_quotes();
        }
        let before = self.identity.as_ref().and_then(Identity::policy_hash);
        if !is_new && before != identity.policy_hash() {
            tracing::warn!(
                "the policy is new to this lake: it covers what is fetched from now on; run `upgrade` to apply it to \
                 what the lake holds already"
            );
        }
        let (partition_by, columns) = (identity.partition_by, identity.columns());
        self.identity = Some(identity);
        self.report.admitted = true;
        self.sweep().await?;
        let planned = ask.plan(self);
        log_plan(&planned);
        if let Some(last_request_at) = self.last_request_at {
            client.follow(last_request_at);
        }
        let result = self.walk(ask, &columns, compacting, client, partition_by, planned).await;
        self.control.progress.send_replace(None);
        result
    }

    /// Does the planned walk; with `compacting`, also compacts on its way.
    async fn walk(
        &mut self,
        ask: &Ask<'_>,
        columns: &LakeColumns,
        compacting: Option<Compacting>,
        client: &mut Client,
        partition_by: PartitionBy,
        planned: Planned,
    ) -> Result<()> {
        let FetchSettings { flush, on_bad_record, page_size, .. } = ask.fetch();
        *client.page_size() = PageSize::new(*page_size, self.ledger.state().page_size, self.clock.now());
        let identity = self.identity.clone().filter(|_| compacting.is_some());
        let tables = identity.map(|identity| self.tables_of(&identity)).transpose()?;
        let (lake, lease, suppression) = (&self.lake, &self.lease, &self.suppression);
        let mut on_the_way = compacting.zip(tables).map(|(compacting, tables)| OnTheWay {
            compacting,
            lake,
            tables,
            lease,
            suppression,
            pages: 0,
        });
        let every_pages = compacting.map_or(u64::MAX, |it| it.every_pages);
        let run = Run {
            lake,
            partition_by,
            columns,
            suppression,
            ledger: &mut self.ledger,
            client: &mut *client,
            report: &mut self.report,
            policy: FlushPolicy { max_pages: flush.max_pages.min(every_pages), ..*flush },
            on_bad_record: *on_bad_record,
            policies: self.policies.clone(),
            on_ignored_filter: ask.on_ignored_filter(),
            progress: &self.control.progress,
            meanwhile: on_the_way.as_mut().map(|it| it as &mut dyn Meanwhile),
            sieve: None,
            next_file: &mut self.next_file,
            clock: self.clock,
            shutdown: lease.stop(),
        };
        let walked = export::run(run, planned).await;
        self.last_request_at = client.tally().last_request_at.max(self.last_request_at);
        walked
    }
}

/// Compacts while a walk goes on, so that little is left at its end: now and then everything, so that staged files stay
/// few and the first tables of a large account exist early; besides, each partition that a first walk is done with,
/// which costs hardly more than later, because few of its conversations still change.
struct OnTheWay<'a> {
    compacting: Compacting,
    lake: &'a Lake,
    tables: Tables,
    lease: &'a Arc<Lease>,
    suppression: &'a Arc<Suppression>,
    /// The pages since everything was compacted.
    pages: u64,
}

#[async_trait]
impl Meanwhile for OnTheWay<'_> {
    async fn after_flush(&mut self, run: Lent<'_>, flushed: Flushed<'_>) -> Result<()> {
        self.pages = self.pages.saturating_add(flushed.pages);
        let OnTheWay { compacting: Compacting { retain, every_pages }, lake, tables, lease, suppression, .. } = self;
        let Lent { ledger, report, next_file } = run;
        let is_due = self.pages >= *every_pages;
        let mut settled = std::mem::take(flushed.settled);
        if tables.are_delta() {
            // A commit for each flush would fill the log that every reader and writer has to read.
            settled.clear();
        }
        if !is_due && settled.is_empty() {
            return Ok(());
        }
        let retain = *retain;
        let compaction =
            Compaction { lake, tables, lease, ledger: &mut *ledger, report, next_file, suppression, retain };
        let done = if is_due { compaction.run().await } else { compaction.run_on(&settled).await };
        if is_due {
            self.pages = 0;
        }
        if is_due && done.is_ok() {
            ledger.clean(Vec::new()).await?;
        }
        match done {
            // The last compaction reports damaged files again.
            Err(error) if error.is_of_one_object() => {
                tracing::warn!("{}", error.chain().join(": "));
                Ok(())
            }
            done => done,
        }
    }
}

fn log_plan(planned: &Planned) {
    let Window { from, to, .. } = planned.walk.request.window;
    let what = match (from, to) {
        (Some(from), None) => format!("changes since {}", from.format("%Y-%m-%d %H:%M:%S")),
        _ => planned.walk.request.window.describe().unwrap_or_else(|| "the whole history".to_owned()),
    };
    match planned.resumed {
        true => tracing::info!("continuing to fetch {what}, after {}", counted(planned.walk.pages, "page")),
        false => tracing::info!("fetching {what}"),
    }
}
