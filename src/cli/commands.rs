//! The commands that read, or check: each does its work through the library, and prints the result.

use std::io::IsTerminal;
use std::time::Duration;

use super::args::{CheckArgs, StatusArgs, VerifyArgs, ViewsArgs};
use super::following::{Following, RunProgress};
use super::runs::Context;
use super::{logging, output, screen};
use crate::api::Client;
use crate::check::CheckOutcome;
use crate::counted::counted;
use crate::error::{Error, Kind, Result};
use crate::files::current_form;
use crate::lake::{Lake, Ledger};
use crate::model::{PageSize, RunId, Table};
use crate::run;
use crate::status::{RecentDay, Situation, Status, follow, recent_days, situation};
use crate::tables::Tables;
use crate::views::TableFiles;

/// How often a check tries again what fails.
const CHECK_RETRIES: usize = 2;
/// The same of the store. The pauses add up to more than a second, which some stores want between two writes of an
/// object.
const CHECK_STORE_RETRIES: usize = 6;

/// How often `status --watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

pub(super) async fn status(args: &StatusArgs, context: &Context) -> Result<()> {
    let lake = args.of.open(context.clock)?;
    if args.watch {
        watch(&lake, args.of.json, context).await?;
    }
    if args.of.json {
        let status = crate::status::status(&lake, context.clock.now()).await?;
        return print_status(&status);
    }
    let situation = situation(&lake).await?;
    screen::show(&situation, &days(&lake, &situation).await);
    Ok(())
}

fn print_status(status: &Status) -> Result<()> {
    let json = serde_json::to_string(status);
    output::line(&json.map_err(|error| Error::bug("cannot write the status").caused_by(error))?);
    Ok(())
}

/// The last days, which only a terminal shows. Without them the rest is worth showing all the same.
async fn days(lake: &Lake, situation: &Situation) -> Vec<RecentDay> {
    let status = &situation.status;
    let newest = status.tables.get(Table::Conversations).last_date;
    let last = status.exported_at.map(|at| at.date_naive()).or(newest);
    let Some(last) = last.filter(|_| std::io::stdout().is_terminal()) else { return Vec::new() };
    recent_days(lake, last).await.unwrap_or_else(|error| {
        tracing::warn!("cannot count the conversations of the last days: {}", error.chain().join(": "));
        Vec::new()
    })
}

/// Follows the run in progress.
async fn watch(lake: &Lake, json: bool, context: &Context) -> Result<()> {
    let mut seen = None;
    let shown = Following::new(context);
    let show = |now: &Situation| {
        let progress = RunProgress::of(now);
        if seen.as_ref() != Some(&progress) && json {
            print_status(&now.status)?;
        }
        if !json {
            shown.show(&progress, seen.as_ref() != Some(&progress));
        }
        seen = Some(progress);
        Ok(())
    };
    let result = follow(lake, WATCH_INTERVAL, &context.shutdown, show).await;
    shown.clear();
    let after = result?;
    match (seen.as_ref().and_then(RunProgress::holder), after.last_run) {
        (None, _) => tracing::info!("no run is in progress"),
        (Some(holder), Some(run)) if run.run_id == holder.run_id.as_str() => {
            tracing::info!("`{}` has ended: {}", run.command, run.words());
        }
        (Some(holder), _) => tracing::warn!("`{}` has ended without a report; it may have been killed", holder.command),
    }
    Ok(())
}

pub(super) async fn views(args: &ViewsArgs, context: &Context) -> Result<()> {
    let lake = Lake::open(&args.lake, &args.store.options(), context.clock)?;
    let file = lake.existing().await?;
    let ledger = Ledger::load(lake.store()).await?;
    let (objects, _) = Tables::of(lake.store(), &file)?.files(Table::Conversations).await?;
    let newest = current_form(&file.columns());
    let files = match &ledger.state().manifest {
        _ if objects.is_empty() => TableFiles::None,
        Some(manifest) if manifest.older_than(newest) == 0 => TableFiles::Alike,
        _ => TableFiles::Mixed,
    };
    output::line(crate::views::statements(lake.url(), args.engine, &file, files)?.trim_end());
    Ok(())
}

pub(super) async fn verify(args: &VerifyArgs, context: &Context) -> Result<()> {
    let lake = args.of.open(context.clock)?;
    let found = if args.repair {
        run::repair(&lake, &context.control()).await?
    } else {
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => return Err(Error::new(Kind::Interrupted, "interrupted")),
            found = crate::verify::verify(&lake, context.clock) => found?,
        }
    };
    if args.of.json {
        let json = serde_json::to_string(&found);
        output::line(&json.map_err(|error| Error::bug("cannot write what was verified").caused_by(error))?);
    } else {
        output::verification(&found);
    }
    match found.problems() {
        0 => Ok(()),
        count => {
            let problems = counted(count, "problem");
            Err(Error::integrity(format!("verification failed: {problems} in {}", found.lake))
                .with_hint(output::remedy(&found)))
        }
    }
}

pub(super) async fn check(args: &CheckArgs, context: &Context) -> Result<()> {
    // A check retries less than a run, because somebody waits for its result.
    let mut options = args.of.store.options();
    options.retries = options.retries.min(CHECK_STORE_RETRIES);
    let lake = Lake::open(&args.of.lake, &options, context.clock)?;
    let client = args.api.options().and_then(|mut options| {
        options.retry.max_tries = options.retry.max_tries.min(CHECK_RETRIES + 1);
        let mut client = Client::new(options, context.clock)?;
        *client.page_size() = PageSize::new(args.api.page_size, None, context.clock.now());
        Ok(client)
    });
    let run = RunId::new(context.clock.now(), fastrand::u32(..));
    let checked = crate::check::check(&lake, client, run, &context.shutdown).await?;
    if args.of.json {
        let json = serde_json::to_string(&checked);
        let json = json.map_err(|error| Error::bug("cannot write what was checked").caused_by(error))?;
        output::line(&logging::without_secrets(&json));
    } else {
        output::checked(&lake, &args.api.base_url, &checked);
        if checked.iter().all(|checked| matches!(checked.outcome, CheckOutcome::Ok)) {
            // Whether files can be read is for `verify` to say.
            match crate::check::partitions(&lake).await {
                Ok(found) => output::partitions(found),
                Err(error) => tracing::warn!("cannot say which partitions suit the lake: {}", error.chain().join(": ")),
            }
        }
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
