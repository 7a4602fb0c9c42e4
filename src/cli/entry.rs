//! From the process's arguments to its exit code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::MultiProgress;
use tracing::Level;

use super::args::{CheckArgs, Cli, Command, LakeArgs, SimulateArgs, VerifyArgs, ViewsArgs};
use super::session::{self, Context};
use super::{demo, generate, logging, metrics, output, shutdown};
use crate::api::Client;
use crate::check::CheckOutcome;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lake::{History, Lake, RunReport};
use crate::model::{RunId, Table};
use crate::simulate::{Disputed, Settings, Simulator, World};
use crate::tables::Tables;
use crate::{check, status, verify, views};

/// How many threads do what must not block the async ones. Of the program's own tasks at most four hold one at a time
/// (three stages of an export, two dates of a compaction or verification, four footers of a status); the rest is for
/// local disks. 16 threads made a sync no faster, and it took more memory.
const BLOCKING_THREADS: usize = 6;

/// How long threads may take to end once all is said and done.
const THREADS_MAY_TAKE: Duration = Duration::from_secs(1);

/// How often a check tries again what fails.
const CHECK_RETRIES: usize = 2;
/// The same of the store. The pauses add up to more than a second, which some stores want between two writes of an object.
const CHECK_STORE_RETRIES: usize = 6;

/// The fastest a simulation goes: a year in half a minute.
const FASTEST: f64 = 1e6;

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let cli = Cli::from_process();
    let bars = MultiProgress::new();
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => Level::WARN,
        (_, true) => Level::DEBUG,
        _ => Level::INFO,
    };
    logging::start(cli.log_format, level, &bars);
    let (clock, report) = (Clock::system(), Arc::default());
    let began_at = clock.now();
    // The panic has been told on stderr by then; the exit code tells schedulers.
    let result = catch_unwind(AssertUnwindSafe(|| run(&cli, clock, bars, &report)))
        .unwrap_or_else(|_| Err(Error::bug("the program came to a halt where it never should")));
    let exit_code = result.as_ref().map_or_else(|error| error.kind().exit_code(), |()| 0);
    metrics::leave(&cli.command, [began_at, clock.now()], exit_code, report.get());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error, cli.log_format);
            ExitCode::from(exit_code)
        }
    }
}

fn run(cli: &Cli, clock: Clock, bars: MultiProgress, report: &Arc<OnceLock<RunReport>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Error::new(Kind::Bug, "cannot start the async runtime").caused_by(error))?;
    let result = runtime.block_on(async {
        let (shutdown, report) = (shutdown::watch(clock), Arc::clone(report));
        let context = Context { clock, shutdown, bars, quiet: cli.quiet, history: History::default(), report };
        match &cli.command {
            Command::Sync(args) => session::sync(args, &context).await.map(drop),
            Command::Export(args) => session::export(args, &context).await.map(drop),
            Command::Backfill(args) => session::backfill(args, &context).await.map(drop),
            Command::Compact(args) => session::compact(args, &context).await.map(drop),
            Command::Status(args) => show_status(args, &context).await,
            Command::Verify(args) => verify(args, &context).await,
            Command::Views(args) => show_views(args, &context).await,
            Command::Check(args) => check(args, &context).await,
            Command::Simulate(args) => simulate(args, &context).await,
            Command::Demo(args) => demo::demo(args, &context).await,
            Command::Completions { shell } => {
                output::line(generate::completions(*shell).trim_end());
                Ok(())
            }
            Command::Man => generate::man().map(|page| output::line(page.trim_end())),
        }
    });
    // A thread that hangs in a disk must not keep the process.
    runtime.shutdown_timeout(THREADS_MAY_TAKE);
    result
}

async fn show_status(args: &LakeArgs, context: &Context) -> Result<()> {
    let lake = args.open(context.clock)?;
    let status = status::status(&lake, context.clock.now()).await?;
    if args.json {
        let json = serde_json::to_string(&status);
        output::line(&json.map_err(|error| Error::bug("cannot write the status").caused_by(error))?);
    } else {
        output::status(&status);
    }
    Ok(())
}

async fn show_views(args: &ViewsArgs, context: &Context) -> Result<()> {
    let lake = Lake::open(&args.lake, &args.store.options(), context.clock)?;
    let file = lake.existing().await?;
    let (objects, _) = Tables::of(lake.store(), &file).objects(Table::Conversations).await?;
    output::line(views::statements(lake.url(), args.engine, file.format, !objects.is_empty())?.trim_end());
    Ok(())
}

async fn verify(args: &VerifyArgs, context: &Context) -> Result<()> {
    let found = if args.repair {
        session::repair(args, context).await?
    } else {
        let lake = args.of.open(context.clock)?;
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => return Err(Error::new(Kind::Interrupted, "interrupted")),
            found = verify::verify(&lake, context.clock) => found?,
        }
    };
    if args.of.json {
        let json = serde_json::to_string(&found);
        output::line(&json.map_err(|error| Error::bug("cannot write what was verified").caused_by(error))?);
    } else {
        output::verification(&found);
    }
    match found.findings() {
        0 => Ok(()),
        findings => {
            Err(Error::integrity(format!("{findings} findings: the lake {} is not what it promises", found.lake))
                .with_hint(output::remedy(&found)))
        }
    }
}

async fn check(args: &CheckArgs, context: &Context) -> Result<()> {
    // Whoever checks sits there and waits.
    let mut options = args.of.store.options();
    options.retries = options.retries.min(CHECK_STORE_RETRIES);
    let lake = Lake::open(&args.of.lake, &options, context.clock)?;
    let client = session::client_options(&args.api).and_then(|mut options| {
        options.retry.max_tries = options.retry.max_tries.min(CHECK_RETRIES + 1);
        Client::new(options, context.clock)
    });
    let run = RunId::new(context.clock.now(), fastrand::u32(..));
    let checked = check::check(&lake, client, run, &context.shutdown).await?;
    if args.of.json {
        let json = serde_json::to_string(&checked);
        let json = json.map_err(|error| Error::bug("cannot write what was checked").caused_by(error))?;
        output::line(&logging::without_secrets(&json));
    } else {
        output::checked(&lake, &args.api.base_url, &checked);
    }
    let failed = || {
        checked.iter().filter_map(|checked| match &checked.outcome {
            CheckOutcome::Failed { kind, .. } => Some(*kind),
            _ => None,
        })
    };
    match failed().next() {
        None => Ok(()),
        Some(kind) => Err(Error::new(kind, format!("{} of {} checks failed", failed().count(), checked.len()))),
    }
}

async fn simulate(args: &SimulateArgs, context: &Context) -> Result<()> {
    let now = args.now.unwrap_or_else(|| context.clock.now());
    let settings = Settings {
        port: args.port,
        key: args.accept_key.clone(),
        requests_per_second: args.requests_per_second,
        speed: args.speed.min(FASTEST),
        fault_every: args.fault_every,
        not_entitled: args.not_entitled,
        disputed: Disputed {
            cursor_name: args.cursor_name,
            default_filter: args.default_filter,
            updated_at: !args.no_updated_at,
            ignores_filter: args.ignore_filter,
        },
    };
    let world = World::new(args.world.settings(now));
    let simulator = Simulator::bind(world, settings, context.clock).await?;
    let url = simulator.url()?;
    output::line(&url);
    tracing::info!(
        "simulating the export API; try DECAGON_API_KEY={} decagon-lake sync --base-url {url} --lake ./lake",
        args.accept_key
    );
    simulator.serve(context.shutdown.clone()).await
}
