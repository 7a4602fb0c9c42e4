//! Removes what killed runs left: landing objects that no checkpoint names, uploads that were not complete, and files that
//! were not in their place yet.
//!
//! Only for who holds the lake's lease, and after a commit of its own where the run before may still wake up: a run
//! whose commit is fenced cannot name what is removed here. Between the listing and the removal the lease is proven: what
//! was garbage then stays so, however long the removal takes.

use std::collections::HashSet;
use std::path::Path as FilePath;

use futures::TryStreamExt;
use object_store::path::Path;

use super::{Lake, Lease};
use crate::error::{Error, Result};
use crate::layout;

impl Lake {
    /// Removes what lies in landing but is not `known`, what else was left in the lake's own folders, and returns how
    /// many objects that were.
    ///
    /// # Errors
    /// Where the store fails, and kind `Held` where another run has taken over.
    pub async fn sweep(&self, known: &HashSet<Path>, lease: &Lease) -> Result<usize> {
        let keys = self.list(layout::landing()).map_ok(|object| object.location);
        let mut left: Vec<Path> = keys.try_filter(|key| std::future::ready(!known.contains(key))).try_collect().await?;
        let keys = self.list(layout::leases()).map_ok(|object| object.location);
        let others = keys.try_filter(|key| std::future::ready(layout::number_of(key).is_none()));
        let (uploads, others): (Vec<_>, Vec<_>) =
            others.try_collect::<Vec<_>>().await?.into_iter().partition(layout::is_upload_record);
        left.extend(others);
        let count = left.len() + uploads.len();
        if count > 0 {
            lease.prove().await?;
            for record in uploads {
                self.end_upload(record).await?;
            }
            self.delete(left).await?;
        }
        for folder in [layout::landing(), layout::state()] {
            let Some(folder) = self.local_path(&folder) else { continue };
            tokio::task::spawn_blocking(move || remove_staged(&folder, None))
                .await
                .map_err(|error| Error::bug("the sweeping failed").caused_by(error))??;
        }
        Ok(count)
    }

    /// Removes what killed runs left beside an object of a local disk, where a query engine would find it. Blocks.
    ///
    /// # Errors
    /// Where the folder cannot be read or written.
    pub fn sweep_beside(&self, key: &Path) -> Result<()> {
        let file = self.local_path(key);
        match (file.as_deref().and_then(FilePath::parent), key.filename()) {
            (Some(folder), Some(name)) => remove_staged(folder, Some(name)),
            _ => Ok(()),
        }
    }
}

/// Removes the files that `LocalFileSystem` had not renamed yet: it writes to `<name>#<n>` first, never looks there again
/// and hides them from its listings. Those of one name in one folder or, without a name, all those below the folder.
fn remove_staged(folder: &FilePath, name: Option<&str>) -> Result<()> {
    let failed = |path: &FilePath| {
        let message = format!("cannot remove {}", path.display());
        move |error: std::io::Error| Error::store(message).caused_by(error)
    };
    // What is not there needs no sweeping.
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        match (entry.file_name().to_str().and_then(staged_for), name) {
            (Some(own), name) if name.is_none_or(|name| name == own) => {
                std::fs::remove_file(&path).map_err(failed(&path))?;
            }
            (None, None) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => remove_staged(&path, None)?,
            _ => {}
        }
    }
    Ok(())
}

/// The name of the object that a file was to become.
fn staged_for(file: &str) -> Option<&str> {
    let (name, number) = file.rsplit_once('#')?;
    (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(name)
}
