//! `/healthz`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::{
    Json as Out,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Version, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa_axum::routes;

use super::{codes::ErrorCode, guard::secure, hosts::Hosts, problem::Problem, state::AppState};
use crate::{
    base_path::BasePath,
    board::{Board, health, queues::Queue},
    clock::Time,
    config::Settings,
    feed,
    http::routes::Routes,
    metrics::{LogFigures, MAX_LABELS, OTHER, QueueFigures, Sources, TextFormat},
    model::{Status, access::Scope, worker::WorkerStatus},
    store::event_log,
};

/// Path of the liveness check.
const HEALTHZ: &str = "/healthz";
/// Maximum lag of the tailer for readiness, events.
const CURRENT: i64 = 10_000;
/// Maximum time without reading the log for readiness.
const UNREAD: Duration = Duration::from_secs(15);
/// Maximum time of failing writes for readiness.
const NOT_WRITING: Duration = Duration::from_secs(5);
/// Timeout of reading the log.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of reading the log for a scrape; on timeout one metric is omitted.
const SCRAPE: Duration = Duration::from_millis(500);

/// Status of the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Alive {
    status: &'static str,
}

/// Serves `/healthz` ahead of anything that may be busy, for our own accept loop.
#[derive(Debug)]
pub(super) struct Probe {
    hosts: Hosts,
    base: BasePath,
}

impl Probe {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { hosts: Hosts::new(&settings.allowed_hosts), base: settings.base_path.clone() }
    }

    /// The response, if the request is a liveness check. `refuses`: no other request is served.
    pub(super) fn answer<B>(&self, request: &Request<B>, refuses: bool) -> Option<Response> {
        let path = request.uri().path().trim_end_matches('/');
        let asks = path == HEALTHZ || self.base.strip(path) == Some(HEALTHZ);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut response = if asks && reads && self.hosts.check(request, true).is_ok() {
            Out(Alive { status: "ok" }).into_response()
        } else if refuses {
            let detail = "too many open connections, in total or from your IP address; close some, or retry later";
            let mut response = Problem::new(ErrorCode::TooManyConnections, detail).into_response();
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

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Public, routes!(healthz)), (Scope::Public, routes!(readyz))]
}

/// Liveness.
#[utoipa::path(get, path = "/healthz", operation_id = "getLiveness", tag = "monitoring", responses((status = 200, description = "OK", body = Alive)))]
pub(super) async fn healthz() -> Out<Alive> {
    Out(Alive { status: "ok" })
}

/// Readiness: log readable and writable, board up to date.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "monitoring", responses((status = 200, description = "OK", body = Alive), (status = 503, description = "Not ready", body = Problem)))]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<Out<Alive>, Problem> {
    let not_now = |code, detail: String| Err(Problem::new(code, detail));
    if state.stopping.is_cancelled() {
        return not_now(ErrorCode::Stopping, "the server is shutting down".to_owned());
    }
    if let Some(changed) = state.store.identity().suspected() {
        return not_now(ErrorCode::LogChanged, format!("the event log is being reloaded: {changed}"));
    }
    let ends = tokio::time::timeout(TIMEOUT, state.event_log.ends()).await;
    let ends = match ends {
        Ok(ends) => ends?,
        Err(_) => return not_now(ErrorCode::DatabaseUnavailable, "database timeout".to_owned()),
    };
    if state.subscriptions.age() > UNREAD {
        return not_now(ErrorCode::Behind, "event log unreadable for more than 15 s".to_owned());
    }
    let behind = ends.head - feed::read(&state.board).position;
    if behind > CURRENT {
        return not_now(ErrorCode::Behind, format!("{behind} events behind the log"));
    }
    if let Some(failing) = state.writer.writing().failing_for(NOT_WRITING) {
        let detail = format!("writes have failed for {} s: {}", failing.elapsed.as_secs(), failing.reason);
        return not_now(ErrorCode::NotWriting, detail);
    }
    Ok(Out(Alive { status: "ok" }))
}

/// Metrics, in the text format preferred by the scraper.
pub(super) async fn metrics(State(state): State<AppState>, headers: HeaderMap) -> impl IntoResponse {
    let ends = tokio::time::timeout(SCRAPE, state.event_log.ends()).await;
    let head = ends.ok().and_then(Result::ok).map(|ends| ends.head);
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = TextFormat::accepted(&accept.join(","));
    let now = state.clock.now();
    let pool = state.store.pool();
    let connections =
        (pool.size(), u32::try_from(pool.num_idle()).unwrap_or(u32::MAX), pool.options().get_max_connections());
    let board = feed::read(&state.board);
    let stats = board.stats(now);
    let lost = board.workers.0.values().filter(|worker| worker.status == WorkerStatus::Lost).count() as u64;
    let sources = Sources {
        now,
        stats: &stats,
        health: health::overall(&board, state.settings.quiet(), now).status,
        workers_lost: lost,
        queues: largest(&board, now),
        queues_paused: board.queues.0.values().filter(|queue| queue.paused_at.is_some()).count(),
        log: LogFigures {
            position: board.position,
            head,
            oldest: state.subscriptions.oldest(),
            age: state.subscriptions.age(),
            changes: state.store.identity().changes(),
            unreadable: event_log::unreadable(),
            clock_offset: state.store.clock().database_offset_seconds(),
        },
        stream_registry: &state.stream_registry,
        byte_readers: &state.byte_readers,
        writer: &state.writer,
        connections,
    };
    drop(board);
    ([(header::CONTENT_TYPE, format.content_type())], state.metrics.render(&sources, format))
}

/// The queues with the largest backlog, by name; those beyond [`MAX_LABELS`] are aggregated.
fn largest(board: &Board, now: Time) -> Vec<QueueFigures> {
    let mut queues: Vec<_> = board.queues.0.iter().map(|(name, queue)| figures(name.to_string(), queue, now)).collect();
    queues.sort_by_key(|queue| std::cmp::Reverse((queue.pending, queue.running)));
    let rest = queues.split_off(queues.len().min(MAX_LABELS));
    if !rest.is_empty() {
        queues.retain(|queue| queue.name != OTHER);
        queues.push(QueueFigures {
            name: OTHER.to_owned(),
            pending: rest.iter().map(|queue| queue.pending).sum(),
            running: rest.iter().map(|queue| queue.running).sum(),
            oldest_pending_seconds: rest.iter().map(|queue| queue.oldest_pending_seconds).fold(0.0, f64::max),
            is_paused: rest.iter().any(|queue| queue.is_paused),
        });
    }
    queues
}

fn figures(name: String, queue: &Queue, now: Time) -> QueueFigures {
    let since = queue.oldest_enqueued_at.or(queue.waiting_since).filter(|_| queue.waiting() > 0);
    QueueFigures {
        name,
        pending: queue.waiting(),
        running: queue.count(Status::Running),
        oldest_pending_seconds: since.map_or(0.0, |since| (now - since).as_seconds_f64().max(0.0)),
        is_paused: queue.paused_at.is_some(),
    }
}
