//! The HTTP client that the pace requires.
//!
//! Guarantees: a request is sent once, even if an HTTP/2 server says that it did not process it; connections are
//! counted, because a request that waits for one arrives later than its turn; after a failure the next request uses a
//! new connection. Must not depend on: what is requested.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use h2::Reason;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, RequestBuilder};
use tower::util::MapRequestLayer;
use url::Url;

use super::key::ApiKey;
use crate::error::{Error, Result};
use crate::net;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The client for one URL.
#[derive(Debug)]
pub(super) struct Http {
    url: Url,
    headers: HeaderMap,
    timeout: Duration,
    connections: Arc<AtomicUsize>,
    client: Mutex<Client>,
}

impl Http {
    /// Makes a client; connects to nothing yet.
    ///
    /// # Errors
    /// If its settings in the environment are wrong.
    pub(super) fn new(url: &Url, key: &ApiKey, timeout: Duration) -> Result<Self> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, key.header())]);
        let connections = Arc::default();
        let client = Mutex::new(client(url, &headers, timeout, &connections)?);
        Ok(Http { url: url.clone(), headers, timeout, connections, client })
    }

    /// Begins a request.
    pub(super) fn get(&self) -> RequestBuilder {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).get(self.url.clone())
    }

    /// How many connections were started so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Abandons all connections, because HTTP/2 keeps a silent one after a timeout and would use it again and again.
    pub(super) fn reconnect(&self) {
        match client(&self.url, &self.headers, self.timeout, &self.connections) {
            Ok(fresh) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
            Err(error) => tracing::debug!("keeping the old connections: {}", error.chain().join(": ")),
        }
    }
}

fn client(url: &Url, headers: &HeaderMap, timeout: Duration, connections: &Arc<AtomicUsize>) -> Result<Client> {
    net::client_for(url)?
        .user_agent(concat!("decagon-lake/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers.clone())
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connector_layer(MapRequestLayer::new(counting(Arc::clone(connections))))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .build()
        .map_err(|error| Error::usage("cannot set up the HTTP client").caused_by(error))
}

/// Returns an identity function that counts its calls.
fn counting<T>(count: Arc<AtomicUsize>) -> impl Fn(T) -> T + Clone {
    move |value| {
        count.fetch_add(1, Ordering::Relaxed);
        value
    }
}

/// Whether the server said that it did not process a request: it closes the connection regularly (GOAWAY), or accepts
/// no more requests for now (REFUSED_STREAM).
pub(super) fn is_unprocessed(error: &reqwest::Error) -> bool {
    net::cause::<h2::Error>(error).is_some_and(|error| {
        error.is_remote()
            && match error.reason() {
                Some(Reason::NO_ERROR) => error.is_go_away(),
                Some(Reason::REFUSED_STREAM) => error.is_reset(),
                _ => false,
            }
    })
}
