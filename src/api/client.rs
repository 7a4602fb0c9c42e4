//! Fetches pages of the export, at the account's pace, and tells failures that pass from those that stay.
//!
//! Promises: no two requests start within the interval, retries included; no response larger than the limit is read
//! into memory; redirects are not followed, so the key goes to the configured host alone; neither the key nor the
//! query (which may hold an end user's address) is in any message. Must not know: what a conversation is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use super::page::{Page, PageError, excerpt};
use super::retry::{RetryPolicy, retry_after};
use super::{ApiKey, Pacer};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::model::{Cursor, Request};

/// How long a request that is under way when the run is asked to stop may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How to reach the API.
#[derive(Debug)]
pub struct Options {
    /// The API's address, without the endpoint's path.
    pub base_url: Url,
    /// The bearer key.
    pub key: ApiKey,
    /// How many requests may start in a second; 0 means any number.
    pub requests_per_second: f64,
    /// How failures are tried again.
    pub retry: RetryPolicy,
    /// The longest time one try may take.
    pub timeout: Duration,
    /// The largest response that is read, in bytes.
    pub max_response_bytes: u64,
    /// Whether plain `http` to another machine is allowed.
    pub allow_http: bool,
}

/// What a client has asked for so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// When the last request was sent.
    pub last_request_at: Option<DateTime<Utc>>,
}

/// A page and when it had arrived.
#[derive(Debug)]
pub struct Fetched {
    /// The page.
    pub page: Page,
    /// When the last byte of the response was there.
    pub received_at: DateTime<Utc>,
}

/// The export API of one account.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Url,
    options: Options,
    pacer: Pacer,
    clock: Clock,
    tally: Tally,
}

/// How one try ended without a page.
enum Failure {
    /// Another try may succeed; the server may have said when.
    Passing { error: Error, retry_after: Option<Duration> },
    /// It would end the same way again.
    Lasting(Error),
}

impl Client {
    /// Makes a client; sends nothing yet.
    ///
    /// # Errors
    /// Where the base URL is not one that a key may be sent to.
    pub fn new(options: Options, clock: Clock) -> Result<Self> {
        let endpoint = endpoint(&options.base_url, options.allow_http)?;
        let headers = HeaderMap::from_iter([(AUTHORIZATION, options.key.header())]);
        let mut http = reqwest::Client::builder();
        if is_loopback(&options.base_url) {
            // What is allowed to go unencrypted must not leave this machine.
            http = http.no_proxy();
        }
        let http = http
            .user_agent(concat!("decagon-lake/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .build()
            .map_err(|error| Error::usage("cannot set up the HTTP client").caused_by(error))?;
        let pacer = Pacer::new(clock, options.requests_per_second);
        Ok(Client { http, endpoint, options, pacer, clock, tally: Tally::default() })
    }

    /// Keeps the interval from the last request of another run of the account.
    pub fn follow(&mut self, last_request_at: DateTime<Utc>) {
        self.pacer.follow((self.clock.now() - last_request_at).to_std().unwrap_or_default());
    }

    /// What was asked for so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Fetches the page of `request` at `cursor`, trying again what may pass.
    ///
    /// # Errors
    /// A refusal (kind `Api`), an API that keeps failing (`Unreachable`), or `Interrupted` when `shutdown` came.
    pub async fn fetch(
        &mut self,
        request: &Request,
        cursor: Option<&Cursor>,
        shutdown: &CancellationToken,
    ) -> Result<Fetched> {
        let query = query(request, cursor);
        let started = self.clock.instant();
        let mut delays = self.options.retry.delays();
        for attempt in 1_usize.. {
            // The first request has to be connected for, and one after a failure may have to be.
            let connects = self.tally.requests == 0 || attempt > 1;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Error::interrupted()),
                () = self.pacer.turn() => {}
            }
            self.tally.requests += 1;
            self.tally.last_request_at = Some(self.clock.now());
            let tried = tokio::select! {
                biased;
                tried = self.try_once(&query) => tried,
                () = self.cut_off(shutdown) => return Err(Error::interrupted()),
            };
            if connects {
                self.pacer.restart();
            }
            let (error, asked) = match tried {
                Ok(fetched) => return Ok(fetched),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing { error, retry_after }) => (error, retry_after),
            };
            let spent = self.clock.instant() - started;
            let delay = delays.next().map(|delay| asked.map_or(delay, |asked| asked.max(delay)));
            match delay.filter(|delay| spent.saturating_add(*delay) <= self.options.retry.max_total) {
                None => return Err(given_up(error, attempt, spent, asked)),
                Some(delay) => {
                    let told = error.chain().join(": ");
                    tracing::warn!(attempt, next_try_in_secs = delay.as_secs_f32(), "{told}; trying again");
                    self.pacer.hold_off(delay);
                    self.tally.retries += 1;
                }
            }
        }
        Err(Error::bug("ran out of numbers for tries"))
    }

    /// Ends a grace period after the run was asked to stop.
    async fn cut_off(&self, shutdown: &CancellationToken) {
        shutdown.cancelled().await;
        self.clock.sleep(GRACE).await;
    }

    async fn try_once(&self, query: &[(&str, String)]) -> Result<Fetched, Failure> {
        let response = self.http.get(self.endpoint.clone()).query(query).send().await.map_err(|e| self.transport(e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read(response).await?;
        let received_at = self.clock.now();
        if !status.is_success() {
            return Err(self.refusal(status, &headers, &body, received_at));
        }
        tracing::debug!(bytes = body.len(), "response");
        let parsed = tokio::task::spawn_blocking(move || Page::parse(body)).await;
        match parsed.map_err(|error| Failure::Lasting(Error::bug("the page parser failed").caused_by(error)))? {
            Ok(page) => Ok(Fetched { page, received_at }),
            Err(fault) => {
                let told = self.options.key.redact(&fault.to_string());
                let error = Error::api(format!("{} answered {status}, but {told}", self.endpoint))
                    .with_hint("check that --base-url is the export API's own address");
                Err(match fault {
                    PageError::NotJson { .. } => Failure::Passing { error, retry_after: None },
                    PageError::NoConversations { .. } => Failure::Lasting(error),
                })
            }
        }
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Vec<u8>, Failure> {
        let limit = self.options.max_response_bytes;
        let too_large = || {
            Failure::Lasting(
                Error::api(format!("{} sent a response of more than {limit} bytes", self.endpoint))
                    .with_hint("lower --page-size, or raise --max-response-bytes if the memory is there"),
            )
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > limit {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(error))? {
            if u64::try_from(body.len().saturating_add(chunk.len())).unwrap_or(u64::MAX) > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, error: reqwest::Error) -> Failure {
        let error = Error::unreachable(format!("cannot reach {}", self.endpoint)).caused_by(error.without_url());
        Failure::Passing { error, retry_after: None }
    }

    /// Tells what a status other than 2xx means.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Failure {
        let words = excerpt(&self.options.key.redact(&String::from_utf8_lossy(body)));
        let message = |what: &str| format!("{} {what}: {status}: {words}", self.endpoint);
        let lasting = |what: &str, hint: &str| Failure::Lasting(Error::api(message(what)).with_hint(hint));
        match status.as_u16() {
            401 => lasting(
                "does not accept the API key",
                "set DECAGON_API_KEY or --api-key-file to a key of this account; EU accounts need --base-url \
                 https://eu.api.decagon.ai",
            ),
            403 => lasting(
                "forbids the export",
                "the account may lack the export entitlement, or this address was banned for asking too often; the \
                 vendor's support can tell",
            ),
            400 | 422 => lasting(
                "refuses a parameter",
                "see the server's words for which one; --user-filters, --page-size and --timestamp-filter are sent as \
                 given",
            ),
            300..=399 => {
                let target = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
                let host = Url::parse(target).ok().and_then(|url| url.host_str().map(str::to_owned));
                lasting(
                    "redirects",
                    &format!("the key is not sent on to {}; set --base-url", host.as_deref().unwrap_or("another path")),
                )
            }
            408 | 425 | 429 | 500..=599 => Failure::Passing {
                error: Error::unreachable(message("failed")),
                retry_after: retry_after(headers, now),
            },
            _ => lasting("refuses the request", "check that --base-url is the export API's own address"),
        }
    }
}

/// Where the export is, or why no key may be sent there.
fn endpoint(base_url: &Url, allow_http: bool) -> Result<Url> {
    if !base_url.username().is_empty() || base_url.password().is_some() {
        return Err(Error::usage("--base-url holds a user name or password").with_hint("set DECAGON_API_KEY instead"));
    }
    let fault = |what: &str| Error::usage(format!("--base-url {base_url} {what}"));
    match base_url.scheme() {
        "https" => {}
        "http" if is_loopback(base_url) || allow_http => {}
        "http" => {
            return Err(fault("would send the API key unencrypted").with_hint("use https, or --allow-http if you must"));
        }
        _ => return Err(fault("is not an http(s) address")),
    }
    let mut endpoint = base_url.clone();
    endpoint.set_query(None);
    endpoint.set_fragment(None);
    endpoint
        .path_segments_mut()
        .map_err(|()| fault("is not an http(s) address"))?
        .pop_if_empty()
        .extend(["conversation", "export"]);
    Ok(endpoint)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn query(request: &Request, cursor: Option<&Cursor>) -> Vec<(&'static str, String)> {
    let window = &request.window;
    let mut query = vec![("timestamp_filter", window.filter.as_str().to_owned())];
    query.extend(cursor.map(|cursor| ("cursor", cursor.as_str().to_owned())));
    query.extend(window.min_timestamp().map(|secs| ("min_timestamp", secs.0.to_string())));
    query.extend(window.max_timestamp().map(|secs| ("max_timestamp", secs.0.to_string())));
    query.extend(request.page_size.map(|size| ("page_size", size.to_string())));
    query.extend(request.user_filters.as_ref().map(|filters| ("user_filters", filters.to_string())));
    query
}

fn given_up(last: Error, tries: usize, spent: Duration, asked: Option<Duration>) -> Error {
    let mut message = format!("gave up after {tries} tries in {} s", spent.as_secs());
    if let Some(asked) = asked {
        message.push_str(&format!(" (the API asks to wait {} s; see --max-retry-time)", asked.as_secs()));
    }
    Error::new(last.kind(), message).caused_by(last).with_hint(
        "what was fetched is landed: run the same command again later to go on; if it never worked, check --base-url, \
         the network and HTTPS_PROXY",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_https_or_to_this_machine() {
        let at = |url: &str, allow_http| endpoint(&Url::parse(url).unwrap(), allow_http).map(|url| url.to_string());
        assert_eq!(at("https://api.decagon.ai", false).unwrap(), "https://api.decagon.ai/conversation/export");
        assert_eq!(at("https://proxy/decagon/", false).unwrap(), "https://proxy/decagon/conversation/export");
        assert!(at("http://127.0.0.1:8787", false).is_ok());
        assert!(at("http://[::1]:8787/", false).is_ok());
        assert!(at("http://localhost", false).is_ok());
        for url in [
            "http://api.decagon.ai",
            "http://localhost.example.com",
            "ftp://api.decagon.ai",
            "https://u:p@host",
            "http://u:p@host",
        ] {
            let error = at(url, false).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2);
            assert!(!error.to_string().contains("u:p"));
        }
        assert!(at("http://10.0.0.1", true).is_ok());
    }
}
