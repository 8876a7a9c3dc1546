//! Failures in groups, and what happened over the last hour, day and week.

use axum::{
    Json as Out,
    extract::{Query, State},
    http::StatusCode,
};
use serde::Serialize;
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
    http::{problem::Problem, site::Site},
    model::Name,
};

/// Failures that are alike.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct FailureGroup {
    /// The filter `fingerprint` finds them.
    fingerprint: Name,
    /// What kind of work it is.
    task_type: Name,
    /// What their errors have in common.
    pattern: String,
    /// The latest error.
    error: String,
    /// The task it is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<Uuid>,
    /// Tasks that are failed ones now.
    open: u64,
    /// How often a task was given up.
    failed: u64,
    /// How often an attempt failed and another followed.
    retried: u64,
    #[schema(value_type = String, format = DateTime)]
    first_seen_at: Time,
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: Time,
    /// Queues of these tasks, at most 8.
    queues: Vec<Name>,
    /// Workers they failed on, at most 8.
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

/// Groups of failures, the latest first: the 200 that matter most.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Groups {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    event_id: String,
    groups: Vec<FailureGroup>,
}

/// Failures in groups of those that are alike in kind of work and error.
#[utoipa::path(get, path = "/api/v1/failures", operation_id = "listFailures", tag = "watching",
    responses((status = 200, description = "As asked", body = Groups)))]
pub(super) async fn failures(State(site): State<Site>) -> Out<Groups> {
    let board = feed::read(&site.board);
    let mut groups: Vec<FailureGroup> = board.failures.groups.iter().map(FailureGroup::from).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.last_seen_at));
    Out(Groups { event_id: site.event_id_at(board.position), groups })
}

/// What happened in one stretch of time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Stretch {
    /// When it begins.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Time>,
    /// Tasks created.
    created: u64,
    /// Attempts started.
    started: u64,
    /// Tasks completed.
    completed: u64,
    /// Tasks given up.
    failed: u64,
    /// Attempts that failed and were followed by another.
    retried: u64,
    /// Attempts that failed of attempts that ended, 0-100.
    error_percent: f64,
    /// How long tasks waited to be claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<Percentiles>,
    /// How long attempts took.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Percentiles>,
    /// Most tasks that could be claimed at once.
    most_waiting: u64,
}

fn percentiles(of: &Histogram) -> Option<Percentiles> {
    Some(Percentiles { p50_ms: of.percentile(50)?, p95_ms: of.percentile(95)?, p99_ms: of.percentile(99)? })
}

impl Stretch {
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
            most_waiting: slot.most_waiting,
        }
    }
}

/// A range of time in equal stretches.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Ranged {
    /// The word asked for.
    range: &'static str,
    /// Length of a stretch.
    seconds: i64,
    /// Oldest first; the last is not over.
    stretches: Vec<Stretch>,
}

/// What happened over the last hour, day or week.
#[utoipa::path(get, path = "/api/v1/history", operation_id = "getHistory", tag = "watching",
    params(("range" = Option<String>, Query, description = "1h in minutes (default), 24h in quarters of an hour, 7d in hours")),
    responses((status = 200, description = "As asked", body = Ranged), (status = 400, description = "A parameter is wrong", body = Problem)))]
pub(super) async fn history(
    State(site): State<Site>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<Ranged>, Problem> {
    let bad = |field: &str, detail: &str| Problem::field(StatusCode::BAD_REQUEST, "invalid_parameter", field, detail);
    let mut range = Range::default();
    for (name, value) in &pairs {
        if name != "range" {
            return Err(bad(name, "is not known here; use range"));
        }
        let found = Range::ALL.into_iter().find(|range| range.as_str() == value);
        range = found.ok_or_else(|| bad("range", "must be one of 1h, 24h, 7d"))?;
    }
    let slots = feed::read(&site.board).history.over(range, site.clock.now());
    let stretches = slots.iter().map(|slot| Stretch::new(slot, range)).collect();
    Ok(Out(Ranged { range: range.as_str(), seconds: range.slot_seconds(), stretches }))
}
