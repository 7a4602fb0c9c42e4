//! A file as it was found, with its bytes if they are in memory.
//!
//! Guarantees: bytes in memory are those of the object that was found, or the file is read from the store. Must not
//! depend on: what is in files.

use bytes::Bytes;
use chrono::DateTime;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use crate::counted::counted;
use crate::error::{Error, Result};
use crate::store::{OpenObject, Store};

/// The hint for a damaged or missing file.
pub(super) const RESTORE: &str = "restore it from a backup; if it is in _landing, discard it with `verify --repair`, \
    then fetch its date again with `backfill --timestamp-filter created_at`";

/// A file that was found in a store.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// If it has no ETag, its name is used once, so that nothing can replace it.
    object: ObjectMeta,
    body: Option<Bytes>,
}

impl FoundFile {
    /// A file whose bytes a reader fetches as it needs them.
    pub fn not_read(object: ObjectMeta) -> Self {
        FoundFile { object, body: None }
    }

    /// The same for a file that is known to have `size` bytes, under a name that is used once.
    pub fn named_once(key: Path, size: u64) -> Self {
        let last_modified = DateTime::UNIX_EPOCH;
        Self::not_read(ObjectMeta { location: key, last_modified, size, e_tag: None, version: None })
    }

    /// The object.
    pub fn object(&self) -> &ObjectMeta {
        &self.object
    }

    /// Its bytes, if they are in memory.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// The same file with its bytes, unless there are more or fewer than it has. The reader then says so.
    pub fn with_body(self, body: Bytes) -> Self {
        let is_whole = u64::try_from(body.len()).is_ok_and(|bytes| bytes == self.object.size);
        FoundFile { body: is_whole.then_some(body), ..self }
    }

    /// Fetches its bytes into memory, unless something is wrong with this file alone. The reader then says so.
    ///
    /// # Errors
    /// Kind `Held` if it was replaced meanwhile, `Store` if the store fails.
    pub async fn load(self, store: &Store) -> Result<Self> {
        if self.object.size == 0 || self.body.is_some() {
            return Ok(self);
        }
        // A ranged read of a local disk is one call, a whole one is many.
        let whole = 0..self.object.size;
        match store.objects().get_ranges(&self.object.location, std::slice::from_ref(&whole)).await {
            Ok(mut found) => Ok(match found.pop() {
                Some(body) => self.with_body(body),
                None => self,
            }),
            Err(error) => {
                let failed = |_: &str| store.failed("read", &self.object.location, error);
                let error = unreadable(store, &self.object, failed).await;
                if error.is_of_one_object() { Ok(self) } else { Err(error) }
            }
        }
    }

    /// Waits for the bytes of an object that was requested.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn read(open: OpenObject) -> Result<Self> {
        let file = Self::not_read(open.meta().clone());
        Ok(file.with_body(open.read().await?))
    }
}

/// The error of an unreadable file: it has changed since it was `found`, or else `fault` of its address.
pub(super) async fn unreadable(store: &Store, found: &ObjectMeta, fault: impl FnOnce(&str) -> Error) -> Error {
    let file = format!("{}/{}", store.url(), found.location);
    match store.head(&found.location).await {
        Err(error) => error,
        Ok(None) => Error::integrity(format!("{file} no longer exists")).with_hint(RESTORE),
        Ok(Some(now)) if is_another(found, &now) => Error::held(format!("{file} was replaced while it was read"))
            .with_hint("the file is not damaged: run this command again"),
        Ok(Some(now)) if now.size != found.size => {
            Error::integrity(format!("{file} has {}, not {}", counted(now.size, "byte"), found.size)).with_hint(RESTORE)
        }
        Ok(Some(_)) => fault(&file),
    }
}

/// Whether the object was replaced since it was found. Listings of some stores have ETags without quotes.
fn is_another(found: &ObjectMeta, now: &ObjectMeta) -> bool {
    let bare = |object: &ObjectMeta| object.e_tag.as_deref().map(|tag| tag.trim_matches('"').to_owned());
    found.e_tag.is_some() && bare(found) != bare(now)
}
