//! Register, list, heartbeat, deregister.

use std::collections::BTreeSet;

use axum::{
    Json as Out,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;
use uuid::Uuid;

use super::{records::WorkerRecord, reports::ProgressFields};
use crate::{
    command::{
        Refusal,
        deregister_worker::DeregisterWorker,
        heartbeat::{self, Heartbeat},
        register_worker,
    },
    feed,
    http::{
        caller::Caller,
        input::{Id, Json, Mended, Text},
        problem::Problem,
        query::{self, OfProjects},
        routes::Routes,
        state::AppState,
    },
    model::{
        Name, NewName,
        access::Scope,
        whole,
        worker::{Connector, ConnectorReport, ConnectorStatus, Worker, WorkerStatus},
    },
};

/// Maximum number of queues, capabilities or connectors of a worker.
const MAX_LIST: usize = 64;

/// A worker registration.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RegisterWorker {
    /// Display name.
    name: NewName,
    /// Machine it runs on.
    machine_id: NewName,
    /// Queues it serves.
    #[serde(default)]
    #[schema(max_items = 64)]
    queues: Vec<Name>,
    /// External services that it drives.
    #[serde(default)]
    #[schema(max_items = 64)]
    connectors: Vec<ConnectorInput>,
    /// Capabilities, free-form.
    #[serde(default)]
    #[schema(max_items = 64)]
    capabilities: Vec<Name>,
    /// Version of its software.
    #[schema(value_type = Option<String>, max_length = 128)]
    version: Option<Text<128>>,
}

/// A connector as reported by its worker.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ConnectorInput {
    connector_id: NewName,
    #[serde(default = "idle")]
    status: ConnectorStatus,
    /// Error message, with status `error`.
    #[schema(value_type = Option<String>, max_length = 2000)]
    error: Option<Mended<2000>>,
}

const fn idle() -> ConnectorStatus {
    ConnectorStatus::Idle
}

/// Result of a registration.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Registered {
    worker: WorkerRecord,
    /// Interval of heartbeats, seconds.
    heartbeat_seconds: u32,
    /// Lease duration, seconds; renewed by each report or heartbeat.
    lease_seconds: u32,
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![
        (Scope::Read, routes!(list)),
        (Scope::Read, routes!(read)),
        (Scope::Report, routes!(register)),
        (Scope::Report, routes!(leave)),
        (Scope::Report, routes!(heartbeat)),
    ]
}

/// Register a worker. The returned ID is required in all further calls.
#[utoipa::path(post, path = "/api/v1/workers", operation_id = "registerWorker", tag = "workers", request_body = RegisterWorker,
    responses((status = 201, description = "Created", body = Registered), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn register(
    State(state): State<AppState>,
    _: Caller,
    Json(input): Json<RegisterWorker>,
) -> Result<Response, Problem> {
    let connectors = reports(input.connectors)?;
    bounded("queues", input.queues.len())?;
    bounded("capabilities", input.capabilities.len())?;
    let now = state.clock.now();
    let with_status = |report: ConnectorReport| {
        (
            report.connector_id,
            Connector { status: report.status, error: report.error, since: now, reported_at: Some(now), tasks: 0 },
        )
    };
    let worker = Worker {
        queues: input.queues,
        capabilities: input.capabilities,
        version: input.version.map(|text| text.0),
        connectors: connectors.into_iter().map(with_status).collect(),
        ..Worker::new(Uuid::now_v7(), input.name.0, input.machine_id.0, now)
    };
    let worker = state.writer.run(register_worker::RegisterWorker(worker)).await?;
    let location = [(header::LOCATION, format!("/api/v1/workers/{}", worker.id))];
    let registered = Registered {
        worker: worker.into(),
        heartbeat_seconds: state.settings.heartbeat_seconds,
        lease_seconds: state.settings.lease_seconds,
    };
    Ok((StatusCode::CREATED, location, Out(registered)).into_response())
}

/// A task of a heartbeat, by its index.
fn checked((index, task): (usize, HeldTask)) -> Result<heartbeat::HeldTask, Problem> {
    let progress = task.progress.map(ProgressFields::check).transpose();
    let progress = progress.map_err(|problem| problem.below(&format!("tasks[{index}].progress")))?;
    Ok(heartbeat::HeldTask { id: task.task_id, attempt: task.attempt, progress })
}

fn bounded(field: &str, count: usize) -> Result<(), Problem> {
    if count <= MAX_LIST {
        return Ok(());
    }
    Err(Problem::invalid_field(field, format!("at most {MAX_LIST} items")))
}

fn reports(connectors: Vec<ConnectorInput>) -> Result<Vec<ConnectorReport>, Problem> {
    bounded("connectors", connectors.len())?;
    let ids: BTreeSet<_> = connectors.iter().map(|connector| connector.connector_id.clone()).collect();
    if ids.len() < connectors.len() {
        return Err(Problem::invalid_field("connectors", "duplicate connector"));
    }
    let report = |input: ConnectorInput| ConnectorReport {
        connector_id: input.connector_id.0,
        status: input.status,
        error: input.error.map(|text| text.0),
    };
    Ok(connectors.into_iter().map(report).collect())
}

/// Online and recently stopped or lost workers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct WorkerList {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    event_id: String,
    workers: Vec<WorkerRecord>,
}

/// List workers.
#[utoipa::path(get, path = "/api/v1/workers", operation_id = "listWorkers", tag = "workers", params(OfProjects),
    responses((status = 200, description = "OK", body = WorkerList), (status = 400, description = "Invalid parameter", body = Problem)))]
pub(in crate::http) async fn list(
    State(state): State<AppState>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Out<WorkerList>, Problem> {
    let board = query::board(&state, &pairs, &[])?;
    let board = feed::read(&board);
    Ok(Out(WorkerList {
        event_id: state.event_id_at(board.position),
        workers: board.workers.0.iter().map(WorkerRecord::from).collect(),
    }))
}

/// A worker.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct WorkerResponse {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    event_id: String,
    worker: WorkerRecord,
}

/// Get a worker.
#[utoipa::path(get, path = "/api/v1/workers/{id}", operation_id = "getWorker", tag = "workers", params(("id" = Uuid, Path)),
    responses((status = 200, description = "OK", body = WorkerResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn read(State(state): State<AppState>, Id(id): Id) -> Result<Out<WorkerResponse>, Problem> {
    let board = feed::read(&state.board);
    let worker = board.workers.0.get_key_value(&id).map(WorkerRecord::from).ok_or(Refusal::NoWorker(id))?;
    Ok(Out(WorkerResponse { event_id: state.event_id_at(board.position), worker }))
}

/// Heartbeat.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct HeartbeatInput {
    /// Status of the worker; `stopped` and `lost` cannot be reported (use DELETE to stop).
    status: Option<WorkerStatus>,
    /// Connectors that changed, or all of them. Without a list all stay as last reported; connectors missing from a
    /// list are not updated.
    #[schema(max_items = 64)]
    connectors: Option<Vec<ConnectorInput>>,
    /// The running tasks: their leases are extended, and the response lists which of them to stop. Without it only the
    /// worker is kept alive, and no lease is extended. Leases of tasks that are not listed expire.
    #[schema(max_items = 1000)]
    tasks: Option<Vec<HeldTask>>,
}

/// A task that a worker is running.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct HeldTask {
    task_id: Uuid,
    #[serde(deserialize_with = "whole::number")]
    attempt: u32,
    progress: Option<ProgressFields>,
}

/// Response to a heartbeat.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct HeartbeatResponse {
    /// Tasks to stop working on: cancelled, or the lease was lost.
    cancelled: Vec<Uuid>,
}

/// Send a heartbeat and extend leases of the listed tasks.
#[utoipa::path(post, path = "/api/v1/workers/{id}/heartbeat", operation_id = "sendHeartbeat", tag = "workers", params(("id" = Uuid, Path)), request_body = HeartbeatInput,
    responses((status = 200, description = "OK", body = HeartbeatResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn heartbeat(
    State(state): State<AppState>,
    _: Caller,
    Id(worker_id): Id,
    body: crate::http::input::Optional<HeartbeatInput>,
) -> Result<Out<HeartbeatResponse>, Problem> {
    let input = body.0;
    if input.status.is_some_and(|status| !status.is_online()) {
        return Err(Problem::invalid_field(
            "status",
            "cannot be set; use DELETE /api/v1/workers/{id} to stop a worker",
        ));
    }
    if input.tasks.as_ref().is_some_and(|tasks| tasks.len() > crate::http::input::MAX_ITEMS) {
        return Err(Problem::invalid_field("tasks", "at most 1,000 items"));
    }
    let connectors = input.connectors.map(reports).transpose()?;
    let tasks = input.tasks.into_iter().flatten().enumerate().map(checked).collect::<Result<_, _>>()?;
    let command = Heartbeat { worker_id, status: input.status, connectors, tasks };
    Ok(Out(HeartbeatResponse { cancelled: state.writer.run(command).await? }))
}

/// Stop a worker; its tasks return to their queues.
#[utoipa::path(delete, path = "/api/v1/workers/{id}", operation_id = "unregisterWorker", tag = "workers", params(("id" = Uuid, Path)),
    responses((status = 204, description = "No content"), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn leave(
    State(state): State<AppState>,
    _: Caller,
    Id(worker_id): Id,
) -> Result<StatusCode, Problem> {
    state.writer.run(DeregisterWorker(worker_id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::http::input::parse;

    fn connectors(json: &str) -> Result<Vec<ConnectorReport>, Problem> {
        reports(parse(json.as_bytes(), "connectors")?)
    }

    #[test]
    fn a_connector_is_idle_unless_it_says_otherwise() {
        let read =
            connectors(r#"[{"connector_id":"a"},{"connector_id":"b","status":"error","error":"x\u0000"}]"#).unwrap();
        let report = |id, status, error: Option<&str>| ConnectorReport {
            connector_id: Name::literal(id),
            status,
            error: error.map(str::to_owned),
        };
        let right = [report("a", ConnectorStatus::Idle, None), report("b", ConnectorStatus::Error, Some("x\u{fffd}"))];
        assert_eq!(read, right);
    }

    #[test]
    fn connectors_are_few_and_different() {
        let many = |count: usize| {
            let list: Vec<_> = (0..count).map(|n| serde_json::json!({ "connector_id": format!("c{n}") })).collect();
            connectors(&serde_json::json!(list).to_string())
        };
        assert_eq!(many(64).unwrap().len(), 64);
        assert_eq!(many(65).unwrap_err().detail, "connectors: at most 64 items");
        let twice = connectors(r#"[{"connector_id":"a"},{"connector_id":"a"}]"#).unwrap_err();
        assert_eq!(twice.detail, "connectors: duplicate connector");
        let unknown = connectors(r#"[{"connector_id":"a","status":"busy"}]"#).unwrap_err();
        assert_eq!(unknown.errors[0].field, "connectors.[0].status");
    }

    #[test]
    fn a_registration_names_the_worker_and_its_machine() {
        let read = |json: &str| parse::<RegisterWorker>(json.as_bytes(), "").map(|_| ());
        assert!(read(r#"{"name":"w","machine_id":"m"}"#).is_ok());
        for (json, field) in [
            (r#"{"machine_id":"m"}"#, "name"),
            (r#"{"name":"w"}"#, "machine_id"),
            (r#"{"name":" w","machine_id":"m"}"#, "name"),
            (r#"{"name":"w","machine_id":"m","queues":["a",""]}"#, "queues[1]"),
            (r#"{"name":"w","machine_id":"m","id":"x"}"#, "id"),
        ] {
            assert_eq!(read(json).unwrap_err().errors[0].field, field, "{json}");
        }
    }

    #[test]
    fn a_heartbeat_may_say_nothing_or_which_tasks_run() {
        let read = |json: &str| parse::<HeartbeatInput>(json.as_bytes(), "");
        let nothing = read("{}").unwrap();
        assert!(nothing.status.is_none() && nothing.connectors.is_none() && nothing.tasks.is_none());
        let id = Uuid::nil();
        let held = read(&format!(r#"{{"tasks":[{{"task_id":"{id}","attempt":2.0}}]}}"#)).unwrap().tasks.unwrap();
        assert_eq!((held[0].task_id, held[0].attempt), (id, 2));
        let wrong = format!(r#"{{"tasks":[{{"task_id":"{id}","attempt":1,"progress":{{"percent":101}}}}]}}"#);
        let task = read(&wrong).unwrap().tasks.unwrap().pop().unwrap();
        assert_eq!(checked((3, task)).unwrap_err().errors[0].field, "tasks[3].progress.percent");
        for (json, field) in [
            (format!(r#"{{"tasks":[{{"task_id":"{id}"}}]}}"#), "tasks[0].attempt"),
            (r#"{"tasks":[{"task_id":"x","attempt":1}]}"#.to_owned(), "tasks[0].task_id"),
            (r#"{"status":"busy"}"#.to_owned(), "status"),
            (r#"{"connectors":{}}"#.to_owned(), "connectors"),
        ] {
            assert_eq!(read(&json).unwrap_err().errors[0].field, field, "{json}");
        }
    }
}
