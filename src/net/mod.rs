//! What every HTTP client has in common: whom it trusts, whom it asks without a proxy, and why a connection failed.
//!
//! Promises: a machine without CA certificates can do all that needs no TLS; this machine and its metadata service are
//! never asked through a proxy. Must not know: what is asked for.

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
/// If the environment names a proxy for it that is no proxy's address.
pub fn client_for(url: &Url) -> Result<reqwest::ClientBuilder> {
    let certificates = certificates().filter_map(|der| reqwest::Certificate::from_der(der).ok());
    let client = reqwest::Client::builder().tls_certs_only(certificates);
    if url.host().is_some_and(|host| is_direct(&host)) {
        return Ok(client.no_proxy());
    }
    check_proxy(url)?;
    Ok(client)
}
