//! Reads and writes the shards of the manifest.
//!
//! Guarantees: a shard never changes, because its name has the number of the checkpoint that names it first and a
//! checksum of its content. It is written before that checkpoint. A shard that no checkpoint names any more is deleted
//! after the commit, or by the sweep. How many calls a change takes does not depend on the age of the lake.
//! Must not depend on: what is in the table files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::manifest::{Entries, Manifest, ShardMonth, checksum_in};
use crate::error::{Error, Result};
use crate::layout;
use crate::model::CreatedDate;
use crate::store::{Store, to_json};

/// How many shards to read or write at a time.
const AT_ONCE: usize = 32;

/// The hint for a manifest that cannot be read.
const REBUILD: &str = "no data is lost: run `verify --repair`, which makes the manifest again from the table files";

/// The shards of a lake, and the content of those that were read last. A clone shares it.
#[derive(Debug, Clone)]
pub struct Shards {
    store: Store,
    /// By name. A shard never changes, so this is as good as the store.
    known: Arc<Mutex<BTreeMap<String, Arc<Entries>>>>,
}

impl Shards {
    /// The shards in a lake's store.
    pub fn of(store: &Store) -> Self {
        Shards { store: store.clone(), known: Arc::default() }
    }

    /// Sets entries in the manifest that checkpoint `number` will have, and writes the shards that this takes. Returns
    /// the keys of the shards that the checkpoint does not need any more: delete them after the commit.
    ///
    /// # Errors
    /// If the store fails; kind `Integrity` if a shard is missing or damaged. The manifest is undefined then.
    pub async fn record(&self, manifest: &mut Manifest, entries: Entries, number: u64) -> Result<Vec<Path>> {
        // One round trip for everything that has to be read.
        let mut months = manifest.months_of(entries.keys());
        let mut expected = manifest.clone();
        entries.iter().for_each(|(date, entry)| expected.record(*date, entry.clone(), None));
        let leaving = expected.overflow();
        months.extend(leaving.iter().filter(|month| manifest.shards().contains_key(month)).cloned());
        let mut shards = self.read(manifest, &months).await?;
        for (date, entry) in entries {
            let before = shards.get(&ShardMonth::of(date)).and_then(|shard| shard.get(&date));
            manifest.record(date, entry, before);
        }
        let writes = leaving.into_iter().map(|month| {
            let mut shard = shards.remove(&month).map(Arc::unwrap_or_clone).unwrap_or_default();
            manifest.move_to(&month, &mut shard);
            self.write(month, shard, number)
        });
        let writes: Vec<_> = writes.collect();
        let written: Vec<_> = stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await?;
        let replaced = written.into_iter().filter_map(|(month, name)| manifest.name_shard(month, name));
        let obsolete = replaced.map(|name| layout::manifest_shard(&name)).collect();
        self.known().retain(|name, _| manifest.shards().values().any(|named| named == name));
        Ok(obsolete)
    }

    /// All entries of the manifest.
    ///
    /// # Errors
    /// As [`Shards::record`].
    pub async fn entries(&self, manifest: &Manifest) -> Result<Entries> {
        let months = manifest.shards().keys().cloned().collect();
        let shards = self.read(manifest, &months).await?;
        let shards = shards.into_values().flat_map(Arc::unwrap_or_clone);
        Ok(manifest.all(shards.collect()))
    }

    /// The entries of some partitions, as far as the manifest has them.
    ///
    /// # Errors
    /// As [`Shards::record`].
    pub async fn entries_of(&self, manifest: &Manifest, dates: &[CreatedDate]) -> Result<Entries> {
        let shards = self.read(manifest, &manifest.months_of(dates.iter())).await?;
        let entry = |date: &CreatedDate| {
            let in_shard = || shards.get(&ShardMonth::of(*date)).and_then(|shard| shard.get(date));
            Some((*date, manifest.recent(*date).or_else(in_shard)?.clone()))
        };
        Ok(dates.iter().filter_map(entry).collect())
    }

    /// Reads the shards that recording entries of `dates` will need, so that it need not wait for them. A failure is
    /// left to that.
    pub async fn read_ahead(self, manifest: Manifest, dates: Vec<CreatedDate>) {
        if let Err(error) = self.read(&manifest, &manifest.months_of(dates.iter())).await {
            tracing::debug!("{}", error.chain().join(": "));
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entries>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, month: ShardMonth, shard: Entries, number: u64) -> Result<(ShardMonth, String)> {
        let body = to_json(&shard)?;
        let name = month.shard_name(number, crc32fast::hash(&body));
        self.store.put_unsynced(&layout::manifest_shard(&name), body).await?;
        self.known().insert(name.clone(), Arc::new(shard));
        Ok((month, name))
    }

    async fn read(
        &self,
        manifest: &Manifest,
        months: &BTreeSet<ShardMonth>,
    ) -> Result<BTreeMap<ShardMonth, Arc<Entries>>> {
        let named: Vec<_> = manifest.shards().iter().filter(|(month, _)| months.contains(month)).collect();
        let reads = named.into_iter().map(|(month, name)| async move {
            let known = self.known().get(name).cloned();
            let shard = match known {
                Some(known) => known,
                None => self.shard(name).await?,
            };
            Ok::<_, Error>((month.clone(), shard))
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn shard(&self, name: &str) -> Result<Arc<Entries>> {
        let key = layout::manifest_shard(name);
        let place = || format!("{}/{key}", self.store.url());
        let Some(body) = self.store.get(&key).await? else {
            return Err(Error::integrity(format!("{} is missing", place())).with_hint(REBUILD));
        };
        if checksum_in(name) != Some(crc32fast::hash(&body)) {
            return Err(Error::integrity(format!("{} is damaged: its checksum differs", place())).with_hint(REBUILD));
        }
        let malformed =
            |error| Error::integrity(format!("{} is malformed", place())).caused_by(error).with_hint(REBUILD);
        let shard = Arc::new(serde_json::from_slice::<Entries>(&body).map_err(malformed)?);
        self.known().insert(name.to_owned(), Arc::clone(&shard));
        Ok(shard)
    }
}
