//! What a support team asks: how many conversations, how they end, how people rate them, when they come, and what they
//! are about.
//!
//! Guarantees: no names, texts or e-mail addresses of people; summaries only if they were asked for.
//! Must not depend on: how rows are read and how a page is written.

use chrono::NaiveDate;

use super::figure::{Cell, Chart, ChartStep, Fact, Figure, FigureColumn, Scheme, Section, Tile, Unit, ratio};
use super::range::DayRange;
use super::tags;
use super::tally::{LongConversation, MANY_MESSAGES, MOST_TAGS, Outcomes, RangeTally, Ratings, WeekTally, percentiles};
use crate::counted::counted;
use crate::status::Level;

/// What is said without conversations.
const NO_CONVERSATIONS: &str = "No conversation began in these days.";
/// What is said without ratings.
const NO_RATINGS: &str = "Nobody rated a conversation in these days.";

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Makes the section.
pub(super) fn section(tally: &RangeTally, range: DayRange, with_summaries: bool) -> Section {
    let mut all = tally.all();
    let tiles = tiles(tally, &mut all);
    let mut figures = vec![conversations_by_day(tally, range), deflection_by_day(tally, range)];
    figures.extend([conversations_by_week(tally), deflection_by_week(tally)]);
    figures.extend([csat_by_week(tally), ratings_by_week(tally), ratings(&all.ratings), tags::csat_by_tag(tally)]);
    figures.extend([handovers_by_week(tally), messages(tally)]);
    figures.extend([first_responses(tally), durations(tally)]);
    figures.extend([
        busiest_hours(tally),
        tags::top_tags(tally),
        tags::tags_by_week(tally),
        longest(tally, with_summaries),
    ]);
    if all.outcomes.conversations == 0 {
        figures.iter_mut().for_each(|figure| figure.rows.clear());
    }
    Section { id: "support", title: "Support", tiles, facts: facts(tally), figures }
}

fn tiles(tally: &RangeTally, all: &mut WeekTally) -> Vec<Tile> {
    let Outcomes { conversations, deflected, undeflected, handed_over } = all.outcomes;
    let [response, slow_response] = percentiles(&mut all.first_responses, [50, 90]);
    let [duration, long_duration] = percentiles(&mut all.durations, [50, 90]);
    let days = tally.days.len() as u64;
    let per_day = conversations.checked_div(days);
    let per_day = per_day.map_or_else(String::new, |count| format!("{} a day", thousands(count)));
    let nine_of_ten =
        |value: Option<u64>| value.map_or_else(String::new, |value| format!("9 of 10 within {}", Cell::Seconds(value)));
    let average = |sum: u64| if conversations == 0 { Cell::Missing } else { Cell::Text(tenths(sum, conversations)) };
    vec![
        Tile { name: "Conversations", value: Cell::Count(conversations), note: per_day },
        Tile {
            name: "Deflection rate",
            value: Cell::share(deflected, deflected.saturating_add(undeflected)),
            note: "resolved by the AI alone".to_owned(),
        },
        Tile {
            name: "CSAT",
            value: Cell::maybe(all.ratings.average(), Cell::Rating),
            note: format!("{} from 1 to 5", counted(thousands(all.ratings.total()), "rating")),
        },
        Tile {
            name: "Hand-overs",
            value: Cell::share(handed_over, conversations),
            note: counted(thousands(handed_over), "conversation"),
        },
        Tile {
            name: "First response",
            value: Cell::maybe(response, Cell::Seconds),
            note: format!("median; {}", nine_of_ten(slow_response)),
        },
        Tile {
            name: "Duration",
            value: Cell::maybe(duration, Cell::Seconds),
            note: format!("median; {}", nine_of_ten(long_duration)),
        },
        Tile {
            name: "Messages",
            value: average(tally.messages),
            note: format!("per conversation; {} in all", thousands(tally.messages)),
        },
        Tile {
            name: "Rated",
            value: Cell::share(all.ratings.total(), conversations),
            note: "conversations with a rating".to_owned(),
        },
    ]
}

fn facts(tally: &RangeTally) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut say = |text| facts.push(Fact { level: Level::Ok, text });
    if tally.odd_ratings > 0 {
        say(format!("{} left out, because they are not from 1 to 5", counted(tally.odd_ratings, "rating")));
    }
    if tally.has_too_many_tags {
        say(format!(
            "tags are not counted, because there are more than {} different ones",
            thousands(MOST_TAGS as u64)
        ));
    }
    if tally.deleted > 0 {
        let deleted = counted(thousands(tally.deleted), "conversation");
        say(format!("{deleted} are counted although `reconcile` marked them as deleted at the source"));
    }
    facts
}

/// A row for each day of the range: the day, and the `cells` of it.
fn by_day<const N: usize>(
    tally: &RangeTally,
    range: DayRange,
    cells: impl Fn(&Outcomes) -> [Cell; N],
) -> Vec<Vec<Cell>> {
    let of = |day| tally.days.get(&day).copied().unwrap_or_default();
    range.days().map(|day| [Cell::Date(day)].into_iter().chain(cells(&of(day))).collect()).collect()
}

/// A row for each week: its Monday, and the `cells` of it.
fn by_week<const N: usize>(tally: &RangeTally, cells: impl Fn(&WeekTally) -> [Cell; N]) -> Vec<Vec<Cell>> {
    let row = |(week, tally): (&NaiveDate, &WeekTally)| [Cell::Date(*week)].into_iter().chain(cells(tally)).collect();
    tally.weeks.iter().map(row).collect()
}

fn outcome_columns(x: &str) -> Vec<FigureColumn> {
    let series = |name| FigureColumn::series(name, Unit::Count);
    vec![
        FigureColumn::x(x, Unit::Date),
        series("Resolved by the AI"),
        series("Not resolved by the AI"),
        series("Unknown"),
        FigureColumn::note("All", Unit::Count),
    ]
}

fn outcome_cells(of: &Outcomes) -> [Cell; 4] {
    [of.deflected, of.undeflected, of.unknown(), of.conversations].map(Cell::Count)
}

fn conversations_by_day(tally: &RangeTally, range: DayRange) -> Figure {
    let chart = Chart::StackedBars(ChartStep::Day, Scheme::Deflection);
    let note = "Conversations by the day, in UTC, on which they began. The last day may not be complete.";
    let mut figure = Figure::charted("conversations-day", "Conversations by day", note, chart, outcome_columns("Day"));
    figure.things = Some("conversations");
    figure.rows = by_day(tally, range, outcome_cells);
    figure
}

fn conversations_by_week(tally: &RangeTally) -> Figure {
    let chart = Chart::StackedBars(ChartStep::Week, Scheme::Deflection);
    let note = "Weeks begin on Monday. The first and the last may not be complete.";
    let mut figure =
        Figure::charted("conversations-week", "Conversations by week", note, chart, outcome_columns("Week"));
    figure.things = Some("conversations");
    figure.rows = by_week(tally, |week| outcome_cells(&week.outcomes));
    figure
}

fn deflection_columns(x: &str) -> Vec<FigureColumn> {
    vec![
        FigureColumn::x(x, Unit::Date),
        FigureColumn::series("Deflection rate", Unit::Percent),
        FigureColumn::note("Conversations", Unit::Count),
    ]
}

fn deflection_cells(of: &Outcomes) -> [Cell; 2] {
    let known = of.deflected.saturating_add(of.undeflected);
    [Cell::share(of.deflected, known), Cell::Count(of.conversations)]
}

fn deflection_by_day(tally: &RangeTally, range: DayRange) -> Figure {
    let note = "The share of conversations that the AI resolved alone.";
    let columns = deflection_columns("Day");
    let mut figure =
        Figure::charted("deflection-day", "Deflection rate by day", note, Chart::Lines(ChartStep::Day), columns);
    figure.rows = by_day(tally, range, deflection_cells);
    figure
}

fn deflection_by_week(tally: &RangeTally) -> Figure {
    let note = "The same by week, which hides the weekends.";
    let columns = deflection_columns("Week");
    let mut figure =
        Figure::charted("deflection-week", "Deflection rate by week", note, Chart::Lines(ChartStep::Week), columns);
    figure.rows = by_week(tally, |week| deflection_cells(&week.outcomes));
    figure
}

fn csat_by_week(tally: &RangeTally) -> Figure {
    let columns = vec![
        FigureColumn::x("Week", Unit::Date),
        FigureColumn::series("Average CSAT", Unit::Rating),
        FigureColumn::note("Ratings", Unit::Count),
    ];
    let note = "The average of the ratings from 1 to 5, by the week in which the conversation began.";
    let mut figure = Figure::charted("csat-week", "CSAT by week", note, Chart::Lines(ChartStep::Week), columns);
    figure.empty = NO_RATINGS;
    if tally.weeks.values().any(|tally| tally.ratings.total() > 0) {
        let cells = |of: &Ratings| [Cell::maybe(of.average(), Cell::Rating), Cell::Count(of.total())];
        figure.rows = by_week(tally, |week| cells(&week.ratings));
    }
    figure
}

fn ratings_by_week(tally: &RangeTally) -> Figure {
    let columns = [FigureColumn::x("Week", Unit::Date)].into_iter().chain(FigureColumn::ratings()).collect();
    let chart = Chart::StackedBars(ChartStep::Week, Scheme::Rating);
    let note = "How many customers gave each rating, from 1, the worst, to 5.";
    let mut figure = Figure::charted("ratings-week", "Ratings by week", note, chart, columns);
    figure.things = Some("ratings");
    figure.empty = NO_RATINGS;
    if tally.weeks.values().any(|tally| tally.ratings.total() > 0) {
        figure.rows = by_week(tally, |week| week.ratings.0.map(Cell::Count));
    }
    figure
}

fn ratings(of: &Ratings) -> Figure {
    let columns = vec![
        FigureColumn::x("Rating", Unit::Text),
        FigureColumn::series("Ratings", Unit::Count),
        FigureColumn::note("Share", Unit::Percent),
    ];
    let chart = Chart::StackedBars(ChartStep::None, Scheme::Plain);
    let mut figure = Figure::charted("ratings", "All ratings", "How often each rating was given.", chart, columns);
    figure.empty = NO_RATINGS;
    if of.total() > 0 {
        let row = |(rating, count): (u64, u64)| {
            vec![Cell::Text(rating.to_string()), Cell::Count(count), Cell::share(count, of.total())]
        };
        figure.rows = (1..).zip(of.0).map(row).collect();
    }
    figure
}

fn handovers_by_week(tally: &RangeTally) -> Figure {
    let columns = vec![
        FigureColumn::x("Week", Unit::Date),
        FigureColumn::series("Hand-over rate", Unit::Percent),
        FigureColumn::note("Hand-overs", Unit::Count),
        FigureColumn::note("Conversations", Unit::Count),
    ];
    let note = "The share of conversations whose destination is not the AI, or in which somebody else than the user and \
                the AI wrote.";
    let mut figure =
        Figure::charted("handovers-week", "Hand-overs by week", note, Chart::Lines(ChartStep::Week), columns);
    figure.rows = by_week(tally, |week| {
        let Outcomes { conversations, handed_over, .. } = week.outcomes;
        [Cell::share(handed_over, conversations), Cell::Count(handed_over), Cell::Count(conversations)]
    });
    figure
}

fn messages(tally: &RangeTally) -> Figure {
    let columns = vec![
        FigureColumn::x("Messages", Unit::Text),
        FigureColumn::series("Conversations", Unit::Count),
        FigureColumn::note("Share", Unit::Percent),
    ];
    let chart = Chart::StackedBars(ChartStep::None, Scheme::Plain);
    let note = "How many conversations have so many messages.";
    let mut figure = Figure::charted("messages", "Messages per conversation", note, chart, columns);
    let all = tally.by_messages.values().sum();
    let most = tally.by_messages.keys().next_back().copied().unwrap_or(0);
    let least = tally.by_messages.keys().next().copied().unwrap_or(0);
    let row = |messages: u64| {
        let count = tally.by_messages.get(&messages).copied().unwrap_or(0);
        let name = if messages == MANY_MESSAGES { format!("{messages}+") } else { messages.to_string() };
        vec![Cell::Text(name), Cell::Count(count), Cell::share(count, all)]
    };
    figure.rows = (least..=most).map(row).collect();
    figure
}

/// Percentiles of durations by week.
fn percentiles_by_week(
    tally: &RangeTally,
    [id, title, note]: [&'static str; 3],
    values: impl Fn(&WeekTally) -> &Vec<u32>,
) -> Figure {
    let columns = vec![
        FigureColumn::x("Week", Unit::Date),
        FigureColumn::series("Median", Unit::Seconds),
        FigureColumn::series("90 %", Unit::Seconds),
        FigureColumn::series("99 %", Unit::Seconds),
    ];
    let mut figure = Figure::charted(id, title, note, Chart::LogLines(ChartStep::Week), columns);
    figure.rows = by_week(tally, |week| {
        percentiles(&mut values(week).clone(), [50, 90, 99]).map(|secs| Cell::maybe(secs, Cell::Seconds))
    });
    figure
}

fn first_responses(tally: &RangeTally) -> Figure {
    let note = "From the user's first message to the first answer: half of them, 90 % and 99 % came within this time.";
    percentiles_by_week(tally, ["first-response-week", "First response by week", note], |week| &week.first_responses)
}

fn durations(tally: &RangeTally) -> Figure {
    let note = "From the beginning of a conversation to its last message: half of them, 90 % and 99 % took no longer.";
    percentiles_by_week(tally, ["duration-week", "Duration by week", note], |week| &week.durations)
}

fn busiest_hours(tally: &RangeTally) -> Figure {
    let hours = (0..24).map(|hour| FigureColumn::series(&format!("{hour:02}"), Unit::Count));
    let columns = [FigureColumn::x("Weekday", Unit::Text)].into_iter().chain(hours).collect();
    let note = "When conversations begin, by the hour of the day in UTC.";
    let mut figure = Figure::charted("busiest-hours", "Busiest hours", note, Chart::Heatmap, columns);
    figure.is_wide = true;
    let row = |(name, hours): (&str, [u64; 24])| {
        [Cell::Text(name.to_owned())].into_iter().chain(hours.map(Cell::Count)).collect()
    };
    figure.rows = WEEKDAYS.into_iter().zip(tally.hours).map(row).collect();
    figure
}

fn longest(tally: &RangeTally, with_summaries: bool) -> Figure {
    let mut columns = vec![
        FigureColumn::x("Conversation", Unit::Text),
        FigureColumn::series("Began", Unit::Time),
        FigureColumn::series("Messages", Unit::Count),
        FigureColumn::series("Duration", Unit::Seconds),
        FigureColumn::series("Handed over", Unit::Text),
    ];
    columns.extend(with_summaries.then(|| FigureColumn::series("Summary", Unit::Text)));
    let row = |of: &LongConversation| {
        let handed_over = if of.is_handed_over { "yes" } else { "no" };
        let mut cells = vec![
            Cell::Text(of.id.clone()),
            Cell::Time(of.created_at),
            Cell::Count(of.messages),
            Cell::maybe(of.duration_secs, |secs| Cell::Seconds(secs.into())),
            Cell::Text(handed_over.to_owned()),
        ];
        cells.extend(with_summaries.then(|| Cell::maybe(of.summary.clone(), Cell::Text)));
        cells
    };
    Figure {
        id: "longest",
        title: "Longest conversations".to_owned(),
        note: "Those with the most messages.".to_owned(),
        things: None,
        chart: None,
        is_wide: true,
        columns,
        rows: tally.longest.iter().map(row).collect(),
        empty: NO_CONVERSATIONS,
    }
}

fn thousands(number: u64) -> indicatif::HumanCount {
    indicatif::HumanCount(number)
}

/// One number divided by another, with one decimal.
fn tenths(one: u64, other: u64) -> String {
    format!("{:.1}", ratio(one, other))
}
