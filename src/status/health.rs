//! Whether a lake is healthy, and what to do next.
//!
//! Guarantees: it reads the report of the last run and the lease, besides the status: four calls, whatever the lake's
//! age. Must not depend on: how it is said to people.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::status::{Status, status};
use crate::counted::counted;
use crate::error::Result;
use crate::lake::{Holder, Lake, Lease, Occupancy, PastRun, Support, past_runs};

/// An export that is older makes a lake stale: a daily schedule, and some time to run.
const STALE: TimeDelta = TimeDelta::hours(26);
/// A holder renews its lease every few seconds. One that has not done so for this long has died, or the clocks of two
/// machines differ by as much.
const SILENT: TimeDelta = TimeDelta::minutes(1);

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Somebody should do something about it some time.
    Warn,
    /// Somebody should do something about it now.
    Bad,
}

/// The status of a lake, and what happens to it.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The status.
    pub status: Status,
    /// The last run that has ended, if a report of one is kept.
    pub last_run: Option<PastRun>,
    /// The run that holds the lake.
    pub holder: Option<Holder>,
    /// The run that held it last, if it seems to have died.
    pub dead: Option<Holder>,
    /// When this was read.
    pub at: DateTime<Utc>,
}

/// How a lake is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The worst of everything.
    pub level: Level,
    /// What is wrong and what to do, the worst first; without it, everything is as it should be.
    pub advice: Vec<Advice>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// How bad it is.
    pub level: Level,
    /// What is wrong.
    pub what: String,
    /// What to do about it; empty if there is nothing to do.
    pub next: String,
}

/// Reads the situation of a lake.
///
/// # Errors
/// If there is no lake, or its store fails.
pub async fn situation(lake: &Lake) -> Result<Situation> {
    let at = lake.clock().now();
    let (status, runs, occupancy) =
        tokio::try_join!(status(lake, at), past_runs(lake.store(), 1), Lease::occupancy(lake.store()))?;
    let Occupancy { holder, renewed_at, .. } = occupancy;
    let is_alive = renewed_at.is_none_or(|renewed| at - renewed < SILENT);
    let (holder, dead) = if is_alive { (holder, None) } else { (None, holder) };
    Ok(Situation { status, last_run: runs.into_iter().next(), holder, dead, at })
}

impl Situation {
    /// Says how the lake is.
    pub fn health(&self) -> Health {
        let mut advice = Vec::new();
        let mut say = |level, what: String, next: &str| advice.push(Advice { level, what, next: next.to_owned() });
        let Situation { status, last_run, holder, dead, at } = self;
        if let Some(Holder { command, host, .. }) = dead {
            let what = format!(
                "`{command}` on {host} has not renewed its lease for more than a minute: it seems to have died"
            );
            say(Level::Warn, what, "run it again; the next run continues");
        }
        if let Some(run) = last_run.as_ref().filter(|run| !run.is_done() && holder.is_none()) {
            let code = run.exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
            let error = run.error.join(": ");
            let why = if error.is_empty() { error } else { format!(": {error}") };
            if run.outcome == "interrupted" {
                let what = format!("the last run of `{}` was interrupted", run.command);
                say(Level::Warn, what, "run it again; it continues");
            } else {
                say(Level::Bad, format!("the last run of `{}` failed{code}{why}", run.command), after(run.exit_code));
            }
        }
        if let Some(problems @ 1..) = last_run.as_ref().and_then(|run| run.problems) {
            let problems = counted(problems, "problem");
            let next = "run `decagon-lake verify`, which lists them with what to do";
            say(Level::Bad, format!("the last `verify --repair` has left {problems}"), next);
        }
        if status.timestamp_filter == Some(Support::Ignored) {
            let next = "sync with --on-ignored-filter full";
            say(Level::Bad, "the API ignores timestamp_filter, which increments need".to_owned(), next);
        }
        if status.unfinished_forget {
            say(Level::Bad, "an erasure is not complete".to_owned(), "run `decagon-lake forget`");
        }
        match status.exported_at {
            None if holder.is_none() => {
                say(Level::Warn, "no export is complete yet".to_owned(), "run `decagon-lake sync`");
            }
            Some(exported) if *at - exported > STALE && holder.is_none() => {
                say(Level::Warn, "no export was complete for more than a day".to_owned(), "run `decagon-lake sync`");
            }
            _ => {}
        }
        for walk in status.unfinished.iter().filter(|walk| holder.is_none() && walk.command != "export") {
            let next = format!("run `decagon-lake {}`", walk.resume());
            say(Level::Warn, format!("a {} is not finished", walk.command), &next);
        }
        if status.staging.files > 0 && holder.is_none() {
            let staged = counted(status.staging.dates, "partition");
            say(Level::Warn, format!("staged files of {staged} wait for compaction"), "run `decagon-lake compact`");
        }
        if status.earlier_policy_partitions > Some(0) {
            let next = "run `decagon-lake upgrade`";
            say(Level::Warn, "older partitions may not follow the policy".to_owned(), next);
        } else if status.older_partitions > 0 {
            let older = counted(status.older_partitions, "partition");
            let next = "run `decagon-lake upgrade` when it suits you";
            say(Level::Ok, format!("the files of {older} lack newer columns"), next);
        }
        if let Some(run) = last_run.as_ref().filter(|run| run.outcome == "set_aside") {
            let entries = counted(run.quarantined, "malformed entry");
            let next = format!("see {}/_state/quarantine/", status.lake);
            say(Level::Warn, format!("{entries} quarantined by the last run"), &next);
        }
        advice.sort_by_key(|advice| std::cmp::Reverse(advice.level));
        Health { level: advice.first().map_or(Level::Ok, |worst| worst.level), advice }
    }
}

/// What to do after a run that failed.
fn after(exit_code: Option<u8>) -> &'static str {
    match exit_code {
        Some(2 | 3) => "mend what the error names, then run it again",
        Some(4 | 5) => "run it again later",
        Some(70) => "run `decagon-lake verify`, then run it again, and report the error",
        _ => "run it again",
    }
}
