//! Time as the API and the user write it.
//!
//! The API's page shows `2024-01-01 21:42:10.309970` (no zone, read as UTC) and `2024-05-06T14:11:26.799976`; live
//! accounts send ISO 8601 with `Z` or an offset too. All are accepted. Must not know: the current time.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

/// Whole seconds since 1970-01-01 UTC: the unit of the API's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochSecs(pub i64);

impl EpochSecs {
    /// The second that `time` lies in, rounded towards the past.
    pub fn floor(time: DateTime<Utc>) -> Self {
        EpochSecs(time.timestamp())
    }

    /// The first whole second that is not before `time`.
    pub fn ceil(time: DateTime<Utc>) -> Self {
        EpochSecs(time.timestamp().saturating_add(i64::from(time.timestamp_subsec_nanos() > 0)))
    }
}

/// A time stamp as the lake stores it, and whether that is all the API said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiTime {
    /// Microseconds since 1970-01-01 UTC.
    pub micros: i64,
    /// False where the API gave more digits than microseconds hold.
    pub exact: bool,
}

/// Reads a time stamp of the API in any of its forms; `None` where it is none, or lies outside the years 1 to 9999
/// that partitions, DuckDB and Spark all can write.
pub fn parse_api_time(text: &str) -> Option<ApiTime> {
    let time = parse_instant(text)?;
    let exact = time.timestamp_subsec_nanos() % 1_000 == 0 && fraction_digits(text) <= 9;
    Some(ApiTime { micros: time.timestamp_micros(), exact })
}

/// Reads `2024-01-01T21:42:10` or `2024-01-01 21:42:10`, with or without a fraction, and with `Z`, an offset (`+02:00`
/// or `+0200`) or no zone, which means UTC.
fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    // The clock's part, past the date and its separator: a sign there begins an offset.
    let clock = text.get(11..)?;
    let time = if clock.ends_with(['Z', 'z']) {
        DateTime::parse_from_rfc3339(text).ok()?
    } else if clock.contains(['+', '-']) {
        DateTime::parse_from_rfc3339(text)
            .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%#z"))
            .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
            .ok()?
    } else {
        DateTime::parse_from_rfc3339(&format!("{text}Z")).ok()?
    };
    let time = time.to_utc();
    YEARS.contains(&time.year()).then_some(time)
}

/// The years that partitions, DuckDB and Spark can all write.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

fn fraction_digits(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count())
}

/// The instant of a stored time stamp; `None` outside of what chrono can hold.
pub fn from_micros(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

/// Reads a time from the command line: RFC 3339, `YYYY-MM-DD` (UTC midnight) or epoch seconds.
///
/// # Errors
/// A sentence that names the text and the three forms.
pub fn parse_user_time(text: &str) -> Result<DateTime<Utc>, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let time = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        // 20240201 is meant as a date: epoch seconds have nine digits since 1973.
        let secs = text.parse().ok().filter(|secs: &i64| *secs == 0 || secs.unsigned_abs() >= 100_000_000);
        secs.and_then(|secs| DateTime::from_timestamp(secs, 0))
    } else if text.len() == 10 {
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN).and_utc())
    } else {
        parse_instant(text)
    };
    time.filter(|time| YEARS.contains(&time.year())).ok_or_else(|| {
        "expected RFC 3339 (2024-01-31T09:30:00Z), a date (2024-01-31) or epoch seconds (1706693400)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_documented_form_as_the_same_instant() {
        let expected = Some(ApiTime { micros: 1_704_145_330_309_970, exact: true });
        for text in [
            "2024-01-01 21:42:10.309970",
            "2024-01-01T21:42:10.309970",
            "2024-01-01T21:42:10.30997Z",
            "2024-01-01T21:42:10.309970+00:00",
            "2024-01-01T23:42:10.309970+02:00",
            "2024-01-01 13:42:10.309970-0800",
        ] {
            assert_eq!(parse_api_time(text), expected, "{text}");
        }
        assert_eq!(parse_api_time("1969-12-31 23:59:59.5").unwrap().micros, -500_000);
    }

    #[test]
    fn tells_when_digits_were_lost() {
        assert!(!parse_api_time("2024-01-01T21:42:10.309970123Z").unwrap().exact);
        assert!(!parse_api_time("2024-01-01T21:42:10.3099700000001Z").unwrap().exact);
        assert!(parse_api_time("2024-01-01T21:42:10.309970000Z").unwrap().exact);
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "soon",
            "2024-01-01",
            "2024-02-30T00:00:00Z",
            "1704145330",
            "10000-01-01T00:00:00Z",
            "2024-01-01T00:00:00é",
        ] {
            assert_eq!(parse_api_time(text), None, "{text}");
        }
    }

    #[test]
    fn the_user_has_three_forms() {
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
