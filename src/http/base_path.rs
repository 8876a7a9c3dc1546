//! Behind a reverse proxy that shows the site at a path of its own: requests come with that path or without, whatever
//! the proxy does; what leaves leads there.

use axum::{
    Router,
    body::{self, Body},
    extract::{Request, State},
    http::{HeaderValue, Uri, header, uri::PathAndQuery},
    middleware::Next,
    response::Response,
};
use tower::ServiceExt;

use crate::page::BasePath;

/// The site, also below its base path.
pub(super) fn below(base: BasePath, site: Router) -> Router {
    if base.is_root() {
        return site;
    }
    Router::new().fallback_service(site.map_request(move |mut request: Request| {
        if let Some(uri) = stripped(&base, request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    }))
}

fn stripped(base: &BasePath, uri: &Uri) -> Option<Uri> {
    let path = base.strip(uri.path())?;
    let path = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Leads the addresses of pages and of redirects to the base path. Live pages do so themselves, once for all viewers.
pub(super) async fn lead(State(base): State<BasePath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
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
    // A page is in memory already; there is nothing that could fail.
    let html = body::to_bytes(page, usize::MAX).await.unwrap_or_default();
    let led = std::str::from_utf8(&html).map(|html| base.lead(html).into_owned());
    Response::from_parts(parts, led.map_or_else(|_| Body::from(html.clone()), Body::from))
}
