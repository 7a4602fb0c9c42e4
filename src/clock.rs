//! The one place that reads the time or waits for it.
//!
//! Promises: waiting and monotonic time are tokio's, which tests pause and advance. Must not know: what the time is used
//! for.

#![expect(clippy::disallowed_methods, reason = "everybody else asks the clock")]

use std::time::Duration;

use chrono::{DateTime, Utc};
pub use tokio::time::Instant;

/// Tells and waits for time.
#[derive(Debug, Clone, Copy)]
pub struct Clock(());

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Clock(())
    }

    /// Wall time.
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// Monotonic time, for spacing and measuring.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits until `deadline`; not at all where it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// Waits for `work`, but no longer than `limit`; `None` where that was not enough.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(limit, work).await.ok()
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
