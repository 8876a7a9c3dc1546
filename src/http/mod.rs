//! HTTP: the accept loop, the API, the stream, the pages and their files.

mod activity;
mod answers;
pub mod api;
pub mod assets;
mod base_path;
mod bodies;
mod budget;
pub mod caller;
pub mod codes;
mod conditions;
mod connection;
mod door;
mod each;
mod forms;
pub mod health;
mod hosts;
pub mod input;
pub mod limits;
pub mod live;
mod origin;
mod outgoing;
pub mod pages;
mod places;
pub mod problem;
pub mod query;
mod request_id;
pub mod server;
pub mod site;
pub mod socket;
pub mod stream;
mod strict;
mod text;

use axum::{
    Router,
    http::{Extensions, HeaderMap, StatusCode, Version},
    middleware,
    response::Redirect,
    routing::get,
};
use tower_http::compression::{
    CompressionLayer,
    predicate::{DefaultPredicate, NotForContentType, Predicate},
};

use site::Site;

/// The whole site. It works below a path of a host's own router, and under a host's own server; there the limits of
/// [`server::serve`] on connections are the host's business.
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
        .method_not_allowed_fallback(pages::method_not_allowed)
        .layer(middleware::from_fn(conditions::refuse_unsupported))
        .layer(middleware::from_fn_with_state(door::Door::new(&site), door::pass));
    let router = if base.is_root() {
        router
    } else {
        router.layer(middleware::from_fn_with_state(base.clone(), base_path::lead))
    };
    // Streams are compressed by those who make them, or not at all: this would hold their events back. What is always
    // the same was compressed once.
    let compressed = DefaultPredicate::new().and(NotForContentType::const_new("application/x-ndjson")).and(
        |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
            extensions.get::<answers::SharedBytes>().is_none()
        },
    );
    let router = router
        .layer(middleware::from_fn_with_state(answers::Meter::new(&site), answers::meter))
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(middleware::from_fn_with_state(site.clone(), request_id::identify))
        .with_state(site);
    base_path::below(base, router)
}
