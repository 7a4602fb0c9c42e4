//! The commands that write: their runs are followed, and their reports shown.

use std::sync::{Arc, OnceLock};

use indicatif::MultiProgress;
use tokio_util::sync::CancellationToken;

use super::args::{
    BackfillArgs, CompactArgs, ExportArgs, FetchArgs, ForgetArgs, LogFormat, ReconcileArgs, SyncArgs, UpgradeArgs,
};
use super::{output, progress, receipts, summary};
use crate::api::Client;
use crate::clock::Clock;
use crate::error::Result;
use crate::lake::{Lake, RunReport};
use crate::run::{self, Control, RunFailure};

/// What every command works with.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) clock: Clock,
    pub(super) shutdown: CancellationToken,
    pub(super) bars: MultiProgress,
    pub(super) quiet: bool,
    pub(super) log_format: LogFormat,
    /// The report of this process's run, for readers after its end.
    pub(super) report: Arc<OnceLock<RunReport>>,
}

impl Context {
    pub(super) fn control(&self) -> Control {
        Control { shutdown: self.shutdown.clone(), ..Control::default() }
    }
}

/// `sync`.
pub(super) async fn sync(args: &SyncArgs, context: &Context) -> Result<()> {
    let control = context.control();
    let settings = args.settings(&control)?;
    let (lake, mut client) = ends(&args.export.fetch, context)?;
    let json = args.export.fetch.to.json;
    follow(control, run::sync(&lake, &mut client, &settings), json, context).await.map(drop)
}

/// `export`.
pub(super) async fn export(args: &ExportArgs, context: &Context) -> Result<()> {
    let control = context.control();
    let settings = args.settings(&control)?;
    let (lake, mut client) = ends(&args.fetch, context)?;
    follow(control, run::export(&lake, &mut client, &settings), args.fetch.to.json, context).await.map(drop)
}

/// `backfill`.
pub(super) async fn backfill(args: &BackfillArgs, context: &Context) -> Result<()> {
    let control = context.control();
    let settings = args.settings(&control)?;
    // What the user may have got wrong is looked at before the key is read.
    run::check_range(settings.from, settings.to)?;
    let (lake, mut client) = ends(&args.fetch, context)?;
    follow(control, run::backfill(&lake, &mut client, &settings), args.fetch.to.json, context).await.map(drop)
}

/// `compact`.
pub(super) async fn compact(args: &CompactArgs, context: &Context) -> Result<()> {
    let control = context.control();
    let lake = args.of.open(context.clock)?;
    let settings = args.settings(&control)?;
    follow(control, run::compact(&lake, &settings), args.of.json, context).await.map(drop)
}

/// `upgrade`.
pub(super) async fn upgrade(args: &UpgradeArgs, context: &Context) -> Result<()> {
    let control = context.control();
    let of = &args.compact.of;
    let lake = of.open(context.clock)?;
    let settings = args.settings(&control)?;
    follow(control, run::upgrade(&lake, &settings), of.json, context).await.map(drop)
}

/// `forget`.
pub(super) async fn forget(args: &ForgetArgs, context: &Context) -> Result<()> {
    let of = &args.compact.of;
    let lake = of.open(context.clock)?;
    let settings = args.settings(&context.control())?;
    let (receipt, report) = match run::forget(&lake, &settings).await {
        Ok(forgotten) => forgotten,
        Err(RunFailure { error, report }) => {
            report.into_iter().for_each(|report| drop(context.report.set(*report)));
            return Err(error);
        }
    };
    report.into_iter().for_each(|report| drop(context.report.set(report)));
    if of.json {
        output::line(&receipt.to_json()?);
    } else {
        receipts::print(&receipt);
    }
    Ok(())
}

/// `reconcile`.
pub(super) async fn reconcile(args: &ReconcileArgs, context: &Context) -> Result<()> {
    let control = context.control();
    let settings = args.settings(&control)?;
    if let (Some(from), Some(to)) = (settings.from, settings.to) {
        run::check_range(from, to)?;
    }
    let lake = args.of.open(context.clock)?;
    let mut client = Client::new(args.api.options()?, context.clock)?;
    follow(control, run::reconcile(&lake, &mut client, &settings), args.of.json, context).await.map(drop)
}

/// The lake and the API of a command that fetches.
fn ends(args: &FetchArgs, context: &Context) -> Result<(Lake, Client)> {
    let lake = args.to.open(context.clock)?;
    Ok((lake, Client::new(args.api.options()?, context.clock)?))
}

/// Shows the progress of a run, and its report once it has ended.
pub(super) async fn follow(
    control: Control,
    run: impl Future<Output = Result<RunReport, RunFailure>>,
    json: bool,
    context: &Context,
) -> Result<RunReport> {
    let ended = CancellationToken::new();
    let receiver = control.progress.subscribe();
    let showing = progress::show(receiver, ended.clone(), context.bars.clone(), context.quiet, context.clock);
    let showing = tokio::spawn(showing);
    let result = run.await;
    // The progress line has to be gone before anything else is printed.
    ended.cancel();
    let _ = showing.await;
    let (report, result) = match result {
        Ok(report) => (report, Ok(())),
        Err(RunFailure { error, report: Some(report) }) => (*report, Err(error)),
        Err(RunFailure { error, report: None }) => return Err(error),
    };
    if report.admitted {
        summary::log(&report, context.log_format);
        if json {
            output::line(&report.to_json()?);
        }
    }
    // A demo has several, and nothing asks.
    let _ = context.report.set(report.clone());
    result.map(|()| report)
}
