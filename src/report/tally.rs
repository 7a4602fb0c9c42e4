//! Counts conversations by day, week, hour and tag.
//!
//! Guarantees: memory does not grow with the conversations, except for less than 32 bytes each, for the percentiles of a
//! range. Distinct tags are bounded: if there are too many, none is counted. The order in which partitions are counted does not matter.
//! Must not depend on: how rows are read, and what is shown.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};

use super::range::{DayRange, week_of};
use super::rows::ConversationFacts;

/// The most different tags. They take some 30 MB.
pub(super) const MOST_TAGS: usize = if cfg!(test) { 50 } else { 100_000 };
/// How many of the longest conversations are kept.
const LONGEST: usize = 10;
/// Conversations with at least so many messages are counted together.
pub(super) const MANY_MESSAGES: u64 = 20;

/// The counts of some conversations.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RangeTally {
    pub(super) days: BTreeMap<NaiveDate, Outcomes>,
    pub(super) weeks: BTreeMap<NaiveDate, WeekTally>,
    /// Conversations by weekday, from Monday, and hour.
    pub(super) hours: [[u64; 24]; 7],
    /// Conversations by their number of messages; see [`MANY_MESSAGES`].
    pub(super) by_messages: BTreeMap<u64, u64>,
    pub(super) messages: u64,
    pub(super) tags: BTreeMap<String, TagTally>,
    /// Whether there are too many different tags, so that none is counted.
    pub(super) has_too_many_tags: bool,
    /// Ratings that are not from 1 to 5.
    pub(super) odd_ratings: u64,
    /// Conversations that are marked as deleted at the source.
    pub(super) deleted: u64,
    /// The conversations with the most messages, those first.
    pub(super) longest: Vec<LongConversation>,
}

/// How conversations ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) conversations: u64,
    /// Those that the AI resolved alone.
    pub(super) deflected: u64,
    /// Those that it did not.
    pub(super) undeflected: u64,
    pub(super) handed_over: u64,
}

/// The conversations of a week.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WeekTally {
    pub(super) outcomes: Outcomes,
    pub(super) ratings: Ratings,
    pub(super) first_responses: Vec<u32>,
    pub(super) durations: Vec<u32>,
}

/// How many ratings there are from 1 to 5.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ratings(pub(super) [u64; 5]);

/// The conversations with one tag.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TagTally {
    pub(super) conversations: u64,
    /// Those in the second half of the range.
    pub(super) in_second_half: u64,
    pub(super) ratings: Ratings,
    pub(super) weeks: BTreeMap<NaiveDate, u64>,
}

/// A conversation with many messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LongConversation {
    pub(super) id: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) messages: u64,
    pub(super) duration_secs: Option<u32>,
    pub(super) is_handed_over: bool,
    pub(super) summary: Option<String>,
}

impl RangeTally {
    /// Counts a conversation if it began in the range.
    pub(super) fn count(&mut self, range: &DayRange, facts: ConversationFacts) {
        let Some(created_at) = facts.created_at else { return };
        let day = created_at.date_naive();
        if !range.contains(day) {
            return;
        }
        self.days.entry(day).or_default().count(&facts);
        let week = self.weeks.entry(week_of(day)).or_default();
        week.outcomes.count(&facts);
        week.first_responses.extend(facts.first_response_secs);
        week.durations.extend(facts.duration_secs);
        if let Some(rating) = facts.rating {
            self.odd_ratings += u64::from(!week.ratings.count(rating));
        }
        let (weekday, hour) = (created_at.weekday().num_days_from_monday(), created_at.hour());
        let of_weekday = self.hours.get_mut(weekday as usize);
        let cell = of_weekday.and_then(|hours| hours.get_mut(hour as usize));
        cell.into_iter().for_each(|count| *count += 1);
        *self.by_messages.entry(facts.messages.min(MANY_MESSAGES)).or_default() += 1;
        self.messages = self.messages.saturating_add(facts.messages);
        self.deleted += u64::from(facts.is_deleted);
        for name in &facts.tags {
            self.count_tag(range, day, name, facts.rating);
        }
        self.keep_longest(created_at, facts);
    }

    fn count_tag(&mut self, range: &DayRange, day: NaiveDate, name: &str, rating: Option<i32>) {
        if self.has_too_many_tags {
            return;
        }
        if !self.tags.contains_key(name) {
            self.tags.insert(name.to_owned(), TagTally::default());
            self.bound_tags();
        }
        let Some(tag) = self.tags.get_mut(name) else { return };
        tag.conversations += 1;
        tag.in_second_half += u64::from(range.is_in_second_half(day));
        *tag.weeks.entry(week_of(day)).or_default() += 1;
        if let Some(rating) = rating {
            tag.ratings.count(rating);
        }
    }

    /// Counts no tags any more if there are too many. So it does not matter which of them came first.
    fn bound_tags(&mut self) {
        self.has_too_many_tags |= self.tags.len() > MOST_TAGS;
        if self.has_too_many_tags {
            self.tags.clear();
        }
    }

    fn keep_longest(&mut self, created_at: DateTime<Utc>, facts: ConversationFacts) {
        let ConversationFacts { id, messages, duration_secs, is_handed_over, summary, .. } = facts;
        let is_longer = |last: &LongConversation| (messages, Reverse(&id)) > (last.messages, Reverse(&last.id));
        if self.longest.len() < LONGEST || self.longest.last().is_some_and(is_longer) {
            self.longest.push(LongConversation { id, created_at, messages, duration_secs, is_handed_over, summary });
            self.cut_longest();
        }
    }

    fn cut_longest(&mut self) {
        self.longest
            .sort_unstable_by(|one, other| (Reverse(one.messages), &one.id).cmp(&(Reverse(other.messages), &other.id)));
        self.longest.truncate(LONGEST);
    }

    /// Adds the counts of other conversations.
    pub(super) fn merge(&mut self, other: RangeTally) {
        for (day, outcomes) in other.days {
            self.days.entry(day).or_default().add(&outcomes);
        }
        for (week, tally) in other.weeks {
            self.weeks.entry(week).or_default().merge(tally);
        }
        for (mine, theirs) in self.hours.iter_mut().flatten().zip(other.hours.iter().flatten()) {
            *mine += theirs;
        }
        for (messages, count) in other.by_messages {
            *self.by_messages.entry(messages).or_default() += count;
        }
        self.has_too_many_tags |= other.has_too_many_tags;
        for (name, tally) in other.tags {
            self.tags.entry(name).or_default().merge(tally);
        }
        self.bound_tags();
        self.messages = self.messages.saturating_add(other.messages);
        self.odd_ratings += other.odd_ratings;
        self.deleted += other.deleted;
        self.longest.extend(other.longest);
        self.cut_longest();
    }

    /// Gives each week of the range a place, also those without conversations.
    pub(super) fn fill_weeks(&mut self, range: DayRange) {
        for day in range.days() {
            self.weeks.entry(week_of(day)).or_default();
        }
    }

    /// All weeks together.
    pub(super) fn all(&self) -> WeekTally {
        let mut all = WeekTally::default();
        for week in self.weeks.values() {
            all.outcomes.add(&week.outcomes);
            all.ratings.add(&week.ratings);
            all.first_responses.extend(&week.first_responses);
            all.durations.extend(&week.durations);
        }
        all
    }
}

impl Outcomes {
    fn count(&mut self, facts: &ConversationFacts) {
        self.conversations += 1;
        self.deflected += u64::from(facts.is_deflected == Some(true));
        self.undeflected += u64::from(facts.is_deflected == Some(false));
        self.handed_over += u64::from(facts.is_handed_over);
    }

    fn add(&mut self, other: &Outcomes) {
        self.conversations += other.conversations;
        self.deflected += other.deflected;
        self.undeflected += other.undeflected;
        self.handed_over += other.handed_over;
    }

    /// Those of which the API does not say whether the AI resolved them alone.
    pub(super) fn unknown(&self) -> u64 {
        self.conversations.saturating_sub(self.deflected).saturating_sub(self.undeflected)
    }
}

impl WeekTally {
    fn merge(&mut self, other: WeekTally) {
        self.outcomes.add(&other.outcomes);
        self.ratings.add(&other.ratings);
        self.first_responses.extend(other.first_responses);
        self.durations.extend(other.durations);
    }
}

impl TagTally {
    fn merge(&mut self, other: TagTally) {
        self.conversations += other.conversations;
        self.in_second_half += other.in_second_half;
        self.ratings.add(&other.ratings);
        for (week, count) in other.weeks {
            *self.weeks.entry(week).or_default() += count;
        }
    }
}

impl Ratings {
    /// Counts a rating; returns whether it is one from 1 to 5.
    fn count(&mut self, rating: i32) -> bool {
        let place = usize::try_from(rating).ok().and_then(|rating| rating.checked_sub(1));
        let count = place.and_then(|place| self.0.get_mut(place));
        count.map(|count| *count += 1).is_some()
    }

    fn add(&mut self, other: &Ratings) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The average; `None` without ratings.
    pub(super) fn average(&self) -> Option<f64> {
        let sum = self.0.iter().zip(1..).map(|(count, rating)| count * rating).sum();
        let total = self.total();
        (total > 0).then(|| super::figure::ratio(sum, total))
    }
}

/// Percentiles of some values, as DuckDB's `quantile_disc` has them: the smallest value that at least so many of a
/// hundred do not exceed. None without values.
pub(super) fn percentiles<const N: usize>(values: &mut [u32], of: [u64; N]) -> [Option<u64>; N] {
    values.sort_unstable();
    let count = values.len() as u64;
    of.map(|percent| {
        let rank = count.checked_mul(percent)?.div_ceil(100).saturating_sub(1);
        values.get(usize::try_from(rank).ok()?).map(|value| u64::from(*value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> DayRange {
        DayRange::ending("2024-03-01".parse().unwrap(), 30)
    }

    fn conversation(number: u32) -> ConversationFacts {
        ConversationFacts {
            id: format!("c{number:05}"),
            created_at: DateTime::from_timestamp(1_706_000_000 + i64::from(number) * 40_000, 0),
            is_deflected: [None, Some(true), Some(false)].into_iter().nth(number as usize % 3).flatten(),
            rating: number.is_multiple_of(4).then(|| i32::try_from(number % 7).unwrap()),
            is_handed_over: number.is_multiple_of(5),
            messages: u64::from(number % 30),
            first_response_secs: number.is_multiple_of(2).then_some(number),
            duration_secs: Some(number * 7),
            is_deleted: number.is_multiple_of(11),
            summary: None,
            tags: (0..number % 4).map(|tag| format!("t{tag}")).collect(),
        }
    }

    proptest! {
        /// However conversations are spread over partitions, they are counted the same.
        #[test]
        fn the_order_of_partitions_does_not_matter(cut in 0_u32..100) {
            let tally = |numbers: &mut dyn Iterator<Item = u32>| {
                let mut tally = RangeTally::default();
                numbers.for_each(|number| tally.count(&range(), conversation(number)));
                tally
            };
            let whole = tally(&mut (0..100));
            let mut parts = tally(&mut (cut..100));
            parts.merge(tally(&mut (0..cut)));
            for week in parts.weeks.values_mut() {
                week.durations.sort_unstable();
                week.first_responses.sort_unstable();
            }
            prop_assert_eq!(&parts, &whole);
            prop_assert_eq!(whole.all().outcomes.conversations, whole.by_messages.values().sum::<u64>());
            prop_assert_eq!(whole.hours.iter().flatten().sum::<u64>(), whole.all().outcomes.conversations);
        }

        #[test]
        fn a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
            values in prop::collection::vec(0_u32..50, 1..40), percent in 1_u64..=100,
        ) {
            let [found] = percentiles(&mut values.clone(), [percent]);
            let found = found.unwrap();
            let not_above = |most: u64| values.iter().filter(|value| u64::from(**value) <= most).count() as u64;
            let enough = |most: u64| not_above(most) * 100 >= percent * values.len() as u64;
            prop_assert!(enough(found) && (found == 0 || !enough(found - 1)));
        }
    }

    #[test]
    fn conversations_outside_the_range_and_ratings_of_no_kind_are_left_out() {
        let mut tally = RangeTally::default();
        tally.count(&range(), ConversationFacts { created_at: None, ..conversation(1) });
        tally.count(&range(), ConversationFacts { created_at: DateTime::from_timestamp(0, 0), ..conversation(1) });
        assert_eq!(tally, RangeTally::default());
        for rating in [-1, 0, 6, 5, 1] {
            tally.count(&range(), ConversationFacts { rating: Some(rating), ..conversation(60) });
        }
        let all = tally.all();
        assert_eq!((all.ratings.total(), all.ratings.average(), tally.odd_ratings), (2, Some(3.0), 3));
        assert_eq!(Ratings::default().average(), None);
        assert_eq!(percentiles(&mut [], [50]), [None]);
    }

    #[test]
    fn tags_are_bounded_whichever_came_first() {
        let with = |tags: std::ops::Range<usize>| {
            let mut tally = RangeTally::default();
            let tags = tags.map(|tag| tag.to_string()).collect();
            tally.count(&range(), ConversationFacts { tags, ..conversation(60) });
            tally
        };
        let mut most = with(0..MOST_TAGS);
        most.merge(with(1..3));
        assert!(most.tags.len() == MOST_TAGS && !most.has_too_many_tags);
        most.merge(with(MOST_TAGS..MOST_TAGS + 1));
        assert!(most.tags.is_empty() && most.has_too_many_tags);
        let mut other = with(0..1);
        other.merge(with(0..MOST_TAGS + 1));
        other.merge(with(0..2));
        assert!(other.tags.is_empty() && other.has_too_many_tags);
    }

    #[test]
    fn a_week_without_conversations_has_its_place() {
        let mut tally = RangeTally::default();
        tally.fill_weeks(range());
        assert_eq!(tally.weeks.len(), 5);
        assert_eq!(tally.all().outcomes, Outcomes::default());
    }
}
