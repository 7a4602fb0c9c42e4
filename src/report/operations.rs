//! What a data team asks: how fresh the lake is, how its last runs went, what its tables hold, and what is odd.
//!
//! Must not depend on: the rows of the tables, and how a page is written.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use indicatif::{DecimalBytes, HumanCount};

use super::figure::{Cell, Chart, ChartStep, Fact, Figure, FigureColumn, Scheme, Section, Tile, Unit};
use super::range::DayRange;
use crate::counted::counted;
use crate::lake::{Entries, PastRun};
use crate::model::{PartitionBy, PerTable, Table};
use crate::status::{Health, Level, Situation};
use crate::verify::Verification;

/// How many runs are listed.
const LISTED_RUNS: usize = 30;
/// A day with so many times more or fewer conversations than its weekday usually has is odd.
const ODD: u64 = 3;
/// The weeks of more days need the width of the page.
const HALF_YEAR: usize = 183;
/// A difference that is smaller is not odd.
const SMALL: u64 = 10;

/// What the section is made of.
pub(super) struct Operations<'a> {
    pub(super) situation: &'a Situation,
    pub(super) health: &'a Health,
    pub(super) entries: &'a Entries,
    /// The last runs, the newest first.
    pub(super) runs: &'a [PastRun],
    /// Files of quarantined entries.
    pub(super) quarantine_files: u64,
    /// Partitions that could not be read, with the reason.
    pub(super) unreadable: &'a [String],
    /// The result of a verification just now.
    pub(super) verification: Option<&'a Verification>,
    pub(super) range: DayRange,
}

impl Operations<'_> {
    /// Makes the section.
    pub(super) fn section(&self) -> Section {
        let figures = vec![self.calendar(), self.durations(), self.runs(), self.tables()];
        Section { id: "data", title: "Data", tiles: self.tiles(), facts: self.facts(), figures }
    }

    fn tiles(&self) -> Vec<Tile> {
        let Situation { status, at, .. } = self.situation;
        let age = |time: DateTime<Utc>| Cell::Seconds(u64::try_from((*at - time).num_seconds()).unwrap_or(0));
        let said = |time: Option<DateTime<Utc>>, what: &str| {
            time.map_or_else(|| "no export is complete yet".to_owned(), |time| format!("{what} {}", minute(time)))
        };
        let run = self.runs.first();
        let (rows, bytes) = (*status.tables.get(Table::Conversations), status.tables);
        vec![
            Tile {
                name: "Fresh",
                value: Cell::maybe(status.exported_at, age),
                note: said(status.exported_at, "every change is in it before"),
            },
            Tile {
                name: "Lag",
                value: Cell::maybe(status.watermark, age),
                note: said(status.watermark, "since the newest change,"),
            },
            Tile {
                name: "Last run",
                value: Cell::maybe(run, |run| Cell::Text(run.words().to_owned())),
                note: run.map_or_else(
                    || "no report of a run is kept".to_owned(),
                    |run| format!("`{}` of {}", run.command, minute(run.finished_at)),
                ),
            },
            Tile {
                name: "In the lake",
                value: Cell::Count(rows.rows),
                note: format!("conversations in {}", counted(HumanCount(rows.dates), "partition")),
            },
            Tile {
                name: "Size",
                value: Cell::Bytes(Table::ALL.iter().map(|table| bytes.get(*table).bytes).sum()),
                note: "of Parquet in four tables".to_owned(),
            },
            Tile {
                name: "Duplicates resolved",
                value: Cell::Count(self.sum(|run| run.duplicates_resolved)),
                note: self.of_runs(),
            },
            Tile { name: "Quarantined", value: Cell::Count(self.sum(|run| run.quarantined)), note: self.of_runs() },
            Tile {
                name: "Unreadable times",
                value: Cell::Count(self.sum(|run| run.unreadable_times)),
                note: self.of_runs(),
            },
        ]
    }

    fn sum(&self, of: impl Fn(&PastRun) -> u64) -> u64 {
        self.runs.iter().map(of).fold(0, u64::saturating_add)
    }

    fn of_runs(&self) -> String {
        let since = self.runs.last().map_or_else(String::new, |run| format!(" since {}", run.started_at.date_naive()));
        format!("in {}{since}", counted(HumanCount(self.runs.len() as u64), "run"))
    }

    /// Whether the partitions need the width of the page; what stands beside them then does too.
    fn is_wide(&self) -> bool {
        self.situation.status.partition_by == PartitionBy::Month || self.range.days().count() > HALF_YEAR
    }

    fn facts(&self) -> Vec<Fact> {
        let status = &self.situation.status;
        let advice = self.health.advice.iter().map(|advice| {
            let next = if advice.next.is_empty() { String::new() } else { format!(": {}", advice.next) };
            Fact { level: advice.level, text: format!("{}{next}", advice.what) }
        });
        let mut facts: Vec<_> = advice.collect();
        let mut say = |level, text: String| facts.push(Fact { level, text });
        if let Some(holder) = &self.situation.holder {
            say(Level::Ok, format!("a run is in progress: {holder}"));
        }
        match self.verification {
            None => say(Level::Ok, "the lake was not verified for this page; `report --verify` does it".to_owned()),
            Some(found) if found.problems() == 0 => {
                let files = counted(HumanCount(found.files), "file");
                say(Level::Ok, format!("verified for this page: {files} read, no problem found"));
            }
            Some(found) => {
                let problems = counted(HumanCount(found.problems()), "problem");
                say(Level::Bad, format!("verified for this page: {problems}; `decagon-lake verify` lists them"));
            }
        }
        if let Some(run) = self.runs.iter().find(|run| run.command == "verify") {
            let (level, result) = match run.problems {
                Some(0) => (Level::Ok, "no problem is left".to_owned()),
                Some(problems) => (Level::Bad, format!("{} left", counted(HumanCount(problems), "problem"))),
                None => (Level::Bad, run.words().to_owned()),
            };
            say(level, format!("the last `verify --repair`, of {}: {result}", minute(run.finished_at)));
        }
        for reason in self.unreadable {
            say(Level::Bad, format!("a partition is left out of this page: {reason}"));
        }
        if self.quarantine_files > 0 {
            let files = counted(HumanCount(self.quarantine_files), "file");
            say(Level::Warn, format!("{files} of quarantined entries in {}/_state/quarantine/", status.lake));
        }
        let staging = &status.staging;
        if staging.files > 0 {
            let versions = counted(HumanCount(*staging.extent.rows.get(Table::Conversations)), "version");
            say(Level::Ok, format!("{versions} of conversations are staged and not in this page yet"));
        }
        let columns = status.fields_without_column.iter().count() as u64;
        if columns > 0 {
            let fields = counted(HumanCount(columns), "field");
            say(Level::Ok, format!("the API sent {fields} without a column, which are in `extra`"));
        }
        if status.suppressed > 0 {
            let forgotten = counted(HumanCount(status.suppressed), "conversation");
            say(Level::Ok, format!("{forgotten} were forgotten and are kept out"));
        }
        let unknown = self.situation.status.partition_by.unknown();
        let rows = self.entries.get(&unknown).and_then(|entry| entry.files.get(Table::Conversations).as_ref()?.rows);
        if let Some(rows @ 1..) = rows {
            let rows = counted(HumanCount(rows), "conversation");
            say(Level::Warn, format!("{rows} without a readable created_at are on no day of this page"));
        }
        facts
    }

    /// The rows of each partition of the range.
    fn calendar(&self) -> Figure {
        let by_day = self.situation.status.partition_by == PartitionBy::Day;
        let (step, step_name, name) =
            if by_day { (ChartStep::Day, "day", "Day") } else { (ChartStep::Month, "month", "Month") };
        let columns = vec![
            FigureColumn::x(name, Unit::Date),
            FigureColumn::series("Conversations", Unit::Count),
            FigureColumn::state("Remark"),
        ];
        let note = match by_day {
            true => format!(
                "Conversations in the partition of each day. A day is odd if it has {ODD} times more or fewer than \
                 its weekday usually has, and at least {SMALL}; the first and the last day never are. A missing day has no \
                 partition."
            ),
            false => "Conversations in the partition of each month; a missing month has no partition.".to_owned(),
        };
        let title = format!("Partitions by {step_name}");
        let mut figure = Figure::charted("calendar", &title, &note, Chart::Calendar(step), columns);
        figure.is_wide = self.is_wide();
        figure.empty = "No partition is in these days.";
        let counts = self.counts();
        if counts.values().any(Option::is_some) {
            let odd = if by_day { odd_days(&counts, self.range) } else { Vec::new() };
            let remark = |day: &NaiveDate, count: Option<u64>| match count {
                None => "missing",
                Some(_) if odd.contains(day) => "odd",
                Some(_) => "",
            };
            let row = |(day, count): (&NaiveDate, &Option<u64>)| {
                let remark = Cell::Text(remark(day, *count).to_owned());
                vec![Cell::Date(*day), Cell::maybe(*count, Cell::Count), remark]
            };
            figure.rows = counts.iter().map(row).collect();
        }
        figure
    }

    /// The conversations of each partition that the range should have; `None` if it has none.
    fn counts(&self) -> BTreeMap<NaiveDate, Option<u64>> {
        let by = self.situation.status.partition_by;
        let partitions = self.range.days().map(|day| by.of_day(day));
        let rows = |partition| {
            let file = self.entries.get(&partition)?.files.get(Table::Conversations).as_ref()?;
            Some(file.rows.unwrap_or(0))
        };
        let counts = partitions.filter_map(|partition| Some((partition.date()?, rows(partition))));
        // Nothing may have begun on the last day yet.
        counts.filter(|(day, count)| *day != self.range.last || count.is_some()).collect()
    }

    fn runs(&self) -> Figure {
        let column = |(name, unit)| FigureColumn::series(name, unit);
        let columns = [FigureColumn::x("Began", Unit::Time)].into_iter().chain(
            [
                ("Command", Unit::Text),
                ("Outcome", Unit::Text),
                ("Exit code", Unit::Count),
                ("Duration", Unit::Seconds),
                ("Pages", Unit::Count),
                ("Retries", Unit::Count),
                ("Conversations staged", Unit::Count),
                ("Duplicates resolved", Unit::Count),
                ("Quarantined", Unit::Count),
                ("Error", Unit::Text),
            ]
            .map(column),
        );
        let row = |run: &PastRun| {
            let error = run.error.first().cloned();
            vec![
                Cell::Time(run.started_at),
                Cell::Text(run.command.clone()),
                Cell::Text(run.words().to_owned()),
                Cell::maybe(run.exit_code, |code| Cell::Count(code.into())),
                Cell::Seconds(run.secs()),
                Cell::Count(run.pages),
                Cell::Count(run.retries),
                Cell::Count(*run.staged_rows.get(Table::Conversations)),
                Cell::Count(run.duplicates_resolved),
                Cell::Count(run.quarantined),
                Cell::maybe(error, Cell::Text),
            ]
        };
        Figure {
            id: "runs",
            title: "Last runs".to_owned(),
            note: format!("The newest first; at most {LISTED_RUNS} of those whose reports the lake keeps."),
            things: None,
            chart: None,
            is_wide: true,
            columns: columns.collect(),
            rows: self.runs.iter().take(LISTED_RUNS).map(row).collect(),
            empty: "No report of a run is kept.",
        }
    }

    fn durations(&self) -> Figure {
        let columns = vec![
            FigureColumn::x("Day", Unit::Date),
            FigureColumn::series("Longest run", Unit::Seconds),
            FigureColumn::note("Runs", Unit::Count),
            FigureColumn::note("Not done", Unit::Count),
            FigureColumn::note("Retries", Unit::Count),
        ];
        let note = "The longest run of each day, as far as the lake keeps their reports.";
        let chart = Chart::StackedBars(ChartStep::Day, Scheme::Plain);
        let mut figure = Figure::charted("run-durations", "Duration of runs", note, chart, columns);
        figure.is_wide = self.is_wide();
        figure.empty = "No run of these days has a report.";
        let mut days: BTreeMap<NaiveDate, [u64; 4]> = BTreeMap::new();
        for run in self.runs.iter().filter(|run| run.started_at.date_naive() >= self.range.first) {
            let [longest, runs, failed, retries] = days.entry(run.started_at.date_naive()).or_default();
            *longest = run.secs().max(*longest);
            *runs += 1;
            *failed += u64::from(!run.is_done());
            *retries = retries.saturating_add(run.retries);
        }
        let row = |(day, [longest, runs, failed, retries]): (NaiveDate, [u64; 4])| {
            vec![Cell::Date(day), Cell::Seconds(longest), Cell::Count(runs), Cell::Count(failed), Cell::Count(retries)]
        };
        figure.rows = days.into_iter().map(row).collect();
        figure
    }

    fn tables(&self) -> Figure {
        let status = &self.situation.status;
        let column = |(name, unit)| FigureColumn::series(name, unit);
        let more = [
            ("Rows", Unit::Count),
            ("Bytes", Unit::Bytes),
            ("Partitions", Unit::Count),
            ("First", Unit::Date),
            ("Last", Unit::Date),
        ];
        let row = |table: Table| {
            let of = status.tables.get(table);
            vec![
                Cell::Text(table.name().to_owned()),
                Cell::Count(of.rows),
                Cell::Bytes(of.bytes),
                Cell::Count(of.dates),
                Cell::maybe(of.first_date, Cell::Date),
                Cell::maybe(of.last_date, Cell::Date),
            ]
        };
        let bytes: PerTable<u64> = PerTable::from_fn(|table| status.tables.get(table).bytes);
        Figure {
            id: "tables",
            title: "Tables".to_owned(),
            note: format!("The whole lake: {} of Parquet.", DecimalBytes(bytes.total())),
            things: None,
            chart: None,
            is_wide: true,
            columns: [FigureColumn::x("Table", Unit::Text)].into_iter().chain(more.map(column)).collect(),
            rows: Table::ALL.map(row).into(),
            empty: "",
        }
    }
}

/// The days with far more or far fewer conversations than the same weekday usually has. The first and the last day may
/// not be complete, so they never are among them.
fn odd_days(counts: &BTreeMap<NaiveDate, Option<u64>>, range: DayRange) -> Vec<NaiveDate> {
    let of_weekday = |day: NaiveDate| {
        let same = counts.iter().filter(|(other, _)| other.weekday() == day.weekday());
        let mut found: Vec<u64> = same.filter_map(|(_, count)| *count).collect();
        found.sort_unstable();
        found.get(found.len() / 2).copied().unwrap_or(0)
    };
    let is_odd = |day: NaiveDate, count: u64| {
        let usual = of_weekday(day);
        let is_far = count > usual.saturating_mul(ODD) || count.saturating_mul(ODD) < usual;
        day != range.first && day != range.last && is_far && count.abs_diff(usual) >= SMALL
    };
    counts.iter().filter_map(|(day, count)| count.is_some_and(|count| is_odd(*day, count)).then_some(*day)).collect()
}

fn minute(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_odd_if_it_is_far_from_its_weekday() {
        let first: NaiveDate = "2024-01-01".parse().unwrap();
        // Weekends are quieter, which is not odd.
        let usual = |day: NaiveDate| if day.weekday().num_days_from_monday() > 4 { 20 } else { 100 };
        let mut counts: BTreeMap<_, _> = first.iter_days().take(28).map(|day| (day, Some(usual(day)))).collect();
        let day = |number: u64| first + chrono::Days::new(number);
        let range = DayRange { first, last: day(27) };
        assert_eq!(odd_days(&counts, range), []);
        counts.insert(day(1), Some(33));
        counts.insert(day(2), Some(34));
        counts.insert(day(5), Some(61));
        counts.insert(day(6), Some(60));
        counts.insert(day(8), None);
        counts.insert(first, Some(0));
        counts.insert(range.last, Some(0));
        assert_eq!(odd_days(&counts, range), [day(1), day(5)]);
        let small: BTreeMap<_, _> = (0..28).map(|number| (day(number), Some(number % 9))).collect();
        assert_eq!(odd_days(&small, range), [], "a few conversations more or fewer are not odd");
    }
}
