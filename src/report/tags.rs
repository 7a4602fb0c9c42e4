//! The figures about tags: how conversations with a tag are rated, and how often a tag occurs.
//!
//! Must not depend on: how rows are read and how a page is written.

use std::cmp::Reverse;

use chrono::NaiveDate;

use super::figure::{Cell, Chart, ChartStep, Figure, FigureColumn, Unit, ratio};
use super::tally::{RangeTally, Ratings, TagTally};

/// How many tags are shown.
const TOP_TAGS: usize = 15;
/// How many tags have a line of their own.
const TAG_LINES: usize = 5;
/// Fewer ratings say little about a tag.
const FEW_RATINGS: u64 = 5;
/// What is said without tags.
const NO_TAGS: &str = "No conversation of these days has a tag.";

pub(super) fn csat_by_tag(tally: &RangeTally) -> Figure {
    let columns = [FigureColumn::x("Tag", Unit::Text)].into_iter().chain(FigureColumn::ratings());
    let notes = [FigureColumn::note("Average", Unit::Rating), FigureColumn::note("Ratings", Unit::Count)];
    let note = format!("The most frequent tags with at least {FEW_RATINGS} ratings, from the best average.");
    let columns = columns.chain(notes).collect();
    let mut figure = Figure::charted("csat-tag", "CSAT by tag", &note, Chart::RankedShares, columns);
    figure.empty = "No tag of these days has enough ratings.";
    let mut tags: Vec<_> = tally.tags.iter().filter(|(_, tag)| tag.ratings.total() >= FEW_RATINGS).collect();
    tags.sort_by_key(|(name, tag)| (Reverse(tag.conversations), *name));
    tags.truncate(TOP_TAGS);
    let average = |ratings: &Ratings| ratings.average().unwrap_or(0.0);
    tags.sort_by(|(_, one), (_, other)| average(&other.ratings).total_cmp(&average(&one.ratings)));
    figure.rows = tags
        .into_iter()
        .map(|(name, tag)| {
            let notes = [Cell::maybe(tag.ratings.average(), Cell::Rating), Cell::Count(tag.ratings.total())];
            [Cell::Text(name.clone())].into_iter().chain(tag.ratings.0.map(Cell::Count)).chain(notes).collect()
        })
        .collect();
    figure
}

/// The most frequent tags.
fn most_frequent(tally: &RangeTally, most: usize) -> Vec<(&String, &TagTally)> {
    let mut tags: Vec<_> = tally.tags.iter().collect();
    tags.sort_by_key(|(name, tag)| (Reverse(tag.conversations), *name));
    tags.truncate(most);
    tags
}

pub(super) fn top_tags(tally: &RangeTally) -> Figure {
    let columns = vec![
        FigureColumn::x("Tag", Unit::Text),
        FigureColumn::series("Second half", Unit::Count),
        FigureColumn::series("First half", Unit::Count),
        FigureColumn::note("Change", Unit::Text),
        FigureColumn::note("All", Unit::Count),
        FigureColumn::note("Share of conversations", Unit::Percent),
    ];
    let note = "Conversations with each of the most frequent tags in the second half of these days; the mark is the \
                first half.";
    let mut figure = Figure::charted("tags", "Top tags", note, Chart::Ranked, columns);
    figure.empty = NO_TAGS;
    let conversations = tally.by_messages.values().sum();
    let row = |(name, tag): (&String, &TagTally)| {
        let before = tag.conversations.saturating_sub(tag.in_second_half);
        vec![
            Cell::Text(name.clone()),
            Cell::Count(tag.in_second_half),
            Cell::Count(before),
            Cell::maybe(change(before, tag.in_second_half), Cell::Text),
            Cell::Count(tag.conversations),
            Cell::share(tag.conversations, conversations),
        ]
    };
    figure.rows = most_frequent(tally, TOP_TAGS).into_iter().map(row).collect();
    figure
}

/// The change from one count to another in percent; `None` if there was nothing before.
fn change(before: u64, after: u64) -> Option<String> {
    (before > 0).then(|| format!("{:+.0} %", (ratio(after, before) - 1.0) * 100.0))
}

pub(super) fn tags_by_week(tally: &RangeTally) -> Figure {
    let top = most_frequent(tally, TAG_LINES);
    let series = top.iter().map(|(name, _)| FigureColumn::series(name, Unit::Count));
    let columns = [FigureColumn::x("Week", Unit::Date)].into_iter().chain(series).collect();
    let note = "Conversations with the most frequent tags. The first and the last week may not be complete.";
    let mut figure = Figure::charted("tags-week", "Top tags by week", note, Chart::Lines(ChartStep::Week), columns);
    figure.things = Some("conversations");
    figure.empty = NO_TAGS;
    let row = |week: NaiveDate| {
        let count = |tag: &TagTally| Cell::Count(tag.weeks.get(&week).copied().unwrap_or(0));
        [Cell::Date(week)].into_iter().chain(top.iter().map(|(_, tag)| count(tag))).collect()
    };
    if !top.is_empty() {
        figure.rows = tally.weeks.keys().copied().map(row).collect();
    }
    figure
}
