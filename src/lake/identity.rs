//! What a lake is, decided when it is made: `_state/lake.json`.
//!
//! Promises: a lake holds the conversations of one API, asked for in one way; others are refused before anything is
//! written. Must not know: what was exported.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Lake;
use super::store::to_json;
use crate::error::{Error, Result};
use crate::layout;

/// The version of the layout that this program writes, and the newest it reads.
const FORMAT_VERSION: u32 = 1;

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
    /// When it was made.
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
        if file.format_version > FORMAT_VERSION {
            let found = file.format_version;
            return Err(Error::usage(format!(
                "the lake {} has format {found}, this version knows up to {FORMAT_VERSION}",
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

    /// Makes sure that the lake holds the conversations of this API, asked for with these filters. Where it `is_new`,
    /// nothing was committed to it yet, that is decided here.
    ///
    /// # Errors
    /// Kind `Usage` where it holds others.
    pub async fn claim(
        &self,
        base_url: &str,
        user_filters: Option<&Value>,
        is_new: bool,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let key = layout::lake_file();
        // Looked at first, so that what is replaced is what was read.
        let there = self.head(&key).await?;
        let found = self.describe().await?;
        let same = found.as_ref().is_some_and(|it| it.base_url == base_url && it.user_filters.as_ref() == user_filters);
        match found {
            _ if same => Ok(()),
            Some(found) if !is_new => Err(self.of_others(&found, base_url, user_filters)),
            None if !is_new => Err(Error::integrity(format!("{}/{key} is missing", self.url()))
                .with_hint("it says whose conversations the lake holds: restore it from a backup")),
            _ => {
                let file = LakeFile {
                    format_version: FORMAT_VERSION,
                    base_url: base_url.to_owned(),
                    user_filters: user_filters.cloned(),
                    created_at: now,
                };
                self.replace(&key, there.as_ref(), to_json(&file)?).await
            }
        }
    }

    fn of_others(&self, found: &LakeFile, base_url: &str, user_filters: Option<&Value>) -> Error {
        let url = self.url();
        if found.base_url != base_url {
            return Error::usage(format!(
                "the lake {url} holds conversations of {}, not of {base_url}",
                found.base_url
            ))
            .with_hint("give the --base-url it was made with, or another --lake");
        }
        let tell = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
        let (theirs, mine) = (tell(found.user_filters.as_ref()), tell(user_filters));
        Error::usage(format!("the lake {url} was made with --user-filters {theirs}, not {mine}"))
            .with_hint("keep one lake per set of filters: give the same --user-filters, or another --lake")
    }
}
