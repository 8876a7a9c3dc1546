//! Schedules.

use std::collections::BTreeMap;

use axum::{Json as Out, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa_axum::routes;
use uuid::Uuid;

use super::new_task::CreateTask;
use crate::{
    clock::Time,
    command::{Refusal, change_schedule::ChangeSchedule},
    http::{
        caller::Caller,
        input::{Json, Named},
        problem::Problem,
        routes::Routes,
        state::AppState,
    },
    model::{
        Name, NewName,
        access::Scope,
        lease::Backoff,
        recurrence::Recurrence,
        schedule::{Schedule, ScheduleChange},
    },
    store::schedules,
};

/// A schedule to create or replace.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PutSchedule {
    /// Cron expression with five fields: minute, hour, day of month, month, day of week, as in `*/15 8-18 * * MON-FRI`;
    /// six with leading seconds; seven with a trailing year; or `@hourly`, `@daily`, `@midnight`, `@weekly`,
    /// `@monthly`, `@yearly`, `@annually`. Named hours run once per day each, also at clock changes: at the first
    /// occurrence of a repeated hour, right after the gap for a skipped one.
    #[schema(max_length = 128)]
    cron: String,
    /// IANA time zone of the cron expression.
    #[serde(default = "utc")]
    #[schema(default = "UTC")]
    time_zone: String,
    /// The task to create per run; without `id`, `run_at` and `depends_on`. With a `unique_key` no task is created
    /// while the previous one is unfinished.
    task: CreateTask,
    /// Create it paused.
    #[serde(default)]
    paused: bool,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A schedule.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ScheduleRecord {
    name: Name,
    cron: String,
    time_zone: String,
    /// The task created per run.
    #[schema(value_type = Object)]
    task: BTreeMap<String, Box<RawValue>>,
    /// When it was paused; absent if active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    paused_at: Option<Time>,
    /// Time of the next run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_run_at: Option<Time>,
    /// Scheduled time of the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_run_at: Option<Time>,
    /// Task created by the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_task_id: Option<Uuid>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

impl From<Schedule> for ScheduleRecord {
    fn from(schedule: Schedule) -> Self {
        // As text, so that the payload stays unchanged.
        let text = serde_json::to_string(&schedule.task).unwrap_or_default();
        let mut task: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap_or_default();
        task.retain(|name, value| name == "payload" || !["null", "[]"].contains(&value.get()));
        if schedule.task.payload.is_none() {
            task.remove("payload");
        }
        task.remove("backoff");
        let Backoff { initial_seconds, max_seconds } = schedule.task.backoff;
        for (name, seconds) in [("backoff_initial_seconds", initial_seconds), ("backoff_max_seconds", max_seconds)] {
            task.extend(serde_json::value::to_raw_value(&seconds).ok().map(|seconds| (name.to_owned(), seconds)));
        }
        Self {
            name: schedule.name,
            cron: schedule.cron,
            time_zone: schedule.time_zone,
            task,
            paused_at: schedule.paused_at,
            next_run_at: schedule.next_run_at,
            last_run_at: schedule.last_run_at,
            last_task_id: schedule.last_task_id,
            created_at: schedule.created_at,
        }
    }
}

/// A schedule.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ScheduleResponse {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    schedule: ScheduleRecord,
}

/// A list of schedules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ScheduleList {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    event_id: String,
    schedules: Vec<ScheduleRecord>,
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![
        (Scope::Read, routes!(list)),
        (Scope::Read, routes!(read)),
        (Scope::Operate, routes!(put, delete)),
        (Scope::Operate, routes!(pause)),
        (Scope::Operate, routes!(resume)),
    ]
}

/// Create or replace a schedule. Each run creates one task, also with several servers; missed runs are made up once.
#[utoipa::path(put, path = "/api/v1/schedules/{name}", operation_id = "putSchedule", tag = "schedules", params(("name" = String, Path)), request_body = PutSchedule,
    responses((status = 200, description = "OK", body = ScheduleResponse), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named,
    Json(input): Json<PutSchedule>,
) -> Result<Out<ScheduleResponse>, Problem> {
    NewName::new(name.as_str()).map_err(|error| Problem::invalid_field("name", error.to_string()))?;
    if input.cron.len() > 128 {
        return Err(Problem::invalid_field("cron", "must be at most 128 bytes long"));
    }
    let now = state.clock.now();
    let recurrence = Recurrence::parse_new(&input.cron, &input.time_zone, now)
        .map_err(|error| Problem::invalid_field(error.field, error.detail))?;
    let task = input.task.check("task.")?;
    let only_once =
        [("id", task.id_is_chosen), ("run_at", task.run_at.is_some()), ("depends_on", !task.depends_on.is_empty())];
    if let Some((field, _)) = only_once.iter().find(|(_, is_set)| *is_set) {
        return Err(Problem::invalid_field(format!("task.{field}"), "not supported in schedules"));
    }
    let schedule = Schedule {
        name: name.clone(),
        cron: input.cron,
        time_zone: input.time_zone,
        task,
        paused_at: input.paused.then_some(now),
        next_run_at: recurrence.after(now),
        last_run_at: None,
        last_task_id: None,
        created_at: now,
    };
    decide(&state, &caller, name, ScheduleChange::Put(Box::new(schedule))).await
}

/// List schedules.
#[utoipa::path(get, path = "/api/v1/schedules", operation_id = "listSchedules", tag = "schedules",
    responses((status = 200, description = "OK", body = ScheduleList)))]
pub(in crate::http) async fn list(State(state): State<AppState>) -> Result<Out<ScheduleList>, Problem> {
    let event_id = state.event_id();
    let schedules = schedules::list(state.store.pool(), "").await?;
    Ok(Out(ScheduleList { event_id, schedules: schedules.into_iter().map(ScheduleRecord::from).collect() }))
}

/// Get a schedule.
#[utoipa::path(get, path = "/api/v1/schedules/{name}", operation_id = "getSchedule", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, description = "OK", body = ScheduleResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn read(
    State(state): State<AppState>,
    Named(name): Named,
) -> Result<Out<ScheduleResponse>, Problem> {
    let event_id = Some(state.event_id());
    let schedule = schedules::one(state.store.pool(), &name).await?.ok_or(Refusal::NoSchedule(name))?;
    Ok(Out(ScheduleResponse { event_id, schedule: schedule.into() }))
}

/// Pause a schedule.
#[utoipa::path(post, path = "/api/v1/schedules/{name}/pause", operation_id = "pauseSchedule", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, description = "OK", body = ScheduleResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named,
) -> Result<Out<ScheduleResponse>, Problem> {
    decide(&state, &caller, name, ScheduleChange::Pause).await
}

/// Resume a schedule from now.
#[utoipa::path(post, path = "/api/v1/schedules/{name}/resume", operation_id = "resumeSchedule", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, description = "OK", body = ScheduleResponse), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named,
) -> Result<Out<ScheduleResponse>, Problem> {
    decide(&state, &caller, name, ScheduleChange::Resume).await
}

/// Delete a schedule; its tasks are kept.
#[utoipa::path(delete, path = "/api/v1/schedules/{name}", operation_id = "deleteSchedule", tag = "schedules", params(("name" = String, Path)),
    responses((status = 204, description = "No content"), (status = 404, description = "Not found", body = Problem)))]
pub(in crate::http) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Named(name): Named,
) -> Result<StatusCode, Problem> {
    let command = ChangeSchedule { name, change: ScheduleChange::Delete, actor: caller.actor().to_owned() };
    state.writer.run(command).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn decide(
    state: &AppState,
    caller: &Caller,
    name: Name,
    change: ScheduleChange,
) -> Result<Out<ScheduleResponse>, Problem> {
    let known_as = name.clone();
    let command = ChangeSchedule { name, change, actor: caller.actor().to_owned() };
    let schedule = state.writer.run(command).await?.ok_or(Refusal::NoSchedule(known_as))?;
    Ok(Out(ScheduleResponse { event_id: None, schedule: schedule.into() }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{http::input::parse, model::NewTask};

    fn record(task: NewTask) -> serde_json::Value {
        let schedule = Schedule {
            name: Name::literal("nightly"),
            cron: "0 3 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            task,
            paused_at: None,
            next_run_at: Some(Time::UNIX_EPOCH),
            last_run_at: None,
            last_task_id: None,
            created_at: Time::UNIX_EPOCH,
        };
        let text = serde_json::to_string(&ScheduleRecord::from(schedule)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn plain() -> NewTask {
        NewTask::plain(Uuid::from_u128(7), Name::literal("t"), Name::literal("q"))
    }

    #[test]
    fn the_task_of_a_schedule_is_shown_as_it_can_be_put_again() {
        let record = record(plain());
        assert_eq!((&record["name"], record.get("paused_at")), (&"nightly".into(), None));
        let task = &record["task"];
        assert!(task.as_object().unwrap().values().all(|value| !value.is_null() && *value != serde_json::json!([])));
        assert_eq!((&task["backoff_initial_seconds"], &task["backoff_max_seconds"]), (&1.into(), &3_600.into()));
        assert!(task.get("id").is_none() && task.get("backoff").is_none() && task.get("payload").is_none());
        let again = serde_json::json!({ "cron": record["cron"], "task": task });
        let read: PutSchedule = parse(again.to_string().as_bytes(), "").unwrap();
        let read = read.task.check("task.").unwrap();
        assert_eq!(NewTask { id: plain().id, id_is_chosen: true, ..read }, plain());
    }

    #[test]
    fn what_the_payload_holds_is_not_left_out() {
        let null = serde_json::from_str("null").ok();
        let task = &record(NewTask { payload: null, ..plain() })["task"];
        assert_eq!(task.get("payload"), Some(&serde_json::Value::Null));
        let empty = serde_json::from_str("[]").ok();
        assert_eq!(record(NewTask { payload: empty, ..plain() })["task"]["payload"], serde_json::json!([]));
    }

    #[test]
    fn a_schedule_is_active_and_in_utc_unless_it_says_otherwise() {
        let read = |json: &str| parse::<PutSchedule>(json.as_bytes(), "");
        let put = read(r#"{"cron":"@daily","task":{"task_type":"t"}}"#).unwrap();
        assert_eq!((put.time_zone.as_str(), put.paused), ("UTC", false));
        for (json, field) in [
            (r#"{"task":{"task_type":"t"}}"#, "cron"),
            (r#"{"cron":"@daily"}"#, "task"),
            (r#"{"cron":"@daily","task":{}}"#, "task.task_type"),
            (r#"{"cron":"@daily","task":{"task_type":"t","priority":10}}"#, "task.priority"),
            (r#"{"cron":"@daily","task":{"task_type":"t"},"name":"x"}"#, "name"),
            (r#"{"cron":5,"task":{"task_type":"t"}}"#, "cron"),
        ] {
            assert_eq!(read(json).unwrap_err().errors[0].field, field, "{json}");
        }
    }
}
