//! The records of a lease, and the decision whether the run of one is dead: its lock is free where it would be visible,
//! or its record has expired by the store's clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::ended::Ended;
use crate::clock::{Clock, Instant};
use crate::error::{Error, Result};
use crate::lake::series::Series;
use crate::layout;
use crate::model::RunId;
use crate::store::{Site, Store};

/// How long a record counts after it was appended.
pub(super) const EXPIRY: Duration = Duration::from_secs(20);
/// How often to check a run that may be dead, and how soon to retry a failed append.
pub(super) const WATCH: Duration = Duration::from_secs(1);
/// How far the clocks of two machines may differ. It matters if a file system takes a file's time from the machine that
/// writes, as many network file systems do.
const CLOCKS_DIFFER: Duration = Duration::from_secs(300);

/// The run that holds a lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run_id: RunId,
    /// Its command.
    pub command: String,
    /// Its machine.
    pub host: String,
    /// Its process id on that machine.
    pub pid: u32,
    /// When it took the lake.
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
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) holder: Holder,
    pub(super) written_at: DateTime<Utc>,
    /// Where its lock is visible, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) locked_at: Option<Site>,
    /// Set once it has ended.
    #[serde(default)]
    pub(super) ended: Option<Ended>,
}

/// The record that this run appended last.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) number: u64,
    /// When its append began, by the clock that may stop while the machine sleeps.
    pub(super) at: Instant,
    /// The same by the clock that does not stop.
    pub(super) wall: DateTime<Utc>,
    pub(super) released: bool,
}

impl Newest {
    /// Whether it is far from its expiry.
    pub(super) fn is_fresh(&self, clock: &Clock) -> bool {
        let passed = clock.now().signed_duration_since(self.wall).to_std().unwrap_or(Duration::MAX);
        clock.instant().saturating_duration_since(self.at).max(passed) < EXPIRY / 2
    }
}

impl Record {
    /// Whether its run is dead if the lake can be locked on `host`, at `site`, because its own lock would be visible
    /// there.
    pub(super) fn is_dead_at(&self, site: &Site, host: &str) -> bool {
        self.holder.host == host && self.locked_at.as_ref().is_none_or(|own| own == site)
    }
}

/// Waits until the record under `number` has expired.
///
/// # Errors
/// Kind `Held` if its run is alive or has just ended; those of the store.
pub(super) async fn outlive(store: &Store, series: &Series, number: u64, run: &RunId, clock: Clock) -> Result<()> {
    let age = match store.head(&series.key(number)).await? {
        Some(record) => {
            let now = store_time(store, run).await?.unwrap_or(record.last_modified);
            (now - record.last_modified).to_std().unwrap_or_default()
        }
        // Renewed or ended in the meantime, which the loop finds.
        None => Duration::ZERO,
    };
    let age = if store.is_local() { age.saturating_sub(CLOCKS_DIFFER) } else { age };
    let deadline = clock.instant() + EXPIRY.saturating_sub(age);
    loop {
        let is_late = clock.instant() >= deadline;
        if is_late && store.is_local() {
            // A network file system may answer from its cache until something is written to the folder.
            store_time(store, run).await?;
        }
        match series.newest::<Record>().await? {
            Some((newest, record)) if newest != number => match record.ended {
                None => return Err(held(store, Some(&record.holder))),
                Some(_) => {
                    return Err(held(store, Some(&record.holder)).with_hint("run this again: that run has just ended"));
                }
            },
            _ if is_late => return Ok(()),
            _ => clock.sleep_until(deadline.min(clock.instant() + WATCH)).await,
        }
    }
}

/// The time by the store's clock; `None` if another run has swept the object written to learn it.
async fn store_time(store: &Store, run: &RunId) -> Result<Option<DateTime<Utc>>> {
    let key = layout::store_time(run);
    store.put(&key, Vec::new()).await?;
    let written = store.head(&key).await?;
    store.delete(vec![key]).await?;
    Ok(written.map(|object| object.last_modified))
}

/// The error that a run holds the lake.
pub(super) fn held(store: &Store, by: Option<&Holder>) -> Error {
    let by = by.map_or_else(|| "another run".to_owned(), Holder::to_string);
    Error::held(format!("the lake {} is held by {by}", store.url()))
        .with_hint("run this again when that run has ended; let one run at a time write to a lake")
}
