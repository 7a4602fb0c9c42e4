//! Follows the run that holds a lake, until it has ended.
//!
//! Guarantees: it only reads, at most once an interval. Must not depend on: how it is shown.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::health::{Situation, situation};
use crate::error::{Error, Result};
use crate::lake::Lake;

/// Passes what a lake's run has committed to `show`, once an `interval`, until no run holds the lake. Returns what the
/// run has left.
///
/// # Errors
/// If there is no lake, or its store fails; kind `Interrupted` if `stop` is cancelled first.
pub async fn follow(
    lake: &Lake,
    interval: Duration,
    stop: &CancellationToken,
    mut show: impl FnMut(&Situation) -> Result<()>,
) -> Result<Situation> {
    let clock = lake.clock();
    loop {
        let now = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::interrupted()),
            now = situation(lake) => now?,
        };
        if now.holder.is_none() {
            return Ok(now);
        }
        show(&now)?;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::interrupted()),
            () = clock.sleep(interval) => {}
        }
    }
}
