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
