//! Who may write to a lake: one run at a time.
//!
//! A run that writes appends its name to a series of numbered records, again every few seconds, and another record when it
//! has ended. A name that has stood for too long, by the store's own clock, is that of a run that died. On a local disk a
//! locked file tells that at once, of the runs that see the same lock: it dies with its process.
//!
//! Promises: of two runs at once one is refused. A run that was held up for so long that another took over is fenced,
//! whenever it wakes up and whatever its own clock says: it cannot commit (the numbers are taken), nor replace a table
//! (the put is conditional), nor do what [`Lease::prove`] stands before. Must not know: what runs do.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::series::Series;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::RunId;
use crate::store::{Lock, Site, Store, lock, to_json};
pub use record::{Ended, Holder};
use record::{Newest, Record, WATCH, held, outlive};

mod record;

/// How often a holder appends its name again.
const RENEWAL: Duration = Duration::from_secs(6);
/// How long one try to append it may take: two of them fit between the time when it is due and the expiry.
const TRY: Duration = Duration::from_secs(6);
/// How long it is tried to prove that a name is still the last: about as long as other calls are.
const PROVING: Duration = Duration::from_secs(60);
/// How long a disk may take to lock a file.
const LOCKING: Duration = Duration::from_secs(60);
/// How many records are kept.
const KEPT: u64 = 2;

/// What can be seen of who has a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// The run that has it, or had it when it died.
    pub holder: Option<Holder>,
    /// When that run last appended its name, by its own clock.
    pub renewed_at: Option<DateTime<Utc>>,
    /// When the last run that ended as runs do asked the API for something.
    pub last_request_at: Option<DateTime<Utc>>,
}

/// How the run before this one went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// There was none.
    Nobody,
    /// It ended as runs do.
    Ended(Ended),
    /// It was killed, or it is held up and may wake up again.
    Died,
}

/// The right to write to a lake, until it is [released](Lease::release).
#[derive(Debug)]
pub struct Lease {
    before: Before,
    held: Arc<Held>,
    /// Where the process itself is watched; the lock is let go with it.
    _lock: Option<File>,
    /// Ends the renewal.
    renewing: CancellationToken,
}

#[derive(Debug)]
struct Held {
    series: Series,
    store: Store,
    holder: Holder,
    clock: Clock,
    /// From where the lock is seen that keeps others out; `None` where the lease alone does.
    locked_at: Option<Site>,
    newest: Mutex<Newest>,
    /// Whether another run has taken over.
    lost: AtomicBool,
    /// Cancelled when the run has to stop.
    stop: CancellationToken,
}

impl Lease {
    /// Takes the lake for `holder`, whose run gets an id that sorts after those of all runs before it, or tells who has it.
    /// Where the holder may have died, waits until that is certain.
    ///
    /// # Errors
    /// Kind `Held` where another run has it; `Interrupted` when `shutdown` came while waiting; those of the store.
    pub async fn acquire(
        store: &Store,
        mut holder: Holder,
        clock: Clock,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        // Whatever else is under way must not make it expire.
        let store = &store.priority();
        let series = Series::new(store, layout::leases(), KEPT);
        let locking = store.clone();
        let locked = clock.within(LOCKING, tokio::task::spawn_blocking(move || lock(&locking, &layout::lock()))).await;
        let locked = locked.ok_or_else(|| Error::store(format!("the disk of {} does not answer", store.url())))?;
        let (lock, locked_at) = match locked.map_err(|error| Error::bug("the locking failed").caused_by(error))?? {
            Lock::None => (None, None),
            Lock::Taken(file, site) => (Some(file), Some(site)),
            Lock::Held => {
                // Between the lock and the record the newest is still that of the run before.
                let record = series.newest::<Record>().await?.filter(|(_, record)| record.ended.is_none());
                return Err(held(store, record.map(|(_, record)| record.holder).as_ref()));
            }
        };
        let newest = series.newest::<Record>().await?;
        holder.run_id = newest.iter().fold(holder.run_id, |own, (_, before)| own.after(&before.holder.run_id));
        let (number, before) = match newest {
            None => (0, Before::Nobody),
            Some((number, Record { ended: Some(ended), .. })) => (number, Before::Ended(ended)),
            Some((number, record)) if locked_at.as_ref().is_some_and(|site| record.is_dead_at(site, &holder.host)) => {
                (number, Before::Died)
            }
            Some((number, record)) => {
                tracing::info!("the lake is held by {}; waiting to see whether that is alive", record.holder);
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Err(Error::interrupted()),
                    dead = outlive(store, &series, number, &holder.run_id, clock) => dead?,
                }
                tracing::warn!("there is no sign of life from {}; taking over", record.holder);
                (number, Before::Died)
            }
        };
        let held = Arc::new(Held {
            series,
            store: store.clone(),
            holder,
            clock,
            locked_at,
            newest: Mutex::new(Newest { number, at: clock.instant(), wall: clock.now(), released: false }),
            lost: AtomicBool::new(false),
            stop: shutdown.child_token(),
        });
        held.take(&mut *held.newest.lock().await).await?;
        let renewing = CancellationToken::new();
        tokio::spawn(renew(Arc::clone(&held), renewing.clone()));
        Ok(Lease { before, held, _lock: lock, renewing })
    }

    /// What can be seen of who has the lake, without taking it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn seen(store: &Store) -> Result<Occupancy> {
        let newest = Series::new(store, layout::leases(), KEPT).newest::<Record>().await?;
        Ok(match newest {
            None => Occupancy::default(),
            Some((_, Record { holder, written_at, ended: None, .. })) => {
                Occupancy { holder: Some(holder), renewed_at: Some(written_at), last_request_at: None }
            }
            Some((_, Record { ended: Some(ended), .. })) => {
                Occupancy { last_request_at: ended.last_request_at, ..Occupancy::default() }
            }
        })
    }

    /// How the run before this one went.
    pub fn before(&self) -> Before {
        self.before
    }

    /// The run that has it.
    pub fn run_id(&self) -> &RunId {
        &self.held.holder.run_id
    }

    /// Cancelled when the run has to stop: because it was asked to, or because another one has taken over.
    pub fn stop(&self) -> &CancellationToken {
        &self.held.stop
    }

    /// Makes sure, by appending to the store, that no other run has taken over. Where it is locked, a look is enough.
    ///
    /// # Errors
    /// Kind `Held` where one has; those of the store where that cannot be told.
    pub async fn prove(&self) -> Result<()> {
        let Held { clock, store, locked_at, .. } = &*self.held;
        let deadline = clock.instant() + store.call_timeout().min(PROVING);
        loop {
            {
                let mut newest = self.held.newest.lock().await;
                if newest.released {
                    return Err(Error::bug("something was to be written after the run had ended"));
                }
                if locked_at.is_some() {
                    // Nobody takes over before the record has expired.
                    return if newest.is_fresh(clock) { Ok(()) } else { self.held.look(&newest).await };
                }
                match self.held.try_append(&mut newest).await {
                    Some(appended) => return appended,
                    None if clock.instant() >= deadline => return Err(self.held.no_answer()),
                    None => {}
                }
            }
            clock.sleep(WATCH).await;
        }
    }

    /// Lets the next run have the store.
    ///
    /// # Errors
    /// Where the store fails; the next run then has to wait until it is certain that this one has ended.
    pub async fn release(&self, ended: Ended) -> Result<()> {
        self.renewing.cancel();
        let mut newest = self.held.newest.lock().await;
        if newest.released || self.held.is_lost() {
            return Ok(());
        }
        self.held.append(&mut newest, Some(ended)).await?;
        newest.released = true;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.cancel();
    }
}

impl Held {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Appends the first record, and makes sure that it keeps others out.
    async fn take(&self, newest: &mut Newest) -> Result<()> {
        let record = self.append(newest, None).await?;
        // On a disk objects are made by its own means, and replaced without conditions.
        if self.store.is_local() || !self.store.needs_lock() {
            return Ok(());
        }
        let key = self.series.key(newest.number);
        let proven = match self.store.prove_conditional_writes(&key, &record).await {
            Ok(true) => return Ok(()),
            Ok(false) => Err(self.taken_over().await),
            Err(error) => Err(error),
        };
        if let Err(error) = self.store.delete(vec![key]).await {
            tracing::debug!("{}", error.chain().join(": "));
        }
        proven
    }

    /// Appends a record, and returns it as it was written.
    async fn append(&self, newest: &mut Newest, ended: Option<Ended>) -> Result<Vec<u8>> {
        let (at, wall) = (self.clock.instant(), self.clock.now());
        let (holder, locked_at) = (self.holder.clone(), self.locked_at.clone());
        let record = Record { holder, written_at: wall, locked_at, ended };
        let body = to_json(&record)?;
        let mut number = newest.number.saturating_add(1);
        let mut appended = self.series.append(number, body.clone()).await?;
        if !appended && let Some((own, _)) = self.newest().await?.filter(|(_, by)| by.run_id == self.holder.run_id) {
            // An append of its own got through, though its answer was lost.
            number = own.saturating_add(1);
            appended = self.series.append(number, body.clone()).await?;
        }
        if !appended {
            return Err(self.loses().await);
        }
        (newest.number, newest.at, newest.wall) = (number, at, wall);
        Ok(body)
    }

    /// Appends the holder's name in the time that a renewal has; `None` where that was not enough. Whether it got through
    /// after all, the next try finds out.
    async fn try_append(&self, newest: &mut Newest) -> Option<Result<()>> {
        self.clock.within(TRY, self.append(newest, None)).await.map(|appended| appended.map(drop))
    }

    fn no_answer(&self) -> Error {
        Error::store(format!(
            "the lease of {} could not be renewed: no answer within {} s",
            self.store.url(),
            TRY.as_secs()
        ))
        .with_hint("is the store, or the way to it, overloaded? see --store-concurrency")
    }

    /// Makes sure that no other run has appended its name.
    async fn look(&self, newest: &Newest) -> Result<()> {
        match self.newest().await? {
            Some((number, by)) if number > newest.number && by.run_id != self.holder.run_id => Err(self.loses().await),
            _ => Ok(()),
        }
    }

    /// Stops the run, as another one has taken over.
    async fn loses(&self) -> Error {
        self.lost.store(true, Ordering::Relaxed);
        self.stop.cancel();
        self.taken_over().await
    }

    async fn newest(&self) -> Result<Option<(u64, Holder)>> {
        Ok(self.series.newest::<Record>().await?.map(|(number, record)| (number, record.holder)))
    }

    async fn taken_over(&self) -> Error {
        let by = self.newest().await.ok().flatten();
        held(&self.store, by.map(|(_, holder)| holder).as_ref())
    }
}

/// Appends the holder's name again and again, until it is told to end or has been conflict.
async fn renew(held: Arc<Held>, ended: CancellationToken) {
    let (mut due, mut failures) = (held.clock.instant() + RENEWAL, 0_u64);
    while !held.is_lost() {
        let renewed = async {
            held.clock.sleep_until(due).await;
            let mut newest = held.newest.lock().await;
            // Where a proof has done it meanwhile, there is time.
            if held.clock.instant() >= newest.at + RENEWAL {
                held.try_append(&mut newest).await.unwrap_or_else(|| Err(held.no_answer()))?;
            }
            Ok::<_, Error>(newest.at + RENEWAL)
        };
        let renewed = tokio::select! {
            () = ended.cancelled() => return,
            renewed = renewed => renewed,
        };
        match renewed {
            Ok(next) => (due, failures) = (next, 0),
            Err(error) => {
                if failures == 0 {
                    tracing::warn!("cannot renew the lease: {}", error.chain().join(": "));
                }
                failures = failures.saturating_add(1);
                due = held.clock.instant() + WATCH;
            }
        }
    }
}

#[cfg(test)]
mod tests;
