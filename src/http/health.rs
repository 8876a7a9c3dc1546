//! `/healthz`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::{
    Json as Out,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{door::secure, hosts::Hosts, problem::Problem, site::Site};
use crate::{config::Settings, feed, metrics::Sources, page::BasePath, store::log};

/// Where one asks whether the process lives.
const HEALTHZ: &str = "/healthz";
/// The tailer may be this far behind the log and still count as current.
const CURRENT: i64 = 10_000;
/// The log may go unread this long.
const UNREAD: Duration = Duration::from_secs(15);
/// Writing may fail this long.
const NOT_WRITING: Duration = Duration::from_secs(5);
/// How long the log may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// Answers `/healthz` in front of everything that may be busy, for our own accept loop.
#[derive(Debug)]
pub(super) struct Probe {
    hosts: Hosts,
    base: BasePath,
}

impl Probe {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { hosts: Hosts::new(&settings.allowed_hosts), base: settings.base_path.clone() }
    }

    /// The answer, when that is what is asked. `refuses`: there is no other one.
    pub(super) fn answer<B>(&self, request: &Request<B>, refuses: bool) -> Option<Response> {
        let path = request.uri().path().trim_end_matches('/');
        let asks = path == HEALTHZ || self.base.strip(path) == Some(HEALTHZ);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut response = if asks && reads && self.hosts.check(request, true).is_ok() {
            Out(Health { status: "ok" }).into_response()
        } else if refuses {
            let detail = "too many connections are open, in all or of your address; close some, or come back later";
            let mut response =
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", detail).into_response();
            if request.version() < Version::HTTP_2 {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        } else {
            return None;
        };
        secure(response.headers_mut());
        Some(response)
    }
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "watching", responses((status = 200, description = "As asked", body = Health)))]
pub(super) async fn healthz() -> Out<Health> {
    Out(Health { status: "ok" })
}

/// The log can be read and written, and the board is up to date with it.
#[utoipa::path(get, path = "/readyz", tag = "watching", responses((status = 200, description = "As asked", body = Health), (status = 503, description = "Not now", body = Problem)))]
pub(super) async fn readyz(State(site): State<Site>) -> Result<Out<Health>, Problem> {
    let not_now = |code, detail: String| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail));
    if site.stopping.is_cancelled() {
        return not_now("stopping", "the server is stopping".to_owned());
    }
    if let Some(changed) = site.store.identity().suspected() {
        return not_now("log_changed", format!("the event log is being read anew: {changed}"));
    }
    let ends = tokio::time::timeout(PATIENCE, log::ends(site.store.pool())).await;
    let ends = match ends {
        Ok(ends) => ends?,
        Err(_) => return not_now("database_unavailable", "the event log did not answer in time".to_owned()),
    };
    if site.subscriptions.age() > UNREAD {
        return not_now("behind", "the event log could not be read for a while".to_owned());
    }
    let behind = ends.head - feed::read(&site.board).position;
    if behind > CURRENT {
        return not_now("behind", format!("the board is {behind} events behind the log"));
    }
    if let Some(failing) = site.writer.writing().failing_for(NOT_WRITING) {
        let detail = format!("nothing can be stored for {} s: {}", failing.elapsed.as_secs(), failing.reason);
        return not_now("not_writing", detail);
    }
    Ok(Out(Health { status: "ok" }))
}

/// Figures in the Prometheus text format.
pub(super) async fn metrics(State(site): State<Site>) -> impl IntoResponse {
    let stats = feed::read(&site.board).stats(site.clock.now());
    let position = feed::read(&site.board).position;
    let (ledger, deliveries, writer) = (&site.ledger, &site.deliveries, site.writer.counters());
    let text = site.metrics.render(Sources { stats: &stats, position, ledger, deliveries, writer });
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
