//! How the clouds' stores are reached: as `object_store` does, but with this machine's own hosts asked directly, and with
//! the certificates that all of the program trusts.

use std::error::Error as _;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{Certificate, ClientOptions, Result};
use url::Host;

use crate::net;

/// A proxy, because to name one leaves out those of the environment, and all hosts, which are excluded from it.
const NO_PROXY: (&str, &str) = ("http://127.0.0.1:9", "*,0.0.0.0/0,::/0");

/// Makes clients for a store and for the places that its credentials come from.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        // To load the system's certificates itself, the client would have to find some.
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

/// A client that uses proxies as the environment says, and one that uses none.
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
            // A certificate does not get better from one try to the next.
            Some(_) => HttpError::new(HttpErrorKind::Unknown, Lasting(error)),
            None => error,
        })
    }
}

/// A failure that would come again with every try, told with its causes.
#[derive(Debug, thiserror::Error)]
#[error("{}", causes(.0).join(": "))]
struct Lasting(#[source] HttpError);

fn causes(error: &HttpError) -> Vec<String> {
    std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string).collect()
}
