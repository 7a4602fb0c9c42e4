//! Numbered objects in one folder, of which the highest counts: what commits and leases are made of.
//!
//! Promises: an object is appended with a conditional put under the next number, which every store has. Whoever has
//! not seen the newest number cannot append: either the number is taken or, where that one has been removed in the
//! meantime, the listing after the put shows a higher one. Must not know: what the objects say.

use futures::TryStreamExt;
use object_store::path::Path;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::layout;
use crate::store::Store;

/// How often the newest object is looked for, where a run under way removes it between the listing and the reading.
const READ_TRIES: usize = 8;

/// The numbered objects of one folder.
#[derive(Debug, Clone)]
pub(super) struct Series {
    store: Store,
    folder: Path,
    /// How many objects are left, the newest included.
    kept: u64,
}

impl Series {
    pub(super) fn new(store: &Store, folder: Path, kept: u64) -> Self {
        Series { store: store.clone(), folder, kept }
    }

    /// The newest object and its number; `None` where there is none.
    ///
    /// # Errors
    /// Where the store fails or the object is damaged.
    pub(super) async fn newest<T: DeserializeOwned>(&self) -> Result<Option<(u64, T)>> {
        for _ in 0..READ_TRIES {
            let Some(number) = self.newest_number().await? else { return Ok(None) };
            let key = self.key(number);
            // A run that has appended many times since the listing has removed it.
            if let Some(bytes) = self.store.get(&key).await? {
                return Ok(Some((number, self.store.parse(&key, &bytes)?)));
            }
        }
        Err(Error::held(format!("another run writes to the lake {} faster than it can be read", self.store.url())))
    }

    /// Appends an object under `number`, the one after the newest that is known. Returns false where another run has
    /// appended since; nothing is left of this object then. `body` must tell runs apart.
    ///
    /// # Errors
    /// Where the store fails; the object may be there all the same.
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
            // It stands, whatever becomes of the old one.
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
