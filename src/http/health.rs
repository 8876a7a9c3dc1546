//! `/healthz`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::{
    Json as Out,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use super::{problem::Problem, site::Site};
use crate::{feed, metrics::Sources, store::log};

/// The tailer may be this far behind the log and still count as current.
const CURRENT: i64 = 10_000;
/// The log may go unread this long.
const UNREAD: Duration = Duration::from_secs(15);
/// How long the log may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "watching", responses((status = 200, description = "As asked", body = Health)))]
pub(super) async fn healthz() -> Out<Health> {
    Out(Health { status: "ok" })
}

/// The log can be read and the board is up to date with it.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "watching", responses((status = 200, description = "As asked", body = Health), (status = 503, description = "Not now", body = Problem)))]
pub(super) async fn readyz(State(site): State<Site>) -> Result<Out<Health>, Problem> {
    if site.stopping.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping"));
    }
    let ends = tokio::time::timeout(PATIENCE, log::ends(site.store.pool())).await;
    let ends = ends.map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", "the event log did not answer in time")
    })??;
    if site.subscriptions.age() > UNREAD {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "behind",
            "the event log could not be read for a while",
        ));
    }
    let behind = ends.head - feed::read(&site.board).position;
    if behind > CURRENT {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "behind",
            format!("the board is {behind} events behind the log"),
        ));
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
