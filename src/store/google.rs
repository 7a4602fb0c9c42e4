//! Checks the type of Google Cloud's credentials.
//!
//! The client reads keys of service accounts, and the file of `gcloud auth application-default login`. Other types are
//! refused here with a hint, because the client would only report an unknown variant.

use std::path::PathBuf;

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use serde::Deserialize;

use crate::error::{Error, Result};

/// The types that the client reads.
const SUPPORTED: [&str; 2] = ["service_account", "authorized_user"];
/// The path of gcloud's credentials, below the user's home folder.
const WELL_KNOWN: &str = if cfg!(windows) {
    "gcloud/application_default_credentials.json"
} else {
    ".config/gcloud/application_default_credentials.json"
};

/// The relevant part of a credentials file.
#[derive(Deserialize)]
struct Credentials {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Makes sure that the credentials in the environment, or gcloud's own, have a supported type.
///
/// # Errors
/// Kind `Usage` if their type is not supported.
pub(super) fn check_credentials() -> Result<()> {
    let builder = GoogleCloudStorageBuilder::from_env();
    let given = |key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let (named, text) = if let Some(text) = given(GoogleConfigKey::ServiceAccountKey) {
        ("GOOGLE_SERVICE_ACCOUNT_KEY".to_owned(), Some(text))
    } else if let Some(path) = given(GoogleConfigKey::ServiceAccount) {
        (format!("GOOGLE_SERVICE_ACCOUNT={path}"), std::fs::read_to_string(path).ok())
    } else if given(GoogleConfigKey::BearerToken).is_some() {
        return Ok(());
    } else if let Some(path) = given(GoogleConfigKey::ApplicationCredentials) {
        (format!("GOOGLE_APPLICATION_CREDENTIALS={path}"), std::fs::read_to_string(path).ok())
    } else {
        let home = std::env::var_os(if cfg!(windows) { "APPDATA" } else { "HOME" });
        let Some(path) = home.map(|home| PathBuf::from(home).join(WELL_KNOWN)) else { return Ok(()) };
        (path.display().to_string(), std::fs::read_to_string(&path).ok())
    };
    // The client itself reports a file that is missing or not JSON.
    let kind = text.and_then(|text| serde_json::from_str::<Credentials>(&text).ok()).and_then(|found| found.kind);
    match kind.filter(|kind| !SUPPORTED.contains(&kind.as_str())) {
        None => Ok(()),
        Some(kind) => Err(refused(&named, &kind)),
    }
}

fn refused(named: &str, kind: &str) -> Error {
    let instead = match kind {
        "external_account" | "external_account_authorized_user" => {
            "workload identity federation is not supported: on GKE and Google's machines use the service account of \
             the pod or machine (without this file); elsewhere"
        }
        "impersonated_service_account" => {
            "impersonation is not supported: run `gcloud auth application-default login` without \
             --impersonate-service-account and grant the role to yourself; or"
        }
        _ => "use a file of the type service_account or authorized_user; or",
    };
    let kind: String = kind.chars().filter(|c| c.is_ascii_graphic()).take(60).collect();
    Error::usage(format!("{named} contains credentials of the unsupported type {kind}")).with_hint(format!(
        "{instead} use a service account's key, or set GOOGLE_BEARER_TOKEN=\"$(gcloud auth application-default \
         print-access-token)\", which is valid for an hour"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_unsupported_type_has_a_hint() {
        for (kind, word) in [
            ("external_account", "federation"),
            ("external_account_authorized_user", "federation"),
            ("impersonated_service_account", "--impersonate-service-account"),
            ("gdch_service_account", "authorized_user"),
        ] {
            let error = refused("GOOGLE_APPLICATION_CREDENTIALS=x.json", kind);
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(kind) && error.to_string().contains("x.json"));
            assert!(error.hint().unwrap().contains(word) && error.hint().unwrap().contains("GOOGLE_BEARER_TOKEN"));
        }
    }
}
