//! The records that a lease is made of, and whether the run that one names has died: its lock can be had where it would be
//! seen, or it has appended nothing for too long by the store's own clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{EXPIRY, Ended, Holder, WATCH, held};
use crate::clock::{Clock, Instant};
use crate::error::Result;
use crate::lake::Lake;
use crate::lake::lock::Site;
use crate::lake::series::Series;
use crate::layout;
use crate::model::RunId;

/// How far the clocks of two machines may differ. It matters where a file system takes a file's time from who writes it,
/// as many network file systems do.
const CLOCKS_DIFFER: Duration = Duration::from_secs(300);

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
pub(super) async fn outlive(lake: &Lake, series: &Series, number: u64, run: &RunId, clock: Clock) -> Result<()> {
    let age = match lake.head(&series.key(number)).await? {
        Some(record) => {
            let now = store_time(lake, run).await?.unwrap_or(record.last_modified);
            (now - record.last_modified).to_std().unwrap_or_default()
        }
        // Renewed or ended in the meantime, which the first look shows.
        None => Duration::ZERO,
    };
    let age = if lake.is_local() { age.saturating_sub(CLOCKS_DIFFER) } else { age };
    let deadline = clock.instant() + EXPIRY.saturating_sub(age);
    loop {
        let is_late = clock.instant() >= deadline;
        if is_late && lake.is_local() {
            // A network file system may answer from memory, until something is written to the folder.
            store_time(lake, run).await?;
        }
        match series.newest::<Record>().await? {
            Some((newest, record)) if newest != number => match record.ended {
                None => return Err(held(lake, Some(&record.holder))),
                Some(_) => {
                    return Err(held(lake, Some(&record.holder)).with_hint("it has ended just now; run this again"));
                }
            },
            _ if is_late => return Ok(()),
            _ => clock.sleep_until(deadline.min(clock.instant() + WATCH)).await,
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
