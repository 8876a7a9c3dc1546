//! Result of a decision: the steps of a task, or why it was refused.

use std::collections::BTreeMap;

use super::{
    Name, Status, Task,
    edit::{Changes, EditKind},
    lease::StallReason,
    phase::Counts,
    report::{Json, Progress},
    transition::TransitionError,
    words::words,
};
use crate::clock::Time;

words! {
    /// `data.reason` of `task_enqueued` and of `task_updated` that changes the status.
    EventReason {
        /// Its scheduled time, or that of the retry, has come.
        Due = "due",
        /// Its worker released it.
        Released = "released",
        /// Its attempt stalled.
        Stalled = "stalled",
        /// An operator or a client retried it.
        Retried = "retried",
        /// Its dependencies completed.
        Unblocked = "unblocked",
        /// A child of a finished parent was retried or created.
        Reopened = "reopened",
    }
}

/// An event of a task, with its specific data.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskEvent {
    /// The task was created.
    Created,
    /// It became pending.
    Enqueued {
        /// Reason; `None` for a new task.
        reason: Option<EventReason>,
    },
    /// An attempt started.
    Started {
        /// How long it was pending.
        wait_ms: Option<u64>,
    },
    /// An attempt made progress.
    Progressed(Progress),
    /// The task completed.
    Completed {
        /// Duration of the attempt.
        duration_ms: u64,
        /// Result.
        result: Option<Json>,
    },
    /// The attempt failed and will be retried.
    RetryScheduled {
        /// Duration of the attempt.
        duration_ms: u64,
        /// Error of the attempt.
        error: String,
        /// Start of the next attempt at the earliest.
        next_run_at: Time,
    },
    /// The task failed.
    Failed {
        /// Duration of the attempt.
        duration_ms: u64,
        /// Error.
        error: String,
    },
    /// The attempt stalled.
    Stalled(StallReason),
    /// The task was cancelled.
    Cancelled {
        /// Reason.
        reason: Option<String>,
    },
    /// The task was deleted.
    Deleted,
    /// The task became a parent.
    BecameParent {
        /// Its existing children, by phase.
        children: BTreeMap<Name, Counts>,
    },
    /// It was edited, or a report changed its details.
    Edited {
        /// Type of the edit.
        kind: EditKind,
        /// Field to old and new value.
        changes: Changes,
    },
    /// Its status changed without another event.
    StatusChanged {
        /// Reason.
        reason: EventReason,
    },
}

/// One event, with the status before and the task after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Status before; `None` if the task did not exist.
    pub old_status: Option<Status>,
    /// Task after.
    pub after: Task,
    /// Error groups concerned.
    pub fingerprints: FingerprintChange,
    /// The event.
    pub event: TaskEvent,
}

/// Error group that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FingerprintChange {
    /// Fingerprint of a failed task or attempt, or of a task that is no longer failed.
    pub current: Option<Name>,
    /// Previous fingerprint, if another failure was reported for a failed task.
    pub previous: Option<Name>,
}

/// Outcome of a transition: the task and the steps in order; no steps if nothing changed.
pub type Decision = Result<(Task, Vec<Step>), TransitionError>;

/// The steps of a new task.
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

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    use crate::model::NewTask;

    #[test]
    fn only_a_task_that_is_pending_at_once_is_enqueued_with_its_creation() {
        let task = NewTask::plain(Uuid::nil(), Name::literal("t"), Name::literal("q")).into_task(
            None,
            false,
            Time::UNIX_EPOCH,
        );
        for status in Status::ALL {
            let steps = create(&Task { status, ..task.clone() });
            let told: Vec<_> = steps.iter().map(|step| (step.old_status, step.event.clone())).collect();
            let mut right = vec![(None, TaskEvent::Created)];
            if status == Status::Pending {
                right.push((Some(Status::Pending), TaskEvent::Enqueued { reason: None }));
            }
            assert_eq!(told, right, "{status}");
            assert!(steps.iter().all(|step| step.after.status == status));
        }
    }
}
