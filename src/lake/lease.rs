//! The lease, which admits one writing run at a time.
//!
//! The holder appends a record to a numbered series every few seconds, and a last one at its end. A record that
//! expires, by the store's clock, is that of a dead run. On a local disk a locked file shows the death of its process
//! at once, to runs that see the same lock.
//!
//! Guarantees: of two runs at once one is refused. A holder that pauses past its expiry is fenced: its next commit,
//! conditional write or [`Lease::prove`] fails, whatever its clock says.
//! Must not depend on: what runs do.

use std::fs::File;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::path::Path;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::series::Series;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::RunId;
use crate::store::{Lock, Site, Store, lock, to_json};
pub use ended::{Before, Ended, Upkeep};
pub use record::Holder;
use record::{Newest, Record, WATCH, held, outlive};

mod ended;
mod record;

/// How often a holder renews its record.
const RENEWAL: Duration = Duration::from_secs(6);
/// How long one try may take; two fit between the time when a renewal is due and the expiry.
const TRY: Duration = Duration::from_secs(6);
/// How long to try to prove the lease; about as long as other calls are tried.
const PROVING: Duration = Duration::from_secs(60);
/// How long a disk may take to lock a file.
const LOCKING: Duration = Duration::from_secs(60);
/// How many records to keep.
const KEPT: u64 = 2;

/// The holder of a lake, as the records show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// The run that holds the lake, or held it when it died.
    pub holder: Option<Holder>,
    /// When that run last renewed its record, by its own clock.
    pub renewed_at: Option<DateTime<Utc>>,
    /// When the last run, if it ended regularly, sent its last request to the API.
    pub last_request_at: Option<DateTime<Utc>>,
}

/// The right to write to a lake, until it is [released](Lease::release).
#[derive(Debug)]
pub struct Lease {
    before: Before,
    /// Records of earlier runs that need not be kept.
    surplus: Vec<Path>,
    held: Arc<Held>,
    /// The lock on a local disk; it is released with the process.
    _lock: Option<File>,
    /// Cancelled to end the renewal.
    renewing: CancellationToken,
}

#[derive(Debug)]
struct Held {
    series: Series,
    store: Store,
    holder: Holder,
    clock: Clock,
    /// Where the lock is visible; `None` if there is none and only the records exclude other runs.
    locked_at: Option<Site>,
    newest: Mutex<Newest>,
    /// Whether another run has taken over.
    lost: AtomicBool,
    /// Cancelled when the run has to stop.
    stop: CancellationToken,
}

/// A record that this run has just created.
struct Created {
    newest: Newest,
    body: Vec<u8>,
}

impl Lease {
    /// Takes the lake for `holder`, whose run gets an id that sorts after those of all earlier runs. If the present
    /// holder may be dead, waits until that is certain.
    ///
    /// # Errors
    /// Kind `Held`, with the holder, if another run holds the lake; `Interrupted` if `shutdown` comes while waiting;
    /// those of the store.
    pub async fn acquire(store: &Store, holder: Holder, clock: Clock, shutdown: &CancellationToken) -> Result<Self> {
        let nothing = |_: &Before| ready(());
        Self::acquire_and(store, holder, clock, shutdown, nothing).await.map(|(lease, ())| lease)
    }

    /// As [`Lease::acquire`], and calls `read` as soon as the run has a record, so that both read at the same time.
    /// What `read` returns counts only if the run gets the lake.
    ///
    /// # Errors
    /// As [`Lease::acquire`].
    pub async fn acquire_and<T>(
        store: &Store,
        mut holder: Holder,
        clock: Clock,
        shutdown: &CancellationToken,
        read: impl AsyncFnOnce(&Before) -> T,
    ) -> Result<(Self, T)> {
        // Calls for the lease go ahead of all others, which could make it expire.
        let store = &store.priority();
        let series = Series::new(store, layout::leases(), KEPT);
        let locking = store.clone();
        let locked = clock.within(LOCKING, tokio::task::spawn_blocking(move || lock(&locking, &layout::lock()))).await;
        let locked =
            locked.ok_or_else(|| Error::store(format!("cannot lock {}: the disk does not answer", store.url())))?;
        let (lock, locked_at) = match locked.map_err(|error| Error::bug("the locking failed").caused_by(error))?? {
            Lock::None => (None, None),
            Lock::Taken(file, site) => (Some(file), Some(site)),
            Lock::Held => {
                // Until the holder has appended its own record, the newest is that of the run before.
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
                tracing::info!("the lake is held by {}; waiting to see whether that run is alive", record.holder);
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Err(Error::interrupted()),
                    dead = outlive(store, &series, number, &holder.run_id, clock) => dead?,
                }
                tracing::warn!("{} has not renewed its lease and is taken to be dead; taking over", record.holder);
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
        let renewing = CancellationToken::new().drop_guard();
        let record = held.create(&*held.newest.lock().await, None).await?;
        let confirming = async {
            let surplus = held.begin(record, before.upkeep(store, clock.now()).is_none()).await?;
            tokio::spawn(renew(Arc::clone(&held), renewing.token().clone()));
            Ok::<_, Error>(surplus)
        };
        let (surplus, read) = tokio::join!(confirming, read(&before));
        Ok((Lease { surplus: surplus?, before, held, _lock: lock, renewing: renewing.disarm() }, read))
    }

    /// Reads who holds the lake, without taking it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn occupancy(store: &Store) -> Result<Occupancy> {
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

    /// How the run before this one ended.
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// The records of earlier runs that the holder may delete, because nobody reads them any more.
    pub fn surplus(&self) -> &[Path] {
        &self.surplus
    }

    /// The run that holds it.
    pub fn run_id(&self) -> &RunId {
        &self.held.holder.run_id
    }

    /// Cancelled when the run has to stop, because it was asked to or because another run has taken over.
    pub fn stop(&self) -> &CancellationToken {
        &self.held.stop
    }

    /// Proves, by appending a record, that no other run has taken over. If the lake is locked, reading the newest is
    /// enough.
    ///
    /// # Errors
    /// Kind `Held` if a run has taken over; those of the store if that cannot be decided.
    pub async fn prove(&self) -> Result<()> {
        let Held { clock, store, locked_at, .. } = &*self.held;
        let deadline = clock.instant() + store.call_timeout().min(PROVING);
        loop {
            {
                let mut newest = self.held.newest.lock().await;
                if newest.released {
                    return Err(Error::bug("a run tried to write after it had released the lake"));
                }
                if locked_at.is_some() {
                    // No run takes over before the record has expired.
                    return if newest.is_fresh(clock) { Ok(()) } else { self.held.check_newest(&newest).await };
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

    /// Releases the lake to the next run.
    ///
    /// # Errors
    /// If the store fails; the next run then waits for the expiry.
    pub async fn release(&self, ended: Ended) -> Result<()> {
        self.renewing.cancel();
        let mut newest = self.held.newest.lock().await;
        if newest.released || self.held.is_lost() {
            return Ok(());
        }
        // Should its number have been used and removed, the record is not the newest, and nobody reads it.
        self.held.create(&newest, Some(ended)).await?;
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

    /// Makes sure that the first `record` excludes other runs, and, if it `proves` that, that the store's conditional
    /// writes work. Returns the records of earlier runs that need not be kept.
    async fn begin(&self, record: Created, proves: bool) -> Result<Vec<Path>> {
        let surplus = self.confirm(record.newest.number).await?;
        let (key, body) = (self.series.key(record.newest.number), record.body);
        *self.newest.lock().await = record.newest;
        // A disk creates files exclusively by its own means, and replaces them without conditions.
        if !proves || self.store.is_local() || !self.store.needs_lock() {
            return Ok(surplus);
        }
        let proven = match self.store.prove_conditional_writes(&key, &body).await {
            Ok(true) => return Ok(surplus),
            Ok(false) => Err(self.taken_over().await),
            Err(error) => Err(error),
        };
        if let Err(error) = self.store.delete(vec![key]).await {
            tracing::debug!("{}", error.chain().join(": "));
        }
        proven
    }

    /// Creates the record after the `newest`.
    async fn create(&self, newest: &Newest, ended: Option<Ended>) -> Result<Created> {
        let (at, wall) = (self.clock.instant(), self.clock.now());
        let (holder, locked_at) = (self.holder.clone(), self.locked_at.clone());
        let record = Record { holder, written_at: wall, locked_at, ended };
        let body = to_json(&record)?;
        let mut number = newest.number.saturating_add(1);
        let mut created = self.series.create(number, body.clone()).await?;
        if !created && let Some((own, _)) = self.newest().await?.filter(|(_, by)| by.run_id == self.holder.run_id) {
            // An earlier one of this run was created, though its response was lost.
            number = own.saturating_add(1);
            created = self.series.create(number, body.clone()).await?;
        }
        if !created {
            return Err(self.mark_lost().await);
        }
        Ok(Created { newest: Newest { number, at, wall, released: false }, body })
    }

    /// Makes sure that the record under `number` is the newest; returns those that need not be kept.
    async fn confirm(&self, number: u64) -> Result<Vec<Path>> {
        match self.series.confirm(number).await? {
            Some(surplus) => Ok(surplus),
            None => Err(self.mark_lost().await),
        }
    }

    /// Appends a record, which proves that no other run has taken over.
    async fn append(&self, newest: &mut Newest) -> Result<()> {
        let created = self.create(newest, None).await?;
        let surplus = self.confirm(created.newest.number).await?;
        *newest = created.newest;
        // The append has succeeded, even if old records cannot be deleted.
        if !surplus.is_empty()
            && let Err(error) = self.store.delete(surplus).await
        {
            tracing::debug!("{}", error.chain().join(": "));
        }
        Ok(())
    }

    /// Appends a record within the time of one try; `None` if that was too short. The next try finds out whether the
    /// append succeeded nevertheless.
    async fn try_append(&self, newest: &mut Newest) -> Option<Result<()>> {
        self.clock.within(TRY, self.append(newest)).await
    }

    fn no_answer(&self) -> Error {
        Error::store(format!("cannot renew the lease of {}: no answer within {} s", self.store.url(), TRY.as_secs()))
            .with_hint("lower --store-concurrency if the store or the network is overloaded")
    }

    /// Makes sure that no other run has appended a record.
    async fn check_newest(&self, newest: &Newest) -> Result<()> {
        match self.newest().await? {
            Some((number, by)) if number > newest.number && by.run_id != self.holder.run_id => {
                Err(self.mark_lost().await)
            }
            _ => Ok(()),
        }
    }

    /// Stops the run, because another one has taken over.
    async fn mark_lost(&self) -> Error {
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

/// Renews the holder's record until `ended` is cancelled or another run has taken over.
async fn renew(held: Arc<Held>, ended: CancellationToken) {
    let (mut due, mut is_failing) = (held.clock.instant() + RENEWAL, false);
    while !held.is_lost() {
        let renewed = async {
            held.clock.sleep_until(due).await;
            let mut newest = held.newest.lock().await;
            // A proof may have renewed it meanwhile.
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
            Ok(next) => (due, is_failing) = (next, false),
            Err(error) => {
                if !is_failing {
                    tracing::warn!("cannot renew the lease: {}", error.chain().join(": "));
                }
                (due, is_failing) = (held.clock.instant() + WATCH, true);
            }
        }
    }
}

#[cfg(test)]
mod tests;
