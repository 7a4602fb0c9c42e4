//! A locked file on a local disk. The lock ends with its process, so it shows whether the holder is alive.
//!
//! Guarantees: a lock counts only if it excludes a second lock of the same file, which [`lock`] tries, because some
//! file systems let several processes lock one file. On many network file systems a lock is visible on one machine
//! only; a [`Site`] names where. Must not depend on: what is locked.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path as FilePath;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::disk;
use super::group_sync::device;
use super::store::Store;
use crate::error::{Error, Result};

/// Linux's id of one boot of a machine; all containers of the machine share it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The outcome of an attempt to lock a store.
pub enum Lock {
    /// The store cannot be locked, or its locks exclude no other process.
    None,
    /// The store is locked until the file is closed.
    Taken(File, Site),
    /// Another process holds the lock.
    Held,
}

/// Where a lock is visible: the kernel that keeps it, if known, and its mount of the file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Site(String);

impl Site {
    fn of(file: &File) -> Self {
        let kernel = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let mount = file.metadata().map(|metadata| device(&metadata)).unwrap_or_default();
        Site(format!("{}/{mount}", kernel.trim()))
    }
}

/// Locks the file at `key`, if the store is a folder of a disk. Blocks.
///
/// # Errors
/// If the disk fails, or has no locks although the store's writers must exclude each other.
pub fn lock(store: &Store, key: &Path) -> Result<Lock> {
    let Some(path) = store.local_path(key) else { return Ok(Lock::None) };
    let failed = |error: io::Error| {
        let hint = disk::hint(&error).filter(|_| error.kind() != io::ErrorKind::Unsupported).unwrap_or(
            "check the disk's space and permissions; if the file system has no locks, make sure that only one run \
             writes at a time and set --unsafe-no-lock",
        );
        Error::store(format!("cannot lock {}", path.display())).caused_by(error).with_hint(hint)
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match lock_file(&path) {
        Ok(FileLock::Held) => Ok(Lock::Held),
        Ok(FileLock::Taken(file)) => {
            let site = Site::of(&file);
            Ok(Lock::Taken(file, site))
        }
        Ok(FileLock::Ineffective) => {
            tracing::debug!("locks of {} exclude no other process; only the lease does", path.display());
            Ok(Lock::None)
        }
        Err(_) if !store.needs_lock() => Ok(Lock::None),
        Err(error) => Err(failed(error)),
    }
}

/// The outcome of an attempt to lock a file.
pub(super) enum FileLock {
    /// The file is locked until it is closed.
    Taken(File),
    /// Another process holds the lock.
    Held,
    /// The locked file could be locked once more.
    Ineffective,
}

/// Locks the file at `path`, and creates it if it is missing. Blocks.
///
/// # Errors
/// If the file system fails or has no locks.
pub(super) fn lock_file(path: &FilePath) -> io::Result<FileLock> {
    // NFS locks only files that are open for writing.
    let open = || File::options().create(true).append(true).open(path);
    let file = open()?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(FileLock::Held),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(match open()?.try_lock() {
        Ok(()) => FileLock::Ineffective,
        // Some file systems return another error than WouldBlock.
        Err(_) => FileLock::Taken(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_locked_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let FileLock::Taken(file) = lock_file(&path).unwrap() else { panic!("the file is not locked") };
        assert!(matches!(lock_file(&path).unwrap(), FileLock::Held));
        drop(file);
        assert!(matches!(lock_file(&path).unwrap(), FileLock::Taken(_)));
    }

    #[test]
    fn one_machine_and_one_file_system_are_one_site() {
        let folder = tempfile::tempdir().unwrap();
        let site = |name: &str| Site::of(&File::create(folder.path().join(name)).unwrap());
        assert_eq!(site("one"), site("other"));
        #[cfg(target_os = "linux")]
        assert_ne!(site("one"), Site::of(&File::open(BOOT_ID).unwrap()), "another file system");
    }
}
