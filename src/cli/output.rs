//! Prints results: summaries and errors on stderr, data on stdout.

use std::cmp::Reverse;
use std::io::Write;
use std::time::Duration;

use chrono::SecondsFormat;
use indicatif::{DecimalBytes, HumanCount};
use url::Url;

use super::args::LogFormat;
use super::logging::without_secrets;
use crate::api::excerpt;
use crate::check::{self, BY_MONTH_BELOW, CheckResult, Partitions};
use crate::counted::counted;
use crate::error::Error;
use crate::lake::{Lake, Reconciled, RunOutcome, RunReport, Support};
use crate::model::{FieldCounts, PartitionBy, Table, Window};
use crate::status::Status;
use crate::verify::{Check, Problem, Verification};

const HOUR: Duration = Duration::from_secs(3_600);

/// Writes a line of data to stdout. A closed pipe is no failure, because its reader has seen enough.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A duration as flags accept it: without seconds from an hour on, which would only distract.
pub(super) fn duration(of: Duration) -> humantime::FormattedDuration {
    let unit = if of < HOUR { 1 } else { 60 };
    humantime::format_duration(Duration::from_secs(of.as_secs() / unit * unit))
}

/// Logs a failure: the chain of causes, then the hint.
pub(super) fn failure(error: &Error, format: LogFormat) {
    let message = error.chain().join(": ");
    match (error.hint(), format) {
        (Some(hint), LogFormat::Json) => tracing::error!(hint, "{message}"),
        (Some(hint), LogFormat::Text) => {
            tracing::error!("{message}");
            tracing::error!("hint: {hint}");
        }
        (None, _) => tracing::error!("{message}"),
    }
}

/// Logs a summary of a run.
pub(super) fn summary(report: &RunReport) {
    let outcome = match report.outcome {
        RunOutcome::Done => "done",
        RunOutcome::Quarantined => "done, with entries quarantined",
        RunOutcome::Interrupted => "interrupted",
        RunOutcome::Failed => "failed",
    };
    let took = (report.finished_at - report.started_at).to_std().unwrap_or_default();
    let mut parts = Vec::new();
    if report.request.is_some() {
        parts.push(format!(
            "{} in {}, {} staged ({})",
            counted(HumanCount(report.pages), "page"),
            counted(HumanCount(report.requests), "request"),
            counted(HumanCount(*report.staged_rows.get(Table::Conversations)), "conversation"),
            DecimalBytes(report.staged_bytes.total()),
        ));
    }
    if report.outside_window > 0 {
        let is_backfill = report.request.as_ref().is_some_and(|request| request.window.to.is_some());
        let treatment = if is_backfill { "left out" } else { "kept" };
        parts.push(format!("{} outside the range {treatment}", HumanCount(report.outside_window)));
    }
    if report.suppressed > 0 {
        parts.push(format!("{} of forgotten conversations dropped", counted(HumanCount(report.suppressed), "version")));
    }
    if report.quarantined > 0 {
        parts.push(format!("{} quarantined", HumanCount(report.quarantined)));
    }
    let misfits = report.metadata_misfits.iter().map(|(_, count)| count).sum();
    if misfits > 0 {
        parts.push(format!("{} values of metadata do not fit their column", HumanCount(misfits)));
    }
    if report.abandoned_backfills > 0 {
        parts.push(format!("{} given up", counted(report.abandoned_backfills, "backfill")));
    }
    if report.command == "upgrade" {
        parts.push(format!("{} upgraded", counted(HumanCount(report.upgraded_partitions), "partition")));
    }
    if let Some(found) = &report.reconciled {
        parts.push(format!(
            "{} there, {} here: {} missing and {} stale fetched, {}",
            counted(HumanCount(found.conversations_there), "conversation"),
            HumanCount(found.conversations_here),
            HumanCount(found.missing.saturating_add(found.returned)),
            HumanCount(found.stale),
            deletions(found),
        ));
    }
    match report.compacted_dates.len() {
        0 if report.command != "compact" || report.outcome != RunOutcome::Done => {}
        0 => parts.push("nothing to compact".to_owned()),
        dates => parts.push(format!(
            "{} compacted, {} resolved, {} written",
            counted(dates, "partition"),
            counted(HumanCount(report.duplicates_resolved), "duplicate"),
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

/// What a reconciliation says about deletions.
fn deletions(found: &Reconciled) -> String {
    let gone = HumanCount(found.gone);
    match found {
        Reconciled { complete: false, .. } => "deletions unknown".to_owned(),
        Reconciled { marked: 1.., .. } => format!("{gone} gone and marked"),
        Reconciled { removed: 1.., .. } => format!("{gone} gone and removed"),
        _ => format!("{gone} gone"),
    }
}

/// Prints the status of a lake for people.
pub(super) fn status(status: &Status) {
    line(&format!("lake       {}", status.lake));
    line(&format!("api        {}", status.base_url));
    line(&format!("format     {}", status.format.name()));
    line(&format!("partitions by {}", status.partition_by.name()));
    match (status.watermark, status.lag_secs) {
        (Some(watermark), Some(lag)) => {
            let lag = duration(Duration::from_secs(u64::try_from(lag).unwrap_or(0)));
            line(&format!("watermark  {} ({lag} ago)", watermark.format("%Y-%m-%d %H:%M:%S UTC")));
        }
        _ if status.exported_at.is_some() => line("watermark  none: no exported conversation has a readable time"),
        _ => line("watermark  none: no export is complete yet"),
    }
    if let Some(at) = status.exported_at {
        line(&format!("exported   {} (start of the last complete export)", at.format("%Y-%m-%d %H:%M:%S UTC")));
    }
    if status.timestamp_filter == Some(Support::Ignored) {
        line("filter     the API ignores timestamp_filter: increments need --on-ignored-filter full");
    }
    for walk in &status.unfinished {
        let reached =
            walk.newest_change.map_or_else(String::new, |at| format!(", at {}", at.format("%Y-%m-%d %H:%M:%S")));
        let Window { filter, from, to } = walk.window;
        let range = match (from, to) {
            _ if walk.command == "reconcile" => {
                walk.window.describe().map_or_else(String::new, |range| format!(" of {range}"))
            }
            (Some(from), Some(to)) => format!(
                " --from {} --to {} --timestamp-filter {}",
                from.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                to.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                filter.as_str()
            ),
            _ => String::new(),
        };
        line(&format!(
            "unfinished {}{range}, since {}: {}, {}{reached}",
            walk.command,
            walk.started_at.format("%Y-%m-%d %H:%M:%S"),
            counted(HumanCount(walk.pages), "page"),
            counted(HumanCount(walk.conversations), "conversation"),
        ));
    }
    let staging = &status.staging;
    line(&match staging.files {
        0 => "staging    empty".to_owned(),
        files => format!(
            "staging    {} of conversations in {} and {} ({}), not compacted yet",
            counted(HumanCount(*staging.extent.rows.get(Table::Conversations)), "version"),
            counted(HumanCount(staging.dates), "partition"),
            counted(HumanCount(files), "file"),
            DecimalBytes(staging.extent.bytes.total()),
        ),
    });
    fields_without_column(&status.fields_without_column);
    if status.older_partitions > 0 {
        let older = counted(HumanCount(status.older_partitions), "partition");
        line(&format!("upgrade    {older} of an older form: `decagon-lake upgrade` rewrites them"));
    }
    if status.suppressed > 0 {
        let suppressed = counted(HumanCount(status.suppressed), "conversation");
        line(&format!("forgotten  {suppressed}, which the next runs leave out"));
    }
    if status.unfinished_forget {
        line("unfinished forget: run `decagon-lake forget` to complete it");
    }
    if let Some(policy) = &status.policy {
        line(&format!("policy     {}", policy.get(..12).unwrap_or(policy)));
        if let Some(earlier @ 1..) = status.earlier_policy_partitions {
            let earlier = counted(HumanCount(earlier), "partition");
            line(&format!("           {earlier} may not follow it yet: `decagon-lake upgrade` applies it to them"));
        }
    }
    if !status.manifest {
        line("manifest   none: counted from the table files; the next compaction makes one");
    }
    line("");
    line(&format!("{:<14} {:>14} {:>12} {:>10}  {}", "table", "rows", "bytes", "partitions", "from .. to"));
    for table in Table::ALL {
        let of = status.tables.get(table);
        let range = match (of.first_date, of.last_date) {
            (Some(first), Some(last)) => format!("{first} .. {last}"),
            _ => "-".to_owned(),
        };
        let (rows, bytes, dates) =
            (HumanCount(of.rows).to_string(), DecimalBytes(of.bytes).to_string(), HumanCount(of.dates).to_string());
        line(&format!("{:<14} {rows:>14} {bytes:>12} {dates:>10}  {range}", table.name()));
    }
}

/// Prints the most frequent fields without a column, a few to a line.
fn fields_without_column(of: &FieldCounts) {
    const A_LINE: usize = 4;
    const LINES: usize = 3;
    let mut all: Vec<_> = of.iter().collect();
    all.sort_by_key(|(name, count)| (*name == FieldCounts::OTHER, Reverse(*count)));
    let mut label = "no column";
    for some in all.chunks(A_LINE).take(LINES) {
        let some: Vec<_> =
            some.iter().map(|(name, count)| format!("{} {}", excerpt(name), HumanCount(*count))).collect();
        line(&format!("{label:<10} {}", some.join(", ")));
        label = "";
    }
    if let Some(more @ 1..) = all.len().checked_sub(A_LINE * LINES) {
        line(&format!("{:<10} … and {more} more, which --json lists", ""));
    }
}

/// Prints the results of `check` for people: a line each, and a hint below a failure.
pub(super) fn checked(lake: &Lake, api: &Url, all: &[CheckResult]) {
    line(&format!("lake     {}", lake.url()));
    line(&format!("api      {}", api.as_str().trim_end_matches('/')));
    for CheckResult { item, outcome, note } in all {
        let described = item.describe();
        match outcome {
            check::CheckOutcome::Ok => {
                let note = note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
                line(&format!("ok       {described}{note}"));
            }
            check::CheckOutcome::Skipped { why } => line(&format!("skipped  {described}: {why}")),
            check::CheckOutcome::Failed { error, hint, .. } => {
                line(&without_secrets(&format!("FAILED   {described}: {}", error.join(": "))));
                if let Some(hint) = hint {
                    line(&without_secrets(&format!("         {hint}")));
                }
            }
        }
    }
}

/// Prints for people which partitions to choose, or whether the lake has the better ones.
pub(super) fn partitions(of: Partitions) {
    let below = HumanCount(BY_MONTH_BELOW);
    let Some(by) = of.by else {
        line(&format!("note     below some {below} conversations a day, make the lake with --partition-by month"));
        return;
    };
    let (own, conversations) = (by.name(), of.conversations_a_day.map(HumanCount));
    let (better, why) = match by {
        PartitionBy::Day => ("month", "faster queries over many days"),
        PartitionBy::Month => ("day", "less to rewrite at each sync"),
    };
    let suits = of.conversations_a_day.map(|count| (count < BY_MONTH_BELOW) == (by == PartitionBy::Month));
    line(&match (conversations, suits) {
        (Some(count), Some(true)) => format!("note     partitions by {own} suit some {count} conversations a day"),
        (Some(count), _) => format!(
            "note     at some {count} conversations a day, partitions by {better} have {why}; a lake keeps its \
             partitions, so make another --lake with --partition-by {better}"
        ),
        (None, _) => format!(
            "note     partitions by {own}; months are better below some {below} conversations a day, but this lake \
             does not show yet how many it has"
        ),
    });
}

/// Prints the result of `verify` for people.
pub(super) fn verification(found: &Verification) {
    line(&format!("lake       {}", found.lake));
    let rows: Vec<_> =
        Table::ALL.iter().map(|table| format!("{} {}", HumanCount(*found.rows.get(*table)), table.name())).collect();
    line(&format!(
        "read       {}, {} ({}): {}",
        counted(HumanCount(found.dates), "partition"),
        counted(HumanCount(found.files), "file"),
        DecimalBytes(found.bytes),
        rows.join(", ")
    ));
    line(&format!(
        "staging    {}, {}; {} that no checkpoint names",
        counted(HumanCount(found.staged_files), "file"),
        counted(HumanCount(found.staged_rows), "row"),
        counted(HumanCount(found.unnamed_files), "file")
    ));
    match found.listed_dates {
        Some(dates) if found.rebuilt_manifest => {
            line(&format!("manifest   {} partitions, made again from the table files", HumanCount(dates)));
        }
        Some(dates) => line(&format!("manifest   {} partitions", HumanCount(dates))),
        None => line("manifest   none that can be read; the next compaction makes one"),
    }
    if found.changed_by_others > 0 {
        let dates = HumanCount(found.changed_by_others);
        line(&format!("others     changed {dates} partitions; `status` counts them after their next compaction"));
    }
    if found.removed_versions > 0 {
        let versions = counted(HumanCount(found.removed_versions), "older version");
        line(&format!("removed    {versions} of conversations from other partitions"));
    }
    if found.discarded_staged > 0 {
        let partitions = counted(HumanCount(found.discarded_staged), "partition");
        line(&format!("discarded  missing or damaged staged files of {partitions}"));
    }
    line("");
    for checked in &found.checks {
        let promise = checked.check.promise();
        match checked.problems {
            0 => line(&format!("ok         {promise}")),
            problems => line(&format!("BROKEN     {promise}: {}", counted(HumanCount(problems), "problem"))),
        }
        for Problem { key, detail, .. } in &checked.evidence {
            let place = key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
            line(&format!("             {place}{detail}"));
        }
        let more = checked.problems - checked.evidence.len() as u64;
        if more > 0 {
            line(&format!("             … and {} more", HumanCount(more)));
        }
    }
}

/// The steps that repair the problems found.
pub(super) fn remedy(found: &Verification) -> String {
    let mut steps = Vec::new();
    let of = |check| found.problems_of(check) > 0;
    if found.staged_files > 0 && (of(Check::Owned) || of(Check::MessageCount) || of(Check::Indexes)) {
        steps.push("run `compact`, which finishes the work of a killed run");
    }
    if of(Check::UniqueAcrossDates) {
        steps.push("run `verify --repair`, which keeps the latest version of conversations in several partitions");
    }
    if of(Check::StagedFiles) {
        steps
            .push("run `verify --repair`, which discards damaged staged files and names the partitions to fetch again");
    }
    if of(Check::Forgotten) {
        steps.push("run `forget`, which erases forgotten conversations that came back, as with a restored backup");
    }
    if of(Check::State) {
        steps.push(
            "restore the tables from the same backup as _state, or run `verify --repair`, which goes on with the \
             tables as they are, and then `sync`",
        );
    }
    if of(Check::Vanished) {
        steps.push(
            "restore the partitions that are gone from a backup, or fetch them again with `backfill --timestamp-filter \
             created_at` and `compact`; if they were removed on purpose, run `verify --repair`",
        );
    }
    if of(Check::Unlisted) || of(Check::Replaced) {
        steps.push(
            "if another program changed the tables on purpose, run `verify --repair`, which lists the table files as \
             they are; else restore the files that it changed",
        );
    }
    if of(Check::Manifest) {
        steps.push("run `verify --repair`, which makes the manifest again from the table files");
    }
    steps.push(
        "for anything else restore the files from a backup, or delete the partition from all four tables and fetch it \
         again with `backfill --timestamp-filter created_at` and `compact`",
    );
    steps.join("; ")
}
