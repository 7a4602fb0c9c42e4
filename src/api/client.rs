//! Fetches pages of the export at the account's pace, and retries temporary failures.
//!
//! Guarantees: no two requests, retries included, start within the interval; the number and time of tries are limited.
//! Must not depend on: what a conversation is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::address::endpoint;
use super::attempt::{Endpoint, Failure, Flaws, NextTry};
use super::http::Http;
use super::key::ApiKey;
use super::pacer::Pacer;
use super::page::{Fetched, Quotes};
use super::retry::RetryPolicy;
use crate::clock::Clock;
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::model::{Cursor, PageSize, Request};

/// The API's address outside the EU.
pub const DEFAULT_BASE_URL: &str = "https://api.decagon.ai";

/// How long a request may still take after the run was asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// The cap on a wait that the server asks for: a year, which exceeds every limit and does not overflow a clock.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// How often an unprocessed request is sent again without counting as a try.
const MOST_UNPROCESSED: usize = 10;

/// How to reach the API.
#[derive(Debug)]
pub struct Options {
    /// The API's address, without the endpoint's path.
    pub base_url: Url,
    /// The bearer key.
    pub key: ApiKey,
    /// How many requests may start per second; 0 means any number.
    pub requests_per_second: f64,
    /// How failures are retried.
    pub retry: RetryPolicy,
    /// The longest time one try may take.
    pub timeout: Duration,
    /// The largest response to read, in bytes.
    pub max_response_bytes: u64,
    /// Whether plain `http` to another machine is allowed.
    pub allow_http: bool,
}

impl Options {
    /// Reaches the API outside the EU with `key`, at the pace and with the patience that suit every account.
    ///
    /// # Errors
    /// Only on a bug.
    pub fn new(key: ApiKey) -> Result<Self> {
        let base_url = Url::parse(DEFAULT_BASE_URL)
            .map_err(|error| Error::bug("the API's own address is none").caused_by(error))?;
        Ok(Options {
            base_url,
            key,
            requests_per_second: 1.0,
            retry: RetryPolicy::default(),
            timeout: Duration::from_secs(120),
            max_response_bytes: 256 << 20,
            allow_http: false,
        })
    }
}

/// Counts a client's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests that were retries.
    pub retries: u64,
    /// The `page_size` of the last request.
    pub page_size: Option<u32>,
    /// When the last request was sent; if it needed a new connection, when it was answered.
    pub last_request_at: Option<DateTime<Utc>>,
}

/// The export API of one account.
#[derive(Debug)]
pub struct Client {
    base_url: Url,
    endpoint: Endpoint,
    retry: RetryPolicy,
    pacer: Pacer,
    clock: Clock,
    page_size: PageSize,
    tally: Tally,
}

impl Client {
    /// Makes a client; sends nothing yet.
    ///
    /// # Errors
    /// If the key must not be sent to the base URL.
    pub fn new(options: Options, clock: Clock) -> Result<Self> {
        let url = endpoint(&options.base_url, options.allow_http)?;
        let Options { base_url, key, max_response_bytes, retry, requests_per_second, timeout, .. } = options;
        let http = Http::new(&url, &key, timeout)?;
        Ok(Client {
            base_url,
            endpoint: Endpoint { http, url, key, max_response_bytes, clock, quotes: Quotes::Shown },
            retry,
            pacer: Pacer::new(clock, requests_per_second),
            clock,
            page_size: PageSize::default(),
            tally: Tally::default(),
        })
    }

    /// The API's address, without the endpoint's path, as it was given.
    pub fn base_url(&self) -> &str {
        self.base_url.as_str()
    }

    /// The key that its requests carry.
    pub fn key(&self) -> &ApiKey {
        &self.endpoint.key
    }

    /// Quotes nothing of responses in messages from now on, because a policy covers what the API sends.
    pub fn hide_quotes(&mut self) {
        self.endpoint.quotes = Quotes::Hidden;
    }

    /// Keeps the interval after the last request of another run.
    pub fn follow(&mut self, last_request_at: DateTime<Utc>) {
        self.pacer.follow((self.clock.now() - last_request_at).to_std().unwrap_or_default());
    }

    /// Waits until any run may send another request.
    pub async fn rest(&mut self, shutdown: &CancellationToken) {
        if self.tally.requests > 0 {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.pacer.turn() => {}
            }
        }
    }

    /// The requests so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How many conversations the next request asks for; each response may change it.
    pub fn page_size(&mut self) -> &mut PageSize {
        &mut self.page_size
    }

    /// Fetches the page of `request` at `cursor`, and retries temporary failures.
    ///
    /// # Errors
    /// Kind `Api` for a refusal, `Unreachable` if the API keeps failing, `Interrupted` after `shutdown`.
    pub async fn fetch(
        &mut self,
        request: &Request,
        cursor: Option<&Cursor>,
        shutdown: &CancellationToken,
    ) -> Result<Fetched> {
        let fetched = self.try_to_fetch(request, cursor, shutdown).await;
        match &fetched {
            Ok(Fetched { page, .. }) => self.page_size.came(page.len(), page.next(), self.clock.now()),
            Err(_) => self.page_size.gave_up(),
        }
        fetched
    }

    async fn try_to_fetch(
        &mut self,
        request: &Request,
        cursor: Option<&Cursor>,
        shutdown: &CancellationToken,
    ) -> Result<Fetched> {
        let query = query(request, cursor);
        let (mut delays, mut flaws) = (self.retry.delays(), Flaws::default());
        let mut started = None;
        let (mut tries_left, mut not_counted) = (self.retry.max_tries.saturating_sub(1), 0);
        for sent in 1_usize.. {
            let attempt = sent.saturating_sub(not_counted);
            let connections = self.endpoint.http.connections();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Error::interrupted()),
                () = self.pacer.turn() => {}
            }
            let started = *started.get_or_insert_with(|| self.clock.instant());
            let page_size = self.page_size.asked();
            self.tally.requests += 1;
            self.tally.page_size = page_size;
            self.tally.last_request_at = Some(self.clock.now());
            let tried = tokio::select! {
                biased;
                tried = self.endpoint.send(&query, page_size, &flaws) => tried,
                () = self.grace_ends(shutdown) => return Err(Error::interrupted()),
            };
            // A request that needed a new connection reached the server some time after its turn.
            if self.endpoint.http.connections() > connections {
                self.pacer.restart();
                self.tally.last_request_at = Some(self.clock.now());
            }
            let (error, requested_wait, backs_off) = match tried {
                Ok(fetched) => return Ok(fetched),
                Err(Failure::Permanent(error)) => return Err(error),
                Err(Failure::Unprocessed(error)) if not_counted < MOST_UNPROCESSED => {
                    tracing::debug!("{}; sending it again", error.chain().join(": "));
                    not_counted += 1;
                    self.tally.retries += 1;
                    continue;
                }
                Err(Failure::Unprocessed(error)) => (error, None, true),
                Err(Failure::Refused(error)) if self.page_size.refused() => {
                    tracing::info!("{}; sending it without page_size", error.chain().join(": "));
                    not_counted += 1;
                    self.tally.retries += 1;
                    continue;
                }
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::TooLarge(error)) if self.page_size.was_too_large() => (error, None, false),
                Err(Failure::TooLarge(error)) => return Err(error),
                Err(Failure::Temporary { error, retry_after, may_need_smaller_pages }) => {
                    if may_need_smaller_pages {
                        self.page_size.failed();
                    }
                    (error, retry_after, true)
                }
                Err(Failure::Flawed { error, flaw }) => match flaws.record(flaw) {
                    NextTry::Later => {
                        if flaw.cut {
                            self.page_size.failed();
                        }
                        (error, None, true)
                    }
                    NextTry::Never => return Err(error),
                    NextTry::AtOnce => {
                        tracing::warn!("{}; sending the request once more", error.chain().join(": "));
                        self.tally.retries += 1;
                        continue;
                    }
                },
            };
            let spent = self.clock.instant() - started;
            if tries_left == 0 {
                return Err(exhausted(error, attempt, spent, "see --max-tries"));
            }
            tries_left -= 1;
            let delay = if backs_off { delays.next().unwrap_or(self.retry.max_delay) } else { Duration::ZERO };
            self.pacer.hold_off(requested_wait.unwrap_or_default().min(LONGEST_WAIT).max(delay));
            let wait = self.pacer.wait();
            if spent.saturating_add(wait) > self.retry.max_total {
                let limit = humantime::format_duration(self.retry.max_total);
                let reason = requested_wait
                    .map_or_else(String::new, |wait| format!("the API asks to wait {} s, ", wait.as_secs()));
                let reason = format!("{reason}the next try would start after --max-retry-time, {limit}");
                return Err(exhausted(error, attempt, spent, &reason));
            }
            let next_try_in_secs = (wait.as_secs_f64() * 10.0).floor() / 10.0;
            let change = match self.page_size.asked() {
                same if same == page_size => String::new(),
                Some(size) => format!(" with pages of {size}"),
                None => " without page_size".to_owned(),
            };
            tracing::warn!(attempt, next_try_in_secs, "{}; trying again{change}", error.chain().join(": "));
            self.tally.retries += 1;
        }
        Err(Error::bug("the number of tries overflowed"))
    }

    /// Returns a grace period after the run was asked to stop.
    async fn grace_ends(&self, shutdown: &CancellationToken) {
        shutdown.cancelled().await;
        self.clock.sleep(GRACE).await;
    }
}

fn query(request: &Request, cursor: Option<&Cursor>) -> Vec<(&'static str, String)> {
    let window = &request.window;
    let mut query = vec![("timestamp_filter", window.filter.as_str().to_owned())];
    query.extend(cursor.map(|cursor| ("cursor", cursor.as_str().to_owned())));
    query.extend(window.min_timestamp().map(|secs| ("min_timestamp", secs.0.to_string())));
    query.extend(window.max_timestamp().map(|secs| ("max_timestamp", secs.0.to_string())));
    query.extend(request.user_filters.as_ref().map(|filters| ("user_filters", filters.to_string())));
    query
}

fn exhausted(last: Error, tries: usize, spent: Duration, reason: &str) -> Error {
    let message = format!("gave up after {} in {:.1} s ({reason})", counted(tries, "try"), spent.as_secs_f64());
    let hint = last.hint().map(str::to_owned).unwrap_or_else(|| {
        "run the same command again later, it continues after the last staged page; if it never worked, check \
         --base-url, the network and HTTPS_PROXY"
            .to_owned()
    });
    Error::new(last.kind(), message).caused_by(last).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_interval_reaches_from_one_run_to_the_next() {
        // One request a second, and the margin of a hundredth.
        let clock = Clock::starting_at(DateTime::UNIX_EPOCH);
        for (passed, waits) in [(0, 1_010), (400, 610), (1_000, 10), (3_600_000, 0), (-5_000, 1_010)] {
            let last_request_at = clock.now();
            clock.advance(chrono::TimeDelta::milliseconds(passed));
            let options = Options::new(ApiKey::new("a-key-of-tests", "the test").unwrap()).unwrap();
            let mut client = Client::new(options, clock).unwrap();
            client.follow(last_request_at);
            let begun = clock.instant();
            client.pacer.turn().await;
            assert_eq!(clock.instant() - begun, Duration::from_millis(waits), "after {passed} ms");
        }
    }
}
