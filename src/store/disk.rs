//! A folder on a file system that may support less than a local disk: a network share (NFS, SMB) or FUSE.
//!
//! Guarantees: [`PutMode::Create`] works without hard links, too. It then checks that the object is missing and renames
//! a new file into place. The lock or the lease keeps other runs out in between; a foreign program can still interfere.
//! A put that is to be synced makes those before it durable that were not ([`SyncLater`]). Must not depend on: what is
//! stored.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::group_sync::{GroupSync, SyncLater};

/// A local or mounted folder.
#[derive(Debug)]
pub(super) struct Disk {
    /// Syncs each file that is put, and its folders.
    files: LocalFileSystem,
    /// Syncs all files at once, if the file system can.
    group: Option<Arc<GroupSync>>,
}

impl Disk {
    /// The disk that `files` is a folder of; `folder` exists and is on it.
    pub(super) fn new(files: LocalFileSystem, folder: Option<&FilePath>) -> Self {
        // Commits promise durability, so writes are synced.
        let files = files.with_automatic_cleanup(true).with_fsync(true);
        Disk { files, group: folder.and_then(GroupSync::of).map(Arc::new) }
    }

    /// Puts an object that is synced later, with others; `None` if it has to be put again, because it cannot be.
    async fn put_in_group(&self, key: &Path, body: PutPayload, later: SyncLater) -> Result<Option<PutResult>> {
        let Some(group) = &self.group else { return Ok(None) };
        let mut upload = self.files.clone().with_fsync(false).put_multipart(key).await?;
        let put = async {
            upload.put_part(body).await?;
            if !covers(group, self.files.path_to_filesystem(key)?).await? {
                return Ok(None);
            }
            if later == SyncLater::Name {
                group.wrote();
                sync(Some(group)).await?;
            }
            let put = upload.complete().await?;
            group.wrote();
            Ok(Some(put))
        };
        let put = put.await;
        if !matches!(put, Ok(Some(_)))
            && let Err(error) = upload.abort().await
        {
            // The reason is why it was given up; the sweep removes what is left.
            tracing::debug!("cannot give up the upload of {key}: {error}");
        }
        put
    }
}

/// An upload that makes the puts before its end durable before it is visible.
#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    group: Option<Arc<GroupSync>>,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        sync(self.group.as_ref()).await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// Makes the puts durable that are to be synced later.
async fn sync(group: Option<&Arc<GroupSync>>) -> Result<()> {
    match group {
        Some(group) => group.sync().await.map_err(failed),
        None => Ok(()),
    }
}

/// Whether the file at `path` is on the file system that is synced as a whole.
async fn covers(group: &Arc<GroupSync>, path: PathBuf) -> Result<bool> {
    let group = Arc::clone(group);
    let covered = tokio::task::spawn_blocking(move || group.covers(path.parent().unwrap_or(&path))).await?;
    covered.map_err(failed)
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.files, f)
    }
}

fn failed(error: io::Error) -> Error {
    Error::Generic { store: "disk", source: error.into() }
}

#[async_trait]
#[deny(clippy::missing_trait_methods, reason = "a default method may be slower than the file system's own")]
impl ObjectStore for Disk {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let (PutMode::Overwrite, Some(later)) = (&options.mode, options.extensions.get::<SyncLater>())
            && let Some(put) = self.put_in_group(key, body.clone(), *later).await?
        {
            return Ok(put);
        }
        sync(self.group.as_ref()).await?;
        if options.mode != PutMode::Create {
            return self.files.put_opts(key, body, options).await;
        }
        let error = match self.files.put_opts(key, body.clone(), options.clone()).await {
            Err(error) if link_is_refused(&error) => error,
            done => return done,
        };
        tracing::debug!("the file system has no hard links: {error}");
        // The failed try wrote to the object's folder, so a network file system does not answer this from its cache.
        match self.files.head(key).await {
            Ok(_) => Err(Error::AlreadyExists { path: key.to_string(), source: error.into() }),
            Err(Error::NotFound { .. }) => {
                self.files.put_opts(key, body, PutOptions { mode: PutMode::Overwrite, ..options }).await
            }
            Err(error) => Err(error),
        }
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.files.put_multipart_opts(key, options).await?;
        Ok(Box::new(SyncedUpload { inner, group: self.group.clone() }))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(key, options).await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(key, ranges).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await
    }
}

/// Whether an object was not created because the file system, or a security module, refused a hard link. If the whole
/// folder cannot be written, the next try fails, too.
fn link_is_refused(error: &Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    // EPERM and EACCES; ENOSYS and EOPNOTSUPP; EMLINK; EXDEV, which some union file systems return within one folder.
    let refusals = [PermissionDenied, Unsupported, TooManyLinks, CrossesDevices];
    io_error(error).is_some_and(|error| refusals.contains(&error.kind()))
}

/// The file system's own error.
fn io_error(error: &Error) -> Option<&io::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = cause.source();
    }
    None
}

/// What the user can do about `error`.
pub(super) fn remedy(error: &Error) -> Option<String> {
    io_error(error).and_then(hint).map(str::to_owned)
}

/// What the user can do about a file system's error; `None` if it is unknown here.
pub(super) fn hint(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Is;
    Some(match error.kind() {
        Is::StorageFull => "the disk is full: free space and run the command again; no staged data is lost",
        Is::QuotaExceeded => {
            "the quota of the user or folder is used up: raise it or free space, and run the command again"
        }
        Is::ReadOnlyFilesystem => {
            "the file system is mounted read-only: mount it (or the container's volume) for writing, or set another \
             --lake"
        }
        Is::StaleNetworkFileHandle => {
            "the network file system lost this folder: mount it again and run the command again"
        }
        Is::NotConnected | Is::HostUnreachable | Is::NetworkDown | Is::NetworkUnreachable | Is::TimedOut => {
            "the server or program behind this file system is gone: mount it again and run the command again"
        }
        Is::PermissionDenied => {
            "the user that runs this must be able to write to the lake's folder: check its owner and mode"
        }
        Is::Unsupported | Is::CrossesDevices | Is::InvalidInput => {
            "this file system lacks something that a lake needs (rename over a file, fsync of files and folders, \
             locks): put the lake on a local disk, NFS 4, SMB 3 or an object store; `decagon-lake check` tests all \
             of it"
        }
        Is::FileTooLarge => {
            "a file of this size does not fit: check the disk's space and the limits of the file system and user \
             (ulimit -f)"
        }
        Is::NotADirectory => "a part of --lake is a file: set the path of a folder",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: io::ErrorKind) -> Error {
        Error::Generic { store: "LocalFileSystem", source: Box::new(io::Error::from(kind)) }
    }

    #[tokio::test]
    async fn the_cause_of_a_store_s_failure_selects_the_hint() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "no folder").unwrap();
        let disk = Disk::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap(), Some(folder.path()));
        let error = disk.put(&Path::from("file/object"), "x".into()).await.unwrap_err();
        assert!(remedy(&error).unwrap().contains("--lake is a file"), "{error}");
    }

    #[test]
    fn each_known_failure_has_its_own_hint() {
        use io::ErrorKind as Is;
        let words = [
            (Is::StorageFull, "free space"),
            (Is::QuotaExceeded, "quota"),
            (Is::ReadOnlyFilesystem, "read-only"),
            (Is::StaleNetworkFileHandle, "mount it again"),
            (Is::NotConnected, "is gone"),
            (Is::PermissionDenied, "owner and mode"),
            (Is::CrossesDevices, "decagon-lake check"),
        ];
        for (kind, word) in words {
            assert!(remedy(&failed(kind)).unwrap().contains(word), "{kind:?}");
        }
        assert_eq!(remedy(&failed(Is::Other)), None);
        assert_eq!(remedy(&Error::Generic { store: "LocalFileSystem", source: "no error of a disk".into() }), None);
    }

    #[test]
    fn a_refused_link_is_distinguished_from_a_failing_disk() {
        use io::ErrorKind as Is;
        for (kind, refused) in [
            (Is::PermissionDenied, true),
            (Is::Unsupported, true),
            (Is::TooManyLinks, true),
            (Is::CrossesDevices, true),
            (Is::StorageFull, false),
            (Is::ReadOnlyFilesystem, false),
            (Is::AlreadyExists, false),
        ] {
            assert_eq!(link_is_refused(&failed(kind)), refused, "{kind:?}");
        }
    }
}
