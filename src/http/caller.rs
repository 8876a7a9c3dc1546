//! Who calls. Until there is authentication every caller is local: the server listens on loopback addresses only.

use std::{convert::Infallible, net::IpAddr};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use crate::{config::Settings, feed::ledger::Peer};

/// The identity behind a request; every handler that changes something asks for it.
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

/// The client's address: that of the connection, or, when a trusted proxy is there, the one that the proxy saw.
#[must_use]
pub fn address(settings: &Settings, peer: Option<&Peer>, headers: &HeaderMap) -> IpAddr {
    let nearest = peer.map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.address);
    if !settings.trusted_proxies.contains(&nearest) {
        return nearest;
    }
    let told = headers.get_all("x-forwarded-for").into_iter().next_back().and_then(|value| value.to_str().ok());
    // The last one is what the nearest proxy saw; those before it anyone can make up.
    told.and_then(|list| list.rsplit(',').next()?.trim().parse().ok()).unwrap_or(nearest)
}

/// What the client says it is, shortened.
#[must_use]
pub fn user_agent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(120).collect::<String>().into())
}
