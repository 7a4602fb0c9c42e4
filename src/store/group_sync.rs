//! Makes many files of a local disk durable at once, because a sync of each file and of its folders costs more than
//! writing them.
//!
//! Guarantees: after [`GroupSync::sync`], every write that was [noted](GroupSync::wrote) before is durable. A sync that
//! failed once fails from then on, because the kernel reports a lost write once only. File systems that are not known
//! to sync everything are left alone. Must not depend on: what is stored.

use std::fs::File;
use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// A mark on the options of a put that overwrites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncLater {
    /// The object becomes durable with the next put that does not have this mark.
    Everything,
    /// Its bytes, and all puts that have ended, become durable before it is visible. That it took the place of another
    /// becomes durable with the next put that has not the mark [`SyncLater::Everything`].
    Name,
}

/// A file system that is synced as a whole.
#[derive(Debug)]
pub(super) struct GroupSync {
    /// A folder on it, open since before the first write, so that no failed write is missed.
    folder: Arc<File>,
    device: u64,
    /// How many files were written.
    written: AtomicU64,
    synced: Mutex<Synced>,
}

/// How many of the files are durable.
#[derive(Debug, Default)]
struct Synced {
    files: u64,
    failed: bool,
}

impl GroupSync {
    /// The file system of `folder`; `None` if it cannot be synced as a whole.
    pub(super) fn of(folder: &FilePath) -> Option<Self> {
        let folder = File::open(folder).ok().filter(can_sync_all)?;
        let (device, folder) = (device(&folder.metadata().ok()?), Arc::new(folder));
        Some(GroupSync { folder, device, written: AtomicU64::new(0), synced: Mutex::default() })
    }

    /// Whether `folder` is on this file system; if not, a folder of the lake is a link. Blocks.
    pub(super) fn covers(&self, folder: &FilePath) -> io::Result<bool> {
        Ok(device(&folder.metadata()?) == self.device)
    }

    /// Notes that a file on this file system was written or renamed.
    pub(super) fn wrote(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes the files that were noted durable.
    ///
    /// # Errors
    /// If the disk fails, now or before.
    pub(super) async fn sync(&self) -> io::Result<()> {
        // Whoever finds a sync under way waits for it, because its files may be among those.
        let mut synced = self.synced.lock().await;
        let written = self.written.load(Ordering::SeqCst);
        if synced.failed {
            return Err(io::Error::other("an earlier write to this disk was lost"));
        }
        if synced.files == written {
            return Ok(());
        }
        let folder = Arc::clone(&self.folder);
        let done = tokio::task::spawn_blocking(move || sync_all(&folder)).await.map_err(io::Error::other)?;
        synced.failed = done.is_err();
        synced.files = written;
        done
    }
}

/// The file system of a file or folder; 0 where the system does not say.
#[cfg(unix)]
pub(super) fn device(of: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(of)
}

#[cfg(not(unix))]
pub(super) fn device(_: &std::fs::Metadata) -> u64 {
    0
}

/// Whether `syncfs` makes all files on the file system of `folder` durable. Those of networks and of user space are
/// not asked to by it, or pass on nothing.
#[cfg(target_os = "linux")]
#[allow(clippy::useless_conversion, reason = "the number of a file system's type is narrower on some machines")]
fn can_sync_all(folder: &File) -> bool {
    // The magic numbers of ext4 (and its elders), XFS, Btrfs, F2FS and tmpfs: statfs(2).
    const KNOWN: [i64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
    rustix::fs::fstatfs(folder).is_ok_and(|found| KNOWN.iter().any(|known| i64::from(found.f_type) == *known))
}

#[cfg(not(target_os = "linux"))]
fn can_sync_all(_: &File) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn sync_all(folder: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(folder)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_sync_covers_all_files_before_it_and_a_lost_write_is_never_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let group = GroupSync::of(folder.path()).expect("a local file system");
        for name in ["a", "b"] {
            std::fs::write(folder.path().join(name), name).unwrap();
            assert!(group.covers(folder.path()).unwrap());
            group.wrote();
        }
        group.sync().await.unwrap();
        assert_eq!(group.synced.lock().await.files, 2);
        group.synced.lock().await.failed = true;
        assert!(group.sync().await.is_err(), "although nothing was written since");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_on_another_file_system_is_not_covered() {
        let folder = tempfile::tempdir().unwrap();
        let group = GroupSync::of(folder.path()).unwrap();
        assert!(!group.covers(FilePath::new("/proc/self")).unwrap());
        assert!(GroupSync::of(FilePath::new("/proc")).is_none(), "a file system that keeps nothing");
    }
}
