//! Create, list, get, cancel, retry and delete tasks.

use axum::{
    Json as Out,
    body::Body,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{
    families::{ChildrenOutcome, WithChildren, steer_one},
    new_task::CreateTask,
    records::{TaskList, TaskRecord, TaskResponse},
};
use crate::{
    board::health::{self, Health},
    command::{Refusal, change_tasks::ChangeTasks, create_tasks::CreateTasks},
    feed,
    http::{
        caller::Caller,
        codes::ErrorCode,
        conditions::{IdempotencyKey, etag},
        input::{Id, OneOrMany, Text},
        problem::Problem,
        query,
        routes::Routes,
        state::AppState,
    },
    model::{Status, Task, access::Scope, bulk::BulkAction, transition::Transition},
    store::{WriteError, search},
};

/// Maximum number of events of one task in a response.
const MAX_EVENTS: i64 = 1_000;

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![
        (Scope::Read, routes!(list)),
        (Scope::Read, routes!(read)),
        (Scope::Read, routes!(events)),
        (Scope::Operate, routes!(create)),
        (Scope::Operate, routes!(delete)),
        (Scope::Operate, routes!(cancel)),
        (Scope::Operate, routes!(retry)),
    ]
}

/// Create one or many tasks atomically (array or NDJSON).
///
/// A task whose `id` exists, or whose `unique_key` is in use by an unfinished task of its project, is returned
/// unchanged, and none is created (200 if that applies to all).
#[utoipa::path(post, path = "/api/v1/tasks", operation_id = "createTask", tag = "tasks", request_body = CreateTask,
    responses((status = 201, description = "Created", body = TaskResponse), (status = 200, description = "OK", body = TaskResponse), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    key: IdempotencyKey,
    OneOrMany { items, single }: OneOrMany<CreateTask>,
) -> Result<Response, Problem> {
    let numbered = items.into_iter().enumerate();
    let new = numbered.map(|(index, task)| {
        let mut task = task.check(&if single { String::new() } else { format!("[{index}].") })?;
        if let Some(id) = key.id(caller.actor(), index).filter(|_| !task.id_is_chosen) {
            (task.id, task.id_is_chosen) = (id, true);
        }
        Ok::<_, Problem>(task)
    });
    let new = new.collect::<Result<Vec<_>, _>>()?;
    let keyed: Vec<_> =
        new.iter().enumerate().map(|(index, task)| key.id(caller.actor(), index) == Some(task.id)).collect();
    let tasks = match state.writer.run(CreateTasks(new)).await {
        Ok(tasks) => tasks,
        Err(WriteError::Refused(Refusal::IdTaken(_))) if key.is_given() && keyed.contains(&true) => {
            return Err(reused());
        }
        Err(error) => return Err(error.into()),
    };
    // A repetition with the same idempotency key gets the status of the first request.
    let created = tasks.iter().zip(&keyed).any(|(created, keyed)| created.is_new || *keyed);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut tasks = tasks.into_iter().map(|created| TaskRecord::from(created.task));
    if single && let Some(task) = tasks.next() {
        let location = [(header::LOCATION, format!("/api/v1/tasks/{}", task.id))];
        let answer = Out(TaskResponse { task });
        return Ok(if created { (status, location, answer).into_response() } else { (status, answer).into_response() });
    }
    Ok((status, Out(TaskList { event_id: None, tasks: tasks.collect(), next_cursor: None })).into_response())
}

fn reused() -> Problem {
    let detail = "was used for a request with another body; use a new key for a new request";
    Problem::field(ErrorCode::IdempotencyKeyReused, "Idempotency-Key", detail)
}

/// List tasks, newest first. A page can have fewer tasks than `limit`, even none, while `next_cursor` is present: a page
/// looks at 20,000 tasks at most, and the next one goes on from there.
#[utoipa::path(get, path = "/api/v1/tasks", operation_id = "listTasks", tag = "tasks",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Page size; default 50"),
    ),
    responses((status = 200, description = "OK", body = TaskList), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(in crate::http) async fn list(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<TaskList>, Problem> {
    let query = query::tasks(&pairs)?;
    // Read before the table: whatever the table does not show yet is a later event.
    let event_id = Some(state.event_id());
    let found = search::page(state.store.read_permit(&query).await?.pool(), &query).await?;
    let next_cursor = found.next.map(search::cursor);
    Ok(Out(TaskList { event_id, tasks: found.tasks.into_iter().map(TaskRecord::from).collect(), next_cursor }))
}

/// A task, and why it makes no progress.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(in crate::http) struct TaskHealthResponse {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    event_id: String,
    task: TaskRecord,
    /// Health and reasons.
    health: Health,
}

/// Get a task with payload, result and status reason.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", operation_id = "getTask", tag = "tasks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "OK", body = TaskHealthResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn read(State(state): State<AppState>, Id(id): Id) -> Result<Response, Problem> {
    let event_id = state.event_id();
    let task = search::task(state.store.pool(), id).await?.ok_or(Refusal::NoTask(id))?;
    let waits = task.status == Status::Blocked && !task.depends_on.is_empty();
    let open = if waits { search::open_dependencies(state.store.pool(), id).await? } else { Vec::new() };
    let health = health::of_task(&feed::read(&state.board), &task, &open, state.settings.quiet(), state.clock.now());
    let version = [etag(task.version())];
    Ok((version, Out(TaskHealthResponse { event_id, task: task.into(), health })).into_response())
}

/// A task, and what happens to its descendants.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(in crate::http) struct TaskAndChildren {
    task: TaskRecord,
    /// What happens to its descendants; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<ChildrenOutcome>,
}

impl From<(Task, Option<ChildrenOutcome>)> for TaskAndChildren {
    fn from((task, children): (Task, Option<ChildrenOutcome>)) -> Self {
        Self { task: task.into(), children }
    }
}

/// What happens to the descendants of a deleted task.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ChildrenRemoved {
    children: ChildrenOutcome,
}

/// Delete a task; its events are kept. Its children are kept as well unless `children=true`: then all descendants are
/// deleted in the background.
#[utoipa::path(delete, path = "/api/v1/tasks/{id}", operation_id = "deleteTask", tag = "tasks",
    params(("id" = Uuid, Path), ("children" = Option<bool>, Query, description = "Also delete all descendants")),
    responses((status = 204, description = "No content"), (status = 200, description = "OK; the task has children", body = ChildrenRemoved), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let options = WithChildren::of_query(&pairs)?;
    let (_, children) = steer_one(&state, &caller, id, &BulkAction::Delete, options.children).await?;
    Ok(match children {
        Some(children) => Out(ChildrenRemoved { children }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Options of a cancellation.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Cancel {
    /// Human-readable reason.
    #[schema(value_type = Option<String>, max_length = 500)]
    reason: Option<Text<500>>,
    /// Also cancel all descendants, in the background. By default children are unchanged.
    #[serde(default)]
    children: bool,
}

/// Cancel an unfinished task; the worker learns of it with its next report or heartbeat.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/cancel", operation_id = "cancelTask", tag = "tasks", params(("id" = Uuid, Path)), request_body = Option<Cancel>,
    responses((status = 200, description = "OK", body = TaskAndChildren), (status = 404, description = "Not found", body = Problem), (status = 409, description = "Conflict: not allowed in the current status", body = Problem)))]
pub(in crate::http) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    body: crate::http::input::Optional<Cancel>,
) -> Result<Out<TaskAndChildren>, Problem> {
    let action = BulkAction::Cancel { reason: body.0.reason.map(|text| text.0) };
    Ok(Out(steer_one(&state, &caller, id, &action, body.0.children).await?.into()))
}

/// Retry a finished task. It becomes blocked first while it has unfinished dependencies. With `children`, its failed
/// and cancelled descendants are retried as well, in the background; use this to retry a parent with `auto_complete`.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/retry", operation_id = "retryTask", tag = "tasks", params(("id" = Uuid, Path)), request_body = Option<WithChildren>,
    responses((status = 200, description = "OK", body = TaskAndChildren), (status = 404, description = "Not found", body = Problem), (status = 409, description = "Conflict: not allowed in the current status", body = Problem)))]
pub(in crate::http) async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    body: crate::http::input::Optional<WithChildren>,
) -> Result<Out<TaskAndChildren>, Problem> {
    Ok(Out(steer_one(&state, &caller, id, &BulkAction::Retry, body.0.children).await?.into()))
}

/// Event history of a task. The newest events, oldest first, exactly as in the stream.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/events", operation_id = "listTaskEvents", tag = "tasks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "OK", body = Vec<Object>), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn events(State(state): State<AppState>, Id(id): Id) -> Result<Response, Problem> {
    let events = state.event_log.of_task(state.subscriptions.epoch(), id, i64::MAX, MAX_EVENTS).await?;
    // The events of a deleted task are kept.
    if events.is_empty() && search::task(state.store.pool(), id).await?.is_none() {
        return Err(Refusal::NoTask(id).into());
    }
    let bodies: Vec<_> = events.iter().map(|recorded| recorded.json.as_str()).collect();
    let body = format!("[{}]", bodies.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}

/// Applies a transition to one task, on behalf of a caller.
pub(in crate::http) async fn change(
    state: &AppState,
    id: Uuid,
    transition: Transition,
    caller: &Caller,
) -> Result<Task, Problem> {
    let command = ChangeTasks { changes: vec![(id, transition)], actor: Some(caller.actor().to_owned()), family: None };
    let outcome = state.writer.run(command).await?.pop().ok_or(WriteError::Unavailable)?;
    Ok(outcome?)
}
