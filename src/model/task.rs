//! A task's record.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Name, Priority, Status, lease::Lease, report::Json};
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

/// What a client asks for when it creates a task, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Identity.
    pub id: Uuid,
    /// The client chose the id, so the task may exist already.
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
}

impl NewTask {
    /// The task as it is before its first state; `inherited` is the parent's project.
    #[must_use]
    pub fn into_task(self, inherited: Option<&Name>, now: Time) -> Task {
        Task {
            id: self.id,
            project_id: self.project_id.or_else(|| inherited.cloned()).unwrap_or_else(|| Name::literal("default")),
            task_type: self.task_type,
            queue: self.queue,
            parent_task_id: self.parent_task_id,
            phase: self.phase,
            title: self.title,
            description: self.description,
            priority: self.priority,
            status: Status::Pending,
            payload: self.payload,
            labels: self.labels,
            is_parent: false,
            phases: self.phases,
            max_attempts: self.max_attempts,
            timeout_seconds: self.timeout_seconds,
            attempt: 0,
            retry_count: 0,
            outcome: None,
            run_at: None,
            worker_id: None,
            machine_id: None,
            created_at: now,
            enqueued_at: Some(now),
            started_at: None,
            finished_at: None,
            result: None,
            error: None,
            lease: None,
        }
    }
}
