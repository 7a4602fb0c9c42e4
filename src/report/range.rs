//! The days that a page is about, and their weeks, which begin on Mondays. All days are those of UTC.

use chrono::{Datelike, Days, NaiveDate};

/// Some days in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DayRange {
    pub(super) first: NaiveDate,
    pub(super) last: NaiveDate,
}

impl DayRange {
    /// The `days` that end with `last`.
    pub(super) fn ending(last: NaiveDate, days: u64) -> Self {
        let first = last.checked_sub_days(Days::new(days.saturating_sub(1))).unwrap_or(NaiveDate::MIN);
        DayRange { first, last }
    }

    /// The same without the days before `first`; the last day stays.
    pub(super) fn from(self, first: Option<NaiveDate>) -> Self {
        DayRange { first: first.map_or(self.first, |first| first.max(self.first).min(self.last)), ..self }
    }

    pub(super) fn contains(&self, day: NaiveDate) -> bool {
        (self.first..=self.last).contains(&day)
    }

    /// Each of them.
    pub(super) fn days(self) -> impl Iterator<Item = NaiveDate> {
        self.first.iter_days().take_while(move |day| *day <= self.last)
    }

    /// Whether a day is in the second half, which has the middle day if their number is odd.
    pub(super) fn is_in_second_half(&self, day: NaiveDate) -> bool {
        (day - self.first) >= (self.last - day)
    }
}

/// The Monday of a day's week.
pub(super) fn week_of(day: NaiveDate) -> NaiveDate {
    day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))).unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_ends_with_its_last_day() {
        let range = DayRange::ending(day("2024-03-01"), 3);
        let days: Vec<_> = range.days().collect();
        assert_eq!(days, [day("2024-02-28"), day("2024-02-29"), day("2024-03-01")]);
        assert_eq!(days.iter().map(|day| range.is_in_second_half(*day)).collect::<Vec<_>>(), [false, true, true]);
        assert!(range.contains(range.first) && range.contains(range.last) && !range.contains(day("2024-03-02")));
        let later = |first| range.from(Some(day(first))).first;
        assert_eq!(["2024-01-01", "2024-02-29", "2025-01-01"].map(later), [range.first, day("2024-02-29"), range.last]);
        assert_eq!(range.from(None), range);
        let even = DayRange::ending(day("2024-03-01"), 4);
        let halves: Vec<_> = even.days().map(|day| even.is_in_second_half(day)).collect();
        assert_eq!(halves, [false, false, true, true]);
    }

    #[test]
    fn weeks_begin_on_mondays() {
        assert_eq!(week_of(day("2024-02-29")), day("2024-02-26"));
        assert_eq!(week_of(day("2024-02-26")), day("2024-02-26"));
        assert_eq!(week_of(day("2024-03-03")), day("2024-02-26"));
    }
}
