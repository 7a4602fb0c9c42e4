//! A lake's address and the few operations on its store that everything else is made of.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::error::{Error, Result};
use crate::layout;

/// The version of the layout that this program writes, and the newest it reads.
const FORMAT_VERSION: u32 = 1;

/// An opened lake.
#[derive(Debug, Clone)]
pub struct Lake {
    url: String,
    store: Arc<dyn ObjectStore>,
    /// Where it is, if on a local disk.
    folder: Option<PathBuf>,
}

/// What a lake is, decided when it is made (`_state/lake.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeFile {
    /// The version of the layout.
    pub format_version: u32,
    /// The API whose conversations it holds.
    pub base_url: String,
    /// The `user_filters` that they were asked for with.
    #[serde(default)]
    pub user_filters: Option<Value>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl Lake {
    /// Opens the lake at a path or URL, which need not exist yet. Local folders are made when something is written.
    ///
    /// # Errors
    /// Where the URL is not one of a store, or its configuration is incomplete.
    pub fn open(address: &str) -> Result<Self> {
        let local = match Url::parse(address) {
            Ok(url) if url.scheme() == "file" => Some(
                url.to_file_path()
                    .map_err(|()| Error::usage(format!("--lake {address} is not a path on this machine")))?,
            ),
            // A one-letter scheme is a drive.
            Ok(url) if url.scheme().len() > 1 => return Self::open_url(address, &url),
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
        let store = Arc::new(PrefixStore::new(store, root));
        Ok(Lake { url: path.display().to_string(), store, folder: Some(path) })
    }

    fn open_url(address: &str, url: &Url) -> Result<Self> {
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
        let store = Arc::new(PrefixStore::new(store, prefix));
        Ok(Lake { url: address.trim_end_matches('/').to_owned(), store, folder: None })
    }

    /// A lake on any store, for tests.
    pub fn on(store: Arc<dyn ObjectStore>, url: &str) -> Self {
        Lake { url: url.to_owned(), store, folder: None }
    }

    /// Where the lake is, as people write it in queries.
    pub fn url(&self) -> &str {
        &self.url
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

    /// Writes an object that must not exist yet. Returns false where it does.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn create(&self, key: &Path, body: Vec<u8>) -> Result<bool> {
        match self.store.put_opts(key, body.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
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

    /// An object's size in bytes; `None` where there is no such object.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn size(&self, key: &Path) -> Result<Option<u64>> {
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
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

    /// Removes what killed runs left beside an object of a local disk: `LocalFileSystem` writes to `<name>#<n>` first and
    /// never looks there again, but a query engine would. Blocks.
    ///
    /// # Errors
    /// Where the folder cannot be read or written.
    pub fn sweep_beside(&self, key: &Path) -> Result<()> {
        let (Some(folder), Some(name)) = (&self.folder, key.filename()) else { return Ok(()) };
        let file = folder.join(key.as_ref());
        let Some(entries) = file.parent().and_then(|parent| std::fs::read_dir(parent).ok()) else { return Ok(()) };
        for entry in entries.flatten() {
            let staged = entry.file_name().to_str().is_some_and(|found| {
                let number = found.strip_prefix(name).and_then(|rest| rest.strip_prefix('#'));
                number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
            });
            if staged {
                std::fs::remove_file(entry.path()).map_err(|error| {
                    Error::store(format!("cannot remove {}", entry.path().display())).caused_by(error)
                })?;
            }
        }
        Ok(())
    }

    /// What the lake is; `None` where nothing was ever exported to it.
    ///
    /// # Errors
    /// Where the store fails, or the lake was made by a newer version of this program.
    pub async fn describe(&self) -> Result<Option<LakeFile>> {
        let Some(bytes) = self.get(&layout::lake_file()).await? else { return Ok(None) };
        let file: LakeFile = self.parse(&layout::lake_file(), &bytes)?;
        if file.format_version > FORMAT_VERSION {
            let found = file.format_version;
            return Err(Error::usage(format!(
                "the lake {} has format {found}, this version knows up to {FORMAT_VERSION}",
                self.url
            ))
            .with_hint("use a newer decagon-lake"));
        }
        Ok(Some(file))
    }

    /// What the lake is, where there has to be one.
    ///
    /// # Errors
    /// Kind `Usage` where there is none; else as [`Lake::describe`].
    pub async fn existing(&self) -> Result<LakeFile> {
        self.describe().await?.ok_or_else(|| {
            Error::usage(format!("there is no lake at {}", self.url))
                .with_hint("`decagon-lake sync --lake …` makes one; is --lake or DECAGON_LAKE right?")
        })
    }

    /// Makes sure that the lake holds the conversations of this API, asked for with these filters. Where it `is_new`,
    /// nothing was committed to it yet, that is decided here.
    ///
    /// # Errors
    /// Kind `Usage` where it holds others.
    pub async fn claim(
        &self,
        base_url: &str,
        user_filters: Option<&Value>,
        is_new: bool,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let found = self.describe().await?;
        let same = found.as_ref().is_some_and(|it| it.base_url == base_url && it.user_filters.as_ref() == user_filters);
        match found {
            _ if same => Ok(()),
            Some(found) if !is_new => Err(self.of_others(&found, base_url, user_filters)),
            _ => {
                let file = LakeFile {
                    format_version: FORMAT_VERSION,
                    base_url: base_url.to_owned(),
                    user_filters: user_filters.cloned(),
                    created_at: now,
                };
                self.put(&layout::lake_file(), to_json(&file)?).await
            }
        }
    }

    fn of_others(&self, found: &LakeFile, base_url: &str, user_filters: Option<&Value>) -> Error {
        let url = &self.url;
        if found.base_url != base_url {
            return Error::usage(format!(
                "the lake {url} holds conversations of {}, not of {base_url}",
                found.base_url
            ))
            .with_hint("give the --base-url it was made with, or another --lake");
        }
        let tell = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
        let (theirs, mine) = (tell(found.user_filters.as_ref()), tell(user_filters));
        Error::usage(format!("the lake {url} was made with --user-filters {theirs}, not {mine}"))
            .with_hint("keep one lake per set of filters: give the same --user-filters, or another --lake")
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
