//! The records that a lease is made of, and whether the run that one names has died: its lock can be had where it would be
//! seen, or it has appended nothing for too long by the store's own clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Instant};
use crate::error::{Error, Result};
use crate::lake::series::Series;
use crate::layout;
use crate::model::RunId;
use crate::store::{Site, Store};

/// How long a name counts after it was appended.
pub(super) const EXPIRY: Duration = Duration::from_secs(20);
/// How often a name that may be that of a dead run is looked at, and how soon an append that failed is tried again.
pub(super) const WATCH: Duration = Duration::from_secs(1);
/// How far the clocks of two machines may differ. It matters where a file system takes a file's time from who writes it,
/// as many network file systems do.
const CLOCKS_DIFFER: Duration = Duration::from_secs(300);

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

/// What a run that has ended leaves to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When it last asked the API for something, if it did.
    pub last_request_at: Option<DateTime<Utc>>,
}

/// A record of the series.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) holder: Holder,
    pub(super) written_at: DateTime<Utc>,
    /// From where its lock is seen, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) locked_at: Option<Site>,
    /// How it ended, once it has.
    #[serde(default)]
    pub(super) ended: Option<Ended>,
}

/// The record that this run appended last.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) number: u64,
    /// When it was begun to be appended, by the clock that may stand still while the machine sleeps.
    pub(super) at: Instant,
    /// The same by the clock that does not.
    pub(super) wall: DateTime<Utc>,
    pub(super) released: bool,
}

impl Newest {
    /// Whether it is far from having expired.
    pub(super) fn is_fresh(&self, clock: &Clock) -> bool {
        let passed = clock.now().signed_duration_since(self.wall).to_std().unwrap_or(Duration::MAX);
        clock.instant().saturating_duration_since(self.at).max(passed) < EXPIRY / 2
    }
}

impl Record {
    /// Whether its run has died if the lake can be locked on `host`, at `site`: its own lock would have been seen there.
    pub(super) fn is_dead_at(&self, site: &Site, host: &str) -> bool {
        self.holder.host == host && self.locked_at.as_ref().is_none_or(|own| own == site)
    }
}

/// Waits until the record under `number` has expired.
///
/// # Errors
/// Kind `Held` where its run is alive, or has just ended; those of the store.
pub(super) async fn outlive(store: &Store, series: &Series, number: u64, run: &RunId, clock: Clock) -> Result<()> {
    let age = match store.head(&series.key(number)).await? {
        Some(record) => {
            let now = store_time(store, run).await?.unwrap_or(record.last_modified);
            (now - record.last_modified).to_std().unwrap_or_default()
        }
        // Renewed or ended in the meantime, which the first look shows.
        None => Duration::ZERO,
    };
    let age = if store.is_local() { age.saturating_sub(CLOCKS_DIFFER) } else { age };
    let deadline = clock.instant() + EXPIRY.saturating_sub(age);
    loop {
        let is_late = clock.instant() >= deadline;
        if is_late && store.is_local() {
            // A network file system may answer from memory, until something is written to the folder.
            store_time(store, run).await?;
        }
        match series.newest::<Record>().await? {
            Some((newest, record)) if newest != number => match record.ended {
                None => return Err(held(store, Some(&record.holder))),
                Some(_) => {
                    return Err(held(store, Some(&record.holder)).with_hint("it has ended just now; run this again"));
                }
            },
            _ if is_late => return Ok(()),
            _ => clock.sleep_until(deadline.min(clock.instant() + WATCH)).await,
        }
    }
}

/// What time it is at the store, to its own clock; `None` where another run has swept what was just written.
async fn store_time(store: &Store, run: &RunId) -> Result<Option<DateTime<Utc>>> {
    let key = layout::store_time(run);
    store.put(&key, Vec::new()).await?;
    let written = store.head(&key).await?;
    store.delete(vec![key]).await?;
    Ok(written.map(|object| object.last_modified))
}

/// That a run holds the lake.
pub(super) fn held(store: &Store, by: Option<&Holder>) -> Error {
    let by = by.map_or_else(|| "another run".to_owned(), Holder::to_string);
    Error::held(format!("the lake {} is held by {by}", store.url()))
        .with_hint("let one run at a time write to a lake; run this again when that one has ended")
}
