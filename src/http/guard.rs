//! Applied to all requests: checks of size, Host and origin, a panic handler, and security headers. Errors are problem
//! details for programs and pages for browsers.

use std::panic::AssertUnwindSafe;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use super::{caller, codes::ErrorCode, conditions, hosts::Hosts, origin, pages, problem::Problem, state::AppState};
use crate::feed::stream_registry::Peer;

/// Maximum length of a URL, bytes.
const MAX_URL: usize = 8 * 1024;
/// Maximum size of request headers, bytes: names, values, and 4 bytes for each.
const MAX_HEADERS: usize = 16 * 1024;
/// Endpoints called by programs that do not know our host name.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// The checks of incoming requests, with the allowed host names.
pub(super) struct Door {
    state: AppState,
    hosts: Hosts,
}

impl Door {
    pub(super) fn new(state: &AppState) -> Self {
        Self { state: state.clone(), hosts: Hosts::new(&state.settings.allowed_hosts) }
    }

    /// Admits or rejects a request.
    ///
    /// # Errors
    /// A 4xx that names the invalid header.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        sizes(request)?;
        let headers = request.headers();
        if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            let detail = "Content-Encoding is not supported; send the body uncompressed";
            return Err(Problem::new(ErrorCode::UnsupportedEncoding, detail));
        }
        let host = self.hosts.check(request, PROBES.contains(&request.uri().path()))?;
        let scheme = caller::scheme(&self.state.settings, request.extensions().get::<Peer>(), headers);
        origin::check(request, host.as_ref(), scheme)?;
        conditions::check(request)
    }
}

fn sizes(request: &Request) -> Result<(), Problem> {
    let url = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if url > MAX_URL {
        let detail = format!("the URL exceeds {MAX_URL} bytes; shorten its query");
        return Err(Problem::new(ErrorCode::UrlTooLong, detail));
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers > MAX_HEADERS {
        let detail = format!("headers exceed {MAX_HEADERS} bytes; send fewer or shorter ones");
        return Err(Problem::new(ErrorCode::HeadersTooLarge, detail));
    }
    Ok(())
}

/// The response, or an error if the handler panicked. The panic hook has logged it.
pub(super) async fn answered(
    answer: impl Future<Output = Response>,
    refusal: impl FnOnce(Problem) -> Response,
) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        let detail = "The server made a mistake. Its log says more.";
        refusal(Problem::new(ErrorCode::Internal, detail))
    })
}

/// Whether an error is for a person (judging by the browser's headers) or for a program.
pub(super) struct Reader(Option<HeaderMap>);

impl Reader {
    pub(super) fn of(request: &Request) -> Self {
        let headers = request.headers();
        Self(pages::is_browser(headers, request.uri().path()).then(|| headers.clone()))
    }

    pub(super) fn refusal(&self, state: &AppState, problem: Problem) -> Response {
        match &self.0 {
            Some(headers) => pages::failure(state, headers, &problem, None),
            None => problem.into_response(),
        }
    }
}

/// Adds headers to every response.
pub(super) fn secure(headers: &mut HeaderMap) {
    const EVERYWHERE: [(HeaderName, &str); 2] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    const DOCUMENTS: [(HeaderName, &str); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), usb=()",
        ),
    ];
    // A stream is not a document, and its connection keeps the memory of its headers.
    let is_stream = headers.contains_key("events-resume");
    headers.reserve(EVERYWHERE.len() + DOCUMENTS.len() + 2);
    for (name, value) in EVERYWHERE.into_iter().chain(DOCUMENTS.into_iter().filter(|_| !is_stream)) {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_answer() {
        let panics = async { panic!("what the log says") };
        let response = answered(panics, IntoResponse::into_response).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let fine = answered(async { StatusCode::NO_CONTENT.into_response() }, IntoResponse::into_response).await;
        assert_eq!(fine.status(), StatusCode::NO_CONTENT);
    }

    #[test]
    fn sizes_are_bounded() {
        let status = |url: usize, headers: usize| {
            let request = axum::http::Request::get(format!("/{}", "a".repeat(url - 1)));
            let request = request.header("x", "b".repeat(headers - 5)).body(axum::body::Body::empty());
            sizes(&request.expect("a request")).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(status(MAX_URL, MAX_HEADERS), Ok(()));
        assert_eq!(status(MAX_URL + 1, 10), Err(414));
        assert_eq!(status(1, MAX_HEADERS + 1), Err(431));
    }
}
