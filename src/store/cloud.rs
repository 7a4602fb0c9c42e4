//! Sets up the clients of S3, Google Cloud Storage and Azure, and of compatible stores, from their environment
//! variables.
//!
//! `object_store` finds the credentials: in the environment, then workload identity, then the machine's identity (it
//! does not read AWS profiles). Must not depend on: what is stored.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, Result, RetryConfig};
use url::Url;

use super::environment;
use super::http::Connector;

/// How to reach a store, and its limits.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The store's endpoint, if it is not the cloud's own.
    pub endpoint: Option<Url>,
    /// How requests to S3 name the bucket; by default as `object_store` does.
    pub s3_addressing: Option<S3Addressing>,
    /// The longest time one call may take, its retries included.
    pub call_timeout: Duration,
    /// The longest time one request of a call may take.
    pub request_timeout: Duration,
    /// How often a request is retried.
    pub retries: usize,
    /// How many calls may run concurrently.
    pub concurrency: usize,
    /// Whether the store must be able to keep two writers apart.
    pub needs_lock: bool,
}

/// Where a request to S3 names the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Addressing {
    /// First in the path, which every store understands.
    Path,
    /// First in the host name.
    Virtual,
}

/// The longest time that one request is retried, because its signature is valid no longer.
const MAX_RETRY_TIME: Duration = Duration::from_secs(180);

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            endpoint: None,
            s3_addressing: None,
            call_timeout: Duration::from_secs(300),
            request_timeout: Duration::from_secs(60),
            retries: 10,
            concurrency: 64,
            needs_lock: true,
        }
    }
}

impl StoreOptions {
    fn retry(&self) -> RetryConfig {
        // Each pause is random between the first and `base` times the one before. With the client's default of 2 they
        // hardly grow, and ten of them pass in seconds; with 3 they take about a minute, enough for a server to
        // restart.
        let backoff = BackoffConfig { init_backoff: Duration::from_millis(200), base: 3.0, ..BackoffConfig::default() };
        let retry_timeout = self.call_timeout.min(MAX_RETRY_TIME);
        RetryConfig { backoff, max_retries: self.retries, retry_timeout }
    }

    /// The settings that all clients share; `found` is the endpoint from the environment. An endpoint given as
    /// `http://` permits requests without TLS.
    fn client(&self, found: Option<String>) -> Vec<(ClientConfigKey, String)> {
        let endpoint = self.endpoint.as_ref().map(Url::to_string).or(found);
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut settings = vec![
            (ClientConfigKey::Timeout, format!("{} ms", self.request_timeout.as_millis())),
            (ClientConfigKey::UserAgent, concat!("decagon-lake/", env!("CARGO_PKG_VERSION")).to_owned()),
        ];
        settings.extend(plain.then(|| (ClientConfigKey::AllowHttp, "true".to_owned())));
        settings
    }

    /// The endpoint without a trailing slash.
    fn endpoint(&self) -> Option<String> {
        self.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned())
    }

    /// # Errors
    /// If a setting, here or in the environment, is invalid.
    pub(super) fn s3(&self, address: &str, bucket: &str) -> Result<AmazonS3> {
        let mut builder = environment::aws()
            .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
            .with_http_connector(Connector)
            .with_url(address)
            .with_retry(self.retry());
        let found = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
        let found = found.iter().find_map(|key| builder.get_config_value(key));
        for (key, value) in self.client(found.clone()) {
            builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
        }
        let checksum = AmazonS3ConfigKey::Checksum;
        if is_of_aws(self.endpoint().or(found.clone()).as_deref()) && builder.get_config_value(&checksum).is_none() {
            // Buckets with Object Lock require one. It costs nothing, because the signature contains it already.
            builder = builder.with_config(checksum, "sha256");
        }
        let style = AmazonS3ConfigKey::VirtualHostedStyleRequest;
        if let Some(addressing) = self.s3_addressing {
            builder = builder.with_config(style, (addressing == S3Addressing::Virtual).to_string());
        }
        let endpoint = match self.s3_addressing {
            // The client expects the bucket's own endpoint.
            Some(S3Addressing::Virtual) => self.endpoint().or(found).and_then(|endpoint| bucket_in(&endpoint, bucket)),
            _ => self.endpoint(),
        };
        if let Some(endpoint) = endpoint {
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        builder.build()
    }

    /// # Errors
    /// As [`StoreOptions::s3`].
    pub(super) fn gcs(&self, address: &str) -> Result<GoogleCloudStorage> {
        let mut builder = environment::google()
            .fold(GoogleCloudStorageBuilder::new(), |builder, (key, value)| builder.with_config(key, value))
            .with_http_connector(Connector)
            .with_url(address)
            .with_retry(self.retry());
        for (key, value) in self.client(builder.get_config_value(&GoogleConfigKey::BaseUrl)) {
            builder = builder.with_config(GoogleConfigKey::Client(key), value);
        }
        if let Some(endpoint) = self.endpoint() {
            builder = builder.with_base_url(&endpoint);
        }
        builder.build()
    }

    /// # Errors
    /// As [`StoreOptions::s3`].
    pub(super) fn azure(&self, address: &str) -> Result<MicrosoftAzure> {
        let mut builder = environment::azure()
            .fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| builder.with_config(key, value))
            .with_http_connector(Connector)
            .with_url(address)
            .with_retry(self.retry());
        for (key, value) in self.client(builder.get_config_value(&AzureConfigKey::Endpoint)) {
            builder = builder.with_config(AzureConfigKey::Client(key), value);
        }
        if let Some(endpoint) = self.endpoint() {
            builder = builder.with_endpoint(endpoint);
        }
        builder.build()
    }
}

/// Whether an endpoint is AWS's own, as it is if none is given. Compatible stores may not support all of S3.
fn is_of_aws(endpoint: Option<&str>) -> bool {
    let Some(endpoint) = endpoint else { return true };
    let host = Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// Adds the bucket to the host of an endpoint, unless it is there.
fn bucket_in(endpoint: &str, bucket: &str) -> Option<String> {
    let (scheme, host) = endpoint.trim_end_matches('/').split_once("://")?;
    let own = host.starts_with(&format!("{bucket}."));
    Some(if own { format!("{scheme}://{host}") } else { format!("{scheme}://{bucket}.{host}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_is_added_to_the_host_once() {
        let expected = Some("https://data.store.example:9000".to_owned());
        assert_eq!(bucket_in("https://store.example:9000/", "data"), expected);
        assert_eq!(bucket_in("https://data.store.example:9000", "data"), expected);
    }

    #[test]
    fn aws_is_distinguished_from_compatible_stores() {
        for endpoint in
            [None, Some("https://s3.cn-north-1.amazonaws.com.cn"), Some("https://s3.eu-west-1.amazonaws.com/")]
        {
            assert!(is_of_aws(endpoint), "{endpoint:?}");
        }
        for endpoint in
            ["http://127.0.0.1:9000", "https://minio.example/amazonaws.com", "https://amazonaws.com.example", "x"]
        {
            assert!(!is_of_aws(Some(endpoint)), "{endpoint}");
        }
    }
}
