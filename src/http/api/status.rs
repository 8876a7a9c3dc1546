//! The board as JSON: queues, statistics, snapshot; and single events.

use std::ops::Bound;

use axum::{
    Json as Out,
    body::Body,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa_axum::routes;

use super::snapshot;
use crate::{
    board::{
        counts::StatusCounts,
        health::{self, Health},
        queues::{Queue, QueueRates},
    },
    clock::Time,
    event::{EventId, envelope::Stats},
    feed,
    http::{
        codes::ErrorCode,
        input::Named,
        problem::Problem,
        query::{self, OfProjects},
        routes::Routes,
        state::AppState,
    },
    model::{Name, access::Scope, priority::Band},
};

/// A queue.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct QueueRecord {
    name: Name,
    /// Its tasks by status.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    tasks: StatusCounts,
    /// Pending tasks by priority band.
    depth: Depth,
    /// When the oldest pending task was enqueued; measured every 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest_enqueued_at: Option<Time>,
    /// When it was paused; absent if active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    paused_at: Option<Time>,
    /// Concurrency limit: maximum number of running tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency_limit: Option<u32>,
    /// Rate limit: maximum number of tasks started per period.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<u32>,
    /// Period of the rate limit, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_period_seconds: Option<u32>,
    #[serde(flatten)]
    rates: QueueRates,
    /// Health, with the reasons why tasks are pending.
    health: Health,
}

/// Pending tasks by priority band.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Depth {
    /// Priorities 7 to 9.
    high: u64,
    /// Priorities 4 to 6.
    normal: u64,
    /// Priorities 0 to 3.
    low: u64,
}

/// A list of queues.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct QueueList {
    /// Log position of this data.
    position: i64,
    /// The event at this position: `/events?after=<event_id>` continues from here.
    event_id: String,
    queues: Vec<QueueRecord>,
    /// Pass it as `cursor` to get the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Maximum number of queues in one response.
const MAX_QUEUES: usize = 1_000;

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![
        (Scope::Read, routes!(queue)),
        (Scope::Read, routes!(event)),
        (Scope::Read, routes!(snapshot)),
        (Scope::Read, routes!(queues)),
        (Scope::Read, routes!(stats)),
        (Scope::Read, routes!(overall)),
    ]
}

/// List queues.
#[utoipa::path(get, path = "/api/v1/queues", operation_id = "listQueues", tag = "monitoring",
    params(OfProjects, ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Maximum number of queues"), ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page")),
    responses((status = 200, description = "OK", body = QueueList), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(super) async fn queues(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<QueueList>, Problem> {
    let board = query::board(&state, &pairs, &["limit", "cursor"])?;
    let value = |name: &str| pairs.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value);
    let limit = match value("limit").map(|text| text.parse()) {
        None => MAX_QUEUES,
        Some(Ok(limit)) if (1..=MAX_QUEUES).contains(&limit) => limit,
        Some(_) => {
            return Err(Problem::invalid_filter("limit", format!("must be an integer between 1 and {MAX_QUEUES}")));
        }
    };
    let now = state.clock.now();
    let board = feed::read(&board);
    let serving = health::Serving::taking(&board);
    let begin = value("cursor").map(String::as_str).map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = board.queues.0.range::<str, _>((begin, Bound::Unbounded));
    let queues: Vec<_> = rest.by_ref().take(limit).map(|(name, queue)| record(&serving, name, queue, now)).collect();
    let next_cursor = rest.next().and(queues.last()).map(|queue| queue.name.to_string());
    Ok(Out(QueueList { position: board.position, event_id: board.id().to_string(), queues, next_cursor }))
}

fn record(serving: &health::Serving<'_>, name: &Name, queue: &Queue, now: Time) -> QueueRecord {
    QueueRecord {
        name: name.clone(),
        tasks: queue.tasks,
        depth: Depth {
            high: queue.depth_of(Band::High),
            normal: queue.depth_of(Band::Normal),
            low: queue.depth_of(Band::Low),
        },
        oldest_enqueued_at: queue.oldest_enqueued_at,
        paused_at: queue.paused_at,
        concurrency_limit: queue.concurrency_limit,
        rate_limit: queue.rate_limit,
        rate_period_seconds: queue.rate_limit.map(|_| queue.rate_period_seconds.unwrap_or(1)),
        rates: queue.rates(now),
        health: health::of_queue(serving, name, queue, now),
    }
}

/// A queue.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct QueueStatusResponse {
    /// Log position of this data.
    position: i64,
    /// The event at this position: `/events?after=<event_id>` continues from here.
    event_id: String,
    queue: QueueRecord,
}

/// Get a queue.
#[utoipa::path(get, path = "/api/v1/queues/{name}", operation_id = "getQueue", tag = "monitoring", params(("name" = String, Path), OfProjects),
    responses((status = 200, description = "OK", body = QueueStatusResponse), (status = 404, description = "Not found", body = Problem)))]
pub(super) async fn queue(
    State(state): State<AppState>,
    Named(name): Named,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<QueueStatusResponse>, Problem> {
    let board = query::board(&state, &pairs, &[])?;
    let now = state.clock.now();
    let board = feed::read(&board);
    let found = board.queues.0.get(&name).ok_or_else(|| {
        Problem::new(ErrorCode::QueueNotFound, format!("queue {name} not found; a queue is created by its first task"))
    })?;
    Ok(Out(QueueStatusResponse {
        position: board.position,
        event_id: board.id().to_string(),
        queue: record(&health::Serving::taking(&board), &name, found, now),
    }))
}

/// Headline metrics.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Overview {
    /// Log position of this data.
    position: i64,
    /// The event at this position: `/events?after=<event_id>` continues from here.
    event_id: String,
    #[serde(flatten)]
    stats: Stats,
}

/// Headline metrics.
#[utoipa::path(get, path = "/api/v1/stats", operation_id = "getStats", tag = "monitoring", params(OfProjects),
    responses((status = 200, description = "OK", body = Overview), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(super) async fn stats(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<Overview>, Problem> {
    let board = query::board(&state, &pairs, &[])?;
    let now = state.clock.now();
    let board = feed::read(&board);
    Ok(Out(Overview { position: board.position, event_id: state.event_id_at(board.position), stats: board.stats(now) }))
}

/// Overall health.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HealthReport {
    /// Log position of this data.
    position: i64,
    /// The event at this position: `/events?after=<event_id>` continues from here.
    event_id: String,
    #[serde(flatten)]
    health: Health,
}

/// Overall health: `ok`, `degraded` or `stalled`, with reasons, most severe first.
#[utoipa::path(get, path = "/api/v1/health", operation_id = "getHealth", tag = "monitoring", params(OfProjects),
    responses((status = 200, description = "OK", body = HealthReport), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(super) async fn overall(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<HealthReport>, Problem> {
    let board = query::board(&state, &pairs, &[])?;
    let now = state.clock.now();
    let board = feed::read(&board);
    Ok(Out(HealthReport {
        position: board.position,
        event_id: state.event_id_at(board.position),
        health: health::overall(&board, state.settings.quiet(), now),
    }))
}

/// Current state with its log position; continue with `/events?after=<event_id>`.
#[utoipa::path(get, path = "/api/v1/snapshot", operation_id = "getSnapshot", tag = "monitoring", params(OfProjects),
    responses((status = 200, description = "OK", body = Object), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(super) async fn snapshot(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let (_, body) = snapshot::json(&query::board(&state, &pairs, &[])?).await;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}

/// Get one event as stored.
#[utoipa::path(get, path = "/api/v1/events/{event_id}", operation_id = "getEvent", tag = "monitoring", params(("event_id" = String, Path)),
    responses((status = 200, description = "OK", body = Object), (status = 400, description = "Invalid parameter", body = Problem), (status = 404, description = "Not found", body = Problem)))]
pub(super) async fn event(State(state): State<AppState>, Path(text): Path<String>) -> Result<Response, Problem> {
    let id: EventId = text.parse().map_err(|e: crate::event::envelope::BadEventId| {
        Problem::field(ErrorCode::InvalidId, "event_id", e.to_string())
    })?;
    let epoch = state.subscriptions.epoch();
    let found = if id.epoch == epoch { state.event_log.at(epoch, id.position).await? } else { None };
    let recorded = found.ok_or_else(|| Problem::not_found(format!("event {id} not found")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(recorded.json)).into_response())
}
