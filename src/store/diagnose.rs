//! Turns a store's failure into a short message and a hint. Pure.

use std::error::Error as StdError;

use object_store::client::{HttpError, HttpErrorKind};

use super::answers::{self, Backend, element};
use super::disk;
use crate::net;

/// The address where AWS and Azure machines request the credentials of their identity.
const INSTANCE_METADATA: &str = "169.254.169.254";

/// Texts of a refusal.
const REFUSALS: [&str; 3] = ["401 Unauthorized", "403 Forbidden", "AccessDenied"];
/// Texts of a refusal because of wrong credentials: S3, Azure and its emulator, GCS.
const BAD_CREDENTIALS: [&str; 6] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "InvalidAuthentication",
    "401 Unauthorized",
];

/// A store's failure in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StoreAnswer(String);

impl StoreAnswer {
    /// Describes `error` by the code and message of the store's answer, if it has them.
    pub(super) fn of(error: &object_store::Error) -> Self {
        let text = error.to_string();
        let Some(code) = element(&text, "Code") else {
            return StoreAnswer(text.trim_end().trim_end_matches('.').to_owned());
        };
        match element(&text, "Message") {
            Some(message) => StoreAnswer(format!("the store answers {code}: {}", message.trim_end_matches('.'))),
            None => StoreAnswer(format!("the store answers {code}")),
        }
    }
}

/// Whether the bucket or container is missing, not just one object in it.
pub(super) fn bucket_is_missing(error: &object_store::Error) -> bool {
    matches!(element(&error.to_string(), "Code"), Some("NoSuchBucket" | "ContainerNotFound"))
}

/// Whether the outcome is unknown: the request was sent and no response arrived.
pub(super) fn answer_is_lost(error: &object_store::Error) -> bool {
    transport(error).is_some_and(|kind| matches!(kind, HttpErrorKind::Timeout | HttpErrorKind::Interrupted))
}

/// Whether the store does not support the request.
pub(super) fn is_unsupported(error: &object_store::Error) -> bool {
    use object_store::Error::{NotImplemented, NotSupported};
    matches!(error, NotImplemented { .. } | NotSupported { .. })
        || element(&error.to_string(), "Code") == Some("NotImplemented")
}

/// How a request failed without an answer; `None` if there was one.
fn transport(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(http) = cause.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        next = cause.source();
    }
    None
}

/// What the user can do about `error`; `None` if only the store's operator can help.
pub(super) fn remedy(backend: Backend, error: &object_store::Error) -> Option<String> {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    if let Some(hint) = net::tls_hint(error) {
        return Some(hint);
    }
    let text = error.to_string();
    if backend == Backend::Local {
        return disk::remedy(error);
    }
    if let Some(known) = answers::remedy(backend, &text) {
        return Some(known);
    }
    if text.contains(INSTANCE_METADATA) {
        return Some(format!("no credentials were found, and this machine has no identity: {}", keys(backend)));
    }
    if bucket_is_missing(error) {
        return Some(missing_bucket(backend).to_owned());
    }
    if text.contains("incorrectly configured region") || element(&text, "Code") == Some("AuthorizationHeaderMalformed")
    {
        return Some("the bucket is in another region: set AWS_REGION to the bucket's own".to_owned());
    }
    // The error of a refused listing has another kind.
    let is_refused = matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
        || REFUSALS.iter().any(|status| text.contains(status));
    if is_refused {
        return Some(refused(backend, &text));
    }
    transport(error).is_some().then(|| unreachable(backend).to_owned())
}

fn missing_bucket(backend: Backend) -> &'static str {
    match backend {
        Backend::Azure => "create the container or correct --lake; is AZURE_STORAGE_ACCOUNT_NAME the right account?",
        _ => "create the bucket or correct --lake; for a store that is not the cloud's own, set --store-endpoint",
    }
}

fn refused(backend: Backend, text: &str) -> String {
    if BAD_CREDENTIALS.iter().any(|code| text.contains(code)) {
        return format!("the credentials are wrong: {}", keys(backend));
    }
    match backend {
        Backend::Local => "let the user that runs this read and write there".to_owned(),
        Backend::S3 => "the credentials lack a permission; deploy/aws/policy.json lists all that are needed".to_owned(),
        Backend::Gcs => "the credentials lack a permission; deploy/gcp/role.yaml lists all that are needed".to_owned(),
        Backend::Azure => {
            "the credentials lack a permission; deploy/azure/role.json lists all that are needed".to_owned()
        }
    }
}

/// How to give credentials.
fn keys(backend: Backend) -> &'static str {
    match backend {
        Backend::Local => "none are needed",
        Backend::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_WEB_IDENTITY_TOKEN_FILE \
             and AWS_ROLE_ARN; from a profile: eval \"$(aws configure export-credentials --format env)\""
        }
        Backend::Gcs => {
            "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth application-default login`"
        }
        Backend::Azure => {
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, the \
             AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET of a service principal, or \
             AZURE_USE_AZURE_CLI=true"
        }
    }
}

fn unreachable(backend: Backend) -> &'static str {
    match backend {
        Backend::S3 => {
            "check that the store is up and that the endpoint is right (--store-endpoint, AWS_ENDPOINT_URL or \
             AWS_REGION)"
        }
        Backend::Gcs => {
            "check that the store is up and that the endpoint is right (--store-endpoint or GOOGLE_BASE_URL)"
        }
        Backend::Azure => {
            "check that the store is up and that the endpoint is right (--store-endpoint, AZURE_STORAGE_ENDPOINT or \
             the account's name)"
        }
        Backend::Local => "check that the disk is mounted",
    }
}

#[cfg(test)]
mod tests {
    use object_store::Error;

    use super::*;

    fn not_found(answer: &str) -> Error {
        Error::NotFound { path: "x".to_owned(), source: answer.into() }
    }

    #[test]
    fn the_code_and_message_of_a_store_are_quoted() {
        let answer = "Server returned non-2xx status code: 404 Not Found: <?xml version=\"1.0\"?>\n<Error>\
            <Code>NoSuchBucket</Code><Message>The specified bucket does not exist.\nTime: 1</Message></Error>";
        let error = not_found(answer);
        assert_eq!(
            StoreAnswer::of(&error).to_string(),
            "the store answers NoSuchBucket: The specified bucket does not exist"
        );
        assert!(bucket_is_missing(&error));
        assert!(!bucket_is_missing(&not_found("<Code>NoSuchKey</Code>")) && !bucket_is_missing(&not_found("")));
        assert_eq!(StoreAnswer::of(&not_found("gone")).to_string(), "Object at location x not found: gone");
    }

    #[test]
    fn each_failure_has_its_hint() {
        let denied = |text: &str| Error::PermissionDenied { path: String::new(), source: text.into() };
        let hint = |backend, error: &Error| remedy(backend, error).unwrap_or_default();
        assert!(hint(Backend::S3, &denied("<Code>AccessDenied</Code>")).contains("deploy/aws/policy.json"));
        assert!(hint(Backend::S3, &denied("<Code>SignatureDoesNotMatch</Code>")).contains("AWS_SECRET_ACCESS_KEY"));
        assert!(
            hint(Backend::Azure, &denied("<Code>AuthenticationFailed</Code>")).contains("AZURE_STORAGE_ACCOUNT_KEY")
        );
        let metadata = Error::Generic { store: "S3", source: format!("PUT http://{INSTANCE_METADATA}/latest").into() };
        assert!(hint(Backend::S3, &metadata).contains("no credentials were found"));
        assert_eq!(remedy(Backend::Gcs, &Error::Generic { store: "GCS", source: "500".into() }), None);
    }
}
