//! A lake's address and the few operations on its store that everything else is made of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use url::Url;

use super::bounded::Bounded;
use crate::clock::Clock;
use crate::error::{Error, Result};

/// An opened lake.
#[derive(Debug, Clone)]
pub struct Lake {
    url: String,
    store: Arc<dyn ObjectStore>,
    /// Where it is, if on a local disk.
    folder: Option<PathBuf>,
}

impl Lake {
    /// Opens the lake at a path or URL, which need not exist yet. Local folders are made when something is written. No
    /// call to the store takes longer than `call_timeout`, its own retries included.
    ///
    /// # Errors
    /// Where the URL is not one of a store, or its configuration is incomplete.
    pub fn open(address: &str, call_timeout: Duration, clock: Clock) -> Result<Self> {
        let local = match Url::parse(address) {
            Ok(url) if url.scheme() == "file" => Some(
                url.to_file_path()
                    .map_err(|()| Error::usage(format!("--lake {address} is not a path on this machine")))?,
            ),
            // A one-letter scheme is a drive.
            Ok(url) if url.scheme().len() > 1 => return Self::open_url(address, &url, call_timeout, clock),
            _ => Some(PathBuf::from(address)),
        };
        let Some(path) = local.filter(|path| !path.as_os_str().is_empty()) else {
            return Err(Error::usage("--lake is empty").with_hint("give a path or a URL such as s3://bucket/prefix"));
        };
        let failed = |error| Error::store(format!("cannot open the lake {}", path.display())).caused_by(error);
        let path = std::path::absolute(&path).map_err(failed)?;
        let root = Path::from_absolute_path(&path)
            .map_err(|error| Error::usage(format!("--lake {address} cannot be used as a path")).caused_by(error))?;
        // Commits promise durability, so writes are synced.
        let store = LocalFileSystem::new().with_automatic_cleanup(true).with_fsync(true);
        let store = Arc::new(Bounded::new(PrefixStore::new(store, root), call_timeout, clock));
        Ok(Lake { url: path.display().to_string(), store, folder: Some(path) })
    }

    fn open_url(address: &str, url: &Url, call_timeout: Duration, clock: Clock) -> Result<Self> {
        if url.scheme() == "memory" {
            return Err(Error::usage(format!("--lake {address} would be gone when the run ends")));
        }
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.to_str()?.to_ascii_lowercase(), value.to_str()?.to_owned())));
        let (store, prefix) = object_store::parse_url_opts(url, environment).map_err(|error| {
            Error::usage(format!("cannot use --lake {address}"))
                .caused_by(error)
                .with_hint("give a path, file://, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")
        })?;
        let store = Arc::new(Bounded::new(PrefixStore::new(store, prefix), call_timeout, clock));
        Ok(Lake { url: address.trim_end_matches('/').to_owned(), store, folder: None })
    }

    /// A lake on any store, whose calls may take `call_timeout`: for tests.
    #[cfg(test)]
    pub(crate) fn on(store: Arc<dyn ObjectStore>, url: &str, call_timeout: Duration) -> Self {
        Lake { url: url.to_owned(), store: Arc::new(Bounded::new(store, call_timeout, Clock::system())), folder: None }
    }

    /// The same, but runs are kept apart by a lock in `folder`.
    #[cfg(test)]
    pub(crate) fn on_locked(store: Arc<dyn ObjectStore>, url: &str, call_timeout: Duration, folder: PathBuf) -> Self {
        Lake { folder: Some(folder), ..Self::on(store, url, call_timeout) }
    }

    /// Where the lake is, as people write it in queries.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where an object is on this machine's disks; `None` for a lake in an object store.
    pub(super) fn local_path(&self, key: &Path) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(key.as_ref()))
    }

    /// How an object is put in the place of what was `found` there, and of nothing else. On local disks the lock keeps
    /// others out.
    fn in_place_of(&self, found: Option<&ObjectMeta>) -> PutMode {
        match found {
            _ if self.folder.is_some() => PutMode::Overwrite,
            None => PutMode::Create,
            Some(ObjectMeta { e_tag, version, .. }) => {
                PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
            }
        }
    }

    /// The store itself.
    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
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
    pub(super) async fn replace(
        &self,
        key: &Path,
        found: Option<&ObjectMeta>,
        body: impl Into<PutPayload>,
    ) -> Result<()> {
        let put = self.store.put_opts(key, body.into(), self.in_place_of(found).into()).await;
        put.map(drop).map_err(|error| self.not_replaced(key, error))
    }

    /// A failure of the store to put an object in the place of another.
    pub(super) fn not_replaced(&self, key: &Path, error: object_store::Error) -> Error {
        match error {
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. } => {
                Error::held(format!("another run has replaced {}/{key}", self.url))
                    .with_hint("let one run at a time write to a lake; run this again")
            }
            error => self.failed("write", key, error),
        }
    }

    /// Writes an object that must not exist yet. Returns false where another one does; where it is this very one, the
    /// answer to the put that made it was lost.
    ///
    /// # Errors
    /// Where the store fails; the object may have been written all the same.
    pub async fn create(&self, key: &Path, body: Vec<u8>) -> Result<bool> {
        let body = Bytes::from(body);
        match self.store.put_opts(key, body.clone().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(self.get(key).await?.is_some_and(|there| there == body))
            }
            Err(error) => Err(self.failed("write", key, error)),
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
            Err(object_store::Error::NotFound { .. }) => Ok(None),
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
        Error::store(format!("cannot {verb} {place}")).caused_by(error).with_hint(
            "nothing that was landed is lost; check the store's space and permissions and run the command again",
        )
    }
}

/// An object of `_state` as people can read it.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut json =
        serde_json::to_vec(value).map_err(|error| Error::bug("cannot write the lake's own JSON").caused_by(error))?;
    json.push(b'\n');
    Ok(json)
}
