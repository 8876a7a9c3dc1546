//! A task's record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Name, Priority, Status,
    dependency::DependencyPolicy,
    lease::{Backoff, Lease},
    observation::Observed,
    report::Json,
};
use crate::clock::Time;

/// How the latest attempt ended. A report that is repeated afterwards is recognised by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Reported complete.
    Completed,
    /// Reported failed.
    Failed,
    /// Given back.
    Released,
    /// Taken away: lease, worker or time lost.
    Stalled,
    /// Cancelled while running.
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Completed, Self::Failed, Self::Released, Self::Stalled, Self::Cancelled];

    /// The word stored in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Released => "released",
            Self::Stalled => "stalled",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome behind a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// One task, as the state machine sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Identity, UUID (version 7 unless the client chose one).
    pub id: Uuid,
    /// The tenant.
    pub project_id: Name,
    /// What kind of work it is.
    pub task_type: Name,
    /// The line it stands in.
    pub queue: Name,
    /// The task that groups it.
    pub parent_task_id: Option<Uuid>,
    /// Its phase within the parent.
    pub phase: Option<Name>,
    /// One line for people.
    pub title: Option<String>,
    /// More for people.
    pub description: Option<String>,
    /// 0–9, highest first.
    pub priority: Priority,
    /// Where it stands.
    pub status: Status,
    /// Input for the worker, kept as it came. Loaded only where it is needed.
    pub payload: Option<Json>,
    /// Marks for people and filters.
    pub labels: BTreeMap<Name, String>,
    /// Phases declared for its children, in order.
    pub phases: Vec<Name>,
    /// It groups other tasks.
    pub is_parent: bool,
    /// Attempts allowed, at least 1.
    pub max_attempts: u32,
    /// Longest time of one attempt, seconds.
    pub timeout_seconds: Option<u32>,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// No second live task of the project has it.
    pub unique_key: Option<String>,
    /// Tasks that must complete first.
    pub depends_on: Vec<Uuid>,
    /// What becomes of it when one of them does not complete.
    pub on_dependency_failure: DependencyPolicy,
    /// A task waits, or waited, for it.
    pub has_dependents: bool,
    /// Nobody claims it: it starts and ends with its children.
    pub close_when_done: bool,
    /// Who is responsible for it.
    pub assignee: Option<String>,
    /// Who else works on it.
    pub collaborators: Vec<String>,
    /// Who wants to know how it goes.
    pub watchers: Vec<String>,
    /// Its id in the system that reports it, when that is no UUID.
    pub external_id: Option<String>,
    /// What another system's reports said, and when: such a task is only watched.
    pub observed: Option<Box<Observed>>,
    /// Number of the latest attempt, 0 before the first.
    pub attempt: u32,
    /// Attempts that failed or stalled and were followed by another.
    pub retry_count: u32,
    /// How the latest attempt ended.
    pub outcome: Option<Outcome>,
    /// Not to start before.
    pub run_at: Option<Time>,
    /// The worker of the latest attempt.
    pub worker_id: Option<Uuid>,
    /// The machine of the latest attempt.
    pub machine_id: Option<Name>,
    /// The connector of the latest attempt.
    pub connector_id: Option<Name>,
    /// When it was created.
    pub created_at: Time,
    /// When it last became claimable.
    pub enqueued_at: Option<Time>,
    /// When the latest attempt started.
    pub started_at: Option<Time>,
    /// When it finished.
    pub finished_at: Option<Time>,
    /// Output of the worker, kept as it came.
    pub result: Option<Json>,
    /// The latest error.
    pub error: Option<String>,
    /// The worker's hold on it while it runs.
    pub lease: Option<Lease>,
}

/// What a client asks for when it creates a task, checked. Serialised for recurring tasks, without the id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    /// Identity.
    #[serde(skip)]
    pub id: Uuid,
    /// The client chose the id, so the task may exist already.
    #[serde(skip)]
    pub id_is_chosen: bool,
    /// The tenant; a child without one takes its parent's, others `default`.
    pub project_id: Option<Name>,
    /// What kind of work it is.
    pub task_type: Name,
    /// The line it stands in.
    pub queue: Name,
    /// The task that groups it.
    pub parent_task_id: Option<Uuid>,
    /// Its phase within the parent.
    pub phase: Option<Name>,
    /// One line for people.
    pub title: Option<String>,
    /// More for people.
    pub description: Option<String>,
    /// 0–9.
    pub priority: Priority,
    /// Input for the worker.
    pub payload: Option<Json>,
    /// Marks for people and filters.
    pub labels: BTreeMap<Name, String>,
    /// Phases declared for its children.
    pub phases: Vec<Name>,
    /// Attempts allowed.
    pub max_attempts: u32,
    /// Longest time of one attempt, seconds.
    pub timeout_seconds: Option<u32>,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// Not to start before.
    pub run_at: Option<Time>,
    /// No second live task of the project has it.
    pub unique_key: Option<String>,
    /// Tasks that must complete first.
    pub depends_on: Vec<Uuid>,
    /// What becomes of it when one of them does not complete.
    pub on_dependency_failure: DependencyPolicy,
    /// Nobody claims it: it starts and ends with its children.
    pub close_when_done: bool,
    /// Who is responsible for it.
    pub assignee: Option<String>,
    /// Who else works on it.
    pub collaborators: Vec<String>,
    /// Who wants to know how it goes.
    pub watchers: Vec<String>,
}

impl Task {
    /// How many attempts are allowed. Of a task that another system runs at least those that it made, whatever it told.
    #[must_use]
    pub fn attempts_allowed(&self) -> u32 {
        if self.observed.is_some() { self.max_attempts.max(self.attempt) } else { self.max_attempts }
    }
}

impl NewTask {
    /// A task of which only the kind and the queue are said.
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
            close_when_done: false,
            assignee: None,
            collaborators: Vec::new(),
            watchers: Vec::new(),
        }
    }

    /// The tenant, when the parent's is `inherited`.
    #[must_use]
    pub fn project(&self, inherited: Option<&Name>) -> Name {
        self.project_id.as_ref().or(inherited).cloned().unwrap_or_else(|| Name::literal("default"))
    }

    /// The task in its first state; `inherited` is the parent's project, `waits` tells that a dependency has not
    /// completed.
    #[must_use]
    pub fn into_task(self, inherited: Option<&Name>, waits: bool, now: Time) -> Task {
        let later = self.run_at.is_some_and(|run_at| run_at > now);
        let status = match () {
            () if waits || self.close_when_done => Status::Blocked,
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
            close_when_done: self.close_when_done,
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
