//! Leases of running tasks, and the backoff between attempts.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Name, report::Progress};
use crate::clock::Time;

/// The lease of a worker on one attempt of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// When it expires unless extended; `None` (never) for a task that was not claimed.
    pub expires_at: Option<Time>,
    /// The last progress reported.
    pub progress: Option<Progress>,
    /// The stall has already been reported (policy `report`).
    pub stalled: bool,
}

/// The claiming worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The worker.
    pub worker_id: Uuid,
    /// Its machine.
    pub machine_id: Name,
    /// The connector it will use.
    pub connector_id: Option<Name>,
}

/// Why a running task is considered stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StallReason {
    /// The lease was not extended in time.
    LeaseExpired,
    /// The worker was lost.
    WorkerLost,
    /// The attempt exceeded `timeout_seconds`.
    TimeLimit,
    /// The external system has not reported the task for too long.
    NoReport,
}

impl StallReason {
    /// The value in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseExpired => "lease_expired",
            Self::WorkerLost => "worker_lost",
            Self::TimeLimit => "time_limit",
            Self::NoReport => "no_report",
        }
    }

    /// Human-readable sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::LeaseExpired => "lease expired",
            Self::WorkerLost => "worker lost",
            Self::TimeLimit => "timed out",
            Self::NoReport => "not reported for too long",
        }
    }
}

/// How stalled tasks are handled (`--stalled-policy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StalledPolicy {
    /// Requeue while attempts are left, otherwise fail.
    #[default]
    Retry,
    /// Fail immediately.
    Fail,
    /// Only report; the task stays running.
    Report,
}

/// Exponential backoff between attempts, doubled per retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Delay before the first retry, seconds.
    pub initial_seconds: u32,
    /// Maximum delay, seconds.
    pub max_seconds: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_seconds: 1, max_seconds: 3_600 }
    }
}

impl Backoff {
    /// Delay before a retry, the second half of it random ("equal jitter", so that a burst of failures is not retried
    /// as a burst). `jitter` is 0.0–1.0; `retry` is 1 for the first retry.
    #[must_use]
    pub fn wait(self, retry: u32, jitter: f64) -> TimeDelta {
        let doubled = u64::from(self.initial_seconds) << retry.saturating_sub(1).min(24);
        let full = TimeDelta::seconds(i64::try_from(doubled).unwrap_or(i64::MAX).min(self.max_seconds.into()));
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the cap in milliseconds")]
        let random = (full.num_milliseconds() as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as i64;
        full / 2 + TimeDelta::milliseconds(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn backoff_doubles_and_is_capped() {
        let usual = Backoff::default();
        assert_eq!(usual.wait(1, 0.0), TimeDelta::milliseconds(500));
        assert_eq!(usual.wait(1, 1.0), TimeDelta::seconds(1));
        assert_eq!(usual.wait(4, 1.0), TimeDelta::seconds(8));
        assert_eq!(usual.wait(40, 1.0), TimeDelta::seconds(3_600));
        assert_eq!(usual.wait(u32::MAX, 7.0), TimeDelta::seconds(3_600));
        let steady = Backoff { initial_seconds: 86_400, max_seconds: 86_400 };
        assert_eq!(steady.wait(1, 1.0), steady.wait(9, 1.0));
        assert_eq!(Backoff { initial_seconds: 0, max_seconds: 0 }.wait(3, 1.0), TimeDelta::zero());
    }

    #[test]
    fn a_reason_has_one_spelling() {
        for reason in
            [StallReason::LeaseExpired, StallReason::WorkerLost, StallReason::TimeLimit, StallReason::NoReport]
        {
            assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
        }
    }

    proptest! {
        /// Each retry waits between half of its time and all of it, never longer than the maximum, and never less than the
        /// retry before it could.
        #[test]
        fn a_wait_is_bounded_and_grows(
            initial_seconds in 0_u32..=604_800,
            more in 0_u32..=604_800,
            retry in 0_u32..200,
            jitter in -1.0_f64..2.0,
        ) {
            let backoff = Backoff { initial_seconds, max_seconds: initial_seconds.saturating_add(more) };
            let (least, wait, most) = (backoff.wait(retry, 0.0), backoff.wait(retry, jitter), backoff.wait(retry, 1.0));
            prop_assert!(least <= wait && wait <= most);
            prop_assert!(most <= TimeDelta::seconds(backoff.max_seconds.into()));
            prop_assert!((most - least * 2).abs() <= TimeDelta::milliseconds(1));
            prop_assert!(most <= backoff.wait(retry + 1, 1.0));
        }
    }
}
