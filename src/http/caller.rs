//! Who calls. Until there is authentication every caller is local: the server listens on loopback addresses only.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

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
