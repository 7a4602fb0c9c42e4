//! Decides how the files are read that are worked on together: small ones whole into memory, many at a time; large ones
//! as streams, two at a time.
//!
//! Guarantees: the bytes in memory are bounded, because each lane holds permits for its own until it is dropped.
//! Threads are few, because only the work on a stream waits for the store on its thread. Must not depend on: what the
//! work is.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::store::Store;

/// The most bytes of files that are read into memory together.
const SMALL_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 8 << 20 };
/// The most bytes of files in memory, over all work.
const IN_MEMORY_BYTES: u64 = 4 * SMALL_BYTES;
/// The bytes of one permit.
const PERMIT_BYTES: u64 = 1 << 10;
/// How much work reads its files as streams at a time, each on its own thread.
const STREAMS: usize = 2;
/// The most threads that work on files in memory, because decoded rows take memory too.
const MOST_THREADS: usize = 4;
/// How much work may be under way on a local disk. More would not hide any latency.
const AT_ONCE_LOCALLY: usize = 4;

/// The lanes of some work. A clone has the same permits.
#[derive(Debug, Clone)]
pub struct Lanes {
    in_memory: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    at_once: usize,
}

/// A lane that some work has taken.
#[derive(Debug)]
pub enum Lane {
    /// Its files are read into memory.
    InMemory(OwnedSemaphorePermit),
    /// Its files are read as streams.
    Streamed(OwnedSemaphorePermit),
}

impl Lanes {
    /// The lanes of work on files in `store`.
    pub fn of(store: &Store) -> Self {
        let threads = available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let at_once = if store.is_local() { AT_ONCE_LOCALLY } else { store.concurrency().div_ceil(2) };
        let permits = usize::try_from(IN_MEMORY_BYTES / PERMIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        Lanes {
            in_memory: Arc::new(Semaphore::new(permits)),
            threads: Arc::new(Semaphore::new(threads)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            at_once: at_once.max(STREAMS),
        }
    }

    /// Whether files of `bytes` are read into memory together.
    pub fn are_small(bytes: u64) -> bool {
        bytes <= SMALL_BYTES
    }

    /// How much work to begin at a time, so that there are enough calls to the store under way.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// Takes a lane for work on files of `bytes` that are small, if one is free.
    pub fn try_enter(&self, bytes: u64) -> Option<Lane> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).ok().filter(|_| Self::are_small(bytes))?;
        Arc::clone(&self.in_memory).try_acquire_many_owned(permits).ok().map(Lane::InMemory)
    }

    /// Waits for a lane for work on files of `bytes`.
    ///
    /// # Errors
    /// Only on a bug.
    pub async fn enter(&self, bytes: u64) -> Result<Lane> {
        let closed = |error| Error::bug("a lane was closed").caused_by(error);
        if !Self::are_small(bytes) {
            return Arc::clone(&self.streams).acquire_owned().await.map(Lane::Streamed).map_err(closed);
        }
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.in_memory).acquire_many_owned(permits).await.map(Lane::InMemory).map_err(closed)
    }

    /// Does `work` on a blocking thread.
    ///
    /// # Errors
    /// Only on a bug: the work has panicked.
    pub async fn work<T: Send + 'static>(&self, lane: &Lane, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _thread = match lane {
            // The semaphore is never closed.
            Lane::InMemory(_) => self.threads.acquire().await.ok(),
            Lane::Streamed(_) => None,
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Error::bug("the work failed").caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use object_store::memory::InMemory;

    use super::*;

    fn lanes() -> Lanes {
        Lanes::of(&Store::on(InMemory::new(), "memory", Duration::from_secs(60)))
    }

    #[test]
    fn the_bytes_in_memory_are_bounded() {
        let lanes = lanes();
        let most = IN_MEMORY_BYTES / SMALL_BYTES;
        let taken: Vec<_> = (0..most).map(|_| lanes.enter(SMALL_BYTES).now_or_never().unwrap().unwrap()).collect();
        assert!(taken.iter().all(|lane| matches!(lane, Lane::InMemory(_))));
        assert!(lanes.enter(1).now_or_never().is_none() && lanes.try_enter(1).is_none(), "there is no room");
        drop(taken);
        assert!(lanes.enter(1).now_or_never().is_some() && lanes.try_enter(1).is_some());
        assert!(lanes.try_enter(SMALL_BYTES + 1).is_none(), "it is not small");
    }

    #[test]
    fn large_files_are_streamed_beside_small_ones() {
        let lanes = lanes();
        let enter = || lanes.enter(SMALL_BYTES + 1).now_or_never();
        let streams = [enter(), enter()].map(|lane| lane.unwrap().unwrap());
        assert!(streams.iter().all(|lane| matches!(lane, Lane::Streamed(_))));
        assert!(enter().is_none(), "there are two streams");
        assert!(lanes.enter(SMALL_BYTES).now_or_never().is_some());
        drop(streams);
        assert!(enter().is_some());
    }
}
