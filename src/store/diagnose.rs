//! What a failure of a store means to its user: told briefly, and what to set. Pure.

use std::error::Error as StdError;

use object_store::client::{HttpError, HttpErrorKind};

use super::answers::{self, Backend, element};
use super::disk;
use crate::net;

/// Where machines of AWS and Azure ask for the credentials of their own identity.
const INSTANCE_METADATA: &str = "169.254.169.254";

/// How a refusal stands in the text of a failure.
const REFUSALS: [&str; 3] = ["401 Unauthorized", "403 Forbidden", "AccessDenied"];
/// What it says where it is the credentials that are wrong: S3, Azure and its emulator, GCS.
const FORGERIES: [&str; 6] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "InvalidAuthentication",
    "401 Unauthorized",
];

/// A store's failure, told in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StoreAnswer(String);

impl StoreAnswer {
    /// Tells `error` by the code and message that the store itself answered with, where there are any.
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

/// Whether it is the bucket or container that is not there, rather than one object in it.
pub(super) fn bucket_is_missing(error: &object_store::Error) -> bool {
    matches!(element(&error.to_string(), "Code"), Some("NoSuchBucket" | "ContainerNotFound"))
}

/// Whether it cannot be told if the store has done what it was asked to: the request was sent, the answer never came.
pub(super) fn answer_is_lost(error: &object_store::Error) -> bool {
    transport(error).is_some_and(|kind| matches!(kind, HttpErrorKind::Timeout | HttpErrorKind::Interrupted))
}

/// Whether the store says that it does not know what it was asked to do.
pub(super) fn is_unknown_to_store(error: &object_store::Error) -> bool {
    use object_store::Error::{NotImplemented, NotSupported};
    matches!(error, NotImplemented { .. } | NotSupported { .. })
        || element(&error.to_string(), "Code") == Some("NotImplemented")
}

/// How a request failed that the store never answered.
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

/// What its user can do about `error`; `None` where the store itself has to be looked at.
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
        return Some(format!("no credentials were found, nor does this machine have an identity: {}", keys(backend)));
    }
    if bucket_is_missing(error) {
        return Some(missing_bucket(backend).to_owned());
    }
    if text.contains("incorrectly configured region") || element(&text, "Code") == Some("AuthorizationHeaderMalformed")
    {
        return Some("the bucket is in another region: set AWS_REGION to the bucket's own".to_owned());
    }
    // Of a listing that is refused the kind is not told.
    let is_refused = matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
        || REFUSALS.iter().any(|status| text.contains(status));
    if is_refused {
        return Some(refused(backend, &text));
    }
    transport(error).is_some().then(|| unreachable(backend).to_owned())
}

fn missing_bucket(backend: Backend) -> &'static str {
    match backend {
        Backend::Azure => "make the container, or correct --lake; is AZURE_STORAGE_ACCOUNT_NAME the right account?",
        _ => "make the bucket, or correct --lake; for a store that is not the cloud's own, set --store-endpoint",
    }
}

fn refused(backend: Backend, text: &str) -> String {
    if FORGERIES.iter().any(|code| text.contains(code)) {
        return format!("the credentials are wrong: {}", keys(backend));
    }
    match backend {
        Backend::Local => "give the user that runs this the right to read and write there".to_owned(),
        Backend::S3 => "the credentials lack a permission; deploy/aws/policy.json has the fewest that do".to_owned(),
        Backend::Gcs => "the credentials lack a permission; deploy/gcp/role.yaml has the fewest that do".to_owned(),
        Backend::Azure => "the credentials lack a permission; deploy/azure/role.json has the fewest that do".to_owned(),
    }
}

/// The ways in which a cloud's credentials are found.
fn keys(backend: Backend) -> &'static str {
    match backend {
        Backend::Local => "none are needed",
        Backend::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_WEB_IDENTITY_TOKEN_FILE and \
             AWS_ROLE_ARN; of a profile: eval \"$(aws configure export-credentials --format env)\""
        }
        Backend::Gcs => {
            "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth application-default login`"
        }
        Backend::Azure => {
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, the AZURE_CLIENT_ID, \
             AZURE_TENANT_ID and AZURE_CLIENT_SECRET of a service principal, or AZURE_USE_AZURE_CLI=true"
        }
    }
}

fn unreachable(backend: Backend) -> &'static str {
    match backend {
        Backend::S3 => {
            "is the store up, and the endpoint right? it comes from --store-endpoint, AWS_ENDPOINT_URL or AWS_REGION"
        }
        Backend::Gcs => "is the store up, and the endpoint right? it comes from --store-endpoint or GOOGLE_BASE_URL",
        Backend::Azure => {
            "is the store up, and the address right? it comes from --store-endpoint, AZURE_STORAGE_ENDPOINT or the \
             account's name"
        }
        Backend::Local => "is the disk there?",
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
    fn a_store_is_quoted_by_its_own_words() {
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
    fn what_to_set_depends_on_what_is_wrong() {
        let denied = |text: &str| Error::PermissionDenied { path: String::new(), source: text.into() };
        let said = |backend, error: &Error| remedy(backend, error).unwrap_or_default();
        assert!(said(Backend::S3, &denied("<Code>AccessDenied</Code>")).contains("deploy/aws/policy.json"));
        assert!(said(Backend::S3, &denied("<Code>SignatureDoesNotMatch</Code>")).contains("AWS_SECRET_ACCESS_KEY"));
        assert!(
            said(Backend::Azure, &denied("<Code>AuthenticationFailed</Code>")).contains("AZURE_STORAGE_ACCOUNT_KEY")
        );
        let metadata = Error::Generic { store: "S3", source: format!("PUT http://{INSTANCE_METADATA}/latest").into() };
        assert!(said(Backend::S3, &metadata).contains("no credentials were found"));
        assert_eq!(remedy(Backend::Gcs, &Error::Generic { store: "GCS", source: "500".into() }), None);
    }
}
