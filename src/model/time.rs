//! Times as the lake stores them and as users write them; [`super::api_time`] reads the API's.
//!
//! Must not depend on: the current time.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use super::api_time::parse_api_time;

/// Whole seconds since 1970-01-01 UTC: the unit of the API's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochSecs(pub i64);

impl EpochSecs {
    /// Rounds `time` down to a whole second.
    pub fn floor(time: DateTime<Utc>) -> Self {
        EpochSecs(time.timestamp())
    }

    /// Rounds `time` up to a whole second.
    pub fn ceil(time: DateTime<Utc>) -> Self {
        EpochSecs(time.timestamp().saturating_add(i64::from(time.timestamp_subsec_nanos() > 0)))
    }
}

/// The years that partitions, DuckDB and Spark can all write.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// Converts a stored timestamp; `None` if chrono cannot hold it.
pub fn from_micros(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

/// Reads a time from the command line: RFC 3339, `YYYY-MM-DD` (UTC midnight) or epoch seconds.
///
/// # Errors
/// A text that names the three forms.
pub fn parse_user_time(text: &str) -> Result<DateTime<Utc>, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let time = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        // 20240201 means a date: epoch seconds have had nine digits since 1973.
        let secs = text.parse().ok().filter(|secs: &i64| *secs == 0 || secs.unsigned_abs() >= 100_000_000);
        secs.and_then(|secs| DateTime::from_timestamp(secs, 0))
    } else if text.len() == 10 {
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN).and_utc())
    } else {
        // Without a time of day, it would be a date in another form.
        parse_api_time(text).filter(|_| text.contains(':')).and_then(|time| from_micros(time.micros))
    };
    time.filter(|time| YEARS.contains(&time.year())).ok_or_else(|| {
        "expected RFC 3339 (2024-01-31T09:30:00Z), a date (2024-01-31) or epoch seconds (1706693400)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_may_write_three_forms() {
        let noon = parse_user_time("2024-01-31T12:00:00+02:00").unwrap();
        assert_eq!(noon.timestamp(), 1_706_695_200);
        assert_eq!(parse_user_time("2024-01-31").unwrap().timestamp(), 1_706_659_200);
        assert_eq!(parse_user_time("1706659200").unwrap().timestamp(), 1_706_659_200);
        assert_eq!(parse_user_time("0").unwrap(), DateTime::UNIX_EPOCH);
        for text in ["", "-", "yesterday", "99999999999999999999", "2024-1-31", "20240131"] {
            assert!(parse_user_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_round_outwards() {
        let time = DateTime::from_timestamp(-2, 500_000_000).unwrap();
        assert_eq!((EpochSecs::floor(time), EpochSecs::ceil(time)), (EpochSecs(-2), EpochSecs(-1)));
    }
}
