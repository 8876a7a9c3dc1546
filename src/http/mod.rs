//! HTTP: accept loop, API, stream, pages and static files.

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
mod connection_slots;
pub mod documents;
mod each;
mod forms;
mod guard;
pub mod health;
mod hosts;
pub mod input;
mod jump;
pub mod limits;
pub mod live;
mod origin;
mod page_context;
mod page_params;
pub mod pages;
pub mod problem;
pub mod query;
mod request_id;
mod routes;
pub mod server;
pub mod socket;
pub mod state;
pub mod stream;
mod strict;
mod text;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{Extensions, HeaderMap, StatusCode, Version},
    middleware::{self, Next},
    response::{Redirect, Response},
    routing::get,
};
use tower_http::compression::{
    CompressionLayer,
    predicate::{DefaultPredicate, NotForContentType, Predicate},
};

use tracing::Instrument;

use guard::Reader;
use request_id::Identified;
use state::AppState;

/// All routes. They can be mounted below a path of another program's router, and served by another program's server,
/// which is then responsible for the limits of [`server::serve`] on connections.
pub fn router(state: AppState) -> Router {
    let (api, _) = api::router().split_for_parts();
    let base = state.settings.base_path.clone();
    let router = api
        .route("/openapi.json", get(api::document::serve))
        .route("/metrics", get(health::metrics))
        .route("/live", get(live::live))
        .route("/static/{*path}", get(assets::serve))
        .route("/favicon.ico", get(|| std::future::ready(Redirect::permanent(&assets::url("icon.svg")))))
        .route("/robots.txt", get(|| std::future::ready("User-agent: *\nDisallow: /\n")))
        .merge(pages::router())
        .merge(forms::router())
        .merge(jump::router())
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::new(Around::new(&state)), around));
    // Streams are compressed by their encoder or not at all: this layer would buffer their events. Constant content was
    // compressed once.
    let compressed = DefaultPredicate::new().and(NotForContentType::const_new("application/x-ndjson")).and(
        |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
            extensions.get::<assets::SharedBytes>().is_none()
        },
    );
    let router = router.layer(CompressionLayer::new().compress_when(compressed)).with_state(state);
    base_path::below(base, router)
}

/// State of the layer around every handler.
struct Around {
    state: AppState,
    meter: answers::Meter,
    door: guard::Door,
}

impl Around {
    fn new(state: &AppState) -> Self {
        Self { state: state.clone(), meter: answers::Meter::new(state), door: guard::Door::new(state) }
    }
}

/// All checks in one layer: each separate layer would clone and box everything below it for each request.
async fn around(State(around): State<Arc<Around>>, mut request: Request, next: Next) -> Response {
    let Around { state, meter, door } = &*around;
    let identified = Identified::new(&request, state.clock.now());
    let measured = meter.begins(&mut request);
    let reader = Reader::of(&request);
    let mut response = match door.check(&request) {
        Ok(()) => {
            let answer = next.run(request).instrument(identified.span());
            guard::answered(answer, |problem| reader.refusal(state, problem)).await
        }
        Err(problem) => reader.refusal(state, problem),
    };
    let base = &state.settings.base_path;
    if !base.is_root() {
        response = Box::pin(base_path::prefix_links(base, response)).await;
    }
    response = meter.ends(measured, response);
    guard::secure(response.headers_mut());
    identified.answered(state, response)
}
