//! Whether another run may be changing the lake that is read.
//!
//! A killed run never records its end, so a holder counts as alive only while it renews its lease.

use chrono::{DateTime, Duration, Utc};

use crate::clock::Clock;
use crate::error::Result;
use crate::lake::{Lake, Lease, Occupancy};
use crate::model::RunId;

/// How often, and how far apart, to read what seems wrong while another run is alive.
pub(super) const TRIES: usize = 10;
pub(super) const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
/// A holder that has not renewed its lease for this long is dead, even if the clocks of two machines differ.
const LONG_DEAD: Duration = Duration::minutes(5);
/// How many checks in a row may see no renewal: a second apart, they cover more than the time between two renewals.
const QUIET: usize = 8;

/// A run beside a reader.
pub(super) struct Beside<'a> {
    lake: &'a Lake,
    /// The reading run, if it holds the lake itself.
    own: Option<&'a RunId>,
    clock: Clock,
    renewed_at: Option<DateTime<Utc>>,
    quiet: usize,
}

impl<'a> Beside<'a> {
    pub(super) fn new(lake: &'a Lake, own: Option<&'a RunId>, clock: Clock) -> Self {
        Beside { lake, own, clock, renewed_at: None, quiet: 0 }
    }

    /// Whether another run holds the lake and seems alive.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn is_alive(&mut self) -> Result<bool> {
        let Occupancy { holder, renewed_at, .. } = Lease::occupancy(self.lake.store()).await?;
        if holder.is_none_or(|holder| Some(&holder.run_id) == self.own) {
            return Ok(false);
        }
        let age = renewed_at.map(|at| self.clock.now().signed_duration_since(at));
        if age.is_some_and(|age| age > LONG_DEAD) {
            return Ok(false);
        }
        self.quiet = if renewed_at == self.renewed_at { self.quiet.saturating_add(1) } else { 0 };
        self.renewed_at = renewed_at;
        Ok(self.quiet < QUIET)
    }
}
