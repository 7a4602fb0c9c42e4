//! Removes what killed runs left: landing objects that no checkpoint names, uploads that were not complete, and files that
//! were not in their place yet.
//!
//! Only for who holds the lake's lease, and after a commit of its own where the run before may still wake up: a run
//! whose commit is fenced cannot name what is removed here. Between the listing and the removal the lease is proven: what
//! was garbage then stays so, however long the removal takes.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};

use futures::TryStreamExt;
use object_store::path::Path;

use super::lease::Lease;
use crate::error::{Error, Result};
use crate::layout;
use crate::store::{Store, end_upload};

/// What dead runs have left.
#[derive(Debug, Default)]
pub struct Leftovers {
    objects: Vec<Path>,
    uploads: Vec<Path>,
    staged: Vec<PathBuf>,
}

impl Leftovers {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.uploads.is_empty() && self.staged.is_empty()
    }

    #[cfg(test)]
    pub(super) fn staged_files(&self) -> usize {
        self.staged.len()
    }
}

/// Finds the landing objects that are not `known`, and what else runs have left in the lake's own folders; on local
/// disks, where one has `died`, in the tables' folders as well. What is not this program's is left alone.
///
/// # Errors
/// Where the store fails.
pub async fn leftovers(store: &Store, known: &HashSet<Path>, died: bool) -> Result<Leftovers> {
    let mut left = Leftovers::default();
    let mut landed = store.list(layout::landing());
    while let Some(key) = landed.try_next().await?.map(|object| object.location) {
        if layout::is_staged_file(&key) && !known.contains(&key) {
            left.objects.push(key);
        }
    }
    let mut leases = store.list(layout::leases());
    while let Some(key) = leases.try_next().await?.map(|object| object.location) {
        if layout::is_upload_record(&key) {
            left.uploads.push(key);
        } else if layout::is_store_time(&key) {
            left.objects.push(key);
        }
    }
    let folders = if died { layout::folders() } else { vec![layout::landing(), layout::state()] };
    let folders: Vec<_> = folders.iter().filter_map(|folder| store.local_path(folder)).collect();
    let find = move || {
        let mut staged = Vec::new();
        folders.iter().for_each(|folder| find_staged(folder, &mut staged));
        staged
    };
    left.staged = tokio::task::spawn_blocking(find).await.map_err(|e| Error::bug("the search failed").caused_by(e))?;
    Ok(left)
}

/// Removes what dead runs have left, and returns how many objects that were.
///
/// # Errors
/// Where the store fails, and kind `Held` where another run has taken over.
pub async fn remove(store: &Store, left: Leftovers, lease: &Lease) -> Result<usize> {
    lease.prove().await?;
    let Leftovers { objects, uploads, staged } = left;
    let count = objects.len() + uploads.len() + staged.len();
    for record in uploads {
        end_upload(store, record).await?;
    }
    store.delete(objects).await?;
    let remove = move || staged.iter().try_for_each(|file| remove_file(file));
    tokio::task::spawn_blocking(remove).await.map_err(|error| Error::bug("the removal failed").caused_by(error))??;
    Ok(count)
}

/// Removes what killed runs left beside an object of a local disk, where a query engine would find it. Blocks.
///
/// # Errors
/// Where the folder cannot be written.
pub fn sweep_beside(store: &Store, key: &Path) -> Result<()> {
    let (Some(file), Some(name)) = (store.local_path(key), key.filename()) else { return Ok(()) };
    let mut staged = Vec::new();
    file.parent().into_iter().for_each(|folder| find_staged(folder, &mut staged));
    staged.iter().filter(|file| staged_for(file) == Some(name)).try_for_each(|file| remove_file(file))
}

/// Finds the files below a folder that `LocalFileSystem` had not renamed yet: it writes to `<name>#<n>` first, never looks
/// there again and hides them from its listings.
fn find_staged(folder: &FilePath, staged: &mut Vec<PathBuf>) {
    // What is not there, or cannot be read, needs no sweeping.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_staged(&path, staged);
        } else if staged_for(&path).is_some() {
            staged.push(path);
        }
    }
}

fn remove_file(file: &FilePath) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::store(format!("cannot remove {}", file.display())).caused_by(error))
        }
        _ => Ok(()),
    }
}

/// The name of the object that a file was to become.
fn staged_for(file: &FilePath) -> Option<&str> {
    let (name, number) = file.file_name()?.to_str()?.rsplit_once('#')?;
    let endings = [".parquet", ".json", ".jsonl", ".now", ".upload"];
    // The last is the one object of a Delta table's log that has no ending.
    let known = endings.iter().any(|ending| name.ends_with(ending)) || name == "_last_checkpoint";
    (known && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_to_become_an_object_counts_as_staged() {
        let name = |file: &str| staged_for(FilePath::new(file)).map(str::to_owned);
        assert_eq!(name("tags/created_date=2024-01-01/part-0.parquet#12").as_deref(), Some("part-0.parquet"));
        assert_eq!(name("tags/_delta_log/_last_checkpoint#1").as_deref(), Some("_last_checkpoint"));
        for other in ["tags/part-0.parquet", "tags/part-0.parquet#", "tags/part-0.parquet#x", "tags/notes#1", "#1"] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
