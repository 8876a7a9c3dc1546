//! An id for each request: the one it came with, or a new one. It is in the answer, in problems and in the log.

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use tracing::Instrument;

use super::{problem::Problem, site::Site};
use crate::clock::Time;

const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over, bytes.
const MAX_BYTES: usize = 128;

/// Names the request, and counts its answer by route.
pub(super) async fn identify<A: Future<Output = Response>>(
    site: &Site,
    request: Request,
    next: impl FnOnce(Request) -> A,
) -> Response {
    let id = request.headers().get(NAME).filter(|value| is_plain(value)).cloned();
    let id = id.unwrap_or_else(|| fresh(site.clock.now()));
    let text = id.to_str().unwrap_or_default().to_owned();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // At error level, so that it is there for whatever is logged.
    let span = tracing::error_span!("request", id = %text);
    let mut response = next(request).instrument(span).await;
    site.metrics.requests.count(&method, route.as_ref().map(MatchedPath::as_str), response.status());
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.request_id = Some(text.into());
        for length in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
            response.headers_mut().remove(length);
        }
        *response.body_mut() = Body::from(problem.body());
    }
    response.headers_mut().insert(NAME, id);
    response
}

/// A new id, which sorts by its time. It is no secret, so its bits need not come from the system.
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
