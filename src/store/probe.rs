//! Tests a store's capabilities on objects in a folder that nothing else reads.
//!
//! Guarantees: the objects are deleted afterwards, and no others are touched. Must not depend on: how results are
//! printed.

use bytes::Bytes;
use chrono::Duration;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};

use super::lock::{FileLock, lock_file};
use super::store::Store;
use crate::error::{Error, Result};

/// The smallest part that S3 accepts, except for the last.
const PART_BYTES: usize = 5 << 20;
/// How many writers race for one object, and how often.
const RACERS: usize = 8;
const RACES: usize = 3;
/// The age from which an object is that of a killed check.
const LEFT_AFTER: Duration = Duration::hours(1);

/// Something that a run needs of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Lists objects.
    List,
    /// Writes an object.
    Put,
    /// Reads an object.
    Read,
    /// Reads a byte range of an object.
    ReadRange,
    /// Refuses the second of two writers.
    KeepApart,
    /// Writes a large object in parts, and shows it only when it is complete.
    Parts,
    /// Deletes objects.
    Delete,
}

impl Capability {
    /// All capabilities in the order of the tests, because later ones use the objects of earlier ones.
    pub const ALL: [Capability; 7] = [
        Capability::List,
        Capability::Put,
        Capability::Read,
        Capability::ReadRange,
        Capability::KeepApart,
        Capability::Parts,
        Capability::Delete,
    ];
}

/// A test of a store.
#[derive(Debug)]
pub struct Probe<'a> {
    store: &'a Store,
    folder: Path,
    /// The prefix of the names of its objects.
    prefix: String,
}

impl<'a> Probe<'a> {
    /// Sets up a test that writes objects to `folder` whose names begin with `prefix`.
    pub fn new(store: &'a Store, folder: Path, prefix: String) -> Self {
        Probe { store, folder, prefix }
    }

    /// Tests one capability; those before it must hold.
    ///
    /// # Errors
    /// If the store fails or lacks the capability.
    pub async fn test(&self, capability: Capability) -> Result<()> {
        match capability {
            Capability::List => self.listed().await.map(drop),
            Capability::Put => self.store.put(&self.key("object"), body()).await,
            Capability::Read => self.read().await,
            Capability::ReadRange => self.read_range().await,
            Capability::KeepApart => self.keep_apart().await,
            Capability::Parts => self.parts().await,
            Capability::Delete => self.delete().await,
        }
    }

    /// Deletes the test's objects, as far as the store permits.
    pub async fn clean(self) {
        // A failure to delete was reported by its own test.
        let _ = self.delete().await;
    }

    fn key(&self, name: &str) -> Path {
        self.folder.clone().join(format!("{}-{name}", self.prefix))
    }

    async fn listed(&self) -> Result<Vec<ObjectMeta>> {
        self.store.list(self.folder.clone()).try_collect().await
    }

    async fn read(&self) -> Result<()> {
        let there = self.store.get(&self.key("object")).await?;
        ensure(there.as_ref() == Some(&body()), "a written object reads back differently")
    }

    async fn read_range(&self) -> Result<()> {
        let key = self.key("object");
        let range = self.store.objects().get_range(&key, 100..200).await;
        let range = range.map_err(|error| self.store.failed("read a range of", &key, error))?;
        ensure(range == body().slice(100..200), "a byte range of an object reads back differently")
    }

    /// On local disks a locked file keeps runs apart, elsewhere conditional writes do. Both need creates that refuse to
    /// overwrite.
    async fn keep_apart(&self) -> Result<()> {
        let key = self.key("object");
        if let Some(path) = self.store.local_path(&self.key("lock")) {
            self.lock(path).await?;
            let key = self.key("new");
            ensure(self.store.create(&key, body()).await?, "the first create of a key was refused")?;
            return ensure(!self.store.create(&key, "another").await?, "a second create of the same key succeeded");
        }
        ensure(self.store.prove_conditional_writes(&key, &body()).await?, "a written object is gone")?;
        let found = self.store.head(&key).await?;
        self.store.replace(&key, found.as_ref(), body()).await?;
        for race in 0..RACES {
            let key = self.key(&format!("race-{race}"));
            let writers = (0..RACERS).map(|racer| self.store.create(&key, format!("writer {racer}")));
            let (won, failed): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().partition(Result::is_ok);
            let winners = won.iter().filter(|won| matches!(won, Ok(true))).count();
            // Some stores accept one write of an object at a time, and throttle the others.
            if let (0, Some(Err(error))) = (winners, failed.into_iter().next()) {
                return Err(error);
            }
            if winners != 1 {
                let fault = format!("{winners} of {RACERS} concurrent creates of the same key succeeded");
                return Err(self.store.no_conditional_writes(&fault));
            }
        }
        Ok(())
    }

    /// A lock that excludes no other process is no failure, because a run then relies on the lease.
    async fn lock(&self, path: std::path::PathBuf) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::store("cannot lock a file")
                .caused_by(error)
                .with_hint("use a file system with locks, or set --unsafe-no-lock")
        };
        let locked = tokio::task::spawn_blocking(move || lock_file(&path)).await;
        match locked.map_err(|error| Error::bug("the task that locks a file failed").caused_by(error))? {
            Ok(FileLock::Held) => Err(Error::bug("another process locked a file of this check")),
            Ok(FileLock::Taken(_) | FileLock::Ineffective) => Ok(()),
            Err(_) if !self.store.needs_lock() => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn parts(&self) -> Result<()> {
        let key = self.key("parts");
        let failed = |error| self.store.failed("write in parts", &key, error);
        let parts = [Bytes::from(vec![b'a'; PART_BYTES]), body()];
        for complete in [false, true] {
            let mut upload = self.store.objects().put_multipart(&key).await.map_err(failed)?;
            let mut sent = Ok(());
            for part in &parts {
                sent = sent.and(upload.put_part(PutPayload::from(part.clone())).await);
            }
            let seen = self.store.head(&key).await?.is_some();
            if sent.is_err() || !complete {
                upload.abort().await.map_err(failed)?;
                sent.map_err(failed)?;
            } else {
                upload.complete().await.map_err(failed)?;
            }
            ensure(!seen, "an object in parts is visible before it is complete")?;
        }
        let border = PART_BYTES as u64 - 10..PART_BYTES as u64 + 10;
        let there = self.store.objects().get_range(&key, border).await.map_err(failed)?;
        let expected: Vec<u8> = [b'a'; 10].into_iter().chain(body().into_iter().take(10)).collect();
        ensure(there == expected, "an object in parts reads back differently")
    }

    /// Deletes this test's objects and those of a test that was killed long ago.
    async fn delete(&self) -> Result<()> {
        let objects = self.listed().await?;
        let own = |object: &ObjectMeta| object.location.filename().is_some_and(|name| name.starts_with(&self.prefix));
        let newest = objects.iter().map(|object| object.last_modified).max();
        let old = |object: &ObjectMeta| newest.is_some_and(|now| now - object.last_modified > LEFT_AFTER);
        let keys = objects.iter().filter(|object| own(object) || old(object)).map(|object| object.location.clone());
        self.store.delete(keys.collect()).await?;
        ensure(!self.listed().await?.iter().any(own), "a deleted object is still listed")
    }
}

fn body() -> Bytes {
    (0..=250_u8).cycle().take(1_000).collect()
}

fn ensure(condition: bool, fault: &str) -> Result<()> {
    if condition {
        Ok(())
    } else {
        Err(Error::store(fault).with_hint("this store cannot hold a lake; use another one"))
    }
}
