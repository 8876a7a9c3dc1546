//! Changes that can be asked of a task, and why one is refused. [`super::state_machine`] decides them.

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

/// A change of a task that someone or something asks for.
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
        /// Another attempt may help.
        retryable: bool,
        /// 0.0–1.0, spreads the next attempt.
        jitter: f64,
    },
    /// The worker releases it untouched; the attempt does not count against `max_attempts`.
    Release {
        /// Worker and attempt.
        fence: Fence,
    },
    /// Its `run_at` has come, or the backoff of its last attempt is over.
    Due,
    /// Its lease expired, its worker was lost, or it timed out. Decided again here, because the lease may have been extended
    /// since.
    Stall {
        /// Which of these.
        reason: StallReason,
        /// What happens to stalled tasks.
        policy: StalledPolicy,
    },
    /// Someone cancels it.
    Cancel {
        /// Reason, as given.
        reason: Option<String>,
    },
    /// Someone retries a finished task.
    Retry,
    /// The same of one whose dependencies have not completed.
    RetryBlocked,
    /// The same of a parent that follows its children, some of which run again; of any other task it is [`Transition::Retry`].
    Reopen,
    /// Someone deletes it.
    Delete,
    /// Retention deletes it: it finished before this time.
    Expire(Time),
    /// Its first child was created, or it was reported after its children.
    BecomeParent {
        /// Its children so far, by phase.
        children: BTreeMap<Name, Counts>,
    },
    /// Another task depends on it now.
    GainDependent,
    /// Status of its dependencies.
    Depend(Dependencies),
    /// Status of its children.
    Children(Counts),
    /// Someone edits it.
    Edit(Box<Edit>),
    /// Another system reports it.
    Observe(Box<Observation>),
    /// Its parent's project, for a reported task without one of its own.
    Inherit(Name),
    /// Its parent has too many phases already: it counts among the children without one.
    LeavePhase,
    /// Of an unfinished observed task: nothing was reported since this time, so it ends as stalled.
    GiveUp(Time),
}

impl Transition {
    /// How many pages of 4 KiB its JSON takes.
    #[must_use]
    pub fn pages(&self) -> usize {
        if let Self::Complete { result: Some(result), .. } = self { result.pages() } else { 0 }
    }

    /// The fence of a worker's report.
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

/// Why a transition is refused. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The table of states has no such arrow.
    #[error("a {status} task cannot be {wanted}")]
    Illegal {
        /// Status of the task.
        status: Status,
        /// What was asked for, as a participle.
        wanted: &'static str,
    },
    /// The report names an attempt or a worker that no longer holds the task.
    #[error(
        "attempt {attempt} of this worker no longer holds the task (it is {status}, attempt {current}); stop working on it"
    )]
    Fenced {
        /// The attempt named.
        attempt: u32,
        /// The latest attempt.
        current: u32,
        /// Status of the task.
        status: Status,
    },
    /// The task is not in the version that the edit is for.
    #[error("the task has changed since it was read; read it again")]
    Changed,
    /// The task was cancelled while the worker had it.
    #[error("the task was cancelled; stop working on it")]
    Cancelled,
    /// Another system runs the task.
    #[error(
        "the task is run by the system that reports it, so it cannot be {wanted} here; send reports to POST /api/v1/events"
    )]
    Observed {
        /// What was asked for, as a participle.
        wanted: &'static str,
    },
    /// taskwatch runs the task.
    #[error(
        "the task is handed out by taskwatch, so its state is not observed; report it with POST /api/v1/tasks/{{id}}/…"
    )]
    Managed,
    /// A group follows its children.
    #[error("the task closes with its children, so it cannot be {wanted}; do that to the children")]
    Group {
        /// What was asked for, as a participle.
        wanted: &'static str,
    },
}
