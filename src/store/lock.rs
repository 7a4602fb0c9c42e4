//! A locked file on a local disk, which tells whether the process that locked it is still alive.
//!
//! Promises: a lock counts only where it keeps out who comes by another way, which is tried: some file systems let everybody
//! lock a file. Even so it reaches no further than one machine on many network file systems; [`Site`] tells whether another
//! run would have seen it. Must not depend on: who locks what.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path as FilePath;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::disk;
use super::store::Store;
use crate::error::{Error, Result};

/// Where Linux tells one start of a machine from another: containers of one machine have it in common.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What came of trying to lock a store.
pub enum Lock {
    /// Nothing can be locked there, or a lock there keeps nobody out.
    None,
    /// It is locked until the file is closed.
    Taken(File, Site),
    /// Another run has locked it.
    OfAnother,
}

/// From where a lock is seen: the kernel that keeps it, as far as that can be told, and the file system that it has mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Site(String);

impl Site {
    fn of(file: &File) -> Self {
        let kernel = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        Site(format!("{}/{}", kernel.trim(), device(file)))
    }
}

#[cfg(unix)]
fn device(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt;
    file.metadata().map(|metadata| metadata.dev()).unwrap_or_default()
}

#[cfg(not(unix))]
fn device(_: &File) -> u64 {
    0
}

/// Locks the file at `key`, if the store is a folder of a disk. Blocks.
///
/// # Errors
/// Where the disk fails, or knows no locks though two writers have to be kept apart.
pub fn lock(store: &Store, key: &Path) -> Result<Lock> {
    let Some(path) = store.local_path(key) else { return Ok(Lock::None) };
    let failed = |error: io::Error| {
        let hint = disk::hint(&error).filter(|_| error.kind() != io::ErrorKind::Unsupported).unwrap_or(
            "check the disk's space and permissions; where the file system knows no locks, see to it yourself that one run \
             writes at a time and give --unsafe-no-lock",
        );
        Error::store(format!("cannot lock {}", path.display())).caused_by(error).with_hint(hint)
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match lock_file(&path) {
        Ok(Locked::OfAnother) => Ok(Lock::OfAnother),
        Ok(Locked::Taken(file)) => {
            let site = Site::of(&file);
            Ok(Lock::Taken(file, site))
        }
        Ok(Locked::ByEverybody) => {
            tracing::debug!("locks of {} keep nobody out; the lease alone does", path.display());
            Ok(Lock::None)
        }
        Err(_) if !store.needs_lock() => Ok(Lock::None),
        Err(error) => Err(failed(error)),
    }
}

/// What came of trying to lock a file.
pub(super) enum Locked {
    /// Until it is closed.
    Taken(File),
    /// Somebody else has locked it.
    OfAnother,
    /// Whoever tries can lock it, though it is locked already.
    ByEverybody,
}

/// Locks the file at `path`, which is made if need be. Blocks.
///
/// # Errors
/// Where the file system fails, or knows no locks.
pub(super) fn lock_file(path: &FilePath) -> io::Result<Locked> {
    // NFS locks only what is open for writing.
    let open = || File::options().create(true).append(true).open(path);
    let file = open()?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Locked::OfAnother),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(match open()?.try_lock() {
        Ok(()) => Locked::ByEverybody,
        // Some file systems have other words for it.
        Err(_) => Locked::Taken(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_locked_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let Locked::Taken(file) = lock_file(&path).unwrap() else { panic!("it is free") };
        assert!(matches!(lock_file(&path).unwrap(), Locked::OfAnother));
        drop(file);
        assert!(matches!(lock_file(&path).unwrap(), Locked::Taken(_)));
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
