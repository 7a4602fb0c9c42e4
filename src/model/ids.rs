//! Names that must not be mixed up: a run's id and the date that a conversation is filed under.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

/// One invocation that writes: `20240501T093000Z-5f3a9c`. Sorts by start time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The id of a run that starts at `now`; `salt` tells runs of the same second apart.
    pub fn new(now: DateTime<Utc>, salt: u32) -> Self {
        RunId(format!("{}-{:06x}", now.format("%Y%m%dT%H%M%SZ"), salt & 0x00ff_ffff))
    }

    /// Whether `text` is the id of a run: a time, and six digits.
    pub fn is_one(text: &str) -> bool {
        Self::start_in(text).is_some()
    }

    /// When the run started of which `text` is the id; `None` if it is none.
    pub fn start_in(text: &str) -> Option<DateTime<Utc>> {
        let (time, salt) = text.split_once('-')?;
        let is_salt = salt.len() == 6 && salt.bytes().all(|digit| digit.is_ascii_hexdigit());
        let start = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").ok()?;
        is_salt.then(|| start.and_utc())
    }

    /// The id as it stands in keys and in `_run_id`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The partition of a conversation: the UTC date of its `created_at`, or none where that cannot be read.
///
/// Orders by date, the unknown date first. Its text is the partition's value in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreatedDate(Option<NaiveDate>);

/// How Hive, Spark and DuckDB write a null partition value.
const UNKNOWN: &str = "__HIVE_DEFAULT_PARTITION__";

impl CreatedDate {
    /// The partition of conversations without a readable `created_at`.
    pub const UNKNOWN: CreatedDate = CreatedDate(None);

    /// The partition of a conversation created at `created_at`.
    pub fn of(created_at: Option<DateTime<Utc>>) -> Self {
        CreatedDate(created_at.map(|time| time.date_naive()))
    }

    /// The date, where it is known.
    pub fn date(self) -> Option<NaiveDate> {
        self.0
    }
}

impl fmt::Display for CreatedDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(date) => write!(f, "{}", date.format("%Y-%m-%d")),
            None => f.write_str(UNKNOWN),
        }
    }
}

impl FromStr for CreatedDate {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            UNKNOWN => Ok(CreatedDate(None)),
            date => NaiveDate::parse_from_str(date, "%Y-%m-%d").map(|date| CreatedDate(Some(date))),
        }
    }
}

impl Serialize for CreatedDate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CreatedDate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_reads_back_from_its_text() {
        for text in ["2024-01-01", "0001-12-31", UNKNOWN] {
            assert_eq!(text.parse::<CreatedDate>().unwrap().to_string(), text);
        }
        assert!("2024-13-01".parse::<CreatedDate>().is_err());
    }

    #[test]
    fn run_ids_sort_by_start() {
        let early = RunId::new(DateTime::from_timestamp(1_700_000_000, 0).unwrap(), u32::MAX);
        let late = RunId::new(DateTime::from_timestamp(1_700_000_001, 0).unwrap(), 0);
        assert!(early < late);
        assert_eq!(early.as_str(), "20231114T221320Z-ffffff");
        assert_eq!(RunId::start_in(early.as_str()), DateTime::from_timestamp(1_700_000_000, 0));
        for other in ["", "20231114T221320Z", "20231114T221320Z-", "20231114T221320Z-fffff", "20231314T221320Z-ffffff"]
        {
            assert_eq!(RunId::start_in(other), None, "{other}");
        }
    }
}
