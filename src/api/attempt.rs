//! One try: sends a request, and tells a page, a failure that may pass and a refusal apart.
//!
//! Promises: no response larger than the limit is read into memory; redirects are not followed, so the key goes to the
//! configured host alone; neither the key nor the query (which may hold an end user's address) is in any message. Must
//! not know: when requests are sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::{DateTime, Timelike, Utc};
use reqwest::header::{DATE, HeaderMap, LOCATION};
use reqwest::{Response, StatusCode};
use url::Url;

use super::http::{Http, is_unprocessed};
use super::key::ApiKey;
use super::page::{Fetched, Page, PageError, beginning, excerpt};
use super::retry::retry_after;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::net;

/// How much of a refusal is read, and for how long: a few of the server's words are shown.
const REFUSAL_BYTES: usize = 64 << 10;
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Where requests go.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) http: Http,
    pub(super) url: Url,
    pub(super) key: ApiKey,
    pub(super) max_response_bytes: u64,
    pub(super) clock: Clock,
}

/// How one try ended without a page.
pub(super) enum Failure {
    /// Another try may succeed; the server may have said when.
    Passing { error: Error, retry_after: Option<Duration> },
    /// A response came, and its JSON is at fault.
    Flawed { error: Error, flaw: Flaw },
    /// The server says that it did not process the request: to send it again is no other try.
    Unprocessed(Error),
    /// It would end the same way again.
    Lasting(Error),
}

/// How a response's JSON is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Whether it ends too early, which happens on the way; else it is malformed, which the server does.
    cut: bool,
    /// What tells one body from another.
    fingerprint: u64,
}

/// The flaws of earlier responses to the same request.
#[derive(Debug, Clone, Default)]
pub(super) struct Flaws(Vec<Flaw>);

/// What becomes of a request whose response is flawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextTry {
    /// It is sent once more: what comes then shows whether the server means it.
    OnceMore,
    /// It is tried again, as after any failure that may pass.
    TryAgain,
    /// It would be answered in the same way again.
    Refuse,
}

impl Flaws {
    /// Whether it is the server that sends the response so: it came malformed before, or cut at the very same byte.
    fn confirm(&self, flaw: Flaw) -> bool {
        if flaw.cut { self.0.contains(&flaw) } else { self.0.iter().any(|earlier| !earlier.cut) }
    }

    /// Takes note of the flaw of a response that could not be salvaged.
    pub(super) fn note(&mut self, flaw: Flaw) -> NextTry {
        let verdict = match (flaw.cut, self.confirm(flaw)) {
            (true, _) => NextTry::TryAgain,
            (false, false) => NextTry::OnceMore,
            (false, true) if self.0.contains(&flaw) => NextTry::Refuse,
            (false, true) => NextTry::TryAgain,
        };
        self.0.push(flaw);
        verdict
    }
}

impl Endpoint {
    /// Sends one request, of which earlier responses had `flaws`.
    pub(super) async fn ask(&self, query: &[(&str, String)], flaws: &Flaws) -> Result<Fetched, Failure> {
        let began = self.clock.instant();
        let sent = self.http.get().query(query).send().await;
        let response = sent.map_err(|error| self.transport(error))?;
        if !response.status().is_success() {
            let (status, headers) = (response.status(), response.headers().clone());
            let words = self.words(response).await;
            return Err(self.refusal(status, &headers, &words));
        }
        let status = response.status();
        let answered_at = server_time(response.headers()).unwrap_or_else(|| self.clock.now());
        let asked_at = asked_at(answered_at, self.clock.instant() - began);
        let body = self.read(response).await?;
        tracing::debug!(bytes = body.len(), "response");
        let flaws = flaws.clone();
        let parsed = tokio::task::spawn_blocking(move || parse(body, &flaws)).await;
        match parsed.map_err(|error| Failure::Lasting(Error::bug("the page parser failed").caused_by(error)))? {
            Ok(page) => Ok(Fetched { page, answered_at, asked_at }),
            Err((fault, flaw)) => Err(self.no_page(status, &fault, flaw)),
        }
    }

    fn no_page(&self, status: StatusCode, fault: &PageError, flaw: Option<Flaw>) -> Failure {
        let (told, words) = (self.shown(&fault.to_string()), self.shown(fault.beginning()));
        let error = Error::api(format!("{} answered {status}, but {told}: {words}", self.url))
            .with_hint("check that --base-url is the export API's own address");
        match (fault, flaw) {
            (_, Some(flaw)) => Failure::Flawed { error, flaw },
            (PageError::NotJson { .. }, None) => Failure::Passing { error, retry_after: None },
            (PageError::StrangeCursor { .. } | PageError::NoConversations { .. }, None) => Failure::Lasting(error),
        }
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let limit = self.max_response_bytes;
        let too_large = || {
            Failure::Lasting(
                Error::api(format!("{} sent a response of more than {limit} bytes", self.url))
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

    /// What a refusal says, as far as it can be had: its status counts, however the rest of it is broken.
    async fn words(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        let read = async {
            while let (true, Ok(Some(chunk))) = (body.len() < REFUSAL_BYTES, response.chunk().await) {
                body.extend(chunk.iter().take(REFUSAL_BYTES));
            }
        };
        // What has come by then is all that is shown.
        let _ = self.clock.within(REFUSAL_TIME, read).await;
        self.shown(&beginning(&String::from_utf8_lossy(&body)))
    }

    /// A server's words as they may be shown: the key is taken out before they are shortened, or a part of it would stay.
    fn shown(&self, words: &str) -> String {
        excerpt(&self.key.redact(words))
    }

    fn transport(&self, error: reqwest::Error) -> Failure {
        let what = match &error {
            error if error.is_connect() => "cannot reach",
            error if error.is_timeout() => "waited too long (see --timeout) for",
            error if error.is_decode() || error.is_body() => "received only a part of a response from",
            _ => "received no response from",
        };
        let unprocessed = is_unprocessed(&error);
        let hint = net::tls_hint(&error);
        let error = Error::unreachable(format!("{what} {}", self.url)).caused_by(error.without_url());
        match hint {
            _ if unprocessed => Failure::Unprocessed(error),
            // A certificate does not get better from one try to the next.
            Some(hint) => Failure::Lasting(error.with_hint(hint)),
            None => {
                self.http.reconnect();
                Failure::Passing { error, retry_after: None }
            }
        }
    }

    /// Tells what a status other than 2xx means.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, words: &str) -> Failure {
        let message = |what: &str| format!("{} {what}: {status}: {words}", self.url);
        let lasting = |what: &str, hint: &str| {
            Failure::Lasting(Error::api(message(what)).with_hint(hint).with_status(status.as_u16()))
        };
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
            301 | 302 | 303 | 307 | 308 => {
                lasting("redirects", &format!("the key is not sent on to {}; set --base-url", self.target(headers)))
            }
            408 | 425 | 429 | 500..=599 => Failure::Passing {
                error: Error::unreachable(message("failed")),
                retry_after: retry_after(headers, server_time(headers).unwrap_or_else(|| self.clock.now())),
            },
            _ => lasting("refuses the request", "check that --base-url is the export API's own address"),
        }
    }

    /// Where a redirect leads, without its path and query, which may hold anything.
    fn target(&self, headers: &HeaderMap) -> String {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(target) = location.and_then(|location| self.url.join(location).ok()) else {
            return "nowhere".to_owned();
        };
        if target.origin() == self.url.origin() {
            return "another path".to_owned();
        }
        self.shown(&target.origin().ascii_serialization())
    }
}

/// Parses a body. Where the server means its malformed JSON, as its earlier `flaws` show, the page is salvaged.
fn parse(body: Vec<u8>, flaws: &Flaws) -> Result<Page, (PageError, Option<Flaw>)> {
    let fault = match Page::parse(body) {
        Ok(page) => return Ok(page),
        Err(fault) => fault,
    };
    let PageError::NotJson { reason, body: Some(body), .. } = &fault else { return Err((fault, None)) };
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let flaw = Flaw { cut: reason.is_eof(), fingerprint: hasher.finish() };
    if flaws.confirm(flaw)
        && let Some(page) = Page::salvage(body, flaw.cut).map_err(|fault| (fault, None))?
    {
        return Ok(page);
    }
    Err((fault, Some(flaw)))
}

/// When a server says that it answered, by its own clock: the end of the second of its `Date`, so that nothing in the answer
/// can have changed later.
fn server_time(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let second = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
    DateTime::<Utc>::from(second).with_nanosecond(999_999_000)
}

/// When a request was sent that was answered `after` that: the second at which it was not sent yet.
fn asked_at(answered_at: DateTime<Utc>, after: Duration) -> DateTime<Utc> {
    let after = chrono::Duration::from_std(after).unwrap_or_default();
    let asked_at = answered_at.checked_sub_signed(after).unwrap_or(answered_at);
    asked_at.with_nanosecond(0).unwrap_or(asked_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_time_is_the_end_of_the_second_that_it_names() {
        let time = |date: &str| server_time(&HeaderMap::from_iter([(DATE, date.parse().unwrap())]));
        let end = DateTime::from_timestamp_micros(1_700_000_030_999_999);
        for date in ["Tue, 14 Nov 2023 22:13:50 GMT", " Tuesday, 14-Nov-23 22:13:50 GMT", "Tue Nov 14 22:13:50 2023"] {
            assert_eq!(time(date), end, "{date}");
        }
        for date in ["", "now", "2023-11-14T22:13:50Z"] {
            assert_eq!(time(date), None, "{date}");
        }
        assert_eq!(server_time(&HeaderMap::new()), None);
        let asked_at = asked_at(end.unwrap(), Duration::from_millis(2_500));
        assert_eq!(asked_at.timestamp_micros(), 1_700_000_028_000_000);
    }
}
