//! The identity of a lake, decided when the lake is created: `_state/lake.json`.
//!
//! Must not depend on: the lake's state.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

/// The newest layout version that this program reads.
pub(super) const NEWEST_VERSION: u32 = 2;

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
    /// The layout version; Delta tables have their own, so that programs that do not know them refuse the lake.
    fn version(self) -> u32 {
        match self {
            Format::Parquet => 1,
            Format::Delta => 2,
        }
    }

    /// The name in flags, reports and `lake.json`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Delta => "delta",
        }
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
    /// When it was created, which distinguishes it from earlier lakes at the same place.
    pub created_at: DateTime<Utc>,
}

impl Identity {
    /// Creates an identity as `wanted`; `earlier` is a format that was decided before the first commit.
    pub(super) fn decided(wanted: Wanted<'_>, earlier: Option<Format>, now: DateTime<Utc>) -> Self {
        let format = wanted.format.or(earlier).unwrap_or_default();
        Identity {
            format_version: format.version(),
            base_url: wanted.base_url.to_owned(),
            user_filters: wanted.user_filters.cloned(),
            format,
            created_at: now,
        }
    }

    /// Whether it is as `wanted`.
    pub(super) fn suits(&self, wanted: Wanted<'_>) -> bool {
        self.base_url == wanted.base_url
            && self.user_filters.as_ref() == wanted.user_filters
            && wanted.format.is_none_or(|format| format == self.format)
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
        if self.user_filters.as_ref() == wanted.user_filters {
            return Error::usage(format!("the lake {url} was created with --format {}", self.format.name()))
                .with_hint("omit --format, or use another --lake: a lake keeps its format");
        }
        let text = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
        let (theirs, mine) = (text(self.user_filters.as_ref()), text(wanted.user_filters));
        Error::usage(format!("the lake {url} was created with --user-filters {theirs}, not {mine}"))
            .with_hint("use the same --user-filters, or another --lake: each set of filters needs its own lake")
    }
}
