//! Tasks and workers as represented in the API.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    board::workers::LastSeen,
    clock::Time,
    model::{
        Name, Status, Task,
        dependency::DependencyPolicy,
        report::{Json, Progress, WorkCounts},
        worker::{Connector, Worker, WorkerStatus},
    },
};

/// A task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct TaskRecord {
    pub(in crate::http) id: Uuid,
    project_id: Name,
    task_type: Name,
    queue: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_task_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Priority, 0 (lowest) to 9 (highest).
    #[schema(value_type = u8, minimum = 0, maximum = 9)]
    priority: u8,
    status: Status,
    /// Payload, unchanged. Omitted in lists and in responses to reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Json>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    labels: BTreeMap<Name, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    phases: Vec<Name>,
    max_attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    /// Initial retry delay, seconds; doubles per attempt.
    backoff_initial_seconds: u32,
    /// Maximum retry delay, seconds.
    backoff_max_seconds: u32,
    /// Deduplication key: unique among the unfinished tasks of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_key: Option<String>,
    /// IDs of tasks that must complete first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_dependency_failure: Option<DependencyPolicy>,
    /// Not claimed: starts with its first child and finishes with its last.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auto_complete: bool,
    /// Assignee.
    #[serde(skip_serializing_if = "Option::is_none")]
    assignee: Option<String>,
    /// Collaborators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collaborators: Vec<String>,
    /// Watchers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    watchers: Vec<String>,
    /// Run and reported by another system.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    observed: bool,
    /// ID in the reporting system, if that is not a UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    /// Number of the latest attempt; 0 before the first. Required in reports.
    attempt: u32,
    retry_count: u32,
    /// Earliest start time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Time>,
    /// Worker of the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_id: Option<Name>,
    /// Connector of the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    connector_id: Option<Name>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    enqueued_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Time>,
    /// Result, unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Json>,
    /// The latest error.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When the lease expires unless extended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    lease_expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressRecord>,
}

/// Progress of a running task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ProgressRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<WorkCounts>,
}

impl From<Progress> for ProgressRecord {
    fn from(progress: Progress) -> Self {
        Self { percent: progress.percent, message: progress.message, counts: progress.counts }
    }
}

impl From<Task> for TaskRecord {
    fn from(task: Task) -> Self {
        let max_attempts = task.attempts_allowed();
        let (lease_expires_at, progress) = match task.lease {
            Some(lease) => (lease.expires_at, lease.progress.map(ProgressRecord::from)),
            None => (None, None),
        };
        Self {
            id: task.id,
            project_id: task.project_id,
            task_type: task.task_type,
            queue: task.queue,
            parent_task_id: task.parent_task_id,
            phase: task.phase,
            title: task.title,
            description: task.description,
            priority: task.priority.get(),
            status: task.status,
            payload: task.payload,
            labels: task.labels,
            phases: task.phases,
            max_attempts,
            timeout_seconds: task.timeout_seconds,
            backoff_initial_seconds: task.backoff.initial_seconds,
            backoff_max_seconds: task.backoff.max_seconds,
            unique_key: task.unique_key,
            on_dependency_failure: (!task.depends_on.is_empty()).then_some(task.on_dependency_failure),
            depends_on: task.depends_on,
            auto_complete: task.auto_complete,
            assignee: task.assignee,
            collaborators: task.collaborators,
            watchers: task.watchers,
            observed: task.observed.is_some(),
            external_id: task.external_id,
            attempt: task.attempt,
            retry_count: task.retry_count,
            run_at: task.run_at,
            worker_id: task.worker_id,
            machine_id: task.machine_id,
            connector_id: task.connector_id,
            created_at: task.created_at,
            enqueued_at: task.enqueued_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            result: task.result,
            error: task.error,
            lease_expires_at,
            progress,
        }
    }
}

/// A task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct TaskResponse {
    pub(in crate::http) task: TaskRecord,
}

/// A list of tasks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct TaskList {
    /// The last event before this was read: `/events?after=<event_id>` continues from here without a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) event_id: Option<String>,
    pub(in crate::http) tasks: Vec<TaskRecord>,
    /// Pass it as `cursor` to get the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) next_cursor: Option<String>,
}

/// A worker.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct WorkerRecord {
    pub(in crate::http) id: Uuid,
    pub(in crate::http) name: Name,
    pub(in crate::http) machine_id: Name,
    pub(in crate::http) queues: Vec<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) version: Option<String>,
    pub(in crate::http) status: WorkerStatus,
    #[schema(value_type = BTreeMap<String, Connector>)]
    pub(in crate::http) connectors: BTreeMap<Name, Connector>,
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(in crate::http) last_seen_at: Option<Time>,
}

impl From<(&Uuid, &LastSeen)> for WorkerRecord {
    fn from((id, seen): (&Uuid, &LastSeen)) -> Self {
        Self {
            id: *id,
            name: seen.name.clone(),
            machine_id: seen.machine_id.clone(),
            queues: seen.queues.clone(),
            version: seen.version.clone(),
            status: seen.status,
            connectors: seen.connectors.clone(),
            started_at: seen.started_at,
            last_seen_at: seen.last_seen_at,
        }
    }
}

impl From<Worker> for WorkerRecord {
    fn from(worker: Worker) -> Self {
        Self {
            id: worker.id,
            name: worker.name,
            machine_id: worker.machine_id,
            queues: worker.queues,
            version: worker.version,
            status: worker.status,
            connectors: worker.connectors,
            started_at: worker.started_at,
            last_seen_at: Some(worker.last_seen_at),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::{NewTask, Priority, lease::Lease};

    fn task() -> Task {
        let new = NewTask::plain(Uuid::from_u128(7), Name::literal("mail"), Name::literal("q"));
        NewTask { max_attempts: 3, ..new }.into_task(None, false, Time::UNIX_EPOCH)
    }

    fn json(task: Task) -> serde_json::Value {
        serde_json::to_value(TaskRecord::from(task)).unwrap()
    }

    #[test]
    fn a_record_has_what_the_task_has_and_nothing_empty() {
        let right = serde_json::json!({
            "id": Uuid::from_u128(7),
            "project_id": "default",
            "task_type": "mail",
            "queue": "q",
            "priority": 5,
            "status": "pending",
            "max_attempts": 3,
            "backoff_initial_seconds": 1,
            "backoff_max_seconds": 3600,
            "attempt": 0,
            "retry_count": 0,
            "created_at": "1970-01-01T00:00:00Z",
            "enqueued_at": "1970-01-01T00:00:00Z",
        });
        assert_eq!(json(task()), right);
    }

    #[test]
    fn a_lease_is_shown_with_its_progress() {
        let progress = Progress { percent: Some(40.0), message: None, counts: Some(WorkCounts::default()) };
        let lease = Lease { expires_at: Some(Time::UNIX_EPOCH), progress: Some(progress), stalled: false };
        let shown = json(Task { lease: Some(lease), ..task() });
        assert_eq!(shown["lease_expires_at"], "1970-01-01T00:00:00Z");
        assert_eq!(shown["progress"], serde_json::json!({ "percent": 40.0, "counts": {} }));
        let never = Lease { expires_at: None, progress: None, stalled: false };
        let shown = json(Task { lease: Some(never), ..task() });
        assert!(shown.get("lease_expires_at").is_none() && shown.get("progress").is_none());
    }

    #[test]
    fn a_policy_for_dependencies_is_shown_with_dependencies_only() {
        assert!(json(task()).get("on_dependency_failure").is_none());
        let blocked = json(Task { depends_on: vec![Uuid::nil()], ..task() });
        assert_eq!(blocked["on_dependency_failure"], "fail");
    }

    #[test]
    fn json_of_a_task_is_shown_as_it_was_given() {
        let raw = |text: &str| serde_json::from_str::<Json>(text).ok();
        let given = Task { payload: raw(r#"{"b": 1.0, "a" : 1e400}"#), result: raw("null"), ..task() };
        let text = serde_json::to_string(&TaskRecord::from(given)).unwrap();
        assert!(text.contains(r#""payload":{"b": 1.0, "a" : 1e400}"#) && text.contains(r#""result":null"#), "{text}");
    }

    #[test]
    fn an_observed_task_was_allowed_the_attempts_that_it_made() {
        let observed =
            Task { observed: Some(Box::default()), attempt: 7, priority: Priority::new(0).unwrap(), ..task() };
        let shown = json(observed);
        assert_eq!(
            (&shown["max_attempts"], &shown["observed"], &shown["priority"]),
            (&7.into(), &true.into(), &0.into())
        );
    }
}
