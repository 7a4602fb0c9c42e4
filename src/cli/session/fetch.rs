//! A run that fetches: what `export`, `backfill` and `sync` do, a `sync` with compactions in between.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::{Context, Session, client_options};
use crate::api::Client;
use crate::cli::args::{BackfillArgs, ExportArgs, FetchArgs, FlushArgs, SyncArgs};
use crate::cli::progress;
use crate::error::{Error, Kind, Result};
use crate::export::{self, Begin, FlushPolicy, Memory, OnIgnoredFilter, Planned, Progress, Reached, Run};
use crate::lake::{Lake, Ledger, RunReport, Wanted};
use crate::model::Window;

/// How a `sync` compacts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compacting {
    /// For how long Delta tables keep what was replaced.
    pub(super) retain: Duration,
    /// After how many pages of a long walk what is there so far is compacted.
    pub(super) every_pages: u64,
}

/// What an export command asks for.
pub(in crate::cli) enum Ask<'a> {
    Changes(&'a ExportArgs),
    Range(&'a BackfillArgs),
}

impl Ask<'_> {
    fn fetch(&self) -> &FetchArgs {
        match self {
            Ask::Changes(args) => &args.fetch,
            Ask::Range(args) => &args.fetch,
        }
    }

    /// # Errors
    /// Where a range has no length.
    fn check(&self) -> Result<()> {
        match self {
            Ask::Range(args) if args.from >= args.to => {
                Err(Error::usage(format!("--from {} is not before --to {}", args.from, args.to))
                    .with_hint("the range is from --from up to, but without, --to"))
            }
            _ => Ok(()),
        }
    }

    fn plan(&self, ledger: &Ledger, now: DateTime<Utc>) -> Planned {
        let FetchArgs { restart, api, .. } = self.fetch();
        let begin = Begin { restart: *restart, page_size: api.page_size, user_filters: api.user_filters.clone() };
        match self {
            Ask::Changes(args) => begin.export(args.overlap, ledger.state(), now),
            Ask::Range(args) => {
                let window = Window { filter: args.timestamp_filter, from: Some(args.from), to: Some(args.to) };
                begin.backfill(window, ledger.state(), now)
            }
        }
    }

    fn on_ignored_filter(&self) -> OnIgnoredFilter {
        match self {
            Ask::Changes(args) => args.on_ignored_filter,
            Ask::Range(_) => OnIgnoredFilter::Fail,
        }
    }
}

impl Session {
    /// Fetches and lands what is asked for; where it is `compacting`, a part of a long walk after the other.
    async fn export(&mut self, ask: &Ask<'_>, compacting: Option<Compacting>, client: &mut Client) -> Result<()> {
        let context = self.context.clone();
        let FetchArgs { api, flush, on_bad_record, format, .. } = ask.fetch();
        let base_url = api.base_url.as_str().trim_end_matches('/');
        let wanted = Wanted { base_url, user_filters: api.user_filters.as_ref(), format: *format };
        self.lake.claim(wanted, self.ledger.is_new(), context.clock.now()).await?;
        self.admitted = true;
        self.sweep().await?;
        let mut planned = ask.plan(&self.ledger, context.clock.now());
        tell_plan(&planned);
        if let Some(last_request_at) = self.last_request_at {
            client.follow(last_request_at);
        }

        let (sender, receiver) = watch::channel(Progress::new(planned.walk.request.window, context.clock.now()));
        let showing = tokio::spawn(progress::show(receiver, context.bars.clone(), context.quiet, context.clock));
        let mut memory = Memory::default();
        let result = loop {
            let run = Run {
                lake: &self.lake,
                ledger: &mut self.ledger,
                client: &mut *client,
                report: &mut self.report,
                policy: flush_policy(flush),
                on_bad_record: *on_bad_record,
                on_ignored_filter: ask.on_ignored_filter(),
                progress: &sender,
                memory: &mut memory,
                next_file: &mut self.next_file,
                pause_after: compacting.map_or(u64::MAX, |it| it.every_pages),
                clock: context.clock,
                shutdown: self.lease.stop(),
            };
            let reached = export::run(run, planned).await;
            self.last_request_at = client.tally().last_request_at.max(self.last_request_at);
            let (Ok(Reached::Pause), Some(Compacting { retain, .. })) = (&reached, compacting) else {
                break reached.map(drop);
            };
            if let Err(error) = self.compact_in_between(retain).await {
                break Err(error);
            }
            planned = match Begin::rest(self.ledger.state()) {
                Some(rest) => rest,
                None => break Err(Error::bug("a walk that has paused is not on record")),
            };
        };
        drop(sender);
        // The progress line has to be gone before anything else is said.
        let _ = showing.await;
        result
    }

    /// Compacts what is landed while the walk is not at its end. What is damaged there is told again at the end, and no
    /// reason not to go on.
    async fn compact_in_between(&mut self, retain: Duration) -> Result<()> {
        match self.compact(retain).await {
            Err(error) if error.is_of_one_object() => {
                tracing::warn!("{}", error.chain().join(": "));
                Ok(())
            }
            done => done,
        }
    }
}

/// `export`.
pub(in crate::cli) async fn export(args: &ExportArgs, context: &Context) -> Result<RunReport> {
    fetch("export", &Ask::Changes(args), None, context).await
}

/// `backfill`.
pub(in crate::cli) async fn backfill(args: &BackfillArgs, context: &Context) -> Result<RunReport> {
    fetch("backfill", &Ask::Range(args), None, context).await
}

/// `sync`: export, then compact.
pub(in crate::cli) async fn sync(args: &SyncArgs, context: &Context) -> Result<RunReport> {
    let compacting = Compacting { retain: args.keep.retain()?, every_pages: args.compact_every };
    fetch("sync", &Ask::Changes(&args.export), Some(compacting), context).await
}

async fn fetch(
    command: &'static str,
    ask: &Ask<'_>,
    compacting: Option<Compacting>,
    context: &Context,
) -> Result<RunReport> {
    let context = &Context { history: ask.fetch().history.history(), ..context.clone() };
    fetch_into(ask.fetch().to.open(context.clock)?, command, ask, compacting, context).await
}

/// Fetches, and where it is `compacting`, compacts what was landed: also after an export that has failed because of the API,
/// or of what it sent, as what is landed stays so.
pub(super) async fn fetch_into(
    lake: Lake,
    command: &'static str,
    ask: &Ask<'_>,
    compacting: Option<Compacting>,
    context: &Context,
) -> Result<RunReport> {
    // Everything that the user may have got wrong is looked at before the lake is touched.
    ask.check()?;
    let mut client = Client::new(client_options(&ask.fetch().api)?, context.clock)?;
    let mut session = Session::open(context, command, lake).await?;
    let exported = session.export(ask, compacting, &mut client).await;
    let result = match (exported, compacting) {
        (Ok(()), Some(compacting)) => session.compact(compacting.retain).await,
        (Err(error), Some(compacting)) if session.admitted && is_of_the_api(error.kind()) => {
            if let Err(also) = session.compact(compacting.retain).await {
                tracing::warn!("{}", also.chain().join(": "));
            }
            Err(error)
        }
        (exported, _) => exported,
    };
    session.end(result, ask.fetch().to.json).await
}

/// Whether a failure is one of the API, or of what it sent: what is landed can be compacted all the same.
fn is_of_the_api(kind: Kind) -> bool {
    matches!(kind, Kind::Api | Kind::Unreachable | Kind::Integrity)
}

fn flush_policy(args: &FlushArgs) -> FlushPolicy {
    FlushPolicy {
        max_conversations: args.flush_conversations,
        max_bytes: args.flush_bytes.as_u64(),
        max_age: args.flush_interval,
    }
}

fn tell_plan(planned: &Planned) {
    let Window { from, to, .. } = planned.walk.request.window;
    let what = match (from, to) {
        (Some(from), None) => format!("what changed since {}", from.format("%Y-%m-%d %H:%M:%S")),
        _ => planned.walk.request.window.told().unwrap_or_else(|| "the whole history".to_owned()),
    };
    match planned.resumed {
        true => tracing::info!("going on with {what}, after {} pages", planned.walk.pages),
        false => tracing::info!("fetching {what}"),
    }
}
