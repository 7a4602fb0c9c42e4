//! One run of a command that writes: the lake, the API, the report, and what is told at the end.

use chrono::{DateTime, Utc};
use indicatif::MultiProgress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::args::{ApiArgs, BackfillArgs, ExportArgs, FetchArgs, FlushArgs, LakeArgs};
use super::{output, progress};
use crate::api::{ApiKey, Client, Options, RetryPolicy};
use crate::clock::Clock;
use crate::compact::Compaction;
use crate::error::{Error, Kind, Result};
use crate::export::{self, Begin, FlushPolicy, Planned, Progress, Run};
use crate::lake::{Lake, Ledger, RunReport};
use crate::model::{RunId, Window};

/// The environment variable that holds the API key. Never a flag: it would show in the list of processes.
const API_KEY: &str = "DECAGON_API_KEY";

/// What every command works with.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) clock: Clock,
    pub(super) shutdown: CancellationToken,
    pub(super) bars: MultiProgress,
    pub(super) quiet: bool,
}

/// A run of a command that writes to a lake.
pub(super) struct Session {
    context: Context,
    lake: Lake,
    ledger: Ledger,
    report: RunReport,
    /// Whether the run is one of this lake: until then it leaves nothing there.
    admitted: bool,
}

/// What an export command asks for.
pub(super) enum Ask<'a> {
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
    fn plan(&self, ledger: &Ledger, now: DateTime<Utc>) -> Result<Planned> {
        let FetchArgs { restart, api, .. } = self.fetch();
        let begin = Begin { restart: *restart, page_size: api.page_size, user_filters: api.user_filters.clone() };
        match self {
            Ask::Changes(args) => Ok(begin.export(args.overlap, ledger.state(), now)),
            Ask::Range(args) if args.from < args.to => {
                let window = Window { filter: args.timestamp_filter, from: Some(args.from), to: Some(args.to) };
                Ok(begin.backfill(window, ledger.state(), now))
            }
            Ask::Range(args) => Err(Error::usage(format!("--from {} is not before --to {}", args.from, args.to))
                .with_hint("the range is from --from up to, but without, --to")),
        }
    }
}

impl Session {
    async fn open(context: &Context, command: &'static str, lake: &str) -> Result<Self> {
        let lake = Lake::open(lake)?;
        let now = context.clock.now();
        let run_id = RunId::new(now, fastrand::u32(..));
        let ledger = Ledger::load(&lake).await?;
        Ok(Session {
            context: context.clone(),
            lake,
            ledger,
            report: RunReport::new(command, run_id, now),
            admitted: false,
        })
    }

    /// Fetches and lands what is asked for.
    async fn export(&mut self, ask: &Ask<'_>) -> Result<()> {
        let context = &self.context;
        // Everything that the user may have got wrong is looked at before the lake is touched.
        let FetchArgs { api, flush, .. } = ask.fetch();
        let mut client = Client::new(client_options(api)?, context.clock)?;
        let planned = ask.plan(&self.ledger, context.clock.now())?;
        let base_url = api.base_url.as_str().trim_end_matches('/');
        let filters = api.user_filters.as_ref();
        self.lake.claim(base_url, filters, self.ledger.is_new(), context.clock.now()).await?;
        self.admitted = true;
        tell_plan(&planned);

        let (sender, receiver) = watch::channel(Progress::new(planned.walk.request.window, context.clock.now()));
        let showing = tokio::spawn(progress::show(receiver, context.bars.clone(), context.quiet, context.clock));
        let run = Run {
            lake: &self.lake,
            ledger: &mut self.ledger,
            client: &mut client,
            report: &mut self.report,
            policy: flush_policy(flush),
            progress: sender,
            clock: context.clock,
            shutdown: &context.shutdown,
        };
        let result = export::run(run, planned).await;
        // The progress line has to be gone before anything else is said.
        let _ = showing.await;
        result
    }

    async fn compact(&mut self) -> Result<()> {
        let Session { context, lake, ledger, report, .. } = self;
        Compaction { lake, ledger, report, clock: context.clock, shutdown: &context.shutdown }.run().await
    }

    /// Leaves the report in the lake and tells how the run went.
    async fn end(mut self, result: Result<()>, json: bool) -> Result<RunReport> {
        if !self.admitted {
            return result.map(|()| self.report);
        }
        self.report.end(&result, self.context.clock.now());
        if let Err(error) = self.report.save(&self.lake).await {
            tracing::warn!("{}", error.chain().join(": "));
        }
        output::summary(&self.report);
        if json {
            output::line(&self.report.to_json()?);
        }
        result.map(|()| self.report)
    }
}

/// `export`.
pub(super) async fn export(args: &ExportArgs, context: &Context) -> Result<RunReport> {
    let mut session = Session::open(context, "export", &args.fetch.to.lake).await?;
    let result = session.export(&Ask::Changes(args)).await;
    session.end(result, args.fetch.to.json).await
}

/// `backfill`.
pub(super) async fn backfill(args: &BackfillArgs, context: &Context) -> Result<RunReport> {
    let mut session = Session::open(context, "backfill", &args.fetch.to.lake).await?;
    let result = session.export(&Ask::Range(args)).await;
    session.end(result, args.fetch.to.json).await
}

/// `sync`: export, then compact. Data that was set aside does not keep the rest from the tables.
pub(super) async fn sync(args: &ExportArgs, context: &Context) -> Result<RunReport> {
    let mut session = Session::open(context, "sync", &args.fetch.to.lake).await?;
    let exported = session.export(&Ask::Changes(args)).await;
    let result = match exported {
        Ok(()) => session.compact().await,
        Err(error) if session.report.quarantined > 0 && error.kind() == Kind::Integrity => {
            session.compact().await.and(Err(error))
        }
        Err(error) => Err(error),
    };
    session.end(result, args.fetch.to.json).await
}

/// `compact`.
pub(super) async fn compact(args: &LakeArgs, context: &Context) -> Result<RunReport> {
    let mut session = Session::open(context, "compact", &args.lake).await?;
    session.lake.existing().await?;
    session.admitted = true;
    let result = session.compact().await;
    session.end(result, args.json).await
}

fn client_options(args: &ApiArgs) -> Result<Options> {
    Ok(Options {
        base_url: args.base_url.clone(),
        key: api_key(args)?,
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
    match (&args.key, &args.api_key_file, std::env::var(API_KEY)) {
        (Some(key), _, _) => Ok(key.clone()),
        (None, Some(file), _) => ApiKey::from_file(file),
        (None, None, Ok(text)) => ApiKey::new(&text, API_KEY),
        (None, None, Err(_)) => Err(Error::usage("no API key").with_hint(format!("set {API_KEY} or --api-key-file"))),
    }
}

fn flush_policy(args: &FlushArgs) -> FlushPolicy {
    FlushPolicy {
        max_conversations: args.flush_conversations,
        max_bytes: args.flush_bytes.as_u64(),
        max_age: args.flush_interval,
    }
}

fn tell_plan(planned: &Planned) {
    let Window { filter, from, to } = planned.walk.request.window;
    let what = match (from, to) {
        (None, _) => "the whole history".to_owned(),
        (Some(from), None) => format!("what changed since {}", from.format("%Y-%m-%d %H:%M:%S")),
        (Some(from), Some(to)) => {
            format!(
                "{} from {} to {}",
                filter.as_str(),
                from.format("%Y-%m-%d %H:%M:%S"),
                to.format("%Y-%m-%d %H:%M:%S")
            )
        }
    };
    match planned.resumed {
        true => tracing::info!("going on with {what}, after {} pages", planned.walk.pages),
        false => tracing::info!("fetching {what}"),
    }
}
