//! Who may write to a lake: one run at a time.
//!
//! A run that writes appends its name to a series of numbered records, and another record when it has ended. On a local
//! disk a locked file tells whether the one named is still alive: the lock dies with its process. On an object store
//! the holder appends its name again every few seconds; a name that has stood for too long, by the store's own clock,
//! is that of a run that died.
//!
//! Promises: of two runs at once one is refused. A run that was held up for so long that another took over is fenced,
//! whenever it wakes up and whatever its own clock says: it cannot commit (the numbers are taken), nor replace a table
//! (the put is conditional), nor do what [`Lease::prove`] stands before. Must not know: what runs do.

use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::Lake;
use super::series::Series;
use super::store::to_json;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::RunId;

/// How often a holder appends its name again.
const RENEWAL: Duration = Duration::from_secs(6);
/// How long a name counts after it was appended: three renewals may fail.
const EXPIRY: Duration = Duration::from_secs(20);
/// How often a name that may be that of a dead run is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How long a disk may take to lock a file.
const LOCKING: Duration = Duration::from_secs(60);
/// How many records are kept.
const KEPT: u64 = 2;

/// Who holds a lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run_id: RunId,
    /// Its command.
    pub command: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Holder { run_id, command, host, pid, since } = self;
        write!(f, "`{command}` run {run_id} (process {pid} on {host}) since {}", since.format("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// A record of the series.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    holder: Holder,
    written_at: DateTime<Utc>,
    /// How it ended, once it has.
    #[serde(default)]
    ended: Option<Ended>,
}

/// What a run that has ended leaves to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When it last asked the API for something, if it did.
    pub last_request_at: Option<DateTime<Utc>>,
}

/// What can be seen of who has a lake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
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
    lake: Lake,
    holder: Holder,
    clock: Clock,
    /// Whether the lock alone keeps others out.
    locked: bool,
    newest: Mutex<Newest>,
    /// Whether another run has taken over.
    lost: AtomicBool,
    /// Cancelled when the run has to stop.
    stop: CancellationToken,
}

/// The record that this run appended last.
#[derive(Debug)]
struct Newest {
    number: u64,
    released: bool,
}

impl Lease {
    /// Takes the lake for `holder`, whose run gets an id that sorts after those of all runs before it, or tells who has it.
    /// Where the holder may have died, waits until that is certain.
    ///
    /// # Errors
    /// Kind `Held` where another run has it; `Interrupted` when `shutdown` came while waiting; those of the store.
    pub async fn acquire(lake: &Lake, mut holder: Holder, clock: Clock, shutdown: &CancellationToken) -> Result<Self> {
        let series = Series::new(lake, layout::leases(), KEPT);
        let locking = lake.clone();
        let locked = clock.within(LOCKING, tokio::task::spawn_blocking(move || lock_file(&locking))).await;
        let locked = locked.ok_or_else(|| Error::store(format!("the disk of {} does not answer", lake.url())))?;
        let lock = match locked.map_err(|error| Error::bug("the locking failed").caused_by(error))?? {
            Lock::None => None,
            Lock::Taken(file) => Some(file),
            Lock::OfAnother => {
                // Between the lock and the record the newest is still that of the run before.
                let record = series.newest::<Record>().await?.filter(|(_, record)| record.ended.is_none());
                return Err(held(lake, record.map(|(_, record)| record.holder).as_ref()));
            }
        };
        let newest = series.newest::<Record>().await?;
        holder.run_id = newest.iter().fold(holder.run_id, |own, (_, before)| own.after(&before.holder.run_id));
        let (number, before) = match newest {
            None => (0, Before::Nobody),
            Some((number, Record { ended: Some(ended), .. })) => (number, Before::Ended(ended)),
            Some((number, _)) if lock.is_some() => (number, Before::Died),
            Some((number, record)) => {
                tracing::info!("the lake is held by {}; waiting to see whether that is alive", record.holder);
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Err(Error::interrupted()),
                    dead = outlive(lake, &series, number, &holder.run_id, clock) => dead?,
                }
                tracing::warn!("there is no sign of life from {}; taking over", record.holder);
                (number, Before::Died)
            }
        };
        let held = Arc::new(Held {
            series,
            lake: lake.clone(),
            holder,
            clock,
            locked: lock.is_some(),
            newest: Mutex::new(Newest { number, released: false }),
            lost: AtomicBool::new(false),
            stop: shutdown.child_token(),
        });
        held.take(&mut *held.newest.lock().await).await?;
        let renewing = CancellationToken::new();
        if !held.locked {
            tokio::spawn(renew(Arc::clone(&held), renewing.clone()));
        }
        Ok(Lease { before, held, _lock: lock, renewing })
    }

    /// What can be seen of who has the lake, without taking it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn seen(lake: &Lake) -> Result<Seen> {
        let newest = Series::new(lake, layout::leases(), KEPT).newest::<Record>().await?;
        Ok(match newest {
            None => Seen::default(),
            Some((_, Record { holder, written_at, ended: None, .. })) => {
                Seen { holder: Some(holder), renewed_at: Some(written_at), last_request_at: None }
            }
            Some((_, Record { ended: Some(ended), .. })) => {
                Seen { last_request_at: ended.last_request_at, ..Seen::default() }
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

    /// Makes sure, by appending to the store, that no other run has taken over.
    ///
    /// # Errors
    /// Kind `Held` where one has; those of the store where that cannot be told.
    pub async fn prove(&self) -> Result<()> {
        let mut newest = self.held.newest.lock().await;
        if newest.released {
            return Err(Error::bug("something was to be written after the run had ended"));
        }
        if self.held.locked { Ok(()) } else { self.held.append(&mut newest, None).await.map(drop) }
    }

    /// Lets the next run have the lake.
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
        if self.locked || !self.lake.needs_lock {
            return Ok(());
        }
        let key = self.series.key(newest.number);
        let proven = match self.lake.prove_conditions(&key, &record).await {
            Ok(true) => return Ok(()),
            Ok(false) => Err(self.taken_over().await),
            Err(error) => Err(error),
        };
        if let Err(error) = self.lake.delete(vec![key]).await {
            tracing::debug!("{}", error.chain().join(": "));
        }
        proven
    }

    /// Appends a record, and returns it as it was written.
    async fn append(&self, newest: &mut Newest, ended: Option<Ended>) -> Result<Vec<u8>> {
        let record = Record { holder: self.holder.clone(), written_at: self.clock.now(), ended };
        let body = to_json(&record)?;
        let mut number = newest.number.saturating_add(1);
        let mut appended = self.series.append(number, body.clone()).await?;
        if !appended && let Some((own, _)) = self.newest().await?.filter(|(_, by)| by.run_id == self.holder.run_id) {
            // An append of its own got through, though its answer was lost.
            number = own.saturating_add(1);
            appended = self.series.append(number, body.clone()).await?;
        }
        if !appended {
            self.lost.store(true, Ordering::Relaxed);
            self.stop.cancel();
            return Err(self.taken_over().await);
        }
        newest.number = number;
        Ok(body)
    }

    async fn newest(&self) -> Result<Option<(u64, Holder)>> {
        Ok(self.series.newest::<Record>().await?.map(|(number, record)| (number, record.holder)))
    }

    async fn taken_over(&self) -> Error {
        let by = self.newest().await.ok().flatten();
        held(&self.lake, by.map(|(_, holder)| holder).as_ref())
    }
}

/// Appends the holder's name again and again, until it is told to end or has been outrun.
async fn renew(held: Arc<Held>, ended: CancellationToken) {
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            () = held.clock.sleep(RENEWAL) => {}
        }
        let mut newest = held.newest.lock().await;
        if newest.released {
            return;
        }
        if let Err(error) = held.append(&mut newest, None).await {
            tracing::warn!("cannot renew the lease: {}", error.chain().join(": "));
            if held.is_lost() {
                return;
            }
        }
    }
}

/// Waits until the record under `number` has expired.
async fn outlive(lake: &Lake, series: &Series, number: u64, run: &RunId, clock: Clock) -> Result<()> {
    let age = match lake.head(&series.key(number)).await? {
        Some(record) => {
            let now = store_time(lake, run).await?.unwrap_or(record.last_modified);
            (now - record.last_modified).to_std().unwrap_or_default()
        }
        // Renewed or ended in the meantime, which the first look shows.
        None => Duration::ZERO,
    };
    let deadline = clock.instant().checked_add(EXPIRY.saturating_sub(age));
    loop {
        match series.newest::<Record>().await? {
            Some((newest, record)) if newest != number => match record.ended {
                None => return Err(held(lake, Some(&record.holder))),
                Some(_) => {
                    return Err(held(lake, Some(&record.holder)).with_hint("it has ended just now; run this again"));
                }
            },
            _ => {}
        }
        match deadline.filter(|deadline| clock.instant() < *deadline) {
            None => return Ok(()),
            Some(deadline) => clock.sleep_until(deadline.min(clock.instant() + WATCH)).await,
        }
    }
}

/// What time it is at the store, to its own clock; `None` where another run has swept what was just written.
async fn store_time(lake: &Lake, run: &RunId) -> Result<Option<DateTime<Utc>>> {
    let key = layout::store_time(run);
    lake.put(&key, Vec::new()).await?;
    let written = lake.head(&key).await?;
    lake.delete(vec![key]).await?;
    Ok(written.map(|object| object.last_modified))
}

fn held(lake: &Lake, by: Option<&Holder>) -> Error {
    let by = by.map_or_else(|| "another run".to_owned(), Holder::to_string);
    Error::held(format!("the lake {} is held by {by}", lake.url()))
        .with_hint("let one run at a time write to a lake; run this again when that one has ended")
}

/// What came of trying to lock a lake.
enum Lock {
    /// The lake lies where nothing can be locked.
    None,
    Taken(File),
    OfAnother,
}

fn lock_file(lake: &Lake) -> Result<Lock> {
    let key: Path = layout::lock();
    let Some(path) = lake.local_path(&key) else { return Ok(Lock::None) };
    let failed = |error: std::io::Error| {
        Error::store(format!("cannot lock {}", path.display()))
            .caused_by(error)
            .with_hint("check the disk's space and permissions; where the file system knows no locks, see to it yourself that one run \
                    writes at a time and give --unsafe-no-lock")
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock::Taken(file)),
        Err(TryLockError::WouldBlock) => Ok(Lock::OfAnother),
        Err(TryLockError::Error(_)) if !lake.needs_lock => Ok(Lock::None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;
