//! From the address of a lake to its store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use super::Lake;
use super::bounded::{Bounded, Limit};
use super::parts::PartedStore;
use crate::clock::Clock;
use crate::error::{Error, Result};

/// What an address may look like.
const FORMS: &str = "give a path, file://, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";

impl Lake {
    /// Opens the lake at a path or URL, which need not exist yet. Local folders are made when something is written. No
    /// call to the store takes longer than `call_timeout`, its own retries included.
    ///
    /// # Errors
    /// Where the URL is not one of a store, or its configuration is incomplete.
    pub fn open(address: &str, call_timeout: Duration, clock: Clock) -> Result<Self> {
        let limit = Limit { each: call_timeout, clock };
        let local = match Url::parse(address) {
            Ok(url) if url.scheme() == "file" => Some(
                url.to_file_path()
                    .map_err(|()| Error::usage(format!("--lake {address} is not a path on this machine")))?,
            ),
            // A one-letter scheme is a drive.
            Ok(url) if url.scheme().len() > 1 => return Self::open_url(address, &url, limit),
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
        let store = Arc::new(Bounded::new(PrefixStore::new(store, root), limit));
        Ok(Lake { url: path.display().to_string(), store, parted: None, folder: Some(path) })
    }

    fn open_url(address: &str, url: &Url, limit: Limit) -> Result<Self> {
        let wrong = |error| Error::usage(format!("cannot use --lake {address}")).caused_by(error).with_hint(FORMS);
        let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(|error| wrong(error.into()))?;
        let place = (address.trim_end_matches('/'), prefix, limit);
        match scheme {
            ObjectStoreScheme::AmazonS3 => {
                AmazonS3Builder::from_env().with_url(address).build().map(|store| Self::in_store(store, place))
            }
            ObjectStoreScheme::GoogleCloudStorage => GoogleCloudStorageBuilder::from_env()
                .with_url(address)
                .build()
                .map(|store| Self::in_store(store, place)),
            ObjectStoreScheme::MicrosoftAzure => {
                MicrosoftAzureBuilder::from_env().with_url(address).build().map(|store| Self::in_store(store, place))
            }
            ObjectStoreScheme::Memory => {
                return Err(Error::usage(format!("--lake {address} would be gone when the run ends")).with_hint(FORMS));
            }
            _ => return Err(Error::usage(format!("cannot use --lake {address}")).with_hint(FORMS)),
        }
        .map_err(wrong)
    }

    /// A lake in an object store, below a prefix.
    fn in_store<S: ObjectStore + MultipartStore>(store: S, (url, prefix, limit): (&str, Path, Limit)) -> Self {
        let store = Arc::new(store);
        let parted = PartedStore { store: Arc::clone(&store) as _, prefix: prefix.clone(), limit };
        let store = Arc::new(Bounded::new(PrefixStore::new(store, prefix), limit));
        Lake { url: url.to_owned(), store, parted: Some(parted), folder: None }
    }

    /// A lake on any store, whose calls may take `call_timeout`: for tests.
    #[cfg(test)]
    pub(crate) fn on<S: ObjectStore + MultipartStore>(store: S, url: &str, call_timeout: Duration) -> Self {
        Self::in_store(store, (url, Path::default(), Limit { each: call_timeout, clock: Clock::system() }))
    }

    /// The same, but runs are kept apart by a lock in `folder`.
    #[cfg(test)]
    pub(crate) fn on_locked<S: ObjectStore + MultipartStore>(
        store: S,
        url: &str,
        call_timeout: Duration,
        folder: PathBuf,
    ) -> Self {
        Lake { folder: Some(folder), parted: None, ..Self::on(store, url, call_timeout) }
    }
}
