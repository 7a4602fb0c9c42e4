//! A store's own way to take an object in parts, under an id that can be written down.
//!
//! Must not depend on: who writes the id down.

use std::sync::Arc;

use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, MultipartId, Result};

use super::calls::Call;
use super::limits::Limit;

/// A store that takes objects in parts, under ids that can be written down.
#[derive(Clone)]
pub(super) struct PartedStore {
    pub(super) store: Arc<dyn MultipartStore>,
    /// Where its part of the store begins.
    pub(super) prefix: Path,
    pub(super) limit: Limit,
}

impl std::fmt::Debug for PartedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartedStore({})", self.prefix)
    }
}

impl PartedStore {
    /// Where the object at `key` is in the whole store.
    pub(super) fn path(&self, key: &Path) -> Path {
        self.prefix.parts().chain(key.parts()).collect()
    }

    /// Ends an upload and removes its parts; one that has ended already is no failure.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn abort(&self, key: &Path, id: &MultipartId) -> Result<()> {
        match self.limit.on(Call::Multipart, self.store.abort_multipart(&self.path(key), id)).await {
            // It has ended already.
            Err(Error::NotFound { .. }) => Ok(()),
            aborted => aborted,
        }
    }
}
