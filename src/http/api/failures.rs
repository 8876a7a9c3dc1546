//! Error groups, and time series of the last hour, day and week.

use axum::{
    Json as Out,
    extract::{Query, State},
};
use serde::Serialize;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::{
    board::{
        durations::Histogram,
        failures::Group,
        history::{Range, Slot},
        queues::Percentiles,
    },
    clock::Time,
    feed,
    http::{
        problem::Problem,
        query::{self, OfProjects},
        routes::Routes,
        state::AppState,
    },
    model::{Name, access::Scope},
};

/// An error group: failures with the same fingerprint.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct FailureGroup {
    /// Use the filter `fingerprint` to find its tasks.
    fingerprint: Name,
    /// Task type.
    task_type: Name,
    /// Common part of the errors.
    pattern: String,
    /// The latest error.
    error: String,
    /// Task of the latest error.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<Uuid>,
    /// Currently failed tasks.
    open: u64,
    /// Tasks that failed.
    failed: u64,
    /// Failed attempts that were retried.
    retried: u64,
    #[schema(value_type = String, format = DateTime)]
    first_seen_at: Time,
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: Time,
    /// Queues of the tasks, at most 8.
    queues: Vec<Name>,
    /// Workers on which they failed, at most 8.
    workers: Vec<Uuid>,
}

impl From<(&Name, &Group)> for FailureGroup {
    fn from((fingerprint, group): (&Name, &Group)) -> Self {
        Self {
            fingerprint: fingerprint.clone(),
            task_type: group.task_type.clone(),
            pattern: group.pattern.clone(),
            error: group.error.clone(),
            task_id: group.task_id,
            open: group.open,
            failed: group.failed,
            retried: group.retried,
            first_seen_at: group.first_seen_at,
            last_seen_at: group.last_seen_at,
            queues: group.queues.iter().cloned().collect(),
            workers: group.workers.iter().copied().collect(),
        }
    }
}

/// Error groups, latest first, at most 200.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Groups {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    event_id: String,
    groups: Vec<FailureGroup>,
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Read, routes!(failures)), (Scope::Read, routes!(history))]
}

/// List error groups.
#[utoipa::path(get, path = "/api/v1/failures", operation_id = "listFailures", tag = "monitoring", params(OfProjects),
    responses((status = 200, description = "OK", body = Groups), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(super) async fn failures(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<Groups>, Problem> {
    let board = query::board(&state, &pairs, &[])?;
    let board = feed::read(&board);
    let mut groups: Vec<FailureGroup> = board.failures.groups.iter().map(FailureGroup::from).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.last_seen_at));
    Ok(Out(Groups { event_id: state.event_id_at(board.position), groups }))
}

/// One time bucket.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Bucket {
    /// Start of the bucket.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Time>,
    /// Tasks created.
    created: u64,
    /// Attempts started.
    started: u64,
    /// Tasks completed.
    completed: u64,
    /// Tasks failed.
    failed: u64,
    /// Failed attempts that were retried.
    retried: u64,
    /// Failed attempts as a percentage of all finished attempts, 0-100.
    error_percent: f64,
    /// Wait time until claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<Percentiles>,
    /// Run time of attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Percentiles>,
    /// Maximum number of pending tasks.
    max_pending: u64,
}

fn percentiles(of: &Histogram) -> Option<Percentiles> {
    Some(Percentiles { p50_ms: of.percentile(50)?, p95_ms: of.percentile(95)?, p99_ms: of.percentile(99)? })
}

impl Bucket {
    fn new(slot: &Slot, range: Range) -> Self {
        Self {
            from: slot.begins(range),
            created: slot.tally.created,
            started: slot.tally.started,
            completed: slot.tally.completed,
            failed: slot.tally.failed,
            retried: slot.tally.retried,
            error_percent: slot.tally.error_percent(),
            wait: percentiles(&slot.waits),
            run: percentiles(&slot.runs),
            max_pending: slot.max_pending,
        }
    }
}

/// Time series in equal buckets.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TimeSeries {
    /// The requested range.
    range: &'static str,
    /// Length of a bucket, seconds.
    seconds: i64,
    /// Oldest first; the last one is incomplete.
    buckets: Vec<Bucket>,
}

/// Time series for the last hour, day or week.
#[utoipa::path(get, path = "/api/v1/history", operation_id = "getHistory", tag = "monitoring",
    params(OfProjects, ("range" = Option<String>, Query, description = "1h (1-minute buckets, default), 24h (15-minute), 7d (hourly)")),
    responses((status = 200, description = "OK", body = TimeSeries), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(super) async fn history(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<TimeSeries>, Problem> {
    let board = query::board(&state, &pairs, &["range"])?;
    let mut range = Range::default();
    for (_, value) in pairs.iter().filter(|(name, _)| name == "range") {
        let found = Range::ALL.into_iter().find(|range| range.as_str() == value);
        range = found.ok_or_else(|| Problem::invalid_parameter("range", "must be one of 1h, 24h, 7d"))?;
    }
    let slots = feed::read(&board).history.over(range, state.clock.now());
    let buckets = slots.iter().map(|slot| Bucket::new(slot, range)).collect();
    Ok(Out(TimeSeries { range: range.as_str(), seconds: range.slot_seconds(), buckets }))
}
