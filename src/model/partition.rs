//! The partition of a conversation: the day or the month, in UTC, of its `created_at`.
//!
//! A lake is partitioned by one of the two, decided when it is made. A partition knows which, so whoever has one can
//! build its key. Guarantees: keys and checkpoints of a lake by day are as they were before lakes by month existed.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

/// How much time a partition covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionBy {
    /// A day, as in `created_date=2024-02-29`.
    #[default]
    Day,
    /// A month, by its first day, as in `created_month=2024-02-01`.
    Month,
}

/// The partition of a conversation; its date is the first day that it covers, or none if `created_at` cannot be read.
///
/// Orders by date, the unknown date first. Its text is the partition value in keys; its JSON also says what a month is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreatedDate {
    by: PartitionBy,
    date: Option<NaiveDate>,
}

/// How Hive, Spark and DuckDB write a null partition value.
pub const UNKNOWN_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// A text that names no partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no {}", match .by { PartitionBy::Day => "date", PartitionBy::Month => "first day of a month" })]
pub struct NoPartition {
    by: PartitionBy,
    text: String,
}

impl PartitionBy {
    /// Both.
    pub const ALL: [PartitionBy; 2] = [PartitionBy::Day, PartitionBy::Month];

    /// The name in flags, reports and `lake.json`.
    pub fn name(self) -> &'static str {
        match self {
            PartitionBy::Day => "day",
            PartitionBy::Month => "month",
        }
    }

    /// The partition column, as Hive, Spark and DuckDB find it in a key.
    pub const fn column(self) -> &'static str {
        match self {
            PartitionBy::Day => "created_date",
            PartitionBy::Month => "created_month",
        }
    }

    /// Returns the partition of a conversation created at `created_at`.
    pub fn of(self, created_at: Option<DateTime<Utc>>) -> CreatedDate {
        created_at.map_or(self.unknown(), |time| self.of_day(time.date_naive()))
    }

    /// Returns the partition of the conversations created on `day`.
    pub fn of_day(self, day: NaiveDate) -> CreatedDate {
        let date = match self {
            PartitionBy::Day => Some(day),
            PartitionBy::Month => day.with_day(1),
        };
        CreatedDate { by: self, date }
    }

    /// The partition of conversations without a readable `created_at`.
    pub const fn unknown(self) -> CreatedDate {
        CreatedDate { by: self, date: None }
    }

    /// Reads a partition value.
    ///
    /// # Errors
    /// If it is no date, or for months no first day.
    pub fn parse(self, text: &str) -> Result<CreatedDate, NoPartition> {
        if text == UNKNOWN_PARTITION {
            return Ok(self.unknown());
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        let date = date.filter(|date| self == PartitionBy::Day || date.day() == 1);
        let date = date.ok_or_else(|| NoPartition { by: self, text: text.to_owned() })?;
        Ok(CreatedDate { by: self, date: Some(date) })
    }
}

impl CreatedDate {
    /// Whether it is a day or a month.
    pub fn by(self) -> PartitionBy {
        self.by
    }

    /// Returns the first day; `None` if it is unknown.
    pub fn date(self) -> Option<NaiveDate> {
        self.date
    }

    /// Returns the last day; `None` if it is unknown.
    pub fn last_day(self) -> Option<NaiveDate> {
        match self.by {
            PartitionBy::Day => self.date,
            PartitionBy::Month => self.date?.checked_add_months(Months::new(1))?.checked_sub_days(Days::new(1)),
        }
    }

    /// Its folder in a table: the partition column, `=`, the value.
    pub fn folder(self) -> String {
        format!("{}={self}", self.by.column())
    }

    /// Reads the name of a folder; `None` if it is that of no partition.
    pub fn of_folder(name: &str) -> Option<Self> {
        let (column, value) = name.split_once('=')?;
        PartitionBy::ALL.into_iter().find(|by| by.column() == column)?.parse(value).ok()
    }
}

impl fmt::Display for CreatedDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date {
            Some(date) => write!(f, "{}", date.format("%Y-%m-%d")),
            None => f.write_str(UNKNOWN_PARTITION),
        }
    }
}

impl FromStr for CreatedDate {
    type Err = NoPartition;

    /// Reads what the JSON of a checkpoint holds: the value of a day, or the folder of a month.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let month = text.strip_prefix(PartitionBy::Month.column()).and_then(|rest| rest.strip_prefix('='));
        match month {
            Some(value) => PartitionBy::Month.parse(value),
            None => PartitionBy::Day.parse(text),
        }
    }
}

impl Serialize for CreatedDate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.by {
            PartitionBy::Day => serializer.collect_str(self),
            PartitionBy::Month => serializer.serialize_str(&self.folder()),
        }
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
    use proptest::prelude::*;

    #[test]
    fn a_partition_reads_back_from_its_text() {
        for by in PartitionBy::ALL {
            for text in ["2024-01-01", "0001-12-01", UNKNOWN_PARTITION] {
                assert_eq!(by.parse(text).unwrap().to_string(), text);
            }
            for text in ["2024-13-01", "soon", ""] {
                assert!(by.parse(text).is_err(), "{text}");
            }
        }
        assert_eq!(PartitionBy::Day.parse("2024-02-29").unwrap().folder(), "created_date=2024-02-29");
        let error = PartitionBy::Month.parse("2024-02-29").unwrap_err();
        assert_eq!(error.to_string(), "\"2024-02-29\" is no first day of a month");
    }

    #[test]
    fn checkpoints_hold_the_value_of_a_day_and_the_folder_of_a_month() {
        for (by, unknown, text) in [
            (PartitionBy::Day, "__HIVE_DEFAULT_PARTITION__", "2024-02-01"),
            (PartitionBy::Month, "created_month=__HIVE_DEFAULT_PARTITION__", "created_month=2024-02-01"),
        ] {
            let partition = by.parse("2024-02-01").unwrap();
            for (partition, text) in [(by.unknown(), unknown), (partition, text)] {
                assert_eq!(serde_json::to_value(partition).unwrap(), text);
                assert_eq!(serde_json::from_value::<CreatedDate>(text.into()).unwrap(), partition);
            }
        }
        for text in ["created_month=2024-02-02", "created_month", "created_date=2024-02-01"] {
            assert!(text.parse::<CreatedDate>().is_err(), "{text}");
        }
    }

    proptest! {
        /// From the year 1 to the year 9999.
        #[test]
        fn a_partition_covers_its_conversations_and_no_others(secs in -62_135_596_800_i64..253_402_300_800) {
            let time = DateTime::from_timestamp(secs, 0).unwrap();
            for by in PartitionBy::ALL {
                let partition = by.of(Some(time));
                prop_assert_eq!(partition.by(), by);
                prop_assert_eq!(CreatedDate::of_folder(&partition.folder()), Some(partition));
                prop_assert_eq!(serde_json::to_string(&partition).unwrap().trim_matches('"').parse(), Ok(partition));
                let (first, last) = (partition.date().unwrap(), partition.last_day().unwrap());
                prop_assert!((first..=last).contains(&time.date_naive()));
                let own = |day: NaiveDate| by.of(day.and_hms_opt(12, 0, 0).map(|time| time.and_utc()));
                prop_assert_eq!([own(first), own(last)], [partition; 2]);
                prop_assert!(own(first.pred_opt().unwrap()) < partition && own(last.succ_opt().unwrap()) > partition);
            }
        }
    }
}
