//! The task record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Name, Priority, Status,
    dependency::DependencyPolicy,
    lease::{Backoff, Lease},
    observation::Observed,
    report::Json,
    words::words,
};
use crate::clock::Time;

words! {
    /// How the latest attempt ended. Used to recognise a repeated report.
    Outcome {
        /// Reported as completed.
        Completed = "completed",
        /// Reported as failed.
        Failed = "failed",
        /// Released by its worker.
        Released = "released",
        /// Stalled: lease expired, worker lost or timed out.
        Stalled = "stalled",
        /// Cancelled while running.
        Cancelled = "cancelled",
    }
}

/// A task, as the state machine sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// UUID (version 7 unless the client chose it).
    pub id: Uuid,
    /// Project.
    pub project_id: Name,
    /// Task type.
    pub task_type: Name,
    /// Queue name.
    pub queue: Name,
    /// Parent task.
    pub parent_task_id: Option<Uuid>,
    /// Its phase within the parent.
    pub phase: Option<Name>,
    /// Title.
    pub title: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// Priority, 0–9, highest first.
    pub priority: Priority,
    /// Status.
    pub status: Status,
    /// Input for the worker, verbatim. Loaded only where needed.
    pub payload: Option<Json>,
    /// Labels.
    pub labels: BTreeMap<Name, String>,
    /// Phases declared for its children, in order.
    pub phases: Vec<Name>,
    /// It is a parent task.
    pub is_parent: bool,
    /// Maximum number of attempts, at least 1.
    pub max_attempts: u32,
    /// Timeout of one attempt, seconds.
    pub timeout_seconds: Option<u32>,
    /// Backoff between attempts.
    pub backoff: Backoff,
    /// Unique among the unfinished tasks of the project.
    pub unique_key: Option<String>,
    /// Tasks that must complete first.
    pub depends_on: Vec<Uuid>,
    /// What happens if one of them does not complete.
    pub on_dependency_failure: DependencyPolicy,
    /// It blocks, or has blocked, another task.
    pub has_dependents: bool,
    /// It is not claimed: it starts and finishes with its children.
    pub auto_complete: bool,
    /// Assignee.
    pub assignee: Option<String>,
    /// Collaborators.
    pub collaborators: Vec<String>,
    /// Watchers.
    pub watchers: Vec<String>,
    /// Its ID in the reporting system, if that is not a UUID.
    pub external_id: Option<String>,
    /// Merged reports of another system; set only for observed tasks.
    pub observed: Option<Box<Observed>>,
    /// Number of the latest attempt, 0 before the first.
    pub attempt: u32,
    /// Failed or stalled attempts that were retried.
    pub retry_count: u32,
    /// How the latest attempt ended.
    pub outcome: Option<Outcome>,
    /// Earliest start.
    pub run_at: Option<Time>,
    /// The worker of the latest attempt.
    pub worker_id: Option<Uuid>,
    /// The machine of the latest attempt.
    pub machine_id: Option<Name>,
    /// The connector of the latest attempt.
    pub connector_id: Option<Name>,
    /// When it was created.
    pub created_at: Time,
    /// When it last became pending.
    pub enqueued_at: Option<Time>,
    /// When the latest attempt started.
    pub started_at: Option<Time>,
    /// When it finished.
    pub finished_at: Option<Time>,
    /// Output of the worker, verbatim.
    pub result: Option<Json>,
    /// The latest error.
    pub error: Option<String>,
    /// The lease while it is running.
    pub lease: Option<Lease>,
}

/// A validated request to create a task. Serialised in schedules, without the ID.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    /// Task ID.
    #[serde(skip)]
    pub id: Uuid,
    /// The client chose the ID, so the task may exist already.
    #[serde(skip)]
    pub id_is_chosen: bool,
    /// Project; a child without one inherits its parent's, others get `default`.
    pub project_id: Option<Name>,
    /// Task type.
    pub task_type: Name,
    /// Queue name.
    pub queue: Name,
    /// Parent task.
    pub parent_task_id: Option<Uuid>,
    /// Its phase within the parent.
    pub phase: Option<Name>,
    /// Title.
    pub title: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// Priority, 0–9.
    pub priority: Priority,
    /// Input for the worker.
    pub payload: Option<Json>,
    /// Labels.
    pub labels: BTreeMap<Name, String>,
    /// Phases declared for its children.
    pub phases: Vec<Name>,
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Timeout of one attempt, seconds.
    pub timeout_seconds: Option<u32>,
    /// Backoff between attempts.
    pub backoff: Backoff,
    /// Earliest start.
    pub run_at: Option<Time>,
    /// Unique among the unfinished tasks of the project.
    pub unique_key: Option<String>,
    /// Tasks that must complete first.
    pub depends_on: Vec<Uuid>,
    /// What happens if one of them does not complete.
    pub on_dependency_failure: DependencyPolicy,
    /// It is not claimed: it starts and finishes with its children.
    pub auto_complete: bool,
    /// Assignee.
    pub assignee: Option<String>,
    /// Collaborators.
    pub collaborators: Vec<String>,
    /// Watchers.
    pub watchers: Vec<String>,
}

impl Task {
    /// Maximum number of attempts. For an observed task at least the number of attempts made, whatever was reported.
    #[must_use]
    pub fn attempts_allowed(&self) -> u32 {
        if self.observed.is_some() { self.max_attempts.max(self.attempt) } else { self.max_attempts }
    }
}

impl NewTask {
    /// A task with only type and queue, and defaults for the rest.
    #[must_use]
    pub fn plain(id: Uuid, task_type: Name, queue: Name) -> Self {
        Self {
            id,
            id_is_chosen: true,
            project_id: None,
            task_type,
            queue,
            parent_task_id: None,
            phase: None,
            title: None,
            description: None,
            priority: Priority::default(),
            payload: None,
            labels: BTreeMap::new(),
            phases: Vec::new(),
            max_attempts: 1,
            timeout_seconds: None,
            backoff: Backoff::default(),
            run_at: None,
            unique_key: None,
            depends_on: Vec::new(),
            on_dependency_failure: DependencyPolicy::default(),
            auto_complete: false,
            assignee: None,
            collaborators: Vec::new(),
            watchers: Vec::new(),
        }
    }

    /// The project, given that of the parent.
    #[must_use]
    pub fn project(&self, inherited: Option<&Name>) -> Name {
        self.project_id.as_ref().or(inherited).cloned().unwrap_or_else(|| Name::literal("default"))
    }

    /// The task in its initial status; `inherited` is the parent's project, `waits` means that it has unfinished
    /// dependencies.
    #[must_use]
    pub fn into_task(self, inherited: Option<&Name>, waits: bool, now: Time) -> Task {
        let later = self.run_at.is_some_and(|run_at| run_at > now);
        let status = match () {
            () if waits || self.auto_complete => Status::Blocked,
            () if later => Status::Scheduled,
            () => Status::Pending,
        };
        Task {
            id: self.id,
            project_id: self.project(inherited),
            task_type: self.task_type,
            queue: self.queue,
            parent_task_id: self.parent_task_id,
            phase: self.phase,
            title: self.title,
            description: self.description,
            priority: self.priority,
            status,
            payload: self.payload,
            labels: self.labels,
            is_parent: false,
            phases: self.phases,
            max_attempts: self.max_attempts,
            timeout_seconds: self.timeout_seconds,
            backoff: self.backoff,
            unique_key: self.unique_key,
            depends_on: self.depends_on,
            on_dependency_failure: self.on_dependency_failure,
            has_dependents: false,
            auto_complete: self.auto_complete,
            assignee: self.assignee,
            collaborators: self.collaborators,
            watchers: self.watchers,
            external_id: None,
            observed: None,
            attempt: 0,
            retry_count: 0,
            outcome: None,
            run_at: self.run_at.filter(|_| later),
            worker_id: None,
            machine_id: None,
            connector_id: None,
            created_at: now,
            enqueued_at: (status == Status::Pending).then_some(now),
            started_at: None,
            finished_at: None,
            result: None,
            error: None,
            lease: None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn new() -> NewTask {
        NewTask::plain(Uuid::from_u128(1), Name::literal("mail"), Name::literal("q"))
    }

    const NOW: Time = Time::UNIX_EPOCH;

    #[test]
    fn a_task_starts_as_its_dependencies_and_its_time_say() {
        let hour = Some(NOW + TimeDelta::hours(1));
        let parent = NewTask { auto_complete: true, ..new() };
        for (new, waits, status) in [
            (new(), false, Status::Pending),
            (new(), true, Status::Blocked),
            (NewTask { run_at: hour, ..new() }, false, Status::Scheduled),
            (NewTask { run_at: hour, ..new() }, true, Status::Blocked),
            (NewTask { run_at: Some(NOW), ..new() }, false, Status::Pending),
            (parent, false, Status::Blocked),
        ] {
            let task = new.clone().into_task(None, waits, NOW);
            assert_eq!(task.status, status, "{new:?}");
            assert_eq!(task.enqueued_at.is_some(), status == Status::Pending);
            assert_eq!(task.run_at, new.run_at.filter(|run_at| *run_at > NOW), "a time that is over is no time");
        }
    }

    #[test]
    fn a_child_has_its_parents_project_unless_it_names_one() {
        let (shop, own) = (Name::literal("shop"), Name::literal("own"));
        assert_eq!(new().project(None).as_str(), "default");
        assert_eq!(new().project(Some(&shop)), shop);
        let named = NewTask { project_id: Some(own.clone()), ..new() };
        assert_eq!(named.into_task(Some(&shop), false, NOW).project_id, own);
    }

    #[test]
    fn other_systems_may_make_more_attempts_than_they_said() {
        let task = Task { attempt: 5, max_attempts: 3, ..new().into_task(None, false, NOW) };
        assert_eq!(task.attempts_allowed(), 3);
        assert_eq!(Task { observed: Some(Box::default()), ..task }.attempts_allowed(), 5);
    }

    #[test]
    fn a_template_is_stored_without_an_id() {
        let template = NewTask {
            labels: [(Name::literal("team"), "ä".to_owned())].into(),
            payload: serde_json::from_str(r#"{"n": 1e400}"#).ok(),
            phases: vec![Name::literal("load")],
            on_dependency_failure: DependencyPolicy::Ignore,
            ..new()
        };
        let text = serde_json::to_string(&template).unwrap();
        let read: NewTask = serde_json::from_str(&text).unwrap();
        assert_eq!(read, NewTask { id: Uuid::nil(), id_is_chosen: false, ..template });
        assert!(text.contains(r#"{"n": 1e400}"#), "a payload stays as it was written: {text}");
    }
}
