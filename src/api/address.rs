//! The URL of the export endpoint. Guarantees: the key is sent only by https or to this machine, unless `--allow-http`.

use url::Url;

use crate::error::{Error, Result};
use crate::net::is_loopback;

/// The endpoint below `base_url`.
///
/// # Errors
/// If the key must not be sent there.
pub(crate) fn endpoint(base_url: &Url, allow_http: bool) -> Result<Url> {
    if !base_url.username().is_empty() || base_url.password().is_some() {
        return Err(
            Error::usage("--base-url contains a user name or password").with_hint("remove it, and set DECAGON_API_KEY")
        );
    }
    let fault = |what: &str| Error::usage(format!("--base-url {base_url} {what}"));
    match base_url.scheme() {
        "https" => {}
        "http" if base_url.host().is_some_and(|host| is_loopback(&host)) || allow_http => {}
        "http" => {
            return Err(fault("would send the API key unencrypted").with_hint("use https, or set --allow-http"));
        }
        _ => return Err(fault("is not an http(s) address")),
    }
    let mut endpoint = base_url.clone();
    endpoint.set_query(None);
    endpoint.set_fragment(None);
    endpoint
        .path_segments_mut()
        .map_err(|()| fault("is not an http(s) address"))?
        .pop_if_empty()
        .extend(["conversation", "export"]);
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_https_or_to_this_machine() {
        let at = |url: &str, allow_http| endpoint(&Url::parse(url).unwrap(), allow_http).map(|url| url.to_string());
        assert_eq!(at("https://api.decagon.ai", false).unwrap(), "https://api.decagon.ai/conversation/export");
        assert_eq!(at("https://proxy/decagon/", false).unwrap(), "https://proxy/decagon/conversation/export");
        assert!(at("http://127.0.0.1:8787", false).is_ok());
        assert!(at("http://[::1]:8787/", false).is_ok());
        assert!(at("http://localhost", false).is_ok());
        for url in [
            "http://api.decagon.ai",
            "http://localhost.example.com",
            "ftp://api.decagon.ai",
            "https://u:p@host",
            "http://u:p@host",
        ] {
            let error = at(url, false).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2);
            assert!(!error.to_string().contains("u:p"));
        }
        assert!(at("http://10.0.0.1", true).is_ok());
    }
}
