//! Tries on a store whatever a writer needs of it, on objects of a folder that nothing else looks at.
//!
//! Promises: what is tried is removed again, and nothing else is touched. Must not know: how it is told.

use bytes::Bytes;
use chrono::Duration;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};

use super::lock::{Locked, lock_file};
use super::store::Store;
use crate::error::{Error, Result};

/// The smallest part that S3 takes, but for the last.
const PART_BYTES: usize = 5 << 20;
/// How many writers race for one object, and how often.
const RACERS: usize = 8;
const RACES: usize = 3;
/// How old an object is that a killed check has left.
const LEFT_AFTER: Duration = Duration::hours(1);

/// What a run needs of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Objects are listed.
    List,
    /// An object is written.
    Put,
    /// It reads back.
    Read,
    /// A range of it does.
    ReadRange,
    /// Of two writers the second is refused.
    KeepApart,
    /// A large object is written in parts, and not seen before the last.
    Parts,
    /// Objects are deleted.
    Delete,
}

impl Capability {
    /// All of them, in the order in which they have to be tried.
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

/// A store being tried.
#[derive(Debug)]
pub struct Probe<'a> {
    store: &'a Store,
    folder: Path,
    /// What the names of its own objects begin with.
    own: String,
}

impl<'a> Probe<'a> {
    /// Begins a trial of the store in `folder`, with objects whose names begin with `own`.
    pub fn new(store: &'a Store, folder: Path, own: String) -> Self {
        Probe { store, folder, own }
    }

    /// Tries one capability; those before it must hold.
    ///
    /// # Errors
    /// Where the store fails, or does not do what it says.
    pub async fn of(&self, capability: Capability) -> Result<()> {
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

    /// Removes what the trial has left, as far as the store lets it.
    pub async fn clean(self) {
        // What fails here has been told already.
        let _ = self.delete().await;
    }

    fn key(&self, name: &str) -> Path {
        self.folder.clone().join(format!("{}-{name}", self.own))
    }

    async fn listed(&self) -> Result<Vec<ObjectMeta>> {
        self.store.list(self.folder.clone()).try_collect().await
    }

    async fn read(&self) -> Result<()> {
        let there = self.store.get(&self.key("object")).await?;
        holds(there.as_ref() == Some(&body()), "what was written does not read back")
    }

    async fn read_range(&self) -> Result<()> {
        let key = self.key("object");
        let range = self.store.objects().get_range(&key, 100..200).await;
        let range = range.map_err(|error| self.store.failed("read a range of", &key, error))?;
        holds(range == body().slice(100..200), "a range of an object is not what was asked for")
    }

    /// On local disks a locked file keeps runs apart, elsewhere the conditions of puts; everywhere objects are made that
    /// must not be there yet.
    async fn keep_apart(&self) -> Result<()> {
        let key = self.key("object");
        if let Some(path) = self.store.local_path(&self.key("lock")) {
            self.lock(path).await?;
            let key = self.key("new");
            holds(self.store.create(&key, body()).await?, "an object that was not there cannot be made")?;
            return holds(!self.store.create(&key, "another").await?, "an object is made twice");
        }
        holds(self.store.prove_conditions(&key, &body()).await?, "an object that was written is gone")?;
        let found = self.store.head(&key).await?;
        self.store.replace(&key, found.as_ref(), body()).await?;
        for race in 0..RACES {
            let key = self.key(&format!("race-{race}"));
            let writers = (0..RACERS).map(|racer| self.store.create(&key, format!("writer {racer}")));
            let (won, failed): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().partition(Result::is_ok);
            let winners = won.iter().filter(|won| matches!(won, Ok(true))).count();
            // Some stores take one write of an object at a time, and tell all others to come later.
            if let (0, Some(Err(error))) = (winners, failed.into_iter().next()) {
                return Err(error);
            }
            if winners != 1 {
                let fault = format!("lets {winners} of {RACERS} writers make the same object");
                return Err(self.store.lacks_conditions(&fault));
            }
        }
        Ok(())
    }

    /// A lock that keeps nobody out is no failure: a run does without it then.
    async fn lock(&self, path: std::path::PathBuf) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::store("cannot lock a file")
                .caused_by(error)
                .with_hint("a lake needs a file system that knows locks, or --unsafe-no-lock")
        };
        let locked = tokio::task::spawn_blocking(move || lock_file(&path)).await;
        match locked.map_err(|error| Error::bug("the locking failed").caused_by(error))? {
            Ok(Locked::OfAnother) => Err(Error::bug("somebody else locked a file of this check")),
            Ok(Locked::Taken(_) | Locked::ByEverybody) => Ok(()),
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
            holds(!seen, "an object is seen before its last part")?;
        }
        let border = PART_BYTES as u64 - 10..PART_BYTES as u64 + 10;
        let there = self.store.objects().get_range(&key, border).await.map_err(failed)?;
        let expected: Vec<u8> = [b'a'; 10].into_iter().chain(body().into_iter().take(10)).collect();
        holds(there == expected, "an object in parts does not read back")
    }

    /// Deletes what this check has written, and what one has left that was killed long ago.
    async fn delete(&self) -> Result<()> {
        let objects = self.listed().await?;
        let own = |object: &ObjectMeta| object.location.filename().is_some_and(|name| name.starts_with(&self.own));
        let newest = objects.iter().map(|object| object.last_modified).max();
        let old = |object: &ObjectMeta| newest.is_some_and(|now| now - object.last_modified > LEFT_AFTER);
        let keys = objects.iter().filter(|object| own(object) || old(object)).map(|object| object.location.clone());
        self.store.delete(keys.collect()).await?;
        holds(!self.listed().await?.iter().any(own), "what was deleted is still listed")
    }
}

fn body() -> Bytes {
    (0..1_000_u32).map(|place| u8::try_from(place % 251).unwrap_or_default()).collect()
}

fn holds(condition: bool, fault: &str) -> Result<()> {
    if condition {
        Ok(())
    } else {
        Err(Error::store(fault).with_hint("this store cannot hold a lake; use another one"))
    }
}
