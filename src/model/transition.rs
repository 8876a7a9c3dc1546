//! Requested changes of a task, and why one is refused. [`super::state_machine`] decides them.

use std::collections::BTreeMap;

use super::{
    Name, Status,
    dependency::Dependencies,
    edit::Edit,
    lease::{Claimant, StallReason, StalledPolicy},
    observation::Observation,
    phase::Counts,
    report::{Fence, Json, Progress},
};
use crate::clock::Time;

/// A requested change of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// A worker claims it.
    Claim {
        /// The worker, with its machine and connector.
        by: Claimant,
        /// End of the lease.
        lease_until: Time,
    },
    /// A worker reports progress.
    Progress {
        /// Worker and attempt.
        fence: Fence,
        /// Percent, message and counts.
        progress: Progress,
        /// New end of the lease.
        lease_until: Time,
    },
    /// A heartbeat of the worker names it: the lease is extended.
    Extend {
        /// Worker and attempt.
        fence: Fence,
        /// New end of the lease.
        lease_until: Time,
    },
    /// The attempt succeeded.
    Complete {
        /// Worker and attempt.
        fence: Fence,
        /// The result.
        result: Option<Json>,
    },
    /// The attempt failed.
    Fail {
        /// Worker and attempt.
        fence: Fence,
        /// Error message.
        error: String,
        /// A retry may succeed.
        retryable: bool,
        /// Random number 0.0–1.0 for the backoff.
        jitter: f64,
    },
    /// The worker releases it unprocessed; the attempt does not count against `max_attempts`.
    Release {
        /// Worker and attempt.
        fence: Fence,
    },
    /// Its `run_at` or the backoff of its last attempt has passed. Sent by `maintenance::due_tasks`.
    Due,
    /// Its lease expired, its worker was lost, or it timed out. Checked again here, because the lease may have been
    /// extended since.
    Stall {
        /// Which of these.
        reason: StallReason,
        /// Stalled policy.
        policy: StalledPolicy,
    },
    /// Cancel request.
    Cancel {
        /// Reason, as given.
        reason: Option<String>,
    },
    /// Retry request for a finished task.
    Retry,
    /// Retry request for a task with unfinished dependencies.
    RetryBlocked,
    /// Retry request for a `auto_complete` parent, some of whose children are retried; for any other task same as
    /// [`Transition::Retry`].
    Reopen,
    /// Delete request.
    Delete,
    /// Retention deletes it: it finished before this time.
    Expire(Time),
    /// Its first child was created, or it was reported after its children.
    BecomeParent {
        /// Its existing children, by phase.
        children: BTreeMap<Name, Counts>,
    },
    /// Another task now depends on it.
    GainDependent,
    /// Status of its dependencies.
    Depend(Dependencies),
    /// Status of its children.
    Children(Counts),
    /// Edit request.
    Edit(Box<Edit>),
    /// Report of another system.
    Observe(Box<Observation>),
    /// The parent's project, for an observed task without a project.
    Inherit(Name),
    /// Its parent already has too many phases: count it among the children without one.
    LeavePhase,
    /// For an unfinished observed task: nothing was reported since this time, so it ends as stalled.
    GiveUp(Time),
}

impl Transition {
    /// Size of its JSON in units of 4 KiB.
    #[must_use]
    pub fn pages(&self) -> usize {
        if let Self::Complete { result: Some(result), .. } = self { result.pages() } else { 0 }
    }

    /// The fencing token of a worker's report.
    #[must_use]
    pub const fn fence(&self) -> Option<Fence> {
        match self {
            Self::Progress { fence, .. }
            | Self::Extend { fence, .. }
            | Self::Complete { fence, .. }
            | Self::Fail { fence, .. }
            | Self::Release { fence } => Some(*fence),
            Self::Claim { .. }
            | Self::Due
            | Self::Stall { .. }
            | Self::Cancel { .. }
            | Self::Retry
            | Self::RetryBlocked
            | Self::Reopen
            | Self::LeavePhase
            | Self::GiveUp(_)
            | Self::Delete
            | Self::Expire(_)
            | Self::BecomeParent { .. }
            | Self::GainDependent
            | Self::Depend(_)
            | Self::Children(_)
            | Self::Edit(_)
            | Self::Observe(_)
            | Self::Inherit(_) => None,
        }
    }
}

/// Why a transition is refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The state machine has no such transition.
    #[error("a {status} task cannot be {wanted}")]
    Illegal {
        /// Status of the task.
        status: Status,
        /// Requested change, as a participle.
        wanted: &'static str,
    },
    /// The attempt or worker of the report no longer holds the lease.
    #[error(
        "lease lost: the task is {status} (attempt {current}), not held by attempt {attempt} of this worker; stop working on it"
    )]
    Fenced {
        /// Attempt in the report.
        attempt: u32,
        /// Latest attempt.
        current: u32,
        /// Status of the task.
        status: Status,
    },
    /// The task is not in a version that the edit requires.
    #[error("the task has changed since it was read; read it again")]
    Changed,
    /// The task was cancelled while the worker was running it.
    #[error("the task was cancelled; stop working on it")]
    Cancelled,
    /// The task is run by another system.
    #[error("observed task: cannot be {wanted} here; its own system reports it with POST /api/v1/events")]
    Observed {
        /// Requested change, as a participle.
        wanted: &'static str,
    },
    /// The task is run by taskwatch.
    #[error("managed task: report it with POST /api/v1/tasks/{{id}}/…")]
    Managed,
    /// The status of a parent with `auto_complete` follows its children.
    #[error("parent task closes with its children: cannot be {wanted}; act on the children instead")]
    Group {
        /// Requested change, as a participle.
        wanted: &'static str,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn reports_of_workers_carry_a_fence_and_nothing_else_does() {
        let fence = Fence { worker_id: Uuid::from_u128(7), attempt: 2 };
        for report in [
            Transition::Progress { fence, progress: Progress::default(), lease_until: Time::UNIX_EPOCH },
            Transition::Extend { fence, lease_until: Time::UNIX_EPOCH },
            Transition::Complete { fence, result: None },
            Transition::Fail { fence, error: String::new(), retryable: true, jitter: 0.0 },
            Transition::Release { fence },
        ] {
            assert_eq!(report.fence(), Some(fence), "{report:?}");
        }
        for other in [Transition::Due, Transition::Retry, Transition::Delete, Transition::Expire(Time::UNIX_EPOCH)] {
            assert_eq!(other.fence(), None, "{other:?}");
        }
    }

    #[test]
    fn only_a_result_makes_a_report_heavy() {
        let fence = Fence { worker_id: Uuid::nil(), attempt: 1 };
        let result: Json = serde_json::from_str(&format!("\"{}\"", "x".repeat(9_000))).unwrap();
        assert_eq!(Transition::Complete { fence, result: Some(result) }.pages(), 2);
        assert_eq!(Transition::Complete { fence, result: None }.pages(), 0);
        let failed = Transition::Fail { fence, error: "x".repeat(9_000), retryable: true, jitter: 0.0 };
        assert_eq!(failed.pages(), 0);
    }

    #[test]
    fn a_refusal_says_where_the_task_stands_and_what_to_do() {
        let fenced = TransitionError::Fenced { attempt: 1, current: 2, status: Status::Running };
        assert_eq!(
            fenced.to_string(),
            "lease lost: the task is running (attempt 2), not held by attempt 1 of this worker; stop working on it"
        );
        let illegal = TransitionError::Illegal { status: Status::Blocked, wanted: "claimed" };
        assert_eq!(illegal.to_string(), "a blocked task cannot be claimed");
        assert!(TransitionError::Observed { wanted: "retried" }.to_string().contains("cannot be retried here"));
        assert!(TransitionError::Managed.to_string().ends_with("POST /api/v1/tasks/{id}/…"));
    }
}
