//! The few operations on a store that everything else is made of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use super::answers::{Backend, is_archived};
use super::calls::StoreCalls;
use super::conditional::{self, PutOutcome, stale, still};
use super::diagnose::{StoreAnswer, bucket_is_missing, remedy};
use super::limits::Limit;
use super::parted::PartedStore;
use crate::clock::Clock;
use crate::error::{Error, Result};

/// An opened store, from the prefix of an address on.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) url: String,
    pub(super) backend: Backend,
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same store, for calls that must not wait for others'.
    pub(super) ahead: Arc<dyn ObjectStore>,
    /// The same store, for uploads in parts; none on local disks.
    pub(super) parted: Option<PartedStore>,
    /// Where it is, if on a local disk.
    pub(super) folder: Option<PathBuf>,
    pub(super) limit: Limit,
    /// Whether two writers have to be kept apart; if not, puts go without conditions.
    pub(super) needs_lock: bool,
}

impl Store {
    /// The address of the store and its prefix, as people write it in queries.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The store as `object_store` has it, with its calls bounded and counted.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The same store, for uploads in parts; `None` on local disks.
    pub(super) fn parted(&self) -> Option<&PartedStore> {
        self.parted.as_ref()
    }

    /// The clock that its calls are bounded by.
    pub fn clock(&self) -> Clock {
        self.limit.clock()
    }

    /// How long one call may take.
    pub fn call_timeout(&self) -> Duration {
        self.limit.each()
    }

    /// Whether two writers have to be kept apart.
    pub fn needs_lock(&self) -> bool {
        self.needs_lock
    }

    /// The calls made to the store since it was opened.
    pub fn calls(&self) -> StoreCalls {
        self.limit.calls().so_far()
    }

    /// The same store, for calls that must not wait for others': uploads may be under way for minutes.
    pub fn ahead(&self) -> Self {
        Store { objects: Arc::clone(&self.ahead), ..self.clone() }
    }

    /// Whether it is a folder that this machine sees.
    pub fn is_local(&self) -> bool {
        self.folder.is_some()
    }

    /// Where an object is on this machine's disks; `None` in an object store.
    pub fn local_path(&self, key: &Path) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(key.as_ref()))
    }

    /// The condition of a put in the place of what was `found`, and of nothing else. On local disks the lock keeps others
    /// out.
    fn in_place_of(&self, found: Option<&ObjectMeta>) -> PutMode {
        if self.is_local() || !self.needs_lock { PutMode::Overwrite } else { still(found) }
    }

    /// Writes an object in one put, over what was there.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn put(&self, key: &Path, body: impl Into<PutPayload>) -> Result<()> {
        self.objects.put(key, body.into()).await.map(drop).map_err(|error| self.failed("write", key, error))
    }

    /// Writes an object in the place of what was `found` there.
    ///
    /// # Errors
    /// Where the store fails, and kind `Held` where another run has written it since.
    pub async fn replace(&self, key: &Path, found: Option<&ObjectMeta>, body: impl Into<Bytes>) -> Result<()> {
        if self.put_if(key, body.into(), self.in_place_of(found)).await? {
            return Ok(());
        }
        Err(Error::held(format!("another run has replaced {}/{key}", self.url))
            .with_hint("let one run at a time write to a lake; run this again"))
    }

    /// Writes an object that must not exist yet. Returns false where another one does; where it is this very one, the
    /// answer to the put that made it was lost.
    ///
    /// # Errors
    /// Where the store fails; the object may have been written all the same.
    pub async fn create(&self, key: &Path, body: impl Into<Bytes>) -> Result<bool> {
        if self.needs_lock {
            return self.put_if(key, body.into(), PutMode::Create).await;
        }
        match self.get(key).await? {
            Some(there) => Ok(there == body.into()),
            None => self.put_if(key, body.into(), PutMode::Overwrite).await,
        }
    }

    /// Makes sure that the store refuses to put `body` over itself at `key` on conditions that do not hold: some stores that
    /// speak S3 take such a put and ignore its condition. Returns false if somebody has removed the object in the meantime; it
    /// may be there again then.
    ///
    /// # Errors
    /// Kind `Store` if the store does not refuse it, or fails.
    pub async fn prove_conditions(&self, key: &Path, body: &[u8]) -> Result<bool> {
        let put = async |mode| self.put_on(key, &Bytes::copy_from_slice(body), mode).await;
        if put(PutMode::Create).await? {
            return match put(PutMode::Create).await? {
                false => Ok(false),
                true => Err(self.lacks_conditions("puts an object over one where there must be none")),
            };
        }
        match put(stale()).await? {
            false => Ok(true),
            true => Err(self.lacks_conditions("puts an object in the place of another one than it was told to")),
        }
    }

    /// Puts an object on a condition; returns whether the condition held.
    async fn put_on(&self, key: &Path, body: &Bytes, mode: PutMode) -> Result<bool> {
        match conditional::put(&*self.objects, key, body, &mode).await {
            Ok(PutOutcome::Put) => Ok(true),
            Ok(PutOutcome::Refused) => Ok(false),
            Ok(PutOutcome::Unknown(error)) => {
                Err(self.lacks_conditions("does not know them").caused_by(StoreAnswer::of(&error)))
            }
            Err(error) => Err(self.failed("write", key, error)),
        }
    }

    /// A store that cannot keep two writers apart.
    pub(super) fn lacks_conditions(&self, fault: &str) -> Error {
        Error::store(format!("the store of {} lacks conditional puts: it {fault}", self.url)).with_hint(
            "without them two runs at once lose rows; use another store, or see to it yourself that one runs at a time \
             and give --unsafe-no-lock",
        )
    }

    /// Puts an object on a condition; returns whether it is there now. What is refused because the very same is there has
    /// got through, but its answer was lost.
    async fn put_if(&self, key: &Path, body: Bytes, mode: PutMode) -> Result<bool> {
        Ok(self.put_on(key, &body, mode).await? || self.get(key).await?.is_some_and(|there| there == body))
    }

    /// An object's bytes; `None` where there is no such object.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn get(&self, key: &Path) -> Result<Option<Bytes>> {
        let failed = |error| self.failed("read", key, error);
        match self.objects.get(key).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(error @ object_store::Error::NotFound { .. }) if !bucket_is_missing(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// What the store knows of an object; `None` where there is no such object.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn head(&self, key: &Path) -> Result<Option<ObjectMeta>> {
        match self.objects.head(key).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look at", key, error)),
        }
    }

    /// Every object under a folder.
    pub fn list(&self, folder: Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let lake = self.clone();
        let failed = folder.clone();
        self.objects.list(Some(&folder)).map_err(move |error| lake.failed("list", &failed, error)).boxed()
    }

    /// Deletes objects; those that are gone already are no failure.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete(&self, keys: Vec<Path>) -> Result<()> {
        let mut deletions = self.objects.delete_stream(stream::iter(keys).map(Ok).boxed());
        while let Some(deleted) = deletions.next().await {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("delete from", &Path::default(), error)),
            }
        }
        Ok(())
    }

    /// Reads one of the lake's JSON objects.
    pub fn parse<T: for<'de> Deserialize<'de>>(&self, key: &Path, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::integrity(format!("{}/{key} is not what this program writes", self.url))
                .caused_by(error)
                .with_hint("restore it from a backup of the lake, or begin another lake")
        })
    }

    /// A failure of the store at one key.
    pub fn failed(&self, verb: &str, key: &Path, error: object_store::Error) -> Error {
        let place = if key.as_ref().is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) };
        tracing::debug!("{error}");
        let hint = remedy(self.backend, &error).unwrap_or_else(|| {
            "nothing that was landed is lost; check the store's space and permissions and run the command again"
                .to_owned()
        });
        let failed = Error::store(format!("cannot {verb} {place}")).caused_by(StoreAnswer::of(&error)).with_hint(hint);
        if is_archived(&error) { failed.of_one_object() } else { failed }
    }
}

/// An object of `_state` as people can read it.
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
    async fn an_object_whose_answer_was_lost_is_made_all_the_same_and_another_one_is_not() {
        let store = Store::on(InMemory::new(), "memory", Duration::from_secs(60));
        let key = Path::from("_state/x.json");
        assert!(store.create(&key, b"mine".to_vec()).await.unwrap());
        assert!(
            store.create(&key, b"mine".to_vec()).await.unwrap(),
            "tried again below, where the first try got through"
        );
        assert!(!store.create(&key, b"another run's".to_vec()).await.unwrap());
        assert_eq!(store.get(&key).await.unwrap().unwrap().as_ref(), b"mine");
    }

    #[tokio::test]
    async fn an_object_takes_the_place_of_what_was_found_alone() {
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
