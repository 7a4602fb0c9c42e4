//! Spaces the starts of requests. The API permits one per second over all endpoints of an account, and bans violators
//! (*live*).

use std::time::Duration;

use crate::clock::{Clock, Instant};

/// The interval grows by one part in this many, because the latency to the server varies.
const MARGIN: u32 = 100;

/// Starts each request at least one interval after the one before it, even if that one failed.
#[derive(Debug)]
pub struct Pacer {
    clock: Clock,
    interval: Duration,
    next_start: Option<Instant>,
}

impl Pacer {
    /// A pace of `requests_per_second`; 0 or less means no limit.
    pub fn new(clock: Clock, requests_per_second: f64) -> Self {
        let interval = if requests_per_second > 0.0 {
            Duration::try_from_secs_f64(1.0 / requests_per_second)
                .map_or(Duration::MAX, |gap| gap.saturating_add(gap / MARGIN))
        } else {
            Duration::ZERO
        };
        Pacer { clock, interval, next_start: None }
    }

    /// Waits for the next turn and takes it.
    pub async fn turn(&mut self) {
        if let Some(start) = self.next_start {
            self.clock.sleep_until(start).await;
        }
        self.next_start = self.clock.instant().checked_add(self.interval);
    }

    /// Restarts the interval now, because a request that needed a new connection reached the server after its turn.
    pub fn restart(&mut self) {
        self.hold_off(self.interval);
    }

    /// Starts the interval at the request that another run sent `ago`.
    pub fn follow(&mut self, ago: Duration) {
        self.hold_off(self.interval.saturating_sub(ago));
    }

    /// The time until the next turn.
    pub fn wait(&self) -> Duration {
        self.next_start.map_or(Duration::ZERO, |start| start.saturating_duration_since(self.clock.instant()))
    }

    /// Delays the next turn to at least `delay` from now.
    pub fn hold_off(&mut self, delay: Duration) {
        let earliest = self.clock.instant().checked_add(delay);
        self.next_start = self.next_start.max(earliest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_are_never_closer_than_the_interval() {
        let clock = Clock::system();
        let mut pacer = Pacer::new(clock, 2.0);
        let begin = clock.instant();
        let mut starts = Vec::new();
        for work_millis in [0, 100, 2_000, 0] {
            pacer.turn().await;
            starts.push(clock.instant());
            clock.sleep(Duration::from_millis(work_millis)).await;
        }
        assert_eq!(starts[0], begin);
        for pair in starts.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(500));
        }
        assert!(starts[3] - begin < Duration::from_millis(3_100), "waits no longer than it must");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_new_connection_the_interval_starts_at_the_response() {
        let clock = Clock::system();
        let mut pacer = Pacer::new(clock, 1.0);
        pacer.turn().await;
        clock.sleep(Duration::from_millis(300)).await;
        let answered = clock.instant();
        pacer.restart();
        pacer.turn().await;
        assert!(clock.instant() - answered >= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn holding_off_never_shortens_a_wait() {
        let clock = Clock::system();
        let mut pacer = Pacer::new(clock, 1.0);
        let begin = clock.instant();
        pacer.turn().await;
        pacer.hold_off(Duration::from_secs(30));
        pacer.hold_off(Duration::from_secs(2));
        pacer.turn().await;
        assert!(clock.instant() - begin >= Duration::from_secs(30));
    }
}
