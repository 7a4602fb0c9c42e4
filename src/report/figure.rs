//! A page as data: sections of tiles, facts and figures. A figure is a table, and says how its chart is drawn from it.
//!
//! Guarantees: each number is on the page once, in a table; charts are drawn from the tables, so both agree.
//! Must not depend on: where numbers come from, and how a page is written.

use std::fmt;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use indicatif::{DecimalBytes, HumanCount};
use serde::{Serialize, Serializer};

use crate::status::Level;

/// A page.
#[derive(Debug, Clone, Serialize)]
pub struct ReportPage {
    /// The lake's URL or path.
    pub lake: String,
    /// The first day of the range, in UTC.
    pub first_day: NaiveDate,
    /// Its last day.
    pub last_day: NaiveDate,
    /// When the page was made.
    pub made_at: DateTime<Utc>,
    /// How the lake is.
    pub level: Level,
    /// The same in a sentence.
    pub health: String,
    /// Why partitions are left out.
    pub unreadable: Vec<String>,
    /// The sections.
    pub sections: Vec<Section>,
}

/// A section of a page.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What counts most.
    pub tiles: Vec<Tile>,
    /// Sentences.
    pub facts: Vec<Fact>,
    /// Its figures.
    pub figures: Vec<Figure>,
}

/// One number that counts.
#[derive(Debug, Clone, Serialize)]
pub struct Tile {
    /// What it is.
    pub name: &'static str,
    /// The number.
    pub value: Cell,
    /// What explains it.
    pub note: String,
}

/// A sentence about the lake.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    /// Whether somebody should do something about it.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

/// A table, and perhaps its chart.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: String,
    /// What is counted, in a sentence.
    pub note: String,
    /// What is counted, if that is not what the columns say.
    pub things: Option<&'static str>,
    /// How the chart is drawn; without one, the table itself is shown.
    pub chart: Option<Chart>,
    /// Whether it takes the whole width of the page.
    pub is_wide: bool,
    /// The columns.
    pub columns: Vec<FigureColumn>,
    /// The rows, each with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// What is said if there are no rows.
    pub empty: &'static str,
}

/// How a chart is drawn. The first column of the table is its first axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chart {
    /// Bars, the series on top of each other.
    StackedBars(ChartStep, Scheme),
    /// A line for each series.
    Lines(ChartStep),
    /// The same on a logarithmic axis.
    LogLines(ChartStep),
    /// Horizontal bars; a second series is a mark.
    Ranked,
    /// Horizontal bars of the same length, divided among the series.
    RankedShares,
    /// A cell for each value of each series.
    Heatmap,
    /// A cell for each day, in weeks; a bar for each month.
    Calendar(ChartStep),
}

/// How much time a row of a figure covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChartStep {
    /// None: the rows are no times.
    None,
    /// A day.
    Day,
    /// A week.
    Week,
    /// A month.
    Month,
}

/// What the colours of a chart mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Nothing.
    Plain,
    /// Good, bad, unknown.
    Deflection,
    /// From the worst to the best rating.
    Rating,
}

/// A column of a figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FigureColumn {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub unit: Unit,
    /// What the chart does with it.
    pub role: ColumnRole,
}

/// What a chart does with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnRole {
    /// The first axis.
    X,
    /// It is drawn.
    Series,
    /// It is said about a point.
    Note,
    /// It says what is special about a day of a calendar.
    State,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Words.
    Text,
    /// Days, or weeks and months by their first day.
    Date,
    /// Instants.
    Time,
    /// Numbers of things.
    Count,
    /// Parts of 1.
    Percent,
    /// Ratings from 1 to 5.
    Rating,
    /// Durations in seconds.
    Seconds,
    /// Sizes in bytes.
    Bytes,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// There is none.
    Missing,
    /// Words.
    Text(String),
    /// A day.
    Date(NaiveDate),
    /// An instant.
    Time(DateTime<Utc>),
    /// A number of things.
    Count(u64),
    /// A part of 1.
    Percent(f64),
    /// A rating, or the average of some.
    Rating(f64),
    /// A duration in seconds.
    Seconds(u64),
    /// A size in bytes.
    Bytes(u64),
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Missing => serializer.serialize_none(),
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::Date(day) => serializer.collect_str(day),
            Cell::Time(at) => at.serialize(serializer),
            Cell::Count(number) | Cell::Seconds(number) | Cell::Bytes(number) => serializer.serialize_u64(*number),
            Cell::Percent(number) | Cell::Rating(number) => serializer.serialize_f64(*number),
        }
    }
}

impl Figure {
    /// A figure of half the page's width, with a chart but without rows.
    pub(super) fn charted(id: &'static str, title: &str, note: &str, chart: Chart, columns: Vec<FigureColumn>) -> Self {
        let (title, note, empty) = (title.to_owned(), note.to_owned(), "No conversation began in these days.");
        Figure { id, title, note, things: None, chart: Some(chart), is_wide: false, columns, rows: Vec::new(), empty }
    }
}

impl FigureColumn {
    /// A column for each rating.
    pub(super) fn ratings() -> impl Iterator<Item = Self> {
        (1..=5).map(|rating| Self::series(&rating.to_string(), Unit::Count))
    }

    /// The first axis.
    pub(super) fn x(name: &str, unit: Unit) -> Self {
        Self::of(name, unit, ColumnRole::X)
    }

    /// A column that is drawn.
    pub(super) fn series(name: &str, unit: Unit) -> Self {
        Self::of(name, unit, ColumnRole::Series)
    }

    /// A column that is said about a point.
    pub(super) fn note(name: &str, unit: Unit) -> Self {
        Self::of(name, unit, ColumnRole::Note)
    }

    /// A column that says what is special about a day.
    pub(super) fn state(name: &str) -> Self {
        Self::of(name, Unit::Text, ColumnRole::State)
    }

    fn of(name: &str, unit: Unit, role: ColumnRole) -> Self {
        FigureColumn { name: name.to_owned(), unit, role }
    }
}

impl Cell {
    /// A part of a whole; missing if there is no whole.
    pub(super) fn share(part: u64, whole: u64) -> Self {
        if whole == 0 { Cell::Missing } else { Cell::Percent(ratio(part, whole)) }
    }

    /// A value that may be missing.
    pub(super) fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Self {
        value.map_or(Cell::Missing, cell)
    }
}

/// One number divided by another that is not 0.
#[expect(clippy::cast_precision_loss, reason = "no lake has 2^53 of anything")]
pub(super) fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

impl Cell {
    /// The value as a program reads it; empty if it is missing.
    pub(super) fn value(&self) -> String {
        match self {
            Cell::Missing => String::new(),
            Cell::Text(text) => text.clone(),
            Cell::Date(day) => day.to_string(),
            Cell::Time(at) => at.to_rfc3339_opts(SecondsFormat::Secs, true),
            Cell::Count(number) | Cell::Seconds(number) | Cell::Bytes(number) => number.to_string(),
            Cell::Percent(number) | Cell::Rating(number) => number.to_string(),
        }
    }
}

/// The value as people read it.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Missing => f.write_str("–"),
            Cell::Text(text) => f.write_str(text),
            Cell::Date(day) => write!(f, "{day}"),
            Cell::Time(at) => write!(f, "{}", at.format("%Y-%m-%d %H:%M")),
            Cell::Count(number) => write!(f, "{}", HumanCount(*number)),
            Cell::Percent(share) => write!(f, "{:.1} %", share * 100.0),
            Cell::Rating(rating) => write!(f, "{rating:.2}"),
            Cell::Seconds(secs) => f.write_str(&duration(*secs)),
            Cell::Bytes(bytes) => write!(f, "{}", DecimalBytes(*bytes)),
        }
    }
}

/// A duration in its two largest units.
fn duration(secs: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = secs;
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        let count = left / unit;
        left %= unit;
        if count > 0 || (unit == 1 && parts.is_empty()) {
            parts.push(format!("{count} {name}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_their_units() {
        let shown = |cells: &[Cell]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let secs = [0, 59, 60, 250, 3_600, 3_660, 90_000, 86_401].map(Cell::Seconds);
        assert_eq!(shown(&secs), ["0 s", "59 s", "1 min", "4 min 10 s", "1 h", "1 h 1 min", "1 d 1 h", "1 d"]);
        let others = [
            Cell::Missing,
            Cell::Count(12_345),
            Cell::share(1, 3),
            Cell::share(0, 0),
            Cell::Rating(4.256),
            Cell::Bytes(1_500),
        ];
        assert_eq!(shown(&others), ["–", "12,345", "33.3 %", "–", "4.26", "1.50 kB"]);
        let values: Vec<_> = others.iter().map(Cell::value).collect();
        assert_eq!(values, ["", "12345", "0.3333333333333333", "", "4.256", "1500"]);
    }
}
