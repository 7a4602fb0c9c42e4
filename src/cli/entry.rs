//! From the process's arguments to its exit code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::MultiProgress;
use tracing::Level;

use super::args::{Cli, Command, PolicyCommand};
#[cfg(feature = "simulate")]
use super::demo;
use super::runs::{self, Context};
use super::{commands, generate, logging, metrics, output, policy, report, shutdown};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::lake::RunReport;

/// How many threads do what must not block the async ones. Of the program's own tasks at most six hold one at a time
/// (three stages of an export; four partitions in memory and two streamed ones of a compaction or verification; four
/// footers of a status); the rest is for local disks. 16 threads made a sync no faster, and it took more memory.
const BLOCKING_THREADS: usize = 8;

/// How long threads may take to end once all is said and done.
const THREADS_MAY_TAKE: Duration = Duration::from_secs(1);

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
    // The panic hook has printed the panic by then; schedulers read the exit code.
    let result = catch_unwind(AssertUnwindSafe(|| run(&cli, clock, bars, &report)))
        .unwrap_or_else(|_| Err(Error::bug("internal error (see the panic message above)")));
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
        let context = Context { clock, shutdown, bars, quiet: cli.quiet, log_format: cli.log_format, report };
        match &cli.command {
            Command::Sync(args) => runs::sync(args, &context).await,
            Command::Export(args) => runs::export(args, &context).await,
            Command::Backfill(args) => runs::backfill(args, &context).await,
            Command::Compact(args) => runs::compact(args, &context).await,
            Command::Forget(args) => runs::forget(args, &context).await,
            Command::Upgrade(args) => runs::upgrade(args, &context).await,
            Command::Reconcile(args) => runs::reconcile(args, &context).await,
            Command::Status(args) => commands::status(args, &context).await,
            Command::Report(args) => report::run(args, &context).await,
            Command::Verify(args) => commands::verify(args, &context).await,
            Command::Views(args) => commands::views(args, &context).await,
            Command::Check(args) => commands::check(args, &context).await,
            Command::Policy(PolicyCommand::Test(args)) => policy::test(args),
            #[cfg(feature = "simulate")]
            Command::Simulate(args) => demo::simulate(args, &context).await,
            #[cfg(feature = "simulate")]
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
