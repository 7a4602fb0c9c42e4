//! The few operations on a lake's store that everything else is made of.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};

use super::answers::is_archived;
use super::bounded::Limit;
use super::calls::StoreCalls;
use super::conditions::Fate;
use super::diagnose::{Backend, Told, bucket_is_missing, remedy};
use super::parts::PartedStore;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::{CreatedDate, PerTable, Table};

/// An opened lake.
#[derive(Debug, Clone)]
pub struct Lake {
    pub(super) url: String,
    pub(super) backend: Backend,
    pub(super) store: Arc<dyn ObjectStore>,
    /// The same store, for calls that must not wait for others'.
    pub(super) ahead: Arc<dyn ObjectStore>,
    /// The same store, for uploads in parts; none on local disks.
    pub(super) parted: Option<PartedStore>,
    /// Where it is, if on a local disk.
    pub(super) folder: Option<PathBuf>,
    pub(super) limit: Limit,
    /// Whether it is refused where its store cannot keep two runs apart; else its puts go without conditions.
    pub(super) needs_lock: bool,
}

impl Lake {
    /// Where the lake is, as people write it in queries.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The calls made to the store since it was opened.
    pub fn calls(&self) -> StoreCalls {
        self.limit.calls().so_far()
    }

    /// The same lake, for calls that must not wait for others': uploads may be under way for minutes.
    pub(super) fn ahead(&self) -> Self {
        Lake { store: Arc::clone(&self.ahead), ..self.clone() }
    }

    /// Whether it is in a folder that this machine sees.
    pub(super) fn is_local(&self) -> bool {
        self.folder.is_some()
    }

    /// Where an object is on this machine's disks; `None` for a lake in an object store.
    pub(super) fn local_path(&self, key: &Path) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(key.as_ref()))
    }

    /// How an object is put in the place of what was `found` there, and of nothing else. On local disks the lock keeps
    /// others out.
    fn in_place_of(&self, found: Option<&ObjectMeta>) -> PutMode {
        match found {
            _ if self.folder.is_some() || !self.needs_lock => PutMode::Overwrite,
            None => PutMode::Create,
            Some(ObjectMeta { e_tag, version, .. }) => {
                PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
            }
        }
    }

    /// Writes an object in one put, over what was there.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn put(&self, key: &Path, body: impl Into<PutPayload>) -> Result<()> {
        self.store.put(key, body.into()).await.map(drop).map_err(|error| self.failed("write", key, error))
    }

    /// Writes an object in the place of what was `found` there.
    ///
    /// # Errors
    /// Where the store fails, and kind `Held` where another run has written it since.
    pub(super) async fn replace(&self, key: &Path, found: Option<&ObjectMeta>, body: impl Into<Bytes>) -> Result<()> {
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

    /// Puts an object on a condition; returns whether it is there now. What is refused because the very same is there has
    /// got through, but its answer was lost.
    async fn put_if(&self, key: &Path, body: Bytes, mode: PutMode) -> Result<bool> {
        match self.put_on(key, body.clone(), mode).await? {
            Fate::Put => Ok(true),
            Fate::Refused => Ok(self.get(key).await?.is_some_and(|there| there == body)),
        }
    }

    /// An object's bytes; `None` where there is no such object.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn get(&self, key: &Path) -> Result<Option<Bytes>> {
        let failed = |error| self.failed("read", key, error);
        match self.store.get(key).await {
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
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look at", key, error)),
        }
    }

    /// What the store knows of the four table objects of a date.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn table_objects(&self, date: CreatedDate) -> Result<PerTable<Option<ObjectMeta>>> {
        let keys = Table::ALL.map(|table| layout::table_object(table, date));
        let mut found = try_join_all(keys.iter().map(|key| self.head(key))).await?.into_iter();
        Ok(PerTable::from_fn(|_| found.next().flatten()))
    }

    /// Every object under a folder.
    pub fn list(&self, folder: Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let lake = self.clone();
        let failed = folder.clone();
        self.store.list(Some(&folder)).map_err(move |error| lake.failed("list", &failed, error)).boxed()
    }

    /// Deletes objects; those that are gone already are no failure.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete(&self, keys: Vec<Path>) -> Result<()> {
        let mut deletions = self.store.delete_stream(stream::iter(keys).map(Ok).boxed());
        while let Some(deleted) = deletions.next().await {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("delete from", &Path::default(), error)),
            }
        }
        Ok(())
    }

    /// Reads one of the lake's JSON objects.
    pub(super) fn parse<T: for<'de> Deserialize<'de>>(&self, key: &Path, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::integrity(format!("{}/{key} is not what this program writes", self.url))
                .caused_by(error)
                .with_hint("restore it from a backup of the lake, or begin another lake")
        })
    }

    /// A failure of the store at one key.
    pub(super) fn failed(&self, verb: &str, key: &Path, error: object_store::Error) -> Error {
        let place = if key.as_ref().is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) };
        tracing::debug!("{error}");
        let hint = remedy(self.backend, &error).unwrap_or_else(|| {
            "nothing that was landed is lost; check the store's space and permissions and run the command again"
                .to_owned()
        });
        let failed = Error::store(format!("cannot {verb} {place}")).caused_by(Told::briefly(&error)).with_hint(hint);
        if is_archived(&error) { failed.of_one_object() } else { failed }
    }
}

/// An object of `_state` as people can read it.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut json =
        serde_json::to_vec(value).map_err(|error| Error::bug("cannot write the lake's own JSON").caused_by(error))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn an_object_whose_answer_was_lost_is_made_all_the_same_and_another_one_is_not() {
        let lake = Lake::on(InMemory::new(), "memory", Duration::from_secs(60));
        let key = Path::from("_state/x.json");
        assert!(lake.create(&key, b"mine".to_vec()).await.unwrap());
        assert!(
            lake.create(&key, b"mine".to_vec()).await.unwrap(),
            "tried again below, where the first try got through"
        );
        assert!(!lake.create(&key, b"another run's".to_vec()).await.unwrap());
        assert_eq!(lake.get(&key).await.unwrap().unwrap().as_ref(), b"mine");
    }

    #[tokio::test]
    async fn an_object_takes_the_place_of_what_was_found_alone() {
        let lake = Lake::on(InMemory::new(), "memory", Duration::from_secs(60));
        let key = Path::from("tags/x");
        lake.replace(&key, None, "first").await.unwrap();
        let found = lake.head(&key).await.unwrap();
        assert_eq!(lake.replace(&key, None, "second").await.unwrap_err().kind().exit_code(), 7);
        lake.replace(&key, found.as_ref(), "second").await.unwrap();
        assert_eq!(lake.replace(&key, found.as_ref(), "third").await.unwrap_err().kind().exit_code(), 7);
        assert_eq!(lake.get(&key).await.unwrap().unwrap().as_ref(), b"second");
    }
}
