//! Multipart uploads by their id, which can be recorded. Must not depend on: who records the id.

use std::sync::Arc;

use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, MultipartId, Result};

use super::calls::Call;
use super::limits::Limit;

/// The part of a store that makes multipart uploads by id.
#[derive(Clone)]
pub(super) struct PartedStore {
    pub(super) store: Arc<dyn MultipartStore>,
    /// The prefix of all keys.
    pub(super) prefix: Path,
    pub(super) limit: Limit,
}

impl std::fmt::Debug for PartedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartedStore({})", self.prefix)
    }
}

impl PartedStore {
    /// The path of `key` in the whole store.
    pub(super) fn path(&self, key: &Path) -> Path {
        self.prefix.parts().chain(key.parts()).collect()
    }

    /// Aborts an upload, which removes its parts; succeeds if it has ended already.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn abort(&self, key: &Path, id: &MultipartId) -> Result<()> {
        match self.limit.run(Call::Multipart, self.store.abort_multipart(&self.path(key), id)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            aborted => aborted,
        }
    }
}
