//! The HTTP client of the clouds' stores: that of `object_store`, but without a proxy to this machine's own hosts, and
//! with the CA certificates that the whole program trusts.

use std::error::Error as _;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{Certificate, ClientOptions, Result};
use url::Host;

use crate::net;

/// A proxy and its exclusions: naming a proxy disables those of the environment, and excluding all hosts disables it,
/// too.
const NO_PROXY: (&str, &str) = ("http://127.0.0.1:9", "*,0.0.0.0/0,::/0");

/// Makes clients for a store and for the servers of its credentials.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        // If the client loaded the system's certificates itself, it would fail if there are none.
        let mut options = options.clone().with_no_system_certificates(true);
        for certificate in net::certificates() {
            options = options.with_root_certificate(Certificate::from_der(certificate)?);
        }
        let connector = ReqwestConnector::default();
        let usual = connector.connect(&options)?;
        let direct = connector.connect(&options.with_proxy_url(NO_PROXY.0).with_proxy_excludes(NO_PROXY.1))?;
        Ok(HttpClient::new(Clients { usual, direct }))
    }
}

/// A client that uses the environment's proxies, and one that uses none.
#[derive(Debug)]
struct Clients {
    usual: HttpClient,
    direct: HttpClient,
}

#[async_trait]
impl HttpService for Clients {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().and_then(|host| Host::parse(host).ok());
        let client = if host.is_some_and(|host| net::is_direct(&host)) { &self.direct } else { &self.usual };
        client.execute(request).await.map_err(|error| match net::tls_hint(&error) {
            // A bad certificate stays bad, so this kind is not retried.
            Some(_) => HttpError::new(HttpErrorKind::Unknown, PermanentError(error)),
            None => error,
        })
    }
}

/// A failure that every retry would repeat, with its causes.
#[derive(Debug, thiserror::Error)]
#[error("{}", causes(.0).join(": "))]
struct PermanentError(#[source] HttpError);

fn causes(error: &HttpError) -> Vec<String> {
    std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string).collect()
}
