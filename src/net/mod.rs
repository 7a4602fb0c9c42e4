//! Settings that all HTTP clients share: trusted certificates, hosts without a proxy, causes of failed connections.
//!
//! Guarantees: without CA certificates, everything that needs no TLS works; no request to this machine or its metadata
//! service goes through a proxy. Must not depend on: what is requested.

mod cause;
mod hosts;
mod proxies;
mod trust;

use url::Url;

pub use cause::{cause, tls_hint};
pub use hosts::{is_direct, is_loopback};
pub use proxies::check_proxy;
pub use trust::certificates;

use crate::error::Result;

/// Begins a client for the host of `url`.
///
/// # Errors
/// If the environment's proxy for the host is not a valid address.
pub fn client_for(url: &Url) -> Result<reqwest::ClientBuilder> {
    let certificates = certificates().filter_map(|der| reqwest::Certificate::from_der(der).ok());
    let client = reqwest::Client::builder().tls_certs_only(certificates);
    if url.host().is_some_and(|host| is_direct(&host)) {
        return Ok(client.no_proxy());
    }
    check_proxy(url)?;
    Ok(client)
}
