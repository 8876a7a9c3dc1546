//! Claims, with long polling.

use std::{collections::BTreeSet, time::Duration};

use axum::{Json as Out, extract::State};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa_axum::routes;
use uuid::Uuid;

use super::records::{TaskList, TaskRecord};
use crate::{
    command::{
        claim_tasks::{ClaimTasks, Claimed},
        lock_set::ClaimRequest,
    },
    http::{caller::Caller, input::Json, problem::Problem, routes::Routes, state::AppState},
    model::{Name, access::Scope, whole},
};

/// Interval at which a waiting claim polls: tasks enqueued through other servers normally arrive through the feed, and
/// this is the fallback.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Minimum time until an empty response: a worker that retries immediately must not use up the writer's time.
const EMPTY: Duration = Duration::from_millis(20);

/// A claim.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ClaimInput {
    /// Claiming worker.
    worker_id: Uuid,
    /// Queues to claim from; highest priority first, then oldest pending.
    #[schema(min_items = 1, max_items = 64)]
    queues: Vec<Name>,
    /// Maximum number of tasks, 1 to 100.
    #[serde(default = "one", deserialize_with = "whole::number")]
    #[schema(minimum = 1, maximum = 100, default = 1)]
    limit: u32,
    /// Connector that will run the tasks: it becomes `active` with the first task and `idle`, or `error`, after the
    /// last.
    connector_id: Option<Name>,
    /// Long poll timeout in seconds, 0 to 30.
    #[serde(default, deserialize_with = "whole::number")]
    #[schema(minimum = 0, maximum = 30, default = 0)]
    wait_seconds: u32,
}

const fn one() -> u32 {
    1
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Report, routes!(claim))]
}

/// Claim tasks for a worker (long poll).
///
/// Highest priority first, then oldest pending. Each claim is a lease, which expires unless it is extended by reports
/// or heartbeats. Returns an empty list when nothing became available within `wait_seconds`.
#[utoipa::path(post, path = "/api/v1/claims", operation_id = "claimTasks", tag = "workers", request_body = ClaimInput,
    responses((status = 200, description = "OK", body = TaskList), (status = 404, description = "Not found", body = Problem), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn claim(
    State(state): State<AppState>,
    _: Caller,
    Json(input): Json<ClaimInput>,
) -> Result<Out<TaskList>, Problem> {
    if input.queues.is_empty() || input.queues.len() > 64 {
        return Err(Problem::invalid_field("queues", "must list 1 to 64 queues"));
    }
    if !(1..=100).contains(&input.limit) {
        return Err(Problem::invalid_field("limit", "must be an integer between 1 and 100"));
    }
    if input.wait_seconds > 30 {
        return Err(Problem::invalid_field("wait_seconds", "must be an integer between 0 and 30"));
    }
    let queues: Vec<_> = input.queues.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let began = Instant::now();
    let deadline = began + Duration::from_secs(input.wait_seconds.into());
    loop {
        let mut ticket = state.claim_waiters.enter(&queues);
        let request = ClaimRequest {
            worker_id: input.worker_id,
            queues: queues.clone(),
            limit: input.limit,
            connector_id: input.connector_id.clone(),
        };
        let Claimed { tasks, limited, again_after } = state.writer.run(ClaimTasks(request)).await?;
        if !limited.is_empty() {
            state.claim_waiters.are_limited(limited);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if !tasks.is_empty() || left.is_zero() || state.stopping.is_cancelled() {
            drop(ticket);
            if tasks.is_empty() && !state.stopping.is_cancelled() {
                tokio::time::sleep_until(began + EMPTY).await;
            }
            let tasks = tasks.into_iter().map(TaskRecord::from).collect();
            return Ok(Out(TaskList { event_id: None, tasks, next_cursor: None }));
        }
        tokio::select! {
            () = ticket.woken() => {}
            () = tokio::time::sleep(left.min(again_after.unwrap_or(LOOK_AGAIN))) => {}
            () = state.stopping.cancelled() => {}
        }
    }
}
