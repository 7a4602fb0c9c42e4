//! The id of a run.

use std::fmt;

use chrono::{DateTime, Duration, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

/// The id of one run of a writing command: `20240501T093000Z-5f3a9c`. The ids of a lake sort in the order of its runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

/// The format of the time in a run's id.
const TIME: &str = "%Y%m%dT%H%M%SZ";

impl RunId {
    /// Makes the id of a run that starts at `now`; `salt` distinguishes runs of the same second.
    pub fn new(now: DateTime<Utc>, salt: u32) -> Self {
        RunId(format!("{}-{:06x}", now.format(TIME), salt & 0x00ff_ffff))
    }

    /// Returns this id, or if it does not sort after `before`, one that does: a second later than `before`. So the
    /// order does not depend on the clocks of different machines.
    #[must_use]
    pub fn after(self, before: &RunId) -> Self {
        let Some((own, salt)) = self.0.split_once('-') else { return self };
        let time = |text| NaiveDateTime::parse_from_str(text, TIME).ok();
        let next = before.0.split_once('-').and_then(|(text, _)| time(text)?.checked_add_signed(Duration::seconds(1)));
        match (time(own), next) {
            (Some(own), Some(next)) if own < next => RunId(format!("{}-{salt}", next.format(TIME))),
            _ => self,
        }
    }

    /// Whether `text` is a run's id: a time, and six hexadecimal digits.
    pub fn is_valid(text: &str) -> bool {
        Self::start_of(text).is_some()
    }

    /// Reads an id; `None` if `text` is no run's id.
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_valid(text).then(|| RunId(text.to_owned()))
    }

    /// Returns when the run whose id is `text` started; `None` if `text` is no run's id.
    pub fn start_of(text: &str) -> Option<DateTime<Utc>> {
        let (time, salt) = text.split_once('-')?;
        let is_salt = salt.len() == 6 && salt.bytes().all(|digit| digit.is_ascii_hexdigit());
        let start = NaiveDateTime::parse_from_str(time, TIME).ok()?;
        is_salt.then(|| start.and_utc())
    }

    /// The text that keys and `_run_id` hold.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_sort_by_start() {
        let early = RunId::new(DateTime::from_timestamp(1_700_000_000, 0).unwrap(), u32::MAX);
        let late = RunId::new(DateTime::from_timestamp(1_700_000_001, 0).unwrap(), 0);
        assert!(early < late);
        assert_eq!(early.as_str(), "20231114T221320Z-ffffff");
        assert_eq!(RunId::start_of(early.as_str()), DateTime::from_timestamp(1_700_000_000, 0));
        for other in ["", "20231114T221320Z", "20231114T221320Z-", "20231114T221320Z-fffff", "20231314T221320Z-ffffff"]
        {
            assert_eq!(RunId::start_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_run_sorts_after_the_previous_one_whatever_its_clock_says() {
        let at = |secs, salt| RunId::new(DateTime::from_timestamp(secs, 0).unwrap(), salt);
        let before = at(1_700_000_000, 0xff);
        for (own, expected) in [
            (at(1_700_000_001, 1), "20231114T221321Z-000001"),
            (at(1_700_009_999, 1), "20231115T005959Z-000001"),
            (at(1_700_000_000, 1), "20231114T221321Z-000001"),
            (at(0, 1), "20231114T221321Z-000001"),
        ] {
            let after = own.after(&before);
            assert!(after > before && RunId::is_valid(after.as_str()));
            assert_eq!(after.as_str(), expected);
        }
    }
}
