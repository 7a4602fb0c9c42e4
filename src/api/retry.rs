//! The number of tries and the back-off between them. Must not depend on: which failures are retried.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The limits of tries.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// The most tries of one request, the first included.
    pub max_tries: usize,
    /// The longest time from a request's first try to the start of its last.
    pub max_total: Duration,
    /// The first delay; it doubles from try to try, with jitter.
    pub min_delay: Duration,
    /// The longest delay that the server did not ask for.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_tries: 10,
            max_total: Duration::from_secs(15 * 60),
            min_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// The delays between the tries of one request.
    pub fn delays(&self) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.min_delay)
            .with_max_delay(self.max_delay)
            .with_max_times(self.max_tries.saturating_sub(1))
            .with_jitter()
            .build()
    }
}

/// The wait that the server asks for: `Retry-After` in seconds or as an HTTP date, in any of its forms.
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = DateTime::<Utc>::from(httpdate::parse_http_date(text).ok()?);
    Some((date - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &'static str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers, DateTime::from_timestamp(1_700_000_000, 0).unwrap())
    }

    #[test]
    fn the_wait_is_in_seconds_or_a_date() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Tue, 14 Nov 2023 22:13:50 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Tue, 14 Nov 2023 22:13:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("Tuesday, 14-Nov-23 22:13:50 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Tue Nov 14 22:13:50 2023"), Some(Duration::from_secs(30)));
        assert_eq!(wait("99999999999999999999999"), Some(Duration::MAX));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn delays_grow_to_the_cap_and_end() {
        let policy = RetryPolicy { max_tries: 9, ..RetryPolicy::default() };
        let delays: Vec<_> = policy.delays().collect();
        assert_eq!(delays.len(), 8);
        assert!(delays[0] >= policy.min_delay && delays[7] >= policy.max_delay);
        assert!(delays.iter().all(|delay| *delay <= policy.max_delay * 2));
    }
}
