//! Finds the cause of a failed connection in a chain of errors, and a hint if TLS is the cause.

use std::error::Error as StdError;
use std::io;

use rustls::{CertificateError, InvalidMessage};

use super::trust;

/// The error of type `T` among the causes of `error`, or `error` itself.
pub fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // `source` of an I/O error skips the error that it wraps.
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// What the user can do about a TLS failure that every retry would repeat; `None` for all other failures.
pub fn tls_hint(error: &(dyn StdError + 'static)) -> Option<String> {
    match cause::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(error) => Some(certificate_hint(error)),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("the server does not speak TLS at this port: check the address; should it begin with http://?".into())
        }
        rustls::Error::PeerIncompatible(_) => Some("the server must support TLS 1.2 or 1.3".into()),
        _ => None,
    }
}

fn certificate_hint(error: &CertificateError) -> String {
    use CertificateError::{
        Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, Other, UnknownIssuer,
    };
    match error {
        UnknownIssuer => match trust::lack() {
            Some(lack) => format!(
                "{lack}: install the system's (often the package ca-certificates), or set SSL_CERT_FILE to a PEM file \
                 of CA certificates"
            ),
            None => "the server's certificate comes from a CA that is not trusted here: set SSL_CERT_FILE to a PEM \
                     file with the certificate of your own CA, or of the proxy in between, and the public ones"
                .to_owned(),
        },
        Expired | ExpiredContext { .. } => {
            "the server's certificate has expired, or this machine's clock is wrong: renew the certificate, or set the \
             clock"
                .to_owned()
        }
        NotValidYet | NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check this machine's clock, which is most often the cause"
                .to_owned()
        }
        NotValidForName => "the server's certificate is for another host: check the address".to_owned(),
        NotValidForNameContext { presented, .. } => {
            // As in DnsName("other.example").
            let names = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect::<Vec<_>>();
            let names = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
            format!("the server's certificate is for another host ({names}): check the address")
        }
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "the certificate is not for servers (its extended key usage lacks serverAuth): issue another one".to_owned()
        }
        Other(other) if is_ca(other.0.as_ref()) => {
            "the server presents a CA certificate (CA:TRUE) as its own, which is refused even if SSL_CERT_FILE \
             contains it: issue a certificate for the server with that CA, and keep the CA's in SSL_CERT_FILE"
                .to_owned()
        }
        _ => "the server's certificate is invalid: the operator of the server, or of the proxy in front of it, must \
              replace it"
            .to_owned(),
    }
}

fn is_ca(error: &(dyn StdError + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_inside_io_errors() {
        let inner = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let wrapped = crate::error::Error::store("outer").caused_by(io::Error::other(io::Error::other(inner)));
        assert!(matches!(cause(&wrapped), Some(rustls::Error::InvalidCertificate(_))));
        assert!(tls_hint(&wrapped).unwrap().contains("expired"));
        let other = crate::error::Error::store("outer").caused_by(io::Error::other("refused"));
        assert!(cause::<rustls::Error>(&other).is_none() && tls_hint(&other).is_none());
    }
}
