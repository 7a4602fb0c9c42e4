//! Keeps the manifest true: records new table files in it, and makes it from the table files if there is none.
//!
//! Guarantees: what the manifest says of a partition is committed together with its new files. If a shard is lost or
//! damaged, no run fails, because the manifest is made again. An unreadable table file holds nothing up.
//! Must not depend on: how table files are made.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path;

use crate::error::{Kind, Result};
use crate::lake::{Lake, Manifest, PartitionEntry, Replacement, Shards, State};
use crate::model::CreatedDate;
use crate::tables::{Scan, Tables, scan};

/// Records the new table files of `dates`, which the tables have now, in the manifest of checkpoint `number`. Returns
/// the keys that may be deleted after the commit.
///
/// # Errors
/// If the store fails.
pub(super) async fn record(
    lake: &Lake,
    tables: &Tables,
    shards: &Shards,
    state: &mut State,
    dates: &BTreeMap<CreatedDate, Replacement>,
    number: u64,
) -> Result<Vec<Path>> {
    let Some(manifest) = state.manifest.as_mut().filter(|_| !dates.is_empty()) else { return Ok(Vec::new()) };
    let entry = |replacement| PartitionEntry::of(replacement, tables.are_delta());
    let entries: BTreeMap<_, _> = dates.iter().map(|(date, it)| (*date, entry(it))).collect();
    let mut changed = manifest.clone();
    match shards.record(&mut changed, entries.clone(), number).await {
        Ok(obsolete) => {
            *manifest = changed;
            Ok(obsolete)
        }
        Err(error) if error.kind() == Kind::Integrity => {
            tracing::warn!("{}; making the manifest again from all table files", error.chain().join(": "));
            remake(lake, tables, shards, manifest, entries, number).await
        }
        Err(error) => Err(error),
    }
}

/// Makes the manifest if there is none, and the entries that a repair has left in doubt. Returns the keys that may be
/// deleted after the commit.
///
/// # Errors
/// If the store fails.
pub(super) async fn complete(
    lake: &Lake,
    tables: &Tables,
    shards: &Shards,
    state: &mut State,
    number: u64,
) -> Result<Vec<Path>> {
    let Some(manifest) = &mut state.manifest else {
        return make(lake, tables, shards, state, number).await;
    };
    if manifest.rewriting.is_empty() {
        return Ok(Vec::new());
    }
    let dates: BTreeSet<_> = std::mem::take(&mut manifest.rewriting);
    let entries = found(scan(lake, tables, Some(&dates)).await?);
    match shards.record(manifest, entries, number).await {
        Err(error) if error.kind() == Kind::Integrity => make(lake, tables, shards, state, number).await,
        recorded => recorded,
    }
}

/// Makes the manifest from all table files, whatever it says now. Returns the keys that may be deleted after the
/// commit.
///
/// # Errors
/// If the store fails.
pub(super) async fn make(
    lake: &Lake,
    tables: &Tables,
    shards: &Shards,
    state: &mut State,
    number: u64,
) -> Result<Vec<Path>> {
    let manifest = state.manifest.get_or_insert_default();
    let obsolete = remake(lake, tables, shards, manifest, BTreeMap::new(), number).await?;
    let partitions: u64 = manifest.forms.iter().map(|of| of.partitions).sum();
    if partitions > 0 {
        tracing::info!("made the manifest from the table files: it lists {partitions} partitions");
    }
    Ok(obsolete)
}

/// Makes a manifest from all table files, with the `newer` entries in the place of what is found.
async fn remake(
    lake: &Lake,
    tables: &Tables,
    shards: &Shards,
    manifest: &mut Manifest,
    newer: BTreeMap<CreatedDate, PartitionEntry>,
    number: u64,
) -> Result<Vec<Path>> {
    let obsolete = manifest.shard_keys().collect();
    tables.invalidate();
    let mut entries = found(scan(lake, tables, None).await?);
    entries.extend(newer);
    *manifest = Manifest::default();
    shards.record(manifest, entries, number).await?;
    Ok(obsolete)
}

/// What a scan found; logs what could not be read.
fn found(Scan { entries, unreadable }: Scan) -> BTreeMap<CreatedDate, PartitionEntry> {
    for error in unreadable {
        tracing::warn!("{}; the manifest does not count its rows", error.chain().join(": "));
    }
    entries
}
