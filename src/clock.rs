//! The only module that reads the time or waits.
//!
//! Guarantees: waiting and monotonic time are tokio's, which tests pause and advance; wall time follows them in a clock
//! of the tests, which can be moved besides. Must not depend on: what the time is used for.

#![expect(clippy::disallowed_methods, reason = "all other modules use the clock")]

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
pub use tokio::time::Instant;

/// Reads the time and waits.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Option<&'static Hands>);

/// What a clock of the tests shows.
#[derive(Debug)]
struct Hands {
    /// Wall time when the clock was made.
    started_at: DateTime<Utc>,
    /// The same instant by tokio's time.
    started: Instant,
    /// How far it was moved since, in microseconds.
    moved: AtomicI64,
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Clock(None)
    }

    /// A clock that begins at `started_at`, goes on as tokio's time does, and can be moved. It is never freed: for
    /// tests.
    #[cfg(test)]
    pub(crate) fn starting_at(started_at: DateTime<Utc>) -> Self {
        let hands = Hands { started_at, started: Instant::now(), moved: AtomicI64::new(0) };
        Clock(Some(Box::leak(Box::new(hands))))
    }

    /// Moves wall time on, or back, for everything that shares this clock.
    #[cfg(test)]
    pub(crate) fn advance(&self, by: chrono::TimeDelta) {
        let hands = self.0.expect("the system's clock is not the tests' to move");
        hands.moved.fetch_add(by.num_microseconds().unwrap(), Ordering::SeqCst);
    }

    /// Wall time.
    pub fn now(&self) -> DateTime<Utc> {
        let Some(hands) = self.0 else { return Utc::now() };
        let passed = chrono::TimeDelta::from_std(hands.started.elapsed()).unwrap_or(chrono::TimeDelta::MAX);
        hands.started_at + passed + chrono::TimeDelta::microseconds(hands.moved.load(Ordering::SeqCst))
    }

    /// Monotonic time, for spacing and measuring.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits until `deadline`; returns at once if it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// Waits for `work`, but no longer than `limit`; returns `None` if that was too short.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(limit, work).await.ok()
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
