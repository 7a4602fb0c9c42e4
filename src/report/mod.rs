//! A page about a lake, for the support team and the data team: one HTML file without anything to load.
//!
//! Guarantees: it only reads, and may run beside a writing run. Memory is bounded as `tally` says. Nothing on the page
//! is a person's: no texts, names or ids of users; summaries of the longest conversations only if they are asked for.
//! Must not depend on: the command line.

mod figure;
mod html;
mod operations;
mod range;
mod read;
mod rows;
mod support;
mod tags;
mod tally;

use chrono::{DateTime, NaiveDate, Utc};

pub use figure::{
    Cell, Chart, ChartStep, ColumnRole, Fact, Figure, FigureColumn, ReportPage, Scheme, Section, Tile, Unit,
};
pub use html::page;
use operations::Operations;
use range::DayRange;
pub use read::PartitionsRead;

use crate::error::Result;
use crate::lake::history::quarantine_files;
use crate::lake::{Lake, past_runs};
use crate::model::Table;
use crate::status::{Health, Level, Situation, Status, situation};
use crate::verify::Verification;

/// How many reports of runs are read.
const RUNS: usize = 1_000;

/// What a page shows.
#[derive(Debug, Clone, Copy)]
pub struct ReportSettings {
    /// How many days, the last one included.
    pub days: u64,
    /// Shows the summaries of the longest conversations, which may name people.
    pub with_summaries: bool,
}

/// Makes the page of a lake. `verification` is the result of one just now, if there was one; `progress` is called after
/// each partition that was read.
///
/// The range begins with the lake's first partition if that is later. It ends with the day of the last complete export, because the lake knows nothing of the days after it.
///
/// # Errors
/// If there is no lake, or its store fails.
pub async fn report(
    lake: &Lake,
    settings: ReportSettings,
    verification: Option<&Verification>,
    progress: impl FnMut(PartitionsRead),
) -> Result<ReportPage> {
    let store = lake.store();
    let (situation, runs, quarantine_files) =
        tokio::try_join!(situation(lake), past_runs(store, RUNS), quarantine_files(store))?;
    let range = DayRange::ending(last_day(&situation), settings.days).from(first_day(&situation));
    let reading = read::read(lake, range, settings.with_summaries, progress).await?;
    let read::Reading { entries, mut tally, unreadable } = reading;
    tally.fill_weeks(range);
    let health = situation.health();
    let operations = Operations {
        situation: &situation,
        health: &health,
        entries: &entries,
        runs: &runs,
        quarantine_files,
        unreadable: &unreadable,
        verification,
        range,
    };
    let sections = vec![support::section(&tally, range, settings.with_summaries), operations.section()];
    let facts = sections.iter().flat_map(|section| &section.facts);
    let level = facts.map(|fact| fact.level).fold(health.level, Level::max);
    Ok(ReportPage {
        lake: lake.url().to_owned(),
        first_day: range.first,
        last_day: range.last,
        made_at: situation.at,
        level,
        health: sentence(&situation, &health, level),
        unreadable,
        sections,
    })
}

fn sentence(situation: &Situation, health: &Health, level: Level) -> String {
    let first = health.advice.first().filter(|advice| advice.level > Level::Ok);
    match (first, situation.status.exported_at) {
        _ if level > health.level => "The lake needs attention: see below.".to_owned(),
        (Some(advice), _) if advice.next.is_empty() => capitalized(&advice.what),
        (Some(advice), _) => format!("{}: {}.", capitalized(&advice.what), advice.next),
        (None, Some(at)) => format!("Healthy: every change before {} is in the lake.", at.format("%Y-%m-%d %H:%M UTC")),
        (None, None) => "The first export is under way.".to_owned(),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// The first day with conversations; a page about the days before would be empty.
fn first_day(situation: &Situation) -> Option<NaiveDate> {
    situation.status.tables.get(Table::Conversations).first_date
}

/// The last day of which the lake knows something.
fn last_day(Situation { status: Status { exported_at, tables, .. }, at, .. }: &Situation) -> NaiveDate {
    let day = |at: DateTime<Utc>| at.date_naive();
    let today = day(*at);
    let newest = tables.get(Table::Conversations).last_date;
    exported_at.map(day).or(newest).map_or(today, |last| last.min(today))
}
