//! What a lake is, decided when it is made: `_state/lake.json`.
//!
//! Promises: a lake holds the conversations of one API, asked for in one way; others are refused before anything is
//! written. Must not know: what was exported.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

/// The newest version of the layout that this program reads.
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
    /// The version of the layout: what does not know of Delta tables must not take them for others.
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

/// What an export wants of a lake: whose conversations it holds, and how.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The API whose conversations it holds.
    pub base_url: &'a str,
    /// The `user_filters` that they are asked for with.
    pub user_filters: Option<&'a Value>,
    /// How its tables are kept; `None` takes them as they are.
    pub format: Option<Format>,
}

/// What a lake is, decided when it is made (`_state/lake.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of the layout.
    pub format_version: u32,
    /// The API whose conversations it holds.
    pub base_url: String,
    /// The `user_filters` that they were asked for with.
    #[serde(default)]
    pub user_filters: Option<Value>,
    /// How its tables are kept.
    #[serde(default)]
    pub format: Format,
    /// When it was made: this, and no lake that was here before it.
    pub created_at: DateTime<Utc>,
}

impl Identity {
    /// What a lake is to be, as `wanted`; `earlier` is the format that was decided before anything was committed.
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

    /// Whether it is what is `wanted`.
    pub(super) fn suits(&self, wanted: Wanted<'_>) -> bool {
        self.base_url == wanted.base_url
            && self.user_filters.as_ref() == wanted.user_filters
            && wanted.format.is_none_or(|format| format == self.format)
    }

    /// Why the lake at `url` is not what is `wanted`.
    pub(super) fn contradicts(&self, url: &str, wanted: Wanted<'_>) -> Error {
        if self.base_url != wanted.base_url {
            return Error::usage(format!(
                "the lake {url} holds conversations of {}, not of {}",
                self.base_url, wanted.base_url
            ))
            .with_hint("give the --base-url it was made with, or another --lake");
        }
        if self.user_filters.as_ref() == wanted.user_filters {
            return Error::usage(format!("the lake {url} was made with --format {}", self.format.name()))
                .with_hint("leave --format out, or make another lake: a lake keeps its format");
        }
        let tell = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
        let (theirs, mine) = (tell(self.user_filters.as_ref()), tell(wanted.user_filters));
        Error::usage(format!("the lake {url} was made with --user-filters {theirs}, not {mine}"))
            .with_hint("keep one lake per set of filters: give the same --user-filters, or another --lake")
    }
}
