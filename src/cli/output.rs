//! Prints results: summaries and errors on stderr, data on stdout.

use std::io::Write;
use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount};
use url::Url;

use super::args::LogFormat;
use super::logging::without_secrets;
use crate::check::{self, BY_MONTH_BELOW, CheckResult, Partitions};
use crate::counted::counted;
use crate::error::Error;
use crate::lake::Lake;
use crate::model::{PartitionBy, Table};
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

/// How long ago something was, in its two largest units.
pub(super) fn age(of: Duration) -> String {
    let words = humantime::format_duration(Duration::from_secs(of.as_secs())).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
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
