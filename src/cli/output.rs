//! What is told at the end: summaries on stderr, data on stdout.

use std::io::Write;

use chrono::SecondsFormat;
use indicatif::{DecimalBytes, HumanCount, HumanDuration};
use url::Url;

use super::args::LogFormat;
use super::logging::without_secrets;
use crate::check::{self, CheckResult};
use crate::error::Error;
use crate::lake::{Lake, RunOutcome, RunReport, Support};
use crate::model::{Table, Window};
use crate::status::Status;
use crate::verify::{Check, Problem, Verification};

/// Writes a line of data to stdout. Whoever closed the pipe has seen enough.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Tells of a failure: the chain of causes, then what to do.
pub(super) fn failure(error: &Error, format: LogFormat) {
    let told = error.chain().join(": ");
    match (error.hint(), format) {
        (Some(hint), LogFormat::Json) => tracing::error!(hint, "{told}"),
        (Some(hint), LogFormat::Text) => {
            tracing::error!("{told}");
            tracing::error!("hint: {hint}");
        }
        (None, _) => tracing::error!("{told}"),
    }
}

/// Tells what a run did.
pub(super) fn summary(report: &RunReport) {
    let outcome = match report.outcome {
        RunOutcome::Done => "done",
        RunOutcome::Quarantined => "done, with something set aside",
        RunOutcome::Interrupted => "interrupted",
        RunOutcome::Failed => "failed",
    };
    let took = (report.finished_at - report.started_at).to_std().unwrap_or_default();
    let mut parts = Vec::new();
    if report.request.is_some() {
        parts.push(format!(
            "{} pages in {} requests, {} conversations landed ({})",
            HumanCount(report.pages),
            HumanCount(report.requests),
            HumanCount(*report.landed_rows.get(Table::Conversations)),
            DecimalBytes(report.landed_bytes.total()),
        ));
    }
    if report.outside_window > 0 {
        let backfill = report.request.as_ref().is_some_and(|request| request.window.to.is_some());
        let fate = if backfill { "left out" } else { "kept" };
        parts.push(format!("{} outside the range {fate}", HumanCount(report.outside_window)));
    }
    if report.quarantined > 0 {
        parts.push(format!("{} set aside", HumanCount(report.quarantined)));
    }
    match report.compacted_dates.len() {
        0 if report.request.is_some() || report.outcome != RunOutcome::Done => {}
        0 => parts.push("nothing to compact".to_owned()),
        dates => parts.push(format!(
            "{dates} dates compacted, {} duplicates resolved, {} written",
            HumanCount(report.duplicates_resolved),
            DecimalBytes(report.table_bytes.total()),
        )),
    }
    tracing::info!(
        run_id = %report.run_id,
        secs = took.as_secs_f64(),
        "{} {outcome}{}{}",
        report.command,
        if parts.is_empty() { "" } else { ": " },
        parts.join("; ")
    );
}

/// Tells what a lake holds, for people.
pub(super) fn status(status: &Status) {
    line(&format!("lake       {}", status.lake));
    line(&format!("api        {}", status.base_url));
    line(&format!("format     {}", status.format.name()));
    match (status.watermark, status.lag_secs) {
        (Some(watermark), Some(lag)) => {
            let lag = std::time::Duration::from_secs(u64::try_from(lag).unwrap_or(0));
            line(&format!("watermark  {} ({} ago)", watermark.format("%Y-%m-%d %H:%M:%S UTC"), HumanDuration(lag)));
        }
        _ if status.exported_at.is_some() => {
            line("watermark  none: no conversation with a time that can be read has been seen yet")
        }
        _ => line("watermark  none: no export has ended yet"),
    }
    if let Some(at) = status.exported_at {
        line(&format!("exported   {} (when the last complete export began)", at.format("%Y-%m-%d %H:%M:%S UTC")));
    }
    if status.timestamp_filter == Some(Support::Ignored) {
        line("filter     the API ignores timestamp_filter: increments need --on-ignored-filter full");
    }
    for walk in &status.unfinished {
        let reached =
            walk.newest_change.map_or_else(String::new, |at| format!(", at {}", at.format("%Y-%m-%d %H:%M:%S")));
        let Window { filter, from, to } = walk.window;
        let range = match (from, to) {
            (Some(from), Some(to)) => format!(
                " --from {} --to {} --timestamp-filter {}",
                from.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                to.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                filter.as_str()
            ),
            _ => String::new(),
        };
        line(&format!(
            "unfinished {}{range}, since {}: {} pages, {} conversations{reached}",
            walk.command,
            walk.started_at.format("%Y-%m-%d %H:%M:%S"),
            HumanCount(walk.pages),
            HumanCount(walk.conversations),
        ));
    }
    let landing = &status.landing;
    line(&match landing.objects {
        0 => "landing    empty".to_owned(),
        objects => format!(
            "landing    {} copies of conversations at {} dates in {} objects ({}), waiting for `compact`",
            HumanCount(*landing.extent.rows.get(Table::Conversations)),
            HumanCount(landing.dates),
            HumanCount(objects),
            DecimalBytes(landing.extent.bytes.total()),
        ),
    });
    line("");
    line(&format!("{:<14} {:>14} {:>12} {:>7}  {}", "table", "rows", "bytes", "dates", "from .. to"));
    for table in Table::ALL {
        let of = status.tables.get(table);
        let range = match (of.first_date, of.last_date) {
            (Some(first), Some(last)) => format!("{first} .. {last}"),
            _ => "-".to_owned(),
        };
        let (rows, bytes, dates) =
            (HumanCount(of.rows).to_string(), DecimalBytes(of.bytes).to_string(), HumanCount(of.dates).to_string());
        line(&format!("{:<14} {rows:>14} {bytes:>12} {dates:>7}  {range}", table.name()));
    }
}

/// Tells what was checked, for people: a line each, and what to do where it fails.
pub(super) fn checked(lake: &Lake, api: &Url, all: &[CheckResult]) {
    line(&format!("lake     {}", lake.url()));
    line(&format!("api      {}", api.as_str().trim_end_matches('/')));
    for CheckResult { item, outcome } in all {
        let told = item.told();
        match outcome {
            check::CheckOutcome::Ok => line(&format!("ok       {told}")),
            check::CheckOutcome::Skipped { why } => line(&format!("skipped  {told}: {why}")),
            check::CheckOutcome::Failed { error, hint, .. } => {
                line(&without_secrets(&format!("FAILED   {told}: {}", error.join(": "))));
                if let Some(hint) = hint {
                    line(&without_secrets(&format!("         {hint}")));
                }
            }
        }
    }
}

/// Tells what was verified, for people.
pub(super) fn verification(found: &Verification) {
    line(&format!("lake       {}", found.lake));
    let rows: Vec<_> =
        Table::ALL.iter().map(|table| format!("{} {}", HumanCount(*found.rows.get(*table)), table.name())).collect();
    line(&format!(
        "read       {} dates, {} files ({}): {}",
        HumanCount(found.dates),
        HumanCount(found.files),
        DecimalBytes(found.bytes),
        rows.join(", ")
    ));
    line(&format!(
        "landing    {} objects, {} rows; {} objects that no checkpoint names",
        HumanCount(found.landed_files),
        HumanCount(found.landed_rows),
        HumanCount(found.unnamed_files)
    ));
    if found.removed_copies > 0 {
        line(&format!("removed    {} older copies of conversations under another date", found.removed_copies));
    }
    if found.given_up_landings > 0 {
        line(&format!("given up   what was landed for {} dates, and is missing or damaged", found.given_up_landings));
    }
    line("");
    for checked in &found.checks {
        let promise = checked.check.promise();
        match checked.findings {
            0 => line(&format!("ok         {promise}")),
            1 => line(&format!("BROKEN     {promise}: once")),
            findings => line(&format!("BROKEN     {promise}: {} times", HumanCount(findings))),
        }
        for Problem { key, detail, .. } in &checked.evidence {
            let place = key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
            line(&format!("             {place}{detail}"));
        }
        let more = checked.findings - checked.evidence.len() as u64;
        if more > 0 {
            line(&format!("             … and {} more", HumanCount(more)));
        }
    }
}

/// What to do about what does not hold.
pub(super) fn remedy(found: &Verification) -> String {
    let mut steps = Vec::new();
    let of = |check| found.findings_of(check) > 0;
    if found.landed_files > 0 && (of(Check::Owned) || of(Check::MessageCount) || of(Check::Indexes)) {
        steps.push("run `compact`, which finishes what a killed run has left half done");
    }
    if of(Check::UniqueAcrossDates) {
        steps.push("run `verify --repair`, which keeps the newest of the copies under several dates");
    }
    if of(Check::StagedFlush) {
        steps.push(
            "run `verify --repair`, which gives up what is landed and damaged, and names the dates to fetch again",
        );
    }
    if of(Check::State) {
        steps.push(
            "restore the tables from the same backup as _state, or run `verify --repair`, which numbers the next commits \
             after those of the tables, and then `sync`",
        );
    }
    steps.push(
        "for anything else restore the files from a backup, or delete the date from all four tables and fetch it again \
         with `backfill --timestamp-filter created_at` and `compact`",
    );
    steps.join("; ")
}
