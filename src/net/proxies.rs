//! Checks the proxies in the environment. An invalid address is an error here, because the clients would ignore it and
//! send requests directly, or not at all.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Proxy;
use url::Url;

use crate::error::{Error, Result};

/// The first of `names` that is set, and its value, even if that is empty.
fn first_set(names: [&'static str; 2]) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| Some((name, std::env::var(name).ok()?)))
}

/// Checks the proxy for requests to `url`, if the environment has one.
///
/// # Errors
/// If its address is invalid. The value is not shown, because it may contain a password.
pub fn check_proxy(url: &Url) -> Result<()> {
    let own = match url.scheme() {
        "http" => ["HTTP_PROXY", "http_proxy"],
        _ => ["HTTPS_PROXY", "https_proxy"],
    };
    let is_set = |(_, value): &(&str, String)| !value.is_empty();
    let named = first_set(own).filter(is_set).or_else(|| first_set(["ALL_PROXY", "all_proxy"]).filter(is_set));
    let Some((name, value)) = named else { return Ok(()) };
    let (_, exempt) = first_set(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    if !intercepts(&Matcher::builder().all("http://proxy").no(exempt).build(), url) {
        return Ok(());
    }
    // Both must accept it, because they refuse different values.
    if intercepts(&Matcher::builder().all(value.as_str()).build(), url) && Proxy::all(&value).is_ok() {
        return Ok(());
    }
    Err(Error::usage(format!("{name} is not the address of a proxy"))
        .with_hint("set it to http://host:port, https://host:port or socks5h://host:port, without quotes"))
}

fn intercepts(matcher: &Matcher, url: &Url) -> bool {
    url.as_str().parse().is_ok_and(|target| matcher.intercept(&target).is_some())
}
