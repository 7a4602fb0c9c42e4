//! Why a connection failed: finds the cause in a chain of errors, and tells what to do about it if TLS is the cause.

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
            // An I/O error tells the causes of what it wraps, and passes that over.
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// What to do about a failure of TLS that would come again with every try; `None` for all other failures.
pub fn tls_hint(error: &(dyn StdError + 'static)) -> Option<String> {
    match cause::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(error) => Some(certificate_hint(error)),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(
            "the server does not speak TLS at this port; is the address right, or should it begin with http://?".into(),
        ),
        rustls::Error::PeerIncompatible(_) => Some("the server must speak TLS 1.2 or 1.3".into()),
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
                "{lack}: install the system's (often a package named ca-certificates), or set SSL_CERT_FILE to a file \
                 of CA certificates in PEM"
            ),
            None => "the server's certificate comes from a CA that is not trusted here: set SSL_CERT_FILE to a file in \
                     PEM with the certificate of your own CA, or of the proxy that stands in between, and the public ones"
                .to_owned(),
        },
        Expired | ExpiredContext { .. } => {
            "the server's certificate has expired, or this machine's clock is wrong: renew the certificate, or set the \
             clock"
                .to_owned()
        }
        NotValidYet | NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, which most often means that this machine's clock is wrong"
                .to_owned()
        }
        NotValidForName => "the server's certificate is for another host: is the address right?".to_owned(),
        NotValidForNameContext { presented, .. } => {
            // As in DnsName("other.example").
            let names = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect::<Vec<_>>();
            let names = if names.is_empty() { "no host at all".to_owned() } else { names.join(", ") };
            format!("the server's certificate is for another host ({names}): is the address right?")
        }
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "the certificate is not one for servers (its extended key usage lacks serverAuth): issue another one".to_owned()
        }
        Other(other) if is_ca(other.0.as_ref()) => {
            "the server shows a CA certificate (CA:TRUE) as its own, which is refused even if SSL_CERT_FILE has it: issue \
             a certificate for the server with that CA, and leave the CA's in SSL_CERT_FILE"
                .to_owned()
        }
        _ => "the server's certificate is not acceptable; whoever runs the server, or the proxy in front of it, has to \
              mend it"
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
    fn a_cause_is_found_inside_of_io_errors() {
        let inner = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let wrapped = crate::error::Error::store("outer").caused_by(io::Error::other(io::Error::other(inner)));
        assert!(matches!(cause(&wrapped), Some(rustls::Error::InvalidCertificate(_))));
        assert!(tls_hint(&wrapped).unwrap().contains("expired"));
        let other = crate::error::Error::store("outer").caused_by(io::Error::other("refused"));
        assert!(cause::<rustls::Error>(&other).is_none() && tls_hint(&other).is_none());
    }
}
