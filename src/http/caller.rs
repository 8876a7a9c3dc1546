//! The caller of a request. Until there is authentication every caller is local: the server listens on loopback
//! addresses only.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Once,
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use crate::{config::Settings, feed::stream_registry::Peer};

/// The identity of a request's caller; required by every handler that changes something.
#[derive(Debug, Clone)]
pub struct Caller {
    actor: String,
}

impl Caller {
    /// The name written into events and logs.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { actor: "local".to_owned() })
    }
}

/// The IP address of the client: that of the connection, or, if that is a trusted proxy, the one the proxy reports.
#[must_use]
pub fn address(settings: &Settings, peer: Option<&Peer>, headers: &HeaderMap) -> IpAddr {
    // Another program's server does not provide the peer: all its clients count as one.
    let mut address: IpAddr = peer.map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.address.to_canonical());
    if !settings.trusted_proxies.contains(&address) {
        return address;
    }
    let lines: Vec<_> = headers.get_all("x-forwarded-for").into_iter().filter_map(|line| line.to_str().ok()).collect();
    if lines.is_empty() {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(proxy = %address, "trusted proxy sends no X-Forwarded-For; all its clients count as one IP address");
        });
    }
    // From the nearest proxy outwards, while each is trusted: entries before that can be forged.
    for told in lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim) {
        if !settings.trusted_proxies.contains(&address) {
            break;
        }
        // Some proxies append the port.
        let parsed: Option<IpAddr> = told.parse().ok().or_else(|| Some(told.parse::<SocketAddr>().ok()?.ip()));
        let Some(parsed) = parsed else { break };
        address = parsed.to_canonical();
    }
    address
}

/// The scheme used by the client, `http` or `https`: as reported by a trusted proxy, else that of the connection.
pub(super) fn scheme(settings: &Settings, peer: Option<&Peer>, headers: &HeaderMap) -> &'static str {
    let is_trusted = peer.is_some_and(|peer| settings.trusted_proxies.contains(&peer.address.to_canonical()));
    let told = headers.get("x-forwarded-proto").filter(|_| is_trusted);
    if told.is_some_and(|told| told == "https") { "https" } else { "http" }
}

/// The user agent, truncated.
#[must_use]
pub fn user_agent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(120).collect::<String>().into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn settings(trusted: &[&str]) -> Settings {
        let trusted_proxies = trusted.iter().map(|address| address.parse().unwrap()).collect();
        Settings { trusted_proxies, ..Settings::default() }
    }

    fn peer(address: &str) -> Peer {
        Peer { address: address.parse().unwrap(), stuck: Arc::default(), stalled: Arc::default() }
    }

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn seen_as(trusted: &[&str], from: &str, forwarded: &[&str]) -> String {
        address(&settings(trusted), Some(&peer(from)), &headers("x-forwarded-for", forwarded)).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(seen_as(&[], "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(seen_as(&["192.0.2.1"], "192.0.2.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(seen_as(&["192.0.2.1"], "192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(seen_as(&["192.0.2.1"], "192.0.2.1", &["unknown"]), "192.0.2.1");
        assert_eq!(address(&settings(&[]), None, &HeaderMap::new()), IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn what_stands_before_the_last_trusted_proxy_may_be_forged() {
        let trusted = ["192.0.2.1", "192.0.2.2"];
        assert_eq!(seen_as(&trusted, "192.0.2.1", &["6.6.6.6, 198.51.100.7, 192.0.2.2"]), "198.51.100.7");
        assert_eq!(seen_as(&trusted, "192.0.2.1", &["6.6.6.6, 198.51.100.7", "192.0.2.2"]), "198.51.100.7");
        assert_eq!(seen_as(&trusted, "192.0.2.1", &["198.51.100.7, garbage, 192.0.2.2"]), "192.0.2.2");
        assert_eq!(seen_as(&trusted, "192.0.2.1", &["192.0.2.2"]), "192.0.2.2", "all of them are proxies");
    }

    #[test]
    fn addresses_may_have_a_port_or_be_mapped() {
        for (forwarded, right) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ] {
            assert_eq!(seen_as(&["127.0.0.1"], "::ffff:127.0.0.1", &[forwarded]), right);
        }
    }

    #[test]
    fn a_trusted_proxy_says_which_scheme_the_client_used() {
        let of = |trusted: &[&str], told: &[&str]| {
            scheme(&settings(trusted), Some(&peer("192.0.2.1")), &headers("x-forwarded-proto", told))
        };
        assert_eq!(of(&["192.0.2.1"], &["https"]), "https");
        assert_eq!(of(&["192.0.2.1"], &["http"]), "http");
        assert_eq!(of(&["192.0.2.1"], &[]), "http");
        assert_eq!(of(&[], &["https"]), "http");
    }

    #[test]
    fn a_user_agent_is_cut_after_120_characters() {
        let agent = |text: &str| user_agent(&headers("user-agent", &[text])).map(|agent| agent.len());
        assert_eq!((agent("curl/8"), agent(&"x".repeat(121))), (Some(6), Some(120)));
        assert_eq!(user_agent(&HeaderMap::new()), None);
    }
}
