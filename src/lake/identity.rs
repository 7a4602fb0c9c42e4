//! The identity of a lake, decided when the lake is created: `_state/lake.json`.
//!
//! Must not depend on: the lake's state.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::model::PartitionBy;

/// The newest layout version that this program reads.
pub(super) const NEWEST_VERSION: u32 = 3;

/// The format of a lake's tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One Parquet file per partition, replaced by a single write.
    #[default]
    Parquet,
    /// Delta Lake tables: snapshots, time travel, and files that stay while they are read.
    Delta,
}

impl Format {
    /// The name in flags, reports and `lake.json`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Delta => "delta",
        }
    }
}

/// The layout version of a lake. Delta tables and lakes by month have their own, so that programs that do not know them
/// refuse the lake.
fn version(format: Format, partition_by: PartitionBy) -> u32 {
    match (format, partition_by) {
        (_, PartitionBy::Month) => 3,
        (Format::Delta, PartitionBy::Day) => 2,
        (Format::Parquet, PartitionBy::Day) => 1,
    }
}

/// The identity that an export expects of a lake.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The API whose conversations it holds.
    pub base_url: &'a str,
    /// The `user_filters` of every request.
    pub user_filters: Option<&'a Value>,
    /// The format of its tables; `None` accepts either.
    pub format: Option<Format>,
    /// How much time a partition covers; `None` accepts either.
    pub partition_by: Option<PartitionBy>,
}

/// The identity of a lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The layout version.
    pub format_version: u32,
    /// The API whose conversations it holds.
    pub base_url: String,
    /// The `user_filters` of every request.
    #[serde(default)]
    pub user_filters: Option<Value>,
    /// The format of its tables.
    #[serde(default)]
    pub format: Format,
    /// How much time a partition covers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partition_by: PartitionBy,
    /// When it was created, which distinguishes it from earlier lakes at the same place.
    pub created_at: DateTime<Utc>,
}

impl Identity {
    /// Creates an identity as `wanted`; `earlier` is one that was decided before the first commit.
    pub(super) fn decided(wanted: Wanted<'_>, earlier: Option<&Identity>, now: DateTime<Utc>) -> Self {
        let format = wanted.format.or(earlier.map(|it| it.format)).unwrap_or_default();
        let partition_by = wanted.partition_by.or(earlier.map(|it| it.partition_by)).unwrap_or_default();
        Identity {
            format_version: version(format, partition_by),
            base_url: wanted.base_url.to_owned(),
            user_filters: wanted.user_filters.cloned(),
            format,
            partition_by,
            created_at: now,
        }
    }

    /// Whether it is as `wanted`.
    pub(super) fn suits(&self, wanted: Wanted<'_>) -> bool {
        self.base_url == wanted.base_url
            && self.user_filters.as_ref() == wanted.user_filters
            && wanted.format.is_none_or(|format| format == self.format)
            && wanted.partition_by.is_none_or(|by| by == self.partition_by)
    }

    /// The error of a lake at `url` that is not as `wanted`.
    pub(super) fn contradicts(&self, url: &str, wanted: Wanted<'_>) -> Error {
        if self.base_url != wanted.base_url {
            return Error::usage(format!(
                "the lake {url} holds conversations of {}, not of {}",
                self.base_url, wanted.base_url
            ))
            .with_hint("use the --base-url that the lake was created with, or another --lake");
        }
        if self.user_filters.as_ref() != wanted.user_filters {
            let text = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
            let (theirs, mine) = (text(self.user_filters.as_ref()), text(wanted.user_filters));
            return Error::usage(format!("the lake {url} was created with --user-filters {theirs}, not {mine}"))
                .with_hint("use the same --user-filters, or another --lake: each set of filters needs its own lake");
        }
        let (flag, value, kept) = match wanted.format {
            Some(format) if format != self.format => ("--format", self.format.name(), "format"),
            _ => ("--partition-by", self.partition_by.name(), "partitions"),
        };
        Error::usage(format!("the lake {url} was created with {flag} {value}"))
            .with_hint(format!("omit {flag}, or use another --lake: a lake keeps its {kept}"))
    }
}

fn is_default(partition_by: &PartitionBy) -> bool {
    *partition_by == PartitionBy::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(format: Option<Format>, partition_by: Option<PartitionBy>, earlier: Option<&Identity>) -> Identity {
        let wanted = Wanted { base_url: "https://api", user_filters: None, format, partition_by };
        Identity::decided(wanted, earlier, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn programs_that_do_not_know_months_refuse_them_and_lakes_by_day_are_as_before() {
        let version = |format, partition_by| decided(Some(format), partition_by, None).format_version;
        assert_eq!((version(Format::Parquet, None), version(Format::Delta, None)), (1, 2));
        for format in [Format::Parquet, Format::Delta] {
            assert_eq!(version(format, Some(PartitionBy::Month)), 3);
        }
        let by_day = serde_json::to_value(decided(None, Some(PartitionBy::Day), None)).unwrap();
        assert!(by_day.get("partition_by").is_none());
        assert_eq!(serde_json::from_value::<Identity>(by_day).unwrap().partition_by, PartitionBy::Day);
        let by_month = decided(None, Some(PartitionBy::Month), None);
        let written = serde_json::to_value(&by_month).unwrap();
        assert_eq!(written["partition_by"], "month");
        assert_eq!(serde_json::from_value::<Identity>(written).unwrap(), by_month);
    }

    #[test]
    fn what_was_decided_before_the_first_commit_stays_unless_something_else_is_wanted() {
        let earlier = decided(Some(Format::Delta), Some(PartitionBy::Month), None);
        assert_eq!(decided(None, None, Some(&earlier)), earlier);
        let other = decided(None, Some(PartitionBy::Day), Some(&earlier));
        assert_eq!((other.format, other.partition_by), (Format::Delta, PartitionBy::Day));
    }

    #[test]
    fn other_partitions_than_the_lake_has_are_refused() {
        let by_month = decided(None, Some(PartitionBy::Month), None);
        let wanted = |partition_by| Wanted { base_url: "https://api", user_filters: None, format: None, partition_by };
        assert!(by_month.suits(wanted(None)) && by_month.suits(wanted(Some(PartitionBy::Month))));
        assert!(!by_month.suits(wanted(Some(PartitionBy::Day))));
        let error = by_month.contradicts("lake", wanted(Some(PartitionBy::Day)));
        assert_eq!(error.to_string(), "the lake lake was created with --partition-by month");
        assert!(error.kind().exit_code() == 2 && error.hint().unwrap().contains("omit --partition-by"));
    }
}
