//! Shows the status of a lake on one screen: how it is, what it holds, its last days, and what to do next.
//!
//! Guarantees: colours and bars only on a terminal; elsewhere the same lines as plain text.
//! Must not depend on: how the status is read.

use std::cmp::Reverse;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Utc};
use indicatif::{DecimalBytes, HumanCount};

use super::output::age;
use crate::api::excerpt;
use crate::counted::counted;
use crate::lake::{PastRun, Support};
use crate::model::{FieldCounts, Table};
use crate::status::{Health, Level, RecentDay, Situation, Status, Unfinished};

const BOLD: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// Heights of a bar within a line of text, from nothing to all of it.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// How many lines high the bars are.
const BAR_LINES: u64 = 3;

/// Writes a line to stdout, without colours if it is no terminal.
fn line(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// A line with a label.
fn field(label: &str, text: &str) {
    line(&format!("{FAINT}{label:<10}{FAINT:#} {text}"));
}

fn color(of: Level) -> Style {
    Style::new().bold().fg_color(Some(
        match of {
            Level::Ok => AnsiColor::Green,
            Level::Warn => AnsiColor::Yellow,
            Level::Bad => AnsiColor::Red,
        }
        .into(),
    ))
}

/// Prints the status, and the conversations of the last days if they are known.
pub(super) fn show(situation: &Situation, days: &[RecentDay]) {
    let (status, health) = (&situation.status, situation.health());
    headline(situation, &health);
    field("lake", &status.lake);
    field("api", &format!("{} · {} tables, by {}", status.base_url, status.format.name(), status.partition_by.name()));
    freshness(status, situation.at);
    for walk in &status.unfinished {
        field("unfinished", &unfinished(walk));
    }
    field("staging", &staging(status));
    if status.timestamp_filter == Some(Support::Ignored) {
        field("filter", "the API ignores timestamp_filter: increments need --on-ignored-filter full");
    }
    fields_without_column(&status.fields_without_column);
    upkeep(status);
    if days.iter().any(|day| day.conversations > 0) && std::io::stdout().is_terminal() {
        line("");
        bars(days);
    }
    line("");
    tables(status);
    next(&health);
}

/// One line that says how the lake is.
fn headline(situation: &Situation, health: &Health) {
    let style = color(health.level);
    let (mark, word) = match health.level {
        Level::Ok if situation.status.exported_at.is_none() => ("●", "not complete yet"),
        Level::Ok => ("●", "healthy"),
        Level::Warn => ("▲", "needs attention"),
        Level::Bad => ("✖", "broken"),
    };
    let now = match (&situation.holder, &situation.last_run) {
        (Some(holder), _) => format!(
            " · `{}` is running on {} for {}",
            holder.command,
            holder.host,
            age(between(holder.since, situation.at))
        ),
        (None, Some(run)) => format!(" · last run: {}", last_run(run, situation.at)),
        (None, None) => String::new(),
    };
    line(&format!("{style}{mark} {word}{style:#}{now}"));
}

fn last_run(run: &PastRun, now: DateTime<Utc>) -> String {
    let code = match run.exit_code {
        Some(code @ 1..) => format!(" with exit code {code}"),
        _ => String::new(),
    };
    format!("`{}` {} ago, {}{code}", run.command, age(between(run.finished_at, now)), run.words())
}

fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

fn freshness(status: &Status, now: DateTime<Utc>) {
    match (status.watermark, status.lag_secs) {
        (Some(watermark), Some(lag)) => {
            let lag = age(Duration::from_secs(u64::try_from(lag).unwrap_or(0)));
            field("watermark", &format!("{} ({lag} ago)", watermark.format("%Y-%m-%d %H:%M:%S UTC")));
        }
        _ if status.exported_at.is_some() => field("watermark", "none: no exported conversation has a readable time"),
        _ => field("watermark", "none: no export is complete yet"),
    }
    if let Some(at) = status.exported_at {
        let ago = age(between(at, now));
        let at = at.format("%Y-%m-%d %H:%M:%S UTC");
        field("exported", &format!("{at} ({ago} ago): every change before is in the lake"));
    }
}

fn unfinished(walk: &Unfinished) -> String {
    let reached = walk.newest_change.map_or_else(String::new, |at| format!(", at {}", at.format("%Y-%m-%d %H:%M:%S")));
    let range = match walk.command {
        "reconcile" => {
            walk.window.describe().map_or_else(|| walk.command.to_owned(), |of| format!("reconcile of {of}"))
        }
        _ => walk.resume(),
    };
    format!(
        "{range}, since {}: {}, {}{reached}",
        walk.started_at.format("%Y-%m-%d %H:%M:%S"),
        counted(HumanCount(walk.pages), "page"),
        counted(HumanCount(walk.conversations), "conversation"),
    )
}

fn staging(status: &Status) -> String {
    let staging = &status.staging;
    match staging.files {
        0 => "empty".to_owned(),
        files => format!(
            "{} of conversations in {} and {} ({}), not compacted yet",
            counted(HumanCount(*staging.extent.rows.get(Table::Conversations)), "version"),
            counted(HumanCount(staging.dates), "partition"),
            counted(HumanCount(files), "file"),
            DecimalBytes(staging.extent.bytes.total()),
        ),
    }
}

fn upkeep(status: &Status) {
    if status.older_partitions > 0 {
        let older = counted(HumanCount(status.older_partitions), "partition");
        field("upgrade", &format!("{older} of an older form: `decagon-lake upgrade` rewrites them"));
    }
    if status.suppressed > 0 {
        let suppressed = counted(HumanCount(status.suppressed), "conversation");
        field("forgotten", &format!("{suppressed}, which the next runs leave out"));
    }
    if let Some(policy) = &status.policy {
        let earlier = match status.earlier_policy_partitions {
            Some(earlier @ 1..) => format!("; {} may not follow it yet", counted(HumanCount(earlier), "partition")),
            _ => String::new(),
        };
        field("policy", &format!("{}{earlier}", policy.get(..12).unwrap_or(policy)));
    }
    if !status.manifest {
        field("manifest", "none: counted from the table files; the next compaction makes one");
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
        field(label, &some.join(", "));
        label = "";
    }
    if let Some(more @ 1..) = all.len().checked_sub(A_LINE * LINES) {
        field("", &format!("… and {more} more, which --json lists"));
    }
}

/// Prints a bar for each day.
fn bars(days: &[RecentDay]) {
    let most = days.iter().map(|day| day.conversations).max().unwrap_or(0);
    for (place, text) in bar_lines(days).into_iter().enumerate() {
        let label = match place {
            0 => format!("{} a day", HumanCount(most)),
            _ => String::new(),
        };
        let style = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
        let name = if place == 0 { "days" } else { "" };
        field(name, &format!("{style}{text}{style:#}{FAINT}{label}{FAINT:#}"));
    }
    let names: String = days.iter().map(|day| format!("{} ", day.day.format("%d"))).collect();
    let months = match (days.first(), days.last()) {
        (Some(first), Some(last)) => format!("{} to {}", first.day, last.day),
        _ => String::new(),
    };
    field("", &format!("{names}{FAINT}{months}{FAINT:#}"));
}

/// The lines of the bars, the upper first. A day with a conversation has at least the lowest bar.
fn bar_lines(days: &[RecentDay]) -> Vec<String> {
    let steps = BAR_LINES * 8;
    let most = days.iter().map(|day| day.conversations).max().unwrap_or(0).max(1);
    let height = |day: &RecentDay| day.conversations.saturating_mul(steps).div_ceil(most);
    let piece = |height: u64, below: u64| {
        let eighths = usize::try_from(height.saturating_sub(below).min(8)).unwrap_or(0);
        EIGHTHS.get(eighths).copied().unwrap_or(' ')
    };
    (0..BAR_LINES)
        .rev()
        .map(|row| days.iter().flat_map(|day| [piece(height(day), row * 8); 2].into_iter().chain([' '])).collect())
        .collect()
}

fn tables(status: &Status) {
    let head = format!("{:<14} {:>14} {:>12} {:>10}  {}", "table", "rows", "bytes", "partitions", "from .. to");
    line(&format!("{BOLD}{head}{BOLD:#}"));
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

/// Says what to do.
fn next(health: &Health) {
    line("");
    if health.advice.is_empty() {
        field("next", "nothing to do: the next sync fetches what has changed");
    }
    for advice in &health.advice {
        let style = color(advice.level);
        let next = if advice.next.is_empty() { String::new() } else { format!(": {}", advice.next) };
        line(&format!("{style}next{style:#}       {}{next}", advice.what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_share_of_the_most() {
        let day = |conversations| RecentDay { day: "2024-03-01".parse().unwrap(), conversations };
        let lines = bar_lines(&[day(24), day(12), day(1), day(0)]);
        assert_eq!(lines, ["██          ", "██ ▄▄       ", "██ ██ ▁▁    "]);
        assert_eq!(bar_lines(&[day(0)]), ["   "; 3]);
    }
}
