//! Reports of workers on their tasks: single, or many in one call.

use axum::{Json as Out, extract::State};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;
use uuid::Uuid;

use super::records::{TaskRecord, TaskResponse};
use crate::{
    command::{Refusal, change_tasks::ChangeTasks},
    http::{
        caller::Caller,
        each::Each,
        input::{Free, Id, Json, Mended, parse},
        problem::Problem,
        routes::Routes,
        state::AppState,
    },
    model::{
        Task,
        access::Scope,
        report::{Fence, Progress, WorkCounts},
        transition::Transition,
        whole,
    },
    store::WriteError,
};

/// Progress of an attempt.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ProgressFields {
    /// Progress in percent, 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    percent: Option<f64>,
    /// One-line message.
    #[schema(value_type = Option<String>, max_length = 2000)]
    message: Option<Mended<2000>>,
    /// Progress in work units.
    counts: Option<WorkCounts>,
}

impl ProgressFields {
    pub(in crate::http) fn check(self) -> Result<Progress, Problem> {
        if self.percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            return Err(Problem::invalid_field("percent", "must be a number from 0 to 100"));
        }
        Ok(Progress { percent: self.percent, message: self.message.map(|text| text.0), counts: self.counts })
    }
}

/// A progress report. Every report contains the worker and the attempt number from its claim.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ProgressInput {
    worker_id: Uuid,
    #[serde(deserialize_with = "whole::number")]
    attempt: u32,
    /// Progress in percent, 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    percent: Option<f64>,
    /// One-line message.
    #[schema(value_type = Option<String>, max_length = 2000)]
    message: Option<Mended<2000>>,
    /// Progress in work units.
    counts: Option<WorkCounts>,
}

/// Report of success.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct CompleteInput {
    worker_id: Uuid,
    #[serde(deserialize_with = "whole::number")]
    attempt: u32,
    /// Result, any JSON, stored unchanged.
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Free>,
}

/// Report of a failed attempt.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct FailInput {
    worker_id: Uuid,
    #[serde(deserialize_with = "whole::number")]
    attempt: u32,
    /// Error message.
    #[schema(value_type = String, max_length = 16384)]
    error: Mended<16384>,
    /// Whether a retry may succeed.
    #[serde(default = "yes")]
    #[schema(default = true)]
    retryable: bool,
}

const fn yes() -> bool {
    true
}

/// Release of an unprocessed task.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReleaseInput {
    worker_id: Uuid,
    #[serde(deserialize_with = "whole::number")]
    attempt: u32,
}

/// One line of a bulk report.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Report {
    task_id: Uuid,
    worker_id: Uuid,
    #[serde(deserialize_with = "whole::number")]
    attempt: u32,
    /// Type of the report.
    report: ReportKind,
    /// With `progress`: progress in percent, 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    percent: Option<f64>,
    /// With `progress`: one-line message.
    #[schema(value_type = Option<String>, max_length = 2000)]
    message: Option<Mended<2000>>,
    /// With `progress`: progress in work units.
    counts: Option<WorkCounts>,
    /// With `complete`: result.
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Free>,
    /// With `fail`: error message.
    #[schema(value_type = Option<String>, max_length = 16384)]
    error: Option<Mended<16384>>,
    /// With `fail`: whether a retry may succeed.
    retryable: Option<bool>,
}

/// Type of the report.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum ReportKind {
    /// Same as `POST /tasks/{id}/progress`.
    Progress,
    /// Same as `POST /tasks/{id}/complete`.
    Complete,
    /// Same as `POST /tasks/{id}/fail`.
    Fail,
    /// Same as `POST /tasks/{id}/release`.
    Release,
}

/// Result of one line.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Outcome {
    /// Task ID; absent if the line could not be parsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<Uuid>,
    /// 200, or the status that a separate request would have had.
    status: u16,
    /// Error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The invalid field.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Outcome {
    pub(in crate::http) fn new(task_id: Uuid, outcome: Result<(), Problem>) -> Self {
        match outcome {
            Ok(()) => Self { task_id: Some(task_id), status: 200, code: None, detail: None, field: None },
            Err(problem) => Self::refused(Some(task_id), problem),
        }
    }

    fn refused(task_id: Option<Uuid>, problem: Problem) -> Self {
        Self {
            task_id,
            status: problem.status().as_u16(),
            code: Some(problem.code.as_str()),
            field: problem.errors.first().map(|error| error.field.clone()),
            detail: Some(problem.detail),
        }
    }

    /// The reason of a failure.
    pub(in crate::http) fn problem(self) -> Option<(Uuid, String)> {
        Some((self.task_id?, self.detail?))
    }

    pub(in crate::http) const fn is_done(&self) -> bool {
        self.status == 200
    }
}

/// One result per line, in order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Outcomes {
    outcomes: Vec<Outcome>,
}

pub(in crate::http) async fn report(
    state: &AppState,
    id: Uuid,
    command: Transition,
) -> Result<Out<TaskResponse>, Problem> {
    let outcomes = write(state, vec![(id, command)]).await?;
    let task = outcomes.into_iter().next().ok_or(WriteError::Unavailable)??;
    Ok(Out(TaskResponse { task: TaskRecord::from(task) }))
}

async fn write(state: &AppState, changes: Vec<(Uuid, Transition)>) -> Result<Vec<Result<Task, Refusal>>, Problem> {
    Ok(state.writer.run(ChangeTasks::new(changes)).await?)
}

impl AppState {
    fn lease_until(&self) -> crate::clock::Time {
        self.clock.now() + self.settings.lease()
    }
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![
        (Scope::Report, routes!(progress)),
        (Scope::Report, routes!(complete)),
        (Scope::Report, routes!(fail)),
        (Scope::Report, routes!(release)),
        (Scope::Report, routes!(many)),
    ]
}

/// Report progress and extend the lease.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/progress", operation_id = "reportProgress", tag = "workers", params(("id" = Uuid, Path)), request_body = ProgressInput,
    responses((status = 200, description = "OK", body = TaskResponse), (status = 404, description = "Not found", body = Problem), (status = 409, description = "Conflict: not allowed in the current status", body = Problem)))]
pub(in crate::http) async fn progress(
    State(state): State<AppState>,
    _: Caller,
    Id(id): Id,
    Json(input): Json<ProgressInput>,
) -> Result<Out<TaskResponse>, Problem> {
    let fence = Fence { worker_id: input.worker_id, attempt: input.attempt };
    let fields = ProgressFields { percent: input.percent, message: input.message, counts: input.counts };
    let command = Transition::Progress { fence, progress: fields.check()?, lease_until: state.lease_until() };
    report(&state, id, command).await
}

/// Report success.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/complete", operation_id = "completeTask", tag = "workers", params(("id" = Uuid, Path)), request_body = CompleteInput,
    responses((status = 200, description = "OK", body = TaskResponse), (status = 404, description = "Not found", body = Problem), (status = 409, description = "Conflict: not allowed in the current status", body = Problem)))]
pub(in crate::http) async fn complete(
    State(state): State<AppState>,
    _: Caller,
    Id(id): Id,
    Json(input): Json<CompleteInput>,
) -> Result<Out<TaskResponse>, Problem> {
    let fence = Fence { worker_id: input.worker_id, attempt: input.attempt };
    report(&state, id, Transition::Complete { fence, result: input.result.map(|json| json.0) }).await
}

/// Report a failed attempt; the task is retried while attempts are left.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/fail", operation_id = "failTask", tag = "workers", params(("id" = Uuid, Path)), request_body = FailInput,
    responses((status = 200, description = "OK", body = TaskResponse), (status = 404, description = "Not found", body = Problem), (status = 409, description = "Conflict: not allowed in the current status", body = Problem)))]
pub(in crate::http) async fn fail(
    State(state): State<AppState>,
    _: Caller,
    Id(id): Id,
    Json(input): Json<FailInput>,
) -> Result<Out<TaskResponse>, Problem> {
    let fence = Fence { worker_id: input.worker_id, attempt: input.attempt };
    let FailInput { error, retryable, .. } = input;
    let command = Transition::Fail { fence, error: error.0, retryable, jitter: fastrand::f64() };
    report(&state, id, command).await
}

/// Release a task; the attempt does not count against `max_attempts`.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/release", operation_id = "releaseTask", tag = "workers", params(("id" = Uuid, Path)), request_body = ReleaseInput,
    responses((status = 200, description = "OK", body = TaskResponse), (status = 404, description = "Not found", body = Problem), (status = 409, description = "Conflict: not allowed in the current status", body = Problem)))]
pub(in crate::http) async fn release(
    State(state): State<AppState>,
    _: Caller,
    Id(id): Id,
    Json(input): Json<ReleaseInput>,
) -> Result<Out<TaskResponse>, Problem> {
    let fence = Fence { worker_id: input.worker_id, attempt: input.attempt };
    report(&state, id, Transition::Release { fence }).await
}

/// Report on many tasks in one call (array or NDJSON); one outcome per line, also for invalid lines.
#[utoipa::path(post, path = "/api/v1/reports", operation_id = "reportMany", tag = "workers", request_body = Vec<Report>,
    responses((status = 200, description = "OK", body = Outcomes), (status = 422, description = "Validation error (single report)", body = Problem)))]
pub(in crate::http) async fn many(
    State(state): State<AppState>,
    _: Caller,
    lines: Each,
) -> Result<Out<Outcomes>, Problem> {
    let mut read = Vec::with_capacity(lines.items.len());
    let mut changes = Vec::new();
    for line in &lines.items {
        let (id, command) = read_line(line, &state);
        match (id, command) {
            (Some(id), Ok(command)) => {
                read.push((Some(id), None));
                changes.push((id, command));
            }
            (_, Err(problem)) if lines.single => return Err(problem),
            (id, refused) => read.push((id, refused.err())),
        }
    }
    let mut written = if changes.is_empty() { Vec::new() } else { write(&state, changes).await? }.into_iter();
    let outcome = |(id, refused): (Option<Uuid>, Option<Problem>)| match (id, refused) {
        (Some(id), None) => Outcome::new(
            id,
            written
                .next()
                .map_or(Err(WriteError::Unavailable.into()), |outcome| outcome.map(|_| ()).map_err(Problem::from)),
        ),
        (id, refused) => Outcome::refused(id, refused.unwrap_or_else(|| WriteError::Unavailable.into())),
    };
    Ok(Out(Outcomes { outcomes: read.into_iter().map(outcome).collect() }))
}

/// Parses one line of a bulk report: its task, if that could be parsed, and the transition.
fn read_line(line: &[u8], state: &AppState) -> (Option<Uuid>, Result<Transition, Problem>) {
    match parse::<Report>(line, "") {
        Ok(report) => (Some(report.task_id), report.command(state)),
        Err(problem) => (None, Err(problem)),
    }
}

impl Report {
    fn command(self, state: &AppState) -> Result<Transition, Problem> {
        let fence = Fence { worker_id: self.worker_id, attempt: self.attempt };
        Ok(match self.report {
            ReportKind::Progress => {
                let fields = ProgressFields { percent: self.percent, message: self.message, counts: self.counts };
                Transition::Progress { fence, progress: fields.check()?, lease_until: state.lease_until() }
            }
            ReportKind::Complete => Transition::Complete { fence, result: self.result.map(|json| json.0) },
            ReportKind::Fail => {
                let error =
                    self.error.ok_or_else(|| Problem::invalid_field("error", "required with report \"fail\""))?.0;
                let retryable = self.retryable.unwrap_or(true);
                Transition::Fail { fence, error, retryable, jitter: fastrand::f64() }
            }
            ReportKind::Release => Transition::Release { fence },
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::http::codes::ErrorCode;

    #[test]
    fn percent_is_a_number_from_zero_to_a_hundred() {
        let check = |json: &str| parse::<ProgressFields>(json.as_bytes(), "").and_then(ProgressFields::check);
        for percent in ["0", "-0.0", "100", "100.0", "33.3"] {
            assert!(check(&format!(r#"{{"percent":{percent}}}"#)).is_ok(), "{percent}");
        }
        for percent in ["-0.1", "100.1", "1e300", "\"50\"", "true"] {
            let problem = check(&format!(r#"{{"percent":{percent}}}"#)).unwrap_err();
            assert_eq!(problem.errors[0].field, "percent", "{percent}");
        }
        assert_eq!(check("{}").unwrap(), Progress::default());
    }

    #[test]
    fn what_a_worker_says_is_mended_rather_than_lost() {
        let json = format!(r#"{{"message":"a\u0000{}"}}"#, "x".repeat(3_000));
        let message = parse::<ProgressFields>(json.as_bytes(), "").unwrap().check().unwrap().message.unwrap();
        assert!(message.starts_with("a\u{fffd}x") && message.ends_with('…') && message.len() <= 2_000);
        let failed = parse::<FailInput>(
            format!(r#"{{"worker_id":"{}","attempt":1.0,"error":"cut \ud83d"}}"#, Uuid::nil()).as_bytes(),
            "",
        );
        let failed = failed.unwrap();
        assert_eq!((failed.error.0.as_str(), failed.attempt, failed.retryable), ("cut \u{fffd}", 1, true));
    }

    #[test]
    fn every_report_names_its_worker_and_its_attempt() {
        let id = Uuid::nil();
        for (json, field) in [
            (r#"{"attempt":1}"#.to_owned(), "worker_id"),
            (format!(r#"{{"worker_id":"{id}"}}"#), "attempt"),
            (format!(r#"{{"worker_id":"{id}","attempt":-1}}"#), "attempt"),
            (format!(r#"{{"worker_id":"{id}","attempt":4294967296}}"#), "attempt"),
            (format!(r#"{{"worker_id":"{id}","attempt":1,"reason":"x"}}"#), "reason"),
        ] {
            assert_eq!(parse::<ReleaseInput>(json.as_bytes(), "").unwrap_err().errors[0].field, field, "{json}");
        }
        let bare = format!(r#"{{"worker_id":"{id}","attempt":1}}"#);
        assert!(parse::<CompleteInput>(bare.as_bytes(), "").unwrap().result.is_none());
        assert_eq!(parse::<FailInput>(bare.as_bytes(), "").unwrap_err().errors[0].field, "error");
    }

    #[test]
    fn a_line_of_many_reports_is_one_of_four_kinds() {
        let line = |report: &str| {
            let id = Uuid::nil();
            let json = format!(r#"{{"task_id":"{id}","worker_id":"{id}","attempt":1,"report":"{report}"}}"#);
            parse::<Report>(json.as_bytes(), "").map(|report| report.report)
        };
        for report in ["progress", "complete", "fail", "release"] {
            assert!(line(report).is_ok(), "{report}");
        }
        for report in ["Complete", "cancel", ""] {
            assert_eq!(line(report).unwrap_err().errors[0].field, "report", "{report}");
        }
    }

    #[test]
    fn the_outcome_of_a_line_is_what_a_request_of_its_own_would_get() {
        let id = Uuid::from_u128(7);
        let done = Outcome::new(id, Ok(()));
        assert!(done.is_done());
        assert_eq!(serde_json::to_value(&done).unwrap(), serde_json::json!({ "task_id": id, "status": 200 }));
        assert_eq!(done.problem(), None);
        let problem = Problem::from(Refusal::NoTask(id));
        let refused = Outcome::new(id, Err(problem.clone()));
        assert!(!refused.is_done());
        let json = serde_json::to_value(&refused).unwrap();
        assert_eq!(
            json,
            serde_json::json!({ "task_id": id, "status": 404, "code": "task_not_found", "detail": problem.detail })
        );
        assert_eq!(refused.problem(), Some((id, problem.detail)));
        let unread = Outcome::refused(None, Problem::invalid_field("error", "required"));
        assert_eq!(unread.field.as_deref(), Some("error"));
        assert_eq!((unread.status, unread.code), (422, Some(ErrorCode::InvalidField.as_str())));
        assert_eq!(unread.problem(), None, "nobody knows which task it was");
    }
}
