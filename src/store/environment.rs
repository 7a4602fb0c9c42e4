//! The environment variables of the clouds, as `object_store` reads them, with two differences: an empty variable
//! counts as unset, and one with stray characters is refused.

use std::str::FromStr;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use url::Url;

use super::answers::Backend;
use crate::error::{Error, Result};
use crate::{net, stray};

/// The suffixes of variables that contain a path.
const PATHS: [&str; 4] = ["_FILE", "_PATH", "_CREDENTIALS", "SERVICE_ACCOUNT"];

/// Google's variable for a key file, which lacks the usual prefix.
const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";

/// Azure's variable for the endpoint of an app's identity.
const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";

/// The value of a variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variables whose names begin with `prefix` and that a client knows: name, key, value.
fn with_prefix<K: FromStr>(prefix: &'static str) -> impl Iterator<Item = (String, K, String)> {
    std::env::vars_os().filter_map(move |(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        let key = if name.starts_with(prefix) { name.to_ascii_lowercase().parse().ok()? } else { return None };
        (!value.is_empty()).then_some((name, key, value))
    })
}

/// The settings for S3.
pub(super) fn aws() -> impl Iterator<Item = (AmazonS3ConfigKey, String)> {
    with_prefix("AWS_").map(|(_, key, value)| (key, value))
}

/// The settings for Google Cloud.
pub(super) fn google() -> impl Iterator<Item = (GoogleConfigKey, String)> {
    let account = variable(SERVICE_ACCOUNT).map(|path| (GoogleConfigKey::ServiceAccount, path));
    account.into_iter().chain(with_prefix("GOOGLE_").map(|(_, key, value)| (key, value)))
}

/// The settings for Azure.
pub(super) fn azure() -> impl Iterator<Item = (AzureConfigKey, String)> {
    let endpoint = variable(IDENTITY_ENDPOINT).map(|endpoint| (AzureConfigKey::MsiEndpoint, endpoint));
    with_prefix("AZURE_").map(|(_, key, value)| (key, value)).chain(endpoint)
}

/// Checks the variables that a store's client will read: its own, and those of the proxy to the store. Returns the host
/// and port of the store.
///
/// # Errors
/// If a variable contains stray characters. Values are not shown.
pub(super) fn check(backend: Backend, endpoint: Option<&Url>) -> Result<String> {
    let (found, usual) = match backend {
        Backend::Local => return Ok(String::new()),
        Backend::S3 => {
            let is_endpoint = |key: &_| matches!(key, AmazonS3ConfigKey::S3Endpoint | AmazonS3ConfigKey::Endpoint);
            (checked("AWS_", is_endpoint)?, "https://s3.amazonaws.com")
        }
        Backend::Gcs => {
            (checked("GOOGLE_", |key: &_| matches!(key, GoogleConfigKey::BaseUrl))?, "https://storage.googleapis.com")
        }
        Backend::Azure => {
            (checked("AZURE_", |key: &_| matches!(key, AzureConfigKey::Endpoint))?, "https://blob.core.windows.net")
        }
    };
    let store = endpoint.cloned().or_else(|| Url::parse(found.as_deref().unwrap_or(usual)).ok());
    let Some(store) = store else { return Ok(String::new()) };
    if store.host().is_some_and(|host| !net::is_direct(&host)) {
        net::check_proxy(&store)?;
    }
    let host = store.host_str().unwrap_or_default();
    Ok(store.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Checks the variables of a cloud and returns the endpoint among them.
fn checked<K: FromStr>(prefix: &'static str, is_endpoint: impl Fn(&K) -> bool) -> Result<Option<String>> {
    let mut endpoint = None;
    for (name, key, value) in with_prefix::<K>(prefix) {
        let stray = match PATHS.iter().any(|end| name.ends_with(end)) || is_endpoint(&key) {
            true => stray::in_place(&value),
            // A key in JSON may have white space around it.
            false if value.trim_start().starts_with('{') => None,
            false => stray::around(&value),
        };
        if let Some(stray) = stray {
            return Err(Error::usage(format!("{name} {}", stray.what)).with_hint(stray.hint));
        }
        endpoint = endpoint.or(is_endpoint(&key).then_some(value));
    }
    Ok(endpoint)
}
