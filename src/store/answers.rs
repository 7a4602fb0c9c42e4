//! Maps the error codes of object stores to hints. Pure.
//!
//! S3 and compatible stores, Azure and Google Cloud Storage send a code in `<Code>`; token servers send text. Must not
//! depend on: what was requested.

use object_store::Error;

/// The kind of store, which decides what its user can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Local,
    S3,
    Gcs,
    Azure,
}

/// The first line of an XML element's text.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    inner.lines().next().map(str::trim).filter(|line| !line.is_empty())
}

/// Expired credentials. The last code also covers a token of an unknown kind.
const EXPIRED: [&str; 5] =
    ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired", "InvalidToken"];
/// The same in text: Azure's signatures and tokens, and Google, whose answers have no codes.
const EXPIRED_TEXTS: [&str; 5] = [
    "Signature not valid in the specified time frame",
    "Signed expiry time",
    "The token is expired",
    "token has expired",
    "invalid_grant",
];
/// Requests or signatures whose time differs from the server's: S3, its token service, Azure, Google.
const SKEWED: [&str; 6] = [
    "RequestTimeTooSkewed",
    "RequestInTheFuture",
    "Signature not yet current",
    "Signature expired",
    "Request date header",
    "in a reasonable timeframe",
];
/// Archived objects, which cannot be read: S3 Glacier and the like, Azure's archive tier.
const ARCHIVED: [&str; 3] = ["InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"];
/// Objects that a policy or hold protects from change: Azure and Google.
const PROTECTED: [&str; 4] =
    ["BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold", "RetentionPolicyNotMet", "ObjectUnderActiveHold"];
/// The checksums that a bucket with Object Lock requires of writes.
const CHECKSUMS: [&str; 2] = ["Content-MD5", "x-amz-checksum"];
/// Too many calls, to the store or to one object: S3, R2, Azure, and their statuses.
const THROTTLED: [&str; 8] = [
    "SlowDown",
    "TooManyRequests",
    "RequestLimitExceeded",
    "ThrottlingException",
    "ServerBusy",
    "OperationTimedOut",
    "429 Too Many Requests",
    "503 Service Unavailable",
];

/// Whether one object is archived, so that others may still be readable.
pub(super) fn is_archived(error: &Error) -> bool {
    element(&error.to_string(), "Code").is_some_and(|code| ARCHIVED.contains(&code))
}

/// What the user can do about an answer; `None` if it is unknown here.
pub(super) fn remedy(backend: Backend, text: &str) -> Option<String> {
    let code = element(text, "Code").unwrap_or_default();
    let is = |codes: &[&str]| codes.contains(&code);
    let says = |texts: &[&str]| texts.iter().any(|words| text.contains(words));
    if is(&SKEWED) || says(&SKEWED) {
        return Some(
            "the clock of this machine is wrong by minutes or more: set it (`timedatectl set-ntp true`)".to_owned(),
        );
    }
    if is(&EXPIRED) || says(&EXPIRED_TEXTS) {
        return Some(format!("the credentials have expired, or are not valid yet: {}", renewal(backend)));
    }
    if is(&ARCHIVED) {
        return Some(archived(backend).to_owned());
    }
    if is(&PROTECTED) {
        return Some(
            "a policy or hold prevents objects from being replaced or deleted, which a lake needs: remove it from the \
             lake's prefix, or use another bucket or container"
                .to_owned(),
        );
    }
    if code == "MissingContentMD5" || (code == "InvalidRequest" && says(&CHECKSUMS)) {
        return Some(
            "the bucket requires a checksum with each write (Object Lock): set AWS_CHECKSUM_ALGORITHM=sha256"
                .to_owned(),
        );
    }
    if is(&THROTTLED) || says(&THROTTLED) {
        return Some(
            "the store throttles calls; no staged data is lost: run the command again later, with a smaller \
             --store-concurrency or more --store-retries"
                .to_owned(),
        );
    }
    None
}

/// How to renew credentials.
fn renewal(backend: Backend) -> &'static str {
    match backend {
        Backend::Local => "none are needed",
        Backend::S3 => {
            "AWS_SESSION_TOKEN is valid for hours only; to renew it from a profile: eval \"$(aws configure \
             export-credentials --format env)\", for SSO after `aws sso login`; the machine's own role, or \
             AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN, renews itself"
        }
        Backend::Gcs => {
            "run `gcloud auth application-default login` again, or use a service account, whose credentials renew \
             themselves"
        }
        Backend::Azure => {
            "create a new AZURE_STORAGE_SAS_TOKEN (its st and se limit when it is valid), or use an account key, a \
             service principal or a managed identity"
        }
    }
}

fn archived(backend: Backend) -> &'static str {
    match backend {
        Backend::Azure => {
            "it is in the archive tier: move it back (`az storage blob set-tier --tier Hot`), and exclude the lake's \
             prefix from the rule that archived it; other dates are not affected"
        }
        _ => {
            "it is in an archive such as Glacier: restore it (`aws s3api restore-object`), copy it over itself in a \
             storage class that can be read at once, and exclude the lake's prefix from the lifecycle rule that \
             archived it; other dates are not affected"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str, message: &str) -> String {
        format!(
            "Server returned non-2xx status code: 400 Bad Request: <Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
    }

    #[test]
    fn each_answer_has_its_own_hint() {
        use Backend::{Azure, Gcs, S3};
        let lock = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
        let azure = "Server failed to authenticate the request.\nTime:1</Message><AuthenticationErrorDetail>";
        let sas =
            format!("{azure}Signature not valid in the specified time frame: Start [a] - Expiry [b] - Current [c]");
        let old = format!("{azure}Request date header too old: 'Mon, 01 Jan 2024 00:00:00 GMT'");
        let cases = [
            (S3, answer("ExpiredToken", "The provided token has expired."), "aws configure export-credentials"),
            (S3, answer("ExpiredTokenException", "The security token included in the request is expired"), "AWS_SESSION_TOKEN"),
            (S3, answer("TokenRefreshRequired", "The provided token must be refreshed."), "AWS_SESSION_TOKEN"),
            (Azure, answer("AuthenticationFailed", &sas), "AZURE_STORAGE_SAS_TOKEN"),
            (Azure, answer("InvalidAuthenticationInfo", "Lifetime validation failed. The token is expired."), "expired"),
            (Gcs, "{\"error\": \"invalid_grant\", \"error_description\": \"Bad Request\"}".to_owned(), "gcloud auth"),
            (S3, answer("RequestTimeTooSkewed", "The difference is too large."), "the clock of this machine"),
            (S3, answer("SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2"), "the clock of this machine"),
            (Azure, answer("AuthenticationFailed", &old), "the clock of this machine"),
            (
                Gcs,
                "{\"error\": \"invalid_grant\", \"error_description\": \"Invalid JWT: Token must be a short-lived token (60 \
                 minutes) and in a reasonable timeframe.\"}"
                    .to_owned(),
                "the clock of this machine",
            ),
            (S3, answer("InvalidObjectState", "The operation is not valid for the object's storage class"), "restore-object"),
            (Azure, answer("BlobArchived", "This operation is not permitted on an archived blob."), "set-tier"),
            (Azure, answer("BlobImmutableDueToPolicy", "not permitted"), "another bucket or container"),
            (S3, answer("InvalidRequest", lock), "AWS_CHECKSUM_ALGORITHM=sha256"),
            (S3, answer("MissingContentMD5", "Missing required header"), "AWS_CHECKSUM_ALGORITHM=sha256"),
            (S3, answer("TooManyRequests", "Reduce your concurrent request rate for the same object."), "--store-retries"),
            (Azure, answer("ServerBusy", "The server is currently unable to receive requests."), "--store-retries"),
            (Gcs, "non-2xx status code: 429 Too Many Requests: ".to_owned(), "--store-retries"),
        ];
        for (backend, text, word) in cases {
            let hint = remedy(backend, &text).unwrap_or_default();
            assert!(hint.contains(word), "{text}: {hint}");
        }
    }

    #[test]
    fn an_unknown_answer_has_no_hint() {
        for (code, message) in
            [("AccessDenied", "Access Denied"), ("InvalidRequest", "The region is wrong"), ("NoSuchKey", "")]
        {
            assert_eq!(remedy(Backend::S3, &answer(code, message)), None, "{code}");
        }
    }

    #[test]
    fn an_archived_object_is_recognized() {
        let error = |code: &str| Error::Generic { store: "S3", source: answer(code, "x").into() };
        assert!(is_archived(&error("InvalidObjectState")) && is_archived(&error("BlobArchived")));
        assert!(!is_archived(&error("AccessDenied")));
    }
}
