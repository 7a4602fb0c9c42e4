//! The one place that reads the time or waits for it.
//!
//! Promises: under tokio's paused test time both move together, so a test owns time. Must not know: what the time is
//! used for.

#![expect(clippy::disallowed_methods, reason = "everybody else asks the clock")]

use std::time::Duration;

use chrono::{DateTime, Utc};
pub use tokio::time::Instant;

/// Tells and waits for time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Wall time at an instant, where a test has fixed it; the system's wall clock otherwise.
    fixed: Option<(DateTime<Utc>, Instant)>,
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Clock { fixed: None }
    }

    /// A clock that starts at `now` and goes on with tokio's time, which tests can pause and advance.
    pub fn starting_at(now: DateTime<Utc>) -> Self {
        Clock { fixed: Some((now, Instant::now())) }
    }

    /// Wall time.
    pub fn now(&self) -> DateTime<Utc> {
        match self.fixed {
            None => Utc::now(),
            Some((start, since)) => start + since.elapsed(),
        }
    }

    /// Monotonic time, for spacing and measuring.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits until `deadline`; not at all where it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
