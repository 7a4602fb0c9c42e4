//! Numbered objects in one folder, of which the highest counts. Checkpoints and leases are such series.
//!
//! Guarantees: only a run that has seen the newest number can append. The object is created conditionally under the
//! next number; if that number was used and removed in the meantime, the listing after the write shows a higher one.
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

    /// Appends an object under `number`, the one after the newest known. Returns false, and leaves nothing behind, if
    /// another run has appended since. `body` must differ between runs.
    ///
    /// # Errors
    /// If the store fails; the object may have been created nevertheless.
    pub(super) async fn append(&self, number: u64, body: Vec<u8>) -> Result<bool> {
        let key = self.key(number);
        if !self.store.create(&key, body).await? {
            return Ok(false);
        }
        if self.newest_number().await?.is_some_and(|newest| newest > number) {
            self.store.delete(vec![key]).await?;
            return Ok(false);
        }
        if let Some(old) = number.checked_sub(self.kept).filter(|old| *old > 0) {
            // The append has succeeded, even if the old object cannot be deleted.
            if let Err(error) = self.store.delete(vec![self.key(old)]).await {
                tracing::debug!("{}", error.chain().join(": "));
            }
        }
        Ok(true)
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
