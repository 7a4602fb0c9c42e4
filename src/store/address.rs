//! Opens a store by its address: a path, or a URL of S3, Google Cloud Storage or Azure. Must not depend on: what is
//! stored.

use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use super::answers::Backend;
use super::cloud::StoreOptions;
use super::disk::Disk;
use super::environment;
use super::google::check_credentials;
use super::limits::{Bounded, Limit};
use super::parted::PartedStore;
use super::store::{PART_BYTES, Store};
use crate::clock::Clock;
use crate::error::{Error, Result};

/// The accepted forms of an address.
const FORMS: &str = "give a path, file://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, \
    abfss://container@account.dfs.core.windows.net/prefix or https://account.blob.core.windows.net/container/prefix; \
    for your own S3-compatible store, s3://bucket/prefix with --store-endpoint";

/// The path without `..`, which means another folder behind a symbolic link, so the disk is asked.
fn without_parents(path: &FilePath) -> std::io::Result<PathBuf> {
    let parts: Vec<_> = path.components().collect();
    let Some(last) = parts.iter().rposition(|part| *part == Component::ParentDir) else { return Ok(path.to_owned()) };
    let (known, rest) = parts.split_at(last + 1);
    let known: PathBuf = known.iter().collect();
    Ok(known.canonicalize()?.join(rest.iter().collect::<PathBuf>()))
}

/// The store and prefix that an address names.
struct Location<'a> {
    url: &'a str,
    server: String,
    backend: Backend,
    prefix: Path,
}

impl Store {
    /// Opens the store at a path or URL, which need not exist yet. The first write creates local folders.
    ///
    /// # Errors
    /// If no store has such a URL, or its configuration is incomplete.
    pub fn open(address: &str, options: &StoreOptions, clock: Clock) -> Result<Self> {
        Self::open_for("--lake", address, options, clock)
    }

    /// The same for an address that another `flag` gives.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_for(flag: &str, address: &str, options: &StoreOptions, clock: Clock) -> Result<Self> {
        let limit = Limit::new(options.call_timeout, options.concurrency, clock);
        let local = match Url::parse(address) {
            Ok(url) if url.scheme() == "file" => Some(
                url.to_file_path()
                    .map_err(|()| Error::usage(format!("{flag} {address} is not a path on this machine")))?,
            ),
            // A one-letter scheme is a drive.
            Ok(url) if url.scheme().len() > 1 => return Self::open_url(flag, address, &url, options, limit),
            _ => Some(PathBuf::from(address)),
        };
        let Some(path) = local.filter(|path| !path.as_os_str().is_empty()) else {
            return Err(
                Error::usage(format!("{flag} is empty")).with_hint("give a path or a URL such as s3://bucket/prefix")
            );
        };
        let failed = |error| Error::store(format!("cannot open {flag} {}", path.display())).caused_by(error);
        let path = std::path::absolute(&path).and_then(|path| without_parents(&path)).map_err(failed)?;
        let whole = Path::from_absolute_path(&path)
            .map_err(|error| Error::usage(format!("{flag} {address} cannot be used as a path")).caused_by(error))?;
        let (disk, prefix) =
            in_existing_folder(&path, &whole).unwrap_or_else(|| (Disk::new(LocalFileSystem::new(), None), whole));
        let (objects, priority) = lanes(PrefixStore::new(disk, prefix), &limit);
        let (url, needs_lock) = (path.display().to_string(), options.needs_lock);
        let (folder, parted) = (Some(path), None);
        let server = String::new();
        Ok(Store {
            url,
            server,
            backend: Backend::Local,
            objects,
            priority,
            parted,
            folder,
            limit,
            needs_lock,
            part_bytes: PART_BYTES,
        })
    }

    fn open_url(flag: &str, address: &str, url: &Url, options: &StoreOptions, limit: Limit) -> Result<Self> {
        if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            // Logs and reports show the address.
            let start = format!("{flag} {}://{}…", url.scheme(), host(url));
            return Err(Error::usage(format!("{start} must not contain a password, query or fragment"))
                .with_hint("set credentials in the environment: AWS_…, GOOGLE_…, or AZURE_STORAGE_SAS_TOKEN"));
        }
        let wrong = |error| Error::usage(format!("cannot use {flag} {address}")).caused_by(error).with_hint(FORMS);
        let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(|error| wrong(error.into()))?;
        let needs_lock = options.needs_lock;
        let server = environment::check(backend_of(&scheme), options.endpoint.as_ref())?;
        let location = |backend| Location { url: address.trim_end_matches('/'), server, backend, prefix };
        match scheme {
            ObjectStoreScheme::AmazonS3 => options
                .s3(address, host(url))
                .map(|store| Self::in_store(store, location(Backend::S3), limit, needs_lock)),
            ObjectStoreScheme::GoogleCloudStorage => {
                check_credentials()?;
                options.gcs(address).map(|store| Self::in_store(store, location(Backend::Gcs), limit, needs_lock))
            }
            ObjectStoreScheme::MicrosoftAzure => {
                options.azure(address).map(|store| Self::in_store(store, location(Backend::Azure), limit, needs_lock))
            }
            ObjectStoreScheme::Memory => {
                return Err(Error::usage(format!("{flag} {address} would not outlive the run")).with_hint(FORMS));
            }
            _ => return Err(Error::usage(format!("cannot use {flag} {address}")).with_hint(FORMS)),
        }
        .map_err(wrong)
    }

    /// A prefix of an object store.
    fn in_store<S: ObjectStore + MultipartStore>(
        store: S,
        Location { url, server, backend, prefix }: Location<'_>,
        limit: Limit,
        needs_lock: bool,
    ) -> Self {
        let store = Arc::new(store);
        let parted = PartedStore { store: Arc::clone(&store) as _, prefix: prefix.clone(), limit: limit.clone() };
        let (objects, priority) = lanes(PrefixStore::new(store, prefix), &limit);
        let (url, parted) = (url.to_owned(), Some(parted));
        Store {
            url,
            server,
            backend,
            objects,
            priority,
            parted,
            folder: None,
            limit,
            needs_lock,
            part_bytes: PART_BYTES,
        }
    }

    /// Any store, for tests.
    #[cfg(test)]
    pub(crate) fn on<S: ObjectStore + MultipartStore>(store: S, url: &str, call_timeout: std::time::Duration) -> Self {
        Self::on_narrow(store, url, call_timeout, 16)
    }

    /// Any store with a limit of concurrent calls.
    #[cfg(test)]
    pub(crate) fn on_narrow<S: ObjectStore + MultipartStore>(
        store: S,
        url: &str,
        call_timeout: std::time::Duration,
        concurrency: usize,
    ) -> Self {
        let location = Location { url, server: String::new(), backend: Backend::S3, prefix: Path::default() };
        Self::in_store(store, location, Limit::new(call_timeout, concurrency, Clock::system()), true)
    }

    /// The same, by another clock.
    #[cfg(test)]
    pub(crate) fn by(self, clock: Clock) -> Self {
        Store { limit: self.limit.by(clock), ..self }
    }

    /// The same, with parts as large as outside of tests.
    #[cfg(test)]
    pub(crate) fn in_large_parts(self) -> Self {
        Store { part_bytes: 10 << 20, ..self }
    }

    /// Any store whose writers exclude each other by a lock in `folder`.
    #[cfg(test)]
    pub(crate) fn on_locked<S: ObjectStore + MultipartStore>(
        store: S,
        url: &str,
        call_timeout: std::time::Duration,
        folder: PathBuf,
    ) -> Self {
        Store { folder: Some(folder), parted: None, ..Self::on(store, url, call_timeout) }
    }
}

/// The store for most calls, and the same store for calls that must not wait for those.
fn lanes<S: ObjectStore>(store: S, limit: &Limit) -> (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) {
    let store = Arc::new(store);
    (Arc::new(Bounded::new(Arc::clone(&store), limit.clone())), Arc::new(Bounded::new(store, limit.priority())))
}

/// The disk below the innermost existing folder of `path`, and the prefix of `path` in it. Automatic cleanup removes
/// empty folders below it, but not that folder, which is the user's own.
fn in_existing_folder(path: &FilePath, whole: &Path) -> Option<(Disk, Path)> {
    let folder = path.ancestors().find(|folder| folder.is_dir())?;
    let prefix = whole.prefix_match(&Path::from_absolute_path(folder).ok()?)?.collect();
    Some((Disk::new(LocalFileSystem::new_with_prefix(folder).ok()?, Some(folder)), prefix))
}

fn backend_of(scheme: &ObjectStoreScheme) -> Backend {
    match scheme {
        ObjectStoreScheme::AmazonS3 => Backend::S3,
        ObjectStoreScheme::GoogleCloudStorage => Backend::Gcs,
        ObjectStoreScheme::MicrosoftAzure => Backend::Azure,
        _ => Backend::Local,
    }
}

/// The host of a URL, which is the bucket of an s3:// one.
fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str) -> Result<Store> {
        Store::open(address, &StoreOptions::default(), Clock::system())
    }

    #[test]
    fn each_address_selects_its_backend() {
        for (address, backend) in [
            ("some/folder", Backend::Local),
            ("file:///some/folder", Backend::Local),
            ("s3://bucket/some/prefix/", Backend::S3),
            ("s3a://bucket", Backend::S3),
            ("https://bucket.s3.eu-west-1.amazonaws.com/prefix", Backend::S3),
            ("https://account.r2.cloudflarestorage.com/bucket/prefix", Backend::S3),
            ("gs://bucket/prefix", Backend::Gcs),
            ("abfss://container@account.dfs.core.windows.net/prefix", Backend::Azure),
            ("https://account.blob.core.windows.net/container/prefix", Backend::Azure),
        ] {
            let store = open(address).unwrap_or_else(|error| panic!("{address}: {error:?}"));
            assert_eq!(store.backend, backend, "{address}");
        }
    }

    /// Behind a link, `..` is the folder that the link leads into.
    #[cfg(unix)]
    #[test]
    fn a_path_may_go_up() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/inner")).unwrap();
        std::os::unix::fs::symlink(root.join("real/inner"), root.join("link")).unwrap();
        let url = |path: &str| open(&root.join(path).display().to_string()).unwrap().url().to_owned();
        for (path, is) in [("real/../lake", "lake"), ("link/../lake/new", "real/lake/new"), ("real/inner/../..", "")] {
            assert_eq!(FilePath::new(&url(path)), root.join(is), "{path}");
        }
        assert_eq!(open(&root.join("gone/../lake").display().to_string()).unwrap_err().kind().exit_code(), 5);
    }

    #[test]
    fn a_bad_address_is_refused_without_showing_its_secrets() {
        for address in ["", "memory:///x", "ftp://host/x", "https://minio.example/bucket", "s3:///x"] {
            assert_eq!(open(address).unwrap_err().kind().exit_code(), 2, "{address}");
        }
        for address in ["s3://key:secret@bucket/x", "https://a.blob.core.windows.net/c?sig=secret", "gs://b/x#secret"] {
            let error = format!("{:?}", open(address).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
