//! What a decision says: the steps of a task, or why not.

use std::collections::BTreeMap;

use super::{
    Name, Status, Task,
    edit::{Changes, EditKind},
    lease::StallReason,
    phase::Counts,
    report::{Json, Progress},
    transition::TransitionError,
};
use crate::clock::Time;

/// What happened to a task, with what belongs to that alone.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskEvent {
    /// It exists.
    Created,
    /// It may be claimed.
    Enqueued {
        /// Why, when it is not new.
        reason: Option<&'static str>,
    },
    /// An attempt began.
    Started {
        /// How long it could have been claimed before.
        wait_ms: Option<u64>,
    },
    /// An attempt went on.
    Progressed(Progress),
    /// Done.
    Completed {
        /// Time of the attempt.
        duration_ms: u64,
        /// What came out.
        result: Option<Json>,
    },
    /// The attempt failed, another follows.
    Retried {
        /// Time of the attempt.
        duration_ms: u64,
        /// Why it failed.
        error: String,
        /// When the next may start.
        next_run_at: Time,
    },
    /// Given up.
    Failed {
        /// Time of the attempt.
        duration_ms: u64,
        /// Why.
        error: String,
    },
    /// The attempt was lost.
    Stalled(StallReason),
    /// Stopped by someone.
    Cancelled {
        /// Why.
        reason: Option<String>,
    },
    /// Removed.
    Deleted,
    /// It groups other tasks from now on.
    BecameParent {
        /// Its children so far, by phase.
        children: BTreeMap<Name, Counts>,
    },
    /// Someone edited it, or a report told more about it.
    Edited {
        /// Which kind of edit.
        kind: EditKind,
        /// Field to old and new value.
        changes: Changes,
    },
    /// It waits for something else than before.
    StatusChanged {
        /// Why.
        reason: &'static str,
    },
}

/// One thing that happened, with the state before it and the task after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The state before; `None` when the task did not exist.
    pub old_status: Option<Status>,
    /// The task after.
    pub after: Task,
    /// The failures it is like.
    pub fingerprints: FingerprintChange,
    /// What happened.
    pub event: TaskEvent,
}

/// The error group of a failure that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FingerprintChange {
    /// Fingerprint of a failed task or attempt, or of a task that was failed and is no more.
    pub current: Option<Name>,
    /// Fingerprint before, when another failure of a failed task was reported.
    pub previous: Option<Name>,
}

/// What became of a task: the steps in order; none when there was nothing to change.
pub type Decision = Result<(Task, Vec<Step>), TransitionError>;

/// The steps of a task that comes into being.
#[must_use]
pub fn create(task: &Task) -> Vec<Step> {
    let status = task.status;
    let step =
        |old_status, event| Step { old_status, after: task.clone(), fingerprints: FingerprintChange::default(), event };
    let mut steps = vec![step(None, TaskEvent::Created)];
    if status == Status::Pending {
        steps.push(step(Some(status), TaskEvent::Enqueued { reason: None }));
    }
    steps
}
