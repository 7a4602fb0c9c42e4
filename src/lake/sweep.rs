//! Removes the leftovers of dead runs: staged files, shards of the manifest and notes of a reconciliation that no
//! checkpoint names, incomplete uploads, and temporary files.
//!
//! Guarantees: nothing is removed that a run may still commit. Only the holder of the lease sweeps, and it first
//! commits if the run before may wake up, which fences that run. The lease is proven between the listing and the
//! removal, so garbage stays garbage however long the removal takes.
//! Must not depend on: the content of files.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};

use futures::TryStreamExt;
use object_store::path::Path;

use super::lease::Lease;
use crate::error::{Error, Result};
use crate::layout;
use crate::store::{Store, end_upload};

/// The leftovers of dead runs.
#[derive(Debug, Default)]
pub struct Leftovers {
    objects: Vec<Path>,
    uploads: Vec<Path>,
    temporary: Vec<PathBuf>,
}

impl Leftovers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.uploads.is_empty() && self.temporary.is_empty()
    }

    #[cfg(test)]
    pub(super) fn temporary_files(&self) -> usize {
        self.temporary.len()
    }
}

/// Finds the staged files, shards and notes that are not `known`, and other leftovers in the lake's own folders. If a run has
/// `died` on a local disk, it searches the tables' folders too. Files of other programs are no leftovers.
///
/// # Errors
/// If the store fails.
pub async fn leftovers(store: &Store, known: &HashSet<Path>, died: bool) -> Result<Leftovers> {
    let list = |folder| store.list(folder).map_ok(|object| object.location).try_collect::<Vec<_>>();
    let (staged, shards, seen, leases) = tokio::try_join!(
        list(layout::landing()),
        list(layout::manifest_shards()),
        list(layout::reconciliations()),
        list(layout::leases())
    )?;
    let mut left = Leftovers::default();
    left.objects.extend(staged.into_iter().filter(|key| layout::is_staged_file(key) && !known.contains(key)));
    left.objects.extend(shards.into_iter().filter(|key| layout::is_manifest_shard(key) && !known.contains(key)));
    left.objects.extend(seen.into_iter().filter(|key| layout::is_seen(key) && !known.contains(key)));
    for key in leases {
        if layout::is_upload_record(&key) {
            left.uploads.push(key);
        } else if layout::is_store_time(&key) {
            left.objects.push(key);
        }
    }
    let folders = if died { layout::folders() } else { vec![layout::landing(), layout::state()] };
    let folders: Vec<_> = folders.iter().filter_map(|folder| store.local_path(folder)).collect();
    let find = move || {
        let mut temporary = Vec::new();
        folders.iter().for_each(|folder| find_temporary(folder, &mut temporary));
        temporary
    };
    left.temporary =
        tokio::task::spawn_blocking(find).await.map_err(|e| Error::bug("the search failed").caused_by(e))?;
    Ok(left)
}

/// Removes leftovers, and returns how many.
///
/// # Errors
/// If the store fails; kind `Held` if another run has taken over.
pub async fn remove(store: &Store, left: Leftovers, lease: &Lease) -> Result<usize> {
    lease.prove().await?;
    let Leftovers { objects, uploads, temporary } = left;
    let count = objects.len() + uploads.len() + temporary.len();
    for record in uploads {
        end_upload(store, record).await?;
    }
    store.delete(objects).await?;
    let remove = move || temporary.iter().try_for_each(|file| remove_file(file));
    tokio::task::spawn_blocking(remove).await.map_err(|error| Error::bug("the removal failed").caused_by(error))??;
    Ok(count)
}

/// Removes the temporary files beside an object on a local disk, because a query engine would find them. Blocks.
///
/// # Errors
/// If a file cannot be removed.
pub fn sweep_beside(store: &Store, key: &Path) -> Result<()> {
    let (Some(file), Some(name)) = (store.local_path(key), key.filename()) else { return Ok(()) };
    let mut temporary = Vec::new();
    file.parent().into_iter().for_each(|folder| find_temporary(folder, &mut temporary));
    temporary.iter().filter(|file| final_name(file) == Some(name)).try_for_each(|file| remove_file(file))
}

/// Finds the temporary files below a folder: `LocalFileSystem` writes to `<name>#<n>` and renames at the end. It never
/// cleans them up, and hides them from its listings.
fn find_temporary(folder: &FilePath, found: &mut Vec<PathBuf>) {
    // A folder that is missing or unreadable needs no sweeping.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_temporary(&path, found);
        } else if final_name(&path).is_some() {
            found.push(path);
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

/// The name that a temporary file would have got at the end; `None` for other files.
fn final_name(file: &FilePath) -> Option<&str> {
    let (name, number) = file.file_name()?.to_str()?.rsplit_once('#')?;
    let endings = [".parquet", ".json", ".jsonl", ".now", ".upload", ".seen"];
    // The one file of a Delta log without an extension.
    let known = endings.iter().any(|ending| name.ends_with(ending)) || name == "_last_checkpoint";
    (known && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_this_program_are_temporary() {
        let name = |file: &str| final_name(FilePath::new(file)).map(str::to_owned);
        assert_eq!(name("tags/created_date=2024-01-01/part-0.parquet#12").as_deref(), Some("part-0.parquet"));
        assert_eq!(name("tags/_delta_log/_last_checkpoint#1").as_deref(), Some("_last_checkpoint"));
        for other in ["tags/part-0.parquet", "tags/part-0.parquet#", "tags/part-0.parquet#x", "tags/notes#1", "#1"] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
