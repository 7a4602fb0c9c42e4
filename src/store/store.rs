//! The basic operations on a store: reads, plain and conditional writes, listings, deletes. Must not depend on: what is
//! stored.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::answers::{Backend, is_archived};
use super::calls::StoreCalls;
use super::conditional::{self, PutOutcome, if_stale, if_unchanged};
use super::diagnose::{StoreAnswer, answer_is_lost, bucket_is_missing, remedy};
use super::group_sync::SyncLater;
use super::limits::Limit;
use super::parted::PartedStore;
use crate::clock::Clock;
use crate::error::{Error, Result};

/// An open store; all keys are below the prefix of its address.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) url: String,
    /// The server that it is on; empty on local disks.
    pub(super) server: String,
    pub(super) backend: Backend,
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same store, for calls that must not wait for others.
    pub(super) priority: Arc<dyn ObjectStore>,
    /// The same store, for multipart uploads; `None` on local disks.
    pub(super) parted: Option<PartedStore>,
    /// The folder of a store on a local disk.
    pub(super) folder: Option<PathBuf>,
    pub(super) limit: Limit,
    /// Whether two writers must be kept apart; if not, puts are unconditional.
    pub(super) needs_lock: bool,
    /// Objects up to this size are uploaded in one put, larger ones in parts of this size.
    pub(super) part_bytes: usize,
}

/// See [`Store::part_bytes`].
pub(super) const PART_BYTES: usize = if cfg!(test) { 4 << 10 } else { 10 << 20 };

/// How often a deletion is sent whose response is lost.
const DELETIONS: u32 = 3;

impl Store {
    /// The address of the store, as users write it in queries.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address and the server behind it: two stores never have the same one.
    pub fn place(&self) -> String {
        format!("{} at {}", self.url, self.server)
    }

    /// The underlying store, whose calls are bounded and counted.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The same store, for multipart uploads; `None` on local disks.
    pub(super) fn parted(&self) -> Option<&PartedStore> {
        self.parted.as_ref()
    }

    /// The clock that its calls are bounded by.
    pub fn clock(&self) -> Clock {
        self.limit.clock()
    }

    /// How long one call may take.
    pub fn call_timeout(&self) -> Duration {
        self.limit.call_timeout()
    }

    /// How many calls may be under way.
    pub fn concurrency(&self) -> usize {
        self.limit.concurrency()
    }

    /// Whether two writers must be kept apart.
    pub fn needs_lock(&self) -> bool {
        self.needs_lock
    }

    /// The calls made to the store since it was opened.
    pub fn calls(&self) -> StoreCalls {
        self.limit.calls().so_far()
    }

    /// The same store, for calls that must not wait for others, because uploads may take minutes.
    pub fn priority(&self) -> Self {
        Store { objects: Arc::clone(&self.priority), ..self.clone() }
    }

    /// Whether the store is a local or mounted folder.
    pub fn is_local(&self) -> bool {
        self.folder.is_some()
    }

    /// The path of an object on a local disk; `None` in an object store.
    pub fn local_path(&self, key: &Path) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(key.as_ref()))
    }

    /// Writes an object in one put, and overwrites an existing one.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn put(&self, key: &Path, body: impl Into<PutPayload>) -> Result<()> {
        self.objects.put(key, body.into()).await.map(drop).map_err(|error| self.failed("write", key, error))
    }

    /// As [`Store::put`], but on a local disk the object is durable only when a later put has returned, because to sync
    /// many objects at once costs little. For objects that another one, which is put after them, will name.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn put_unsynced(&self, key: &Path, body: impl Into<PutPayload>) -> Result<()> {
        if !self.is_local() {
            return self.put(key, body).await;
        }
        self.put_and_sync_later(key, body.into(), SyncLater::Everything).await.map(drop)
    }

    /// Puts an object on a local disk.
    async fn put_and_sync_later(&self, key: &Path, body: PutPayload, later: SyncLater) -> Result<Option<String>> {
        let mut options = PutOptions::default();
        options.extensions.insert(later);
        let put = self.objects.put_opts(key, body, options).await;
        put.map(|put| put.e_tag).map_err(|error| self.failed("write", key, error))
    }

    /// Writes an object, on the condition that it is still as it was `found`. Returns the ETag of the new object, if
    /// the store has ETags. On a local disk there is no condition, because the lock excludes other writers, and until a
    /// later put has returned, a loss of power may bring back the object as it was.
    ///
    /// # Errors
    /// If the store fails; kind `Held` if another run has written the object since.
    pub async fn replace(
        &self,
        key: &Path,
        found: Option<&ObjectMeta>,
        body: impl Into<Bytes>,
    ) -> Result<Option<String>> {
        if self.is_local() {
            return self.put_and_sync_later(key, body.into().into(), SyncLater::Name).await;
        }
        let mode = if self.needs_lock { if_unchanged(found) } else { PutMode::Overwrite };
        if let Some(PutReply { e_tag }) = self.put_if(key, body.into(), mode).await? {
            return Ok(e_tag);
        }
        Err(Error::held(format!("another run replaced {}/{key} first", self.url))
            .with_hint("let only one run at a time write to a lake, and run this command again"))
    }

    /// Writes an object that must not exist yet. Returns false if one with another body exists. If one with the same
    /// body exists, the answer to the put that wrote it was lost.
    ///
    /// # Errors
    /// If the store fails; the object may still have been written.
    pub async fn create(&self, key: &Path, body: impl Into<Bytes>) -> Result<bool> {
        if self.needs_lock {
            return Ok(self.put_if(key, body.into(), PutMode::Create).await?.is_some());
        }
        match self.get(key).await? {
            Some(there) => Ok(there == body.into()),
            None => Ok(self.put_if(key, body.into(), PutMode::Overwrite).await?.is_some()),
        }
    }

    /// Makes sure that the store refuses to put `body` at `key` if the condition does not hold, because some
    /// S3-compatible stores ignore conditions. Returns false if another run deleted the object meanwhile; this may have
    /// written it again.
    ///
    /// # Errors
    /// Kind `Store` if the store fails or does not refuse the put.
    pub async fn prove_conditional_writes(&self, key: &Path, body: &[u8]) -> Result<bool> {
        let put = async |mode| {
            let put = self.put_on(key, &Bytes::copy_from_slice(body), mode).await?;
            Ok::<_, Error>(put.is_some())
        };
        if put(PutMode::Create).await? {
            return match put(PutMode::Create).await? {
                false => Ok(false),
                true => Err(self.no_conditional_writes("a second create of the same key succeeded")),
            };
        }
        match put(if_stale()).await? {
            false => Ok(true),
            true => Err(self.no_conditional_writes("a put on the condition of another ETag succeeded")),
        }
    }

    /// Puts an object on a condition; `None` if the condition did not hold.
    async fn put_on(&self, key: &Path, body: &Bytes, mode: PutMode) -> Result<Option<PutReply>> {
        match conditional::put(&*self.objects, key, body, &mode).await {
            Ok(PutOutcome::Put(e_tag)) => Ok(Some(PutReply { e_tag })),
            Ok(PutOutcome::Refused) => Ok(None),
            Ok(PutOutcome::Unsupported(error)) => {
                Err(self.no_conditional_writes("it rejects the condition").caused_by(StoreAnswer::of(&error)))
            }
            Err(error) => Err(self.failed("write", key, error)),
        }
    }

    /// The error of a store that cannot keep two writers apart.
    pub(super) fn no_conditional_writes(&self, fault: &str) -> Error {
        Error::store(format!("{} does not support conditional writes: {fault}", self.url)).with_hint(
            "two runs at once would lose rows: use another store, or make sure that only one run writes at a time and \
             set --unsafe-no-lock",
        )
    }

    /// Puts an object on a condition; `None` if another object is there now. If a refused put finds its own body there,
    /// it had succeeded and its answer was lost.
    async fn put_if(&self, key: &Path, body: Bytes, mode: PutMode) -> Result<Option<PutReply>> {
        if let Some(written) = self.put_on(key, &body, mode).await? {
            return Ok(Some(written));
        }
        let Some(there) = self.request(key).await? else { return Ok(None) };
        let e_tag = there.meta().e_tag.clone();
        Ok((there.read().await? == body).then_some(PutReply { e_tag }))
    }

    /// Reads an object; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn get(&self, key: &Path) -> Result<Option<Bytes>> {
        match self.request(key).await? {
            Some(found) => found.read().await.map(Some),
            None => Ok(None),
        }
    }

    /// Requests an object and waits until its metadata are known; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn request(&self, key: &Path) -> Result<Option<OpenObject>> {
        match self.objects.get(key).await {
            Ok(found) => Ok(Some(OpenObject { store: self.clone(), found })),
            Err(error @ object_store::Error::NotFound { .. }) if !bucket_is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed("read", key, error)),
        }
    }

    /// Reads an object's metadata; `None` if there is no such object.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn head(&self, key: &Path) -> Result<Option<ObjectMeta>> {
        match self.objects.head(key).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read the metadata of", key, error)),
        }
    }

    /// Lists all objects below a folder.
    pub fn list(&self, folder: Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let lake = self.clone();
        let failed = folder.clone();
        self.objects.list(Some(&folder)).map_err(move |error| lake.failed("list", &failed, error)).boxed()
    }

    /// Deletes objects; succeeds for those that are gone already.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn delete(&self, keys: Vec<Path>) -> Result<()> {
        // The client deletes ten objects at a time if it needs a request for each.
        let streams = if self.backend == Backend::Gcs { self.concurrency().div_ceil(10) } else { 1 };
        let parts = keys.chunks(keys.len().div_ceil(streams).max(1));
        try_join_all(parts.map(|part| self.delete_part(part.to_vec()))).await.map(drop)
    }

    async fn delete_part(&self, keys: Vec<Path>) -> Result<()> {
        // The client does not repeat a batch of Azure whose response is lost, as it is a POST.
        let mut sent = 1;
        loop {
            match self.delete_once(keys.clone()).await {
                Err(error) if sent < DELETIONS && answer_is_lost(&error) => sent += 1,
                ended => return ended.map_err(|error| self.failed("delete from", &Path::default(), error)),
            }
        }
    }

    async fn delete_once(&self, keys: Vec<Path>) -> object_store::Result<()> {
        let mut deletions = self.objects.delete_stream(stream::iter(keys).map(Ok).boxed());
        while let Some(deleted) = deletions.next().await {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Parses the JSON object that was read from `key`.
    pub fn parse<T: for<'de> Deserialize<'de>>(&self, key: &Path, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::integrity(format!("{}/{key} is malformed", self.url))
                .caused_by(error)
                .with_hint("restore it from a backup of the lake, or start another lake")
        })
    }

    /// The error of a store's failure at one key.
    pub fn failed(&self, verb: &str, key: &Path, error: object_store::Error) -> Error {
        let place = if key.as_ref().is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) };
        tracing::debug!("{error}");
        let hint = remedy(self.backend, &error).unwrap_or_else(|| {
            "no staged data is lost; check the store's space and permissions, and run the command again".to_owned()
        });
        let failed = Error::store(format!("cannot {verb} {place}")).caused_by(StoreAnswer::of(&error)).with_hint(hint);
        if is_archived(&error) { failed.of_one_object() } else { failed }
    }
}

/// The store's reply to a conditional put that succeeded.
struct PutReply {
    e_tag: Option<String>,
}

/// An object whose metadata are known and whose bytes are on their way. Dropping it ends the request.
#[derive(Debug)]
pub struct OpenObject {
    store: Store,
    found: GetResult,
}

impl OpenObject {
    /// The object's metadata.
    pub fn meta(&self) -> &ObjectMeta {
        &self.found.meta
    }

    /// Waits for the bytes.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn read(self) -> Result<Bytes> {
        let OpenObject { store, found } = self;
        let key = found.meta.location.clone();
        found.bytes().await.map_err(|error| store.failed("read", &key, error))
    }
}

/// Encodes an object of `_state` as one line of JSON.
pub fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut json =
        serde_json::to_vec(value).map_err(|error| Error::bug("cannot write the lake's own JSON").caused_by(error))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_create_succeeds_again_after_a_lost_answer_but_not_over_another_object() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let key = Path::from("_state/x.json");
        assert!(store.create(&key, b"mine".to_vec()).await.unwrap());
        assert!(store.create(&key, b"mine".to_vec()).await.unwrap(), "the retry of a create that had succeeded");
        assert!(!store.create(&key, b"another run's".to_vec()).await.unwrap());
        assert_eq!(store.get(&key).await.unwrap().unwrap().as_ref(), b"mine");
    }

    #[tokio::test]
    async fn an_object_replaces_only_what_was_found() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let key = Path::from("tags/x");
        store.replace(&key, None, "first").await.unwrap();
        let found = store.head(&key).await.unwrap();
        assert_eq!(store.replace(&key, None, "second").await.unwrap_err().kind().exit_code(), 7);
        store.replace(&key, found.as_ref(), "second").await.unwrap();
        assert_eq!(store.replace(&key, found.as_ref(), "third").await.unwrap_err().kind().exit_code(), 7);
        assert_eq!(store.get(&key).await.unwrap().unwrap().as_ref(), b"second");
    }
}
