//! An opened lake: its store, and what it is.
//!
//! Promises: a lake holds the conversations of one API, asked for in one way; others are refused before anything is
//! written. Must not depend on: what was exported.

use chrono::{DateTime, Utc};

use super::identity::{Identity, NEWEST_VERSION, Wanted};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::layout;
use crate::store::{Store, StoreCalls, StoreOptions, to_json};

/// An opened lake, which need not exist yet.
#[derive(Debug, Clone)]
pub struct Lake {
    store: Store,
}

impl Lake {
    /// Opens the lake at a path or URL. Local folders are made when something is written.
    ///
    /// # Errors
    /// If the URL is not one of a store, or its configuration is incomplete.
    pub fn open(address: &str, options: &StoreOptions, clock: Clock) -> Result<Self> {
        Store::open(address, options, clock).map(Lake::on)
    }

    /// The lake in a store.
    pub fn on(store: Store) -> Self {
        Lake { store }
    }

    /// The store that it is in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where the lake is, as people write it in queries.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// The clock that it was opened with.
    pub fn clock(&self) -> Clock {
        self.store.clock()
    }

    /// The calls made to the store since it was opened.
    pub fn calls(&self) -> StoreCalls {
        self.store.calls()
    }

    /// What the lake is; `None` where nothing was ever exported to it.
    ///
    /// # Errors
    /// Where the store fails, or the lake was made by a newer version of this program.
    pub async fn describe(&self) -> Result<Option<Identity>> {
        let Some(bytes) = self.store.get(&layout::identity()).await? else { return Ok(None) };
        let file: Identity = self.store.parse(&layout::identity(), &bytes)?;
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
    pub async fn existing(&self) -> Result<Identity> {
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
    pub async fn claim(&self, wanted: Wanted<'_>, is_new: bool, now: DateTime<Utc>) -> Result<Identity> {
        let key = layout::identity();
        // Looked at first, so that what is replaced is what was read.
        let there = self.store.head(&key).await?;
        match self.describe().await? {
            Some(found) if !is_new && found.suits(wanted) => Ok(found),
            Some(found) if !is_new => Err(found.contradicts(self.url(), wanted)),
            None if !is_new => Err(Error::integrity(format!("{}/{key} is missing", self.url()))
                .with_hint("it says whose conversations the lake holds: restore it from a backup")),
            found => {
                let file = Identity::decided(wanted, found.map(|found| found.format), now);
                self.store.replace(&key, there.as_ref(), to_json(&file)?).await?;
                Ok(file)
            }
        }
    }
}
