//! What a lake is, decided when it is made: `_state/lake.json`.
//!
//! Promises: a lake holds the conversations of one API, asked for in one way; others are refused before anything is
//! written. Must not know: what was exported.

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Lake;
use super::store::to_json;
use crate::error::{Error, Result};
use crate::layout;

/// The newest version of the layout that this program reads.
const NEWEST_VERSION: u32 = 2;

/// How the tables of a lake are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One Parquet file for each date, replaced by one put
    #[default]
    Parquet,
    /// Delta Lake tables: snapshots, time travel, and files that a reader has for as long as it reads
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

    /// As it is typed.
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
pub struct LakeFile {
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

impl Lake {
    /// What the lake is; `None` where nothing was ever exported to it.
    ///
    /// # Errors
    /// Where the store fails, or the lake was made by a newer version of this program.
    pub async fn describe(&self) -> Result<Option<LakeFile>> {
        let Some(bytes) = self.get(&layout::lake_file()).await? else { return Ok(None) };
        let file: LakeFile = self.parse(&layout::lake_file(), &bytes)?;
        if file.format_version > NEWEST_VERSION {
            let found = file.format_version;
            return Err(Error::usage(format!(
                "the lake {} has format {found}, this version knows up to {NEWEST_VERSION}",
                self.url()
            ))
            .with_hint("use a newer decagon-lake"));
        }
        Ok(Some(file))
    }

    /// What the lake is, where there has to be one.
    ///
    /// # Errors
    /// Kind `Usage` where there is none; else as [`Lake::describe`].
    pub async fn existing(&self) -> Result<LakeFile> {
        self.describe().await?.ok_or_else(|| {
            Error::usage(format!("there is no lake at {}", self.url()))
                .with_hint("`decagon-lake sync --lake …` makes one; is --lake or DECAGON_LAKE right?")
        })
    }

    /// Makes sure that the lake is as it is wanted, and returns what it is. Where it `is_new`, nothing was committed to it
    /// yet, that is decided here.
    ///
    /// # Errors
    /// Kind `Usage` where it is another.
    pub async fn claim(&self, wanted: Wanted<'_>, is_new: bool, now: DateTime<Utc>) -> Result<LakeFile> {
        let key = layout::lake_file();
        // Looked at first, so that what is replaced is what was read.
        let there = self.head(&key).await?;
        match self.describe().await? {
            Some(found) if !is_new && found.suits(wanted) => Ok(found),
            Some(found) if !is_new => Err(self.of_others(&found, wanted)),
            None if !is_new => Err(Error::integrity(format!("{}/{key} is missing", self.url()))
                .with_hint("it says whose conversations the lake holds: restore it from a backup")),
            found => {
                let format = wanted.format.or(found.map(|found| found.format)).unwrap_or_default();
                let file = LakeFile {
                    format_version: format.version(),
                    base_url: wanted.base_url.to_owned(),
                    user_filters: wanted.user_filters.cloned(),
                    format,
                    created_at: now,
                };
                self.replace(&key, there.as_ref(), to_json(&file)?).await?;
                Ok(file)
            }
        }
    }

    fn of_others(&self, found: &LakeFile, wanted: Wanted<'_>) -> Error {
        let url = self.url();
        if found.base_url != wanted.base_url {
            return Error::usage(format!(
                "the lake {url} holds conversations of {}, not of {}",
                found.base_url, wanted.base_url
            ))
            .with_hint("give the --base-url it was made with, or another --lake");
        }
        if found.user_filters.as_ref() == wanted.user_filters {
            return Error::usage(format!("the lake {url} was made with --format {}", found.format.name()))
                .with_hint("leave --format out, or make another lake: a lake keeps its format");
        }
        let tell = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
        let (theirs, mine) = (tell(found.user_filters.as_ref()), tell(wanted.user_filters));
        Error::usage(format!("the lake {url} was made with --user-filters {theirs}, not {mine}"))
            .with_hint("keep one lake per set of filters: give the same --user-filters, or another --lake")
    }
}

impl LakeFile {
    fn suits(&self, wanted: Wanted<'_>) -> bool {
        self.base_url == wanted.base_url
            && self.user_filters.as_ref() == wanted.user_filters
            && wanted.format.is_none_or(|format| format == self.format)
    }
}
