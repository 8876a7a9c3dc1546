//! `/healthz`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::{
    Json as Out,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use super::{problem::Problem, site::Site};
use crate::{
    board::{Board, queues::Queue, verdict},
    clock::Time,
    feed,
    metrics::{LogFigures, MAX_LABELS, OTHER, QueueFigures, Sources, TextFormat},
    model::{Status, worker::WorkerStatus},
    store::log,
};

/// The tailer may be this far behind the log and still count as current.
const CURRENT: i64 = 10_000;
/// The log may go unread this long.
const UNREAD: Duration = Duration::from_secs(15);
/// How long the log may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a scrape waits for the log; without its answer one metric is missing.
const SCRAPE: Duration = Duration::from_millis(500);

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

/// Metrics, in the text format that the scraper prefers.
pub(super) async fn metrics(State(site): State<Site>, headers: HeaderMap) -> impl IntoResponse {
    let ends = tokio::time::timeout(SCRAPE, log::ends(site.store.pool())).await;
    let head = ends.ok().and_then(Result::ok).map(|ends| ends.head);
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = TextFormat::accepted(&accept.join(","));
    let now = site.clock.now();
    let pool = site.store.pool();
    let connections =
        (pool.size(), u32::try_from(pool.num_idle()).unwrap_or(u32::MAX), pool.options().get_max_connections());
    let board = feed::read(&site.board);
    let stats = board.stats(now);
    let lost = board.workers.0.values().filter(|worker| worker.status == WorkerStatus::Lost).count() as u64;
    let sources = Sources {
        stats: &stats,
        health: verdict::overall(&board, site.settings.quiet(), now).verdict,
        workers_lost: lost,
        queues: largest(&board, now),
        queues_paused: board.queues.0.values().filter(|queue| queue.paused_at.is_some()).count(),
        log: LogFigures {
            position: board.position,
            head,
            oldest: site.subscriptions.oldest(),
            age: site.subscriptions.age(),
        },
        ledger: &site.ledger,
        deliveries: &site.deliveries,
        writer: &site.writer,
        connections,
    };
    drop(board);
    ([(header::CONTENT_TYPE, format.content_type())], site.metrics.render(&sources, format))
}

/// The queues with most pending tasks, by name; those beyond [`MAX_LABELS`] together as one.
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
