//! Whether another run may be changing the lake that is read.
//!
//! A run that was killed never says that it has ended. It is waited for only as long as it shows signs of life.

use chrono::{DateTime, Duration, Utc};

use crate::clock::Clock;
use crate::error::Result;
use crate::lake::{Lake, Lease, Occupancy};
use crate::model::RunId;

/// A holder that has not renewed its lease for so long is dead, whatever the clocks of two machines differ by.
const LONG_DEAD: Duration = Duration::minutes(5);
/// How many looks in a row may show no sign of life: a second apart, they see a renewal unless one fails.
const QUIET: usize = 8;

/// The run beside a reader, as far as it shows.
pub(super) struct Beside<'a> {
    lake: &'a Lake,
    /// The run that reads, if it holds the lake itself.
    own: Option<&'a RunId>,
    clock: Clock,
    renewed_at: Option<DateTime<Utc>>,
    quiet: usize,
}

impl<'a> Beside<'a> {
    pub(super) fn new(lake: &'a Lake, own: Option<&'a RunId>, clock: Clock) -> Self {
        Beside { lake, own, clock, renewed_at: None, quiet: 0 }
    }

    /// Whether there is one that lives, as far as it shows.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn is_alive(&mut self) -> Result<bool> {
        let Occupancy { holder, renewed_at, .. } = Lease::seen(self.lake.store()).await?;
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
