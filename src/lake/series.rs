//! Numbered objects in one folder, of which the highest counts. Checkpoints and leases are such series.
//!
//! Guarantees: of two runs that create the next object, one is refused, because the write is conditional. A run that
//! has missed so many objects that its number was used and removed is refused by [`Series::confirm`], because a listing
//! shows a higher number. One listing covers all objects that a run has created before.
//! Must not depend on: the content of the objects.

use futures::TryStreamExt;
use object_store::path::Path;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::layout;
use crate::store::Store;

/// How often to look for the newest object, which a live run may remove between the listing and the read.
const READ_TRIES: usize = 8;

/// The numbered objects of one folder.
#[derive(Debug, Clone)]
pub(super) struct Series {
    store: Store,
    folder: Path,
    /// How many objects to keep, the newest included.
    kept: u64,
}

impl Series {
    pub(super) fn new(store: &Store, folder: Path, kept: u64) -> Self {
        Series { store: store.clone(), folder, kept }
    }

    /// Reads the newest object and its number; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails or the object is damaged.
    pub(super) async fn newest<T: DeserializeOwned>(&self) -> Result<Option<(u64, T)>> {
        for _ in 0..READ_TRIES {
            let Some(number) = self.newest_number().await? else { return Ok(None) };
            let key = self.key(number);
            // If it is gone, a run has appended many times since the listing.
            if let Some(bytes) = self.store.get(&key).await? {
                return Ok(Some((number, self.store.parse(&key, &bytes)?)));
            }
        }
        Err(Error::held(format!(
            "another run writes to the lake {} faster than its state can be read",
            self.store.url()
        )))
    }

    /// As [`Series::newest`]; if its number is `likely`, with one round trip instead of two.
    ///
    /// # Errors
    /// As [`Series::newest`].
    pub(super) async fn newest_near<T: DeserializeOwned>(&self, likely: Option<u64>) -> Result<Option<(u64, T)>> {
        let Some(likely) = likely else { return self.newest().await };
        let key = self.key(likely);
        let (newest, bytes) = tokio::try_join!(self.newest_number(), self.store.get(&key))?;
        match bytes.filter(|_| newest == Some(likely)) {
            Some(bytes) => Ok(Some((likely, self.store.parse(&key, &bytes)?))),
            None => self.newest().await,
        }
    }

    /// Creates an object under `number`, the one after the newest known. Returns false if another run has created one
    /// there. `body` must differ between runs.
    ///
    /// # Errors
    /// If the store fails; the object may have been created nevertheless.
    pub(super) async fn create(&self, number: u64, body: Vec<u8>) -> Result<bool> {
        self.store.create(&self.key(number), body).await
    }

    /// Makes sure that the object that was created under `number` is the newest. Returns the objects that need not be
    /// kept, or `None` if there is a newer one: the number was used and removed before.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn confirm(&self, number: u64) -> Result<Option<Vec<Path>>> {
        let mut surplus = Vec::new();
        let mut objects = self.store.list(self.folder.clone());
        while let Some(key) = objects.try_next().await?.map(|object| object.location) {
            match layout::number_of(&key) {
                Some(other) if other > number => return Ok(None),
                Some(other) if other <= number.saturating_sub(self.kept) => surplus.push(key),
                _ => {}
            }
        }
        Ok(Some(surplus))
    }

    /// The key of an object.
    pub(super) fn key(&self, number: u64) -> Path {
        layout::numbered(&self.folder, number)
    }

    async fn newest_number(&self) -> Result<Option<u64>> {
        let mut newest = None;
        let mut objects = self.store.list(self.folder.clone());
        while let Some(object) = objects.try_next().await? {
            newest = newest.max(layout::number_of(&object.location));
        }
        Ok(newest)
    }
}
