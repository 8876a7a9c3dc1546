//! HTTP: the accept loop, the API, the stream, the pages and their files.

pub mod api;
pub mod assets;
mod base_path;
pub mod caller;
pub mod codes;
mod conditions;
mod forms;
pub mod health;
pub mod input;
pub mod live;
mod outgoing;
pub mod pages;
pub mod problem;
pub mod query;
mod request_id;
pub mod server;
pub mod site;
pub mod socket;
pub mod stream;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer, csrf::CsrfLayer};

use problem::Problem;
use site::Site;

/// The whole site.
pub fn router(site: Site) -> Router {
    let (api, _) = api::router().split_for_parts();
    let base = site.settings.base_path.clone();
    let router = api
        .route("/openapi.json", get(api::document::serve))
        .route("/metrics", get(health::metrics))
        .route("/live", get(live::live))
        .route("/static/{*path}", get(assets::serve))
        .route("/favicon.ico", get(|| std::future::ready(Redirect::permanent(&assets::url("icon.svg")))))
        .route("/robots.txt", get(|| std::future::ready("User-agent: *\nDisallow: /\n")))
        .merge(pages::router())
        .merge(forms::router())
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::method_not_allowed);
    let router = if base.is_root() {
        router
    } else {
        router.layer(middleware::from_fn_with_state(base.clone(), base_path::lead))
    };
    let router = router
        .layer(CsrfLayer::new())
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn(conditions::refuse_unsupported))
        .layer(middleware::from_fn_with_state(site.clone(), known_host))
        .layer(middleware::from_fn(headers))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(site.clone(), request_id::identify))
        .with_state(site);
    base_path::below(base, router)
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over like this")]
fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    tracing::error!(cause = text.unwrap_or("unknown"), "a request handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server made a mistake; its log says more")
        .into_response()
}

/// Refuses names that are not ours: a foreign page whose own name was pointed at this machine (DNS rebinding) would
/// otherwise count as the same origin.
async fn known_host(State(site): State<Site>, request: Request, next: Next) -> Response {
    let told = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    // HTTP/2 has it in the address.
    let host = told.or_else(|| Some(request.uri().authority()?.as_str())).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let ours = name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
        || site.settings.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if ours {
        return next.run(request).await;
    }
    let detail = "this server is not known under that host name; use its address, or start it with --allowed-hosts";
    Problem::field(StatusCode::MISDIRECTED_REQUEST, "unknown_host", "Host", detail).into_response()
}

/// Headers of every response: nothing may be framed, sniffed, or loaded from elsewhere.
async fn headers(request: Request, next: Next) -> Response {
    const FIXED: [(HeaderName, &str); 5] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // A stream is no document; its connection keeps the room that its headers took.
    let is_stream = headers.contains_key("events-resume");
    for (name, value) in FIXED {
        if !is_stream || name == header::X_CONTENT_TYPE_OPTIONS {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
