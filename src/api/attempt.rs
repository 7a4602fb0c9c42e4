//! One try: sends a request and classifies the outcome as a page, a temporary failure or a refusal.
//!
//! Guarantees: no response larger than the limit is read into memory; redirects are not followed, so only the
//! configured host gets the key; no message contains the key or the query, which may contain an end user's address,
//! or, if quotes are hidden, anything of a response.
//! Must not depend on: when requests are sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::{DateTime, Timelike, Utc};
use reqwest::header::{DATE, HeaderMap, LOCATION};
use reqwest::{Response, StatusCode};
use url::Url;

use super::http::{Http, is_unprocessed};
use super::key::ApiKey;
use super::page::{Fetched, Page, PageError, Quotes, beginning, excerpt};
use super::retry::retry_after;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::net;

/// How much of a refusal is read, and for how long, because only its first words are shown.
const REFUSAL_BYTES: usize = 64 << 10;
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Sends requests to one URL.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) http: Http,
    pub(super) url: Url,
    pub(super) key: ApiKey,
    pub(super) max_response_bytes: u64,
    pub(super) clock: Clock,
    /// Whether messages may quote responses.
    pub(super) quotes: Quotes,
}

/// Why a try returned no page.
pub(super) enum Failure {
    /// A retry may succeed; the server may have asked to wait.
    Temporary { error: Error, retry_after: Option<Duration>, may_need_smaller_pages: bool },
    /// The response is larger than the limit.
    TooLarge(Error),
    /// The server refuses a parameter.
    Refused(Error),
    /// A response arrived, but its JSON is malformed or cut.
    Flawed { error: Error, flaw: Flaw },
    /// The server says that it did not process the request, so to send it again does not count as a try.
    Unprocessed(Error),
    /// A retry would fail in the same way.
    Permanent(Error),
}

/// The flaw of a response's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Whether it ends too early, which a connection can cause; if not, the server sent malformed JSON.
    pub(super) cut: bool,
    /// A hash of the body.
    fingerprint: u64,
}

/// The flaws of earlier responses to the same request.
#[derive(Debug, Clone, Default)]
pub(super) struct Flaws(Vec<Flaw>);

/// How to continue after a flawed response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextTry {
    /// Send the request once more, because the next response shows whether the server always sends this flaw.
    AtOnce,
    /// Retry as after any temporary failure.
    Later,
    /// Fail, because a retry would get the same response.
    Never,
}

impl Flaws {
    /// Whether the server itself causes the flaw: an earlier response was malformed, too, or was cut at the same byte.
    fn confirm(&self, flaw: Flaw) -> bool {
        if flaw.cut { self.0.contains(&flaw) } else { self.0.iter().any(|earlier| !earlier.cut) }
    }

    /// Records the flaw of a response that could not be salvaged.
    pub(super) fn record(&mut self, flaw: Flaw) -> NextTry {
        let next_try = match (flaw.cut, self.confirm(flaw)) {
            (true, _) => NextTry::Later,
            (false, false) => NextTry::AtOnce,
            (false, true) if self.0.contains(&flaw) => NextTry::Never,
            (false, true) => NextTry::Later,
        };
        self.0.push(flaw);
        next_try
    }
}

impl Endpoint {
    /// Sends one request; earlier responses to it had `flaws`.
    pub(super) async fn send(
        &self,
        query: &[(&str, String)],
        page_size: Option<u32>,
        flaws: &Flaws,
    ) -> Result<Fetched, Failure> {
        let began = self.clock.instant();
        let size = page_size.map(|size| [("page_size", size)]);
        let sent = self.http.get().query(query).query(&size).send().await;
        let response = sent.map_err(|error| self.transport(error))?;
        if !response.status().is_success() {
            let (status, headers) = (response.status(), response.headers().clone());
            let text = self.refusal_text(response).await;
            return Err(self.refusal(status, &headers, &text));
        }
        let status = response.status();
        let answered_at = server_time(response.headers()).unwrap_or_else(|| self.clock.now());
        let asked_at = asked_at(answered_at, self.clock.instant() - began);
        let body = self.read(response).await?;
        tracing::debug!(bytes = body.len(), "response");
        let flaws = flaws.clone();
        let parsed = tokio::task::spawn_blocking(move || parse(body, &flaws)).await;
        match parsed.map_err(|error| Failure::Permanent(Error::bug("the page parser failed").caused_by(error)))? {
            Ok(mut page) => {
                page.allow(self.quotes);
                Ok(Fetched { page, page_size, answered_at, asked_at })
            }
            Err((fault, flaw)) => Err(self.no_page(status, &fault, flaw)),
        }
    }

    fn no_page(&self, status: StatusCode, fault: &PageError, flaw: Option<Flaw>) -> Failure {
        let fault_text = match self.quotes {
            Quotes::Shown => self.redacted(&fault.to_string()),
            Quotes::Hidden => fault.plainly(),
        };
        let start = self.redacted(fault.beginning());
        let error = Error::api(format!("{} answered {status}, but {fault_text}: {start}", self.url))
            .with_hint("check that --base-url is the address of the export API");
        match (fault, flaw) {
            (_, Some(flaw)) => Failure::Flawed { error, flaw },
            (PageError::NotJson { .. }, None) => {
                Failure::Temporary { error, retry_after: None, may_need_smaller_pages: false }
            }
            (PageError::StrangeCursor { .. } | PageError::NoConversations { .. }, None) => Failure::Permanent(error),
        }
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let limit = self.max_response_bytes;
        let too_large = || {
            Failure::TooLarge(
                Error::api(format!("{} sent a response of more than {limit} bytes", self.url))
                    .with_hint("lower --page-size, or raise --max-response-bytes if there is enough memory"),
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

    /// The first words of a refusal, as far as they can be read, because its status counts even if the body is broken.
    async fn refusal_text(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        let read = async {
            while let (true, Ok(Some(chunk))) = (body.len() < REFUSAL_BYTES, response.chunk().await) {
                body.extend(chunk.iter().take(REFUSAL_BYTES));
            }
        };
        // After the time only the bytes read so far are shown.
        let _ = self.clock.within(REFUSAL_TIME, read).await;
        self.redacted(&beginning(&String::from_utf8_lossy(&body)))
    }

    /// A server's text for messages. The key is removed before the text is shortened, or a part of it could remain.
    fn redacted(&self, text: &str) -> String {
        self.quotes.of(&self.key.redact(text))
    }

    fn transport(&self, error: reqwest::Error) -> Failure {
        let what = match &error {
            error if error.is_connect() => "cannot reach",
            error if error.is_timeout() => "no response within --timeout from",
            error if error.is_decode() || error.is_body() => "received only part of a response from",
            _ => "received no response from",
        };
        let unprocessed = is_unprocessed(&error);
        let may_need_smaller_pages =
            !error.is_connect() && (error.is_timeout() || error.is_decode() || error.is_body());
        let hint = net::tls_hint(&error);
        let error = Error::unreachable(format!("{what} {}", self.url)).caused_by(error.without_url());
        match hint {
            _ if unprocessed => Failure::Unprocessed(error),
            // A bad certificate stays bad.
            Some(hint) => Failure::Permanent(error.with_hint(hint)),
            None => {
                self.http.reconnect();
                Failure::Temporary { error, retry_after: None, may_need_smaller_pages }
            }
        }
    }

    /// Classifies a status other than 2xx.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, text: &str) -> Failure {
        let message = |what: &str| format!("{} {what}: {status}: {text}", self.url);
        let refused = |what: &str, hint: &str| Error::api(message(what)).with_hint(hint).with_status(status.as_u16());
        let permanent = |what: &str, hint: &str| Failure::Permanent(refused(what, hint));
        match status.as_u16() {
            401 => permanent(
                "does not accept the API key",
                "set DECAGON_API_KEY or --api-key-file to a key of this account; EU accounts need --base-url \
                 https://eu.api.decagon.ai",
            ),
            403 => permanent(
                "forbids the export",
                "ask the vendor's support: the account may lack the export entitlement, or too many requests caused a \
                 ban of this IP address",
            ),
            400 | 422 => Failure::Refused(refused(
                "refuses a parameter",
                "correct the parameter that the server's message names; --user-filters, a number of --page-size and \
                 --timestamp-filter are sent unchanged",
            )),
            413 => Failure::TooLarge(refused("refuses a response that is too large", "lower --page-size")),
            301 | 302 | 303 | 307 | 308 => permanent(
                "redirects",
                &format!("the key is not sent to {}; set --base-url to the right address", self.target(headers)),
            ),
            408 | 425 | 429 | 500..=599 => Failure::Temporary {
                error: Error::unreachable(message("failed")),
                retry_after: retry_after(headers, server_time(headers).unwrap_or_else(|| self.clock.now())),
                may_need_smaller_pages: status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT,
            },
            _ => permanent("refuses the request", "check that --base-url is the address of the export API"),
        }
    }

    /// The target of a redirect, without its path and query, which may contain secrets.
    fn target(&self, headers: &HeaderMap) -> String {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(target) = location.and_then(|location| self.url.join(location).ok()) else {
            return "nowhere".to_owned();
        };
        if target.origin() == self.url.origin() {
            return "another path".to_owned();
        }
        excerpt(&self.key.redact(&target.origin().ascii_serialization()))
    }
}

/// Parses a body. If the earlier `flaws` show that the server always sends this page malformed, the page is salvaged.
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

/// When the server answered, by its own clock: the end of the second of its `Date`, because nothing in the answer can
/// have changed later.
fn server_time(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let second = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
    DateTime::<Utc>::from(second).with_nanosecond(999_999_000)
}

/// When a request was sent that was answered `after` that time, rounded down to the second.
fn asked_at(answered_at: DateTime<Utc>, after: Duration) -> DateTime<Utc> {
    let after = chrono::Duration::from_std(after).unwrap_or_default();
    let asked_at = answered_at.checked_sub_signed(after).unwrap_or(answered_at);
    asked_at.with_nanosecond(0).unwrap_or(asked_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_time_is_the_end_of_its_second() {
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
