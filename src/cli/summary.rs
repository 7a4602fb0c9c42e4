//! The last words of a run: a short block on a terminal, one line elsewhere.
//!
//! Must not depend on: how a run works.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount};

use super::args::LogFormat;
use super::output::duration;
use crate::counted::counted;
use crate::lake::{Reconciled, RunOutcome, RunReport};
use crate::model::Table;

/// One thing that a run did: a label for the block, and the words.
type Deed = (&'static str, String);

/// Logs what a run did, and on a terminal what to do next.
pub(super) fn log(report: &RunReport, format: LogFormat) {
    let outcome = report.outcome.words();
    let took = (report.finished_at - report.started_at).to_std().unwrap_or_default();
    let deeds = deeds(report);
    if format == LogFormat::Text && std::io::stderr().is_terminal() {
        tracing::info!("{}", block(report, outcome, took, &deeds));
        return;
    }
    let words: Vec<_> = deeds.into_iter().map(|(_, words)| words).collect();
    tracing::info!(
        run_id = %report.run_id,
        secs = took.as_secs_f64(),
        "{} {outcome}{}{}",
        report.command,
        if words.is_empty() { "" } else { ": " },
        words.join("; ")
    );
}

fn block(report: &RunReport, outcome: &str, took: Duration, deeds: &[Deed]) -> String {
    let took =
        if took < Duration::from_secs(10) { format!("{:.1}s", took.as_secs_f64()) } else { duration(took).to_string() };
    let mut text = format!("{} {outcome} in {took}", report.command);
    let next = next(report).map(|next| ("next", next.to_owned()));
    let mut before = "";
    for (label, words) in deeds.iter().chain(next.as_ref()) {
        let shown = if *label == before { "" } else { label };
        // Writing to a text cannot fail.
        let _ = write!(text, "\n  {shown:<11} {words}");
        before = label;
    }
    text
}

/// What to do after a run. An error says it itself.
fn next(report: &RunReport) -> Option<&'static str> {
    match (report.outcome, report.command) {
        (RunOutcome::Interrupted, _) => Some("run the same command again; it continues"),
        (RunOutcome::Failed, _) => None,
        (RunOutcome::Quarantined, _) => Some("see why entries were quarantined: the error below says where they are"),
        (RunOutcome::Done, "export" | "backfill") => Some("run `decagon-lake compact`, which merges the staged files"),
        (RunOutcome::Done, "sync" | "compact") => {
            Some("query it: `decagon-lake views` prints the SQL; look at it: `decagon-lake report`")
        }
        _ => None,
    }
}

fn deeds(report: &RunReport) -> Vec<Deed> {
    let mut deeds: Vec<Deed> = Vec::new();
    if report.request.is_some() {
        deeds.push((
            "fetched",
            format!(
                "{} in {}, {} staged ({})",
                counted(HumanCount(report.pages), "page"),
                counted(HumanCount(report.requests), "request"),
                counted(HumanCount(*report.staged_rows.get(Table::Conversations)), "conversation"),
                DecimalBytes(report.staged_bytes.total()),
            ),
        ));
    }
    if report.outside_window > 0 {
        let is_backfill = report.request.as_ref().is_some_and(|request| request.window.to.is_some());
        let treatment = if is_backfill { "left out" } else { "kept" };
        deeds.push(("fetched", format!("{} outside the range {treatment}", HumanCount(report.outside_window))));
    }
    if report.suppressed > 0 {
        let versions = counted(HumanCount(report.suppressed), "version");
        deeds.push(("fetched", format!("{versions} of forgotten conversations dropped")));
    }
    if report.quarantined > 0 {
        deeds.push(("fetched", format!("{} quarantined", HumanCount(report.quarantined))));
    }
    let misfits = report.metadata_misfits.iter().map(|(_, count)| count).sum();
    if misfits > 0 {
        deeds
            .push(("fetched", format!("{} of metadata did not fit the column", counted(HumanCount(misfits), "value"))));
    }
    if report.abandoned_backfills > 0 {
        deeds.push(("tables", format!("{} discarded", counted(report.abandoned_backfills, "backfill"))));
    }
    if report.command == "upgrade" {
        let partitions = counted(HumanCount(report.upgraded_partitions), "partition");
        deeds.push(("tables", format!("{partitions} upgraded")));
    }
    if let Some(found) = &report.reconciled {
        deeds.push(("compared", comparison(found)));
    }
    match report.compacted_dates.len() {
        0 if report.command != "compact" || report.outcome != RunOutcome::Done => {}
        0 => deeds.push(("tables", "nothing to compact".to_owned())),
        dates => deeds.push((
            "tables",
            format!(
                "{} compacted, {} resolved, {} written",
                counted(dates, "partition"),
                counted(HumanCount(report.duplicates_resolved), "duplicate"),
                DecimalBytes(report.table_bytes.total()),
            ),
        )),
    }
    deeds
}

/// What a reconciliation has found.
fn comparison(found: &Reconciled) -> String {
    format!(
        "{} there, {} here: {} missing and {} stale fetched, {}",
        counted(HumanCount(found.conversations_there), "conversation"),
        HumanCount(found.conversations_here),
        HumanCount(found.missing.saturating_add(found.returned)),
        HumanCount(found.stale),
        deletions(found),
    )
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
