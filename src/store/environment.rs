//! The variables of a cloud, as `object_store` reads them; but those that are empty count as unset, and those that hold
//! what is not meant to be in them are refused.

use std::str::FromStr;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use url::Url;

use super::answers::Backend;
use crate::error::{Error, Result};
use crate::{net, stray};

/// How the names of variables end that hold a path.
const PATHS: [&str; 4] = ["_FILE", "_PATH", "_CREDENTIALS", "SERVICE_ACCOUNT"];

/// The variable in which Google's clients name a key file, without the prefix of the others.
const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";

/// The variable in which Azure tells its apps where their identity is.
const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";

/// The value of a variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variables whose names begin with `prefix`, by their names, and those of them that mean something to a client.
fn named<K: FromStr>(prefix: &'static str) -> impl Iterator<Item = (String, K, String)> {
    std::env::vars_os().filter_map(move |(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        let key = if name.starts_with(prefix) { name.to_ascii_lowercase().parse().ok()? } else { return None };
        (!value.is_empty()).then_some((name, key, value))
    })
}

/// The settings for S3.
pub(super) fn aws() -> impl Iterator<Item = (AmazonS3ConfigKey, String)> {
    named("AWS_").map(|(_, key, value)| (key, value))
}

/// The settings for Google Cloud.
pub(super) fn google() -> impl Iterator<Item = (GoogleConfigKey, String)> {
    let account = variable(SERVICE_ACCOUNT).map(|path| (GoogleConfigKey::ServiceAccount, path));
    account.into_iter().chain(named("GOOGLE_").map(|(_, key, value)| (key, value)))
}

/// The settings for Azure.
pub(super) fn azure() -> impl Iterator<Item = (AzureConfigKey, String)> {
    let endpoint = variable(IDENTITY_ENDPOINT).map(|endpoint| (AzureConfigKey::MsiEndpoint, endpoint));
    named("AZURE_").map(|(_, key, value)| (key, value)).chain(endpoint)
}

/// Checks what a store's client will find in the environment: its own variables, and the proxy to the store.
///
/// # Errors
/// If a variable has something in it that is not meant to be there. Values are not shown.
pub(super) fn check(backend: Backend, endpoint: Option<&Url>) -> Result<()> {
    let (found, usual) = match backend {
        Backend::Local => return Ok(()),
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
    match store.filter(|store| store.host().is_some_and(|host| !net::is_direct(&host))) {
        Some(store) => net::check_proxy(&store),
        None => Ok(()),
    }
}

/// Checks the variables of a cloud, and picks the endpoint among them.
fn checked<K: FromStr>(prefix: &'static str, is_endpoint: impl Fn(&K) -> bool) -> Result<Option<String>> {
    let mut endpoint = None;
    for (name, key, value) in named::<K>(prefix) {
        let stray = match PATHS.iter().any(|end| name.ends_with(end)) || is_endpoint(&key) {
            true => stray::in_place(&value),
            // A key in JSON may have any space around it.
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
