//! The trusted CA certificates: those of SSL_CERT_FILE and SSL_CERT_DIR, or else the system's own.
//!
//! They are read once. Having none is no failure here, because requests without TLS still work.

use std::sync::OnceLock;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::CertificateResult;

/// OpenSSL's variables that replace the system's certificates.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

static TRUST: OnceLock<Trust> = OnceLock::new();

struct Trust {
    certificates: Vec<CertificateDer<'static>>,
    /// Why there are no certificates.
    lack: Option<String>,
}

/// The trusted certificates, in DER.
pub fn certificates() -> impl Iterator<Item = &'static [u8]> {
    trust().certificates.iter().map(AsRef::as_ref)
}

/// Why there are no trusted certificates; `None` if there are some.
pub(super) fn lack() -> Option<&'static str> {
    trust().lack.as_deref()
}

fn trust() -> &'static Trust {
    TRUST.get_or_init(|| {
        let CertificateResult { mut certs, errors, .. } = rustls_native_certs::load_native_certs();
        // An unreadable certificate must not make the others useless.
        certs.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
        let lack = certs.is_empty().then(|| {
            let named = VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()).collect::<Vec<_>>();
            let why = errors.first().map_or_else(String::new, |error| format!(" ({error})"));
            match named.is_empty() {
                true => "this machine has no CA certificates".to_owned(),
                false => format!("{} contains no CA certificate{why}", named.join(" or ")),
            }
        });
        Trust { certificates: certs, lack }
    })
}
