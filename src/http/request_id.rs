//! The request ID: taken from the request or generated. It is in the response, in problems and in the log.

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, header},
    response::Response,
};

use super::{problem::Problem, state::AppState};
use crate::clock::Time;

const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of an accepted ID, bytes.
const MAX_BYTES: usize = 128;

/// A request's ID, and the labels for counting its response.
pub(super) struct Identified {
    id: HeaderValue,
    method: Method,
    route: Option<MatchedPath>,
}

impl Identified {
    pub(super) fn new(request: &Request, now: Time) -> Self {
        let id = request.headers().get(NAME).filter(|value| is_plain(value)).cloned();
        Self {
            id: id.unwrap_or_else(|| fresh(now)),
            method: request.method().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
        }
    }

    fn text(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// The log span of the request.
    pub(super) fn span(&self) -> tracing::Span {
        // At error level, so that it is enabled for any logged message.
        tracing::error_span!("request", id = self.text())
    }

    /// Counts the response and adds the request ID.
    pub(super) fn answered(self, state: &AppState, mut response: Response) -> Response {
        let route = self.route.as_ref().map(MatchedPath::as_str);
        state.metrics.requests.count(&self.method, route, response.status());
        if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
            problem.request_id = Some(self.text().into());
            for length in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
                response.headers_mut().remove(length);
            }
            *response.body_mut() = Body::from(problem.body());
        }
        response.headers_mut().insert(NAME, self.id);
        response
    }
}

/// A new ID, sortable by time. It is not a secret, so it does not need a cryptographic generator.
fn fresh(now: Time) -> HeaderValue {
    let bits = fastrand::u128(..).to_ne_bytes();
    let bits = std::array::from_fn(|index| bits[index]);
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &bits).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut text)).expect("a UUID is a header value")
}

fn is_plain(value: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    !value.is_empty() && value.len() <= MAX_BYTES && value.as_bytes().iter().all(allowed)
}
