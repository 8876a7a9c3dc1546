//! Support for a reverse proxy at a sub-path: requests arrive with or without the prefix, depending on the proxy; links
//! in responses are prefixed.

use axum::{
    Router,
    body::{self, Body},
    extract::Request,
    http::{HeaderValue, Uri, header, uri::PathAndQuery},
    response::Response,
};
use tower::ServiceExt;

use crate::base_path::BasePath;

/// Serves the routes also below its base path, and with a trailing slash on any path.
pub(super) fn below(base: BasePath, state: Router) -> Router {
    Router::new().fallback_service(state.map_request(move |mut request: Request| {
        if let Some(uri) = known(&base, request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    }))
}

/// The normalised URI, if it differs from the requested one.
fn known(base: &BasePath, uri: &Uri) -> Option<Uri> {
    let below = base.strip(uri.path());
    let path = below.unwrap_or_else(|| uri.path());
    let bare = path.trim_end_matches('/');
    if below.is_none() && (bare.len() == path.len() || path == "/") {
        return None;
    }
    let path = if bare.is_empty() { "/" } else { bare };
    let path = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Prefixes links in pages and redirects. Live pages do so themselves, once for all viewers.
pub(super) async fn prefix_links(base: &BasePath, mut response: Response) -> Response {
    let headers = response.headers_mut();
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    if let Some(location) = location.filter(|location| location.starts_with('/'))
        && let Ok(led) = HeaderValue::from_str(&format!("{base}{location}"))
    {
        headers.insert(header::LOCATION, led);
    }
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if !is_page {
        return response;
    }
    headers.remove(header::CONTENT_LENGTH);
    let (parts, page) = response.into_parts();
    // The page is already in memory, so this cannot fail.
    let html = body::to_bytes(page, usize::MAX).await.unwrap_or_default();
    let led = std::str::from_utf8(&html).map(|html| base.prefix_links(html).into_owned());
    Response::from_parts(parts, led.map_or_else(|_| Body::from(html.clone()), Body::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_with_a_slash_at_their_end_and_below_the_base_path() {
        let known = |base: &str, uri: &str| {
            let base = base.parse().expect("a base path");
            known(&base, &uri.parse().expect("an address")).map(|uri| uri.to_string())
        };
        for (base, came, found) in [
            ("/", "/", None),
            ("/", "/tasks?a=b/", None),
            ("/", "/tasks/", Some("/tasks")),
            ("/", "/tasks//?a=b", Some("/tasks?a=b")),
            ("/", "//", Some("/")),
            ("/", "//evil.example/", Some("//evil.example")),
            ("/watch", "/watch", Some("/")),
            ("/watch", "/watch/", Some("/")),
            ("/watch", "/watch/?a=b", Some("/?a=b")),
            ("/watch", "/watch/tasks/", Some("/tasks")),
            ("/watch", "/tasks/", Some("/tasks")),
            ("/watch", "/watching", None),
        ] {
            assert_eq!(known(base, came).as_deref(), found, "{base} {came}");
        }
    }
}
