//! A worker's hold on a task, and how long to wait between attempts.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Name, report::Progress};
use crate::clock::Time;

/// A worker's hold on one attempt of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// When it ends unless extended; never, when nobody claimed the task.
    pub expires_at: Option<Time>,
    /// The last progress reported.
    pub progress: Option<Progress>,
    /// The stall was reported already (policy `report`).
    pub stalled: bool,
}

/// Who claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The worker.
    pub worker_id: Uuid,
    /// Its machine.
    pub machine_id: Name,
    /// The connector that it will use.
    pub connector_id: Option<Name>,
}

/// Why a running task is considered stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StallReason {
    /// Nobody extended the lease.
    LeaseExpired,
    /// The worker has gone.
    WorkerLost,
    /// The attempt took longer than `timeout_seconds`.
    TimeLimit,
    /// The system that reports the task has said nothing of it for long.
    NoReport,
}

impl StallReason {
    /// The word used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseExpired => "lease_expired",
            Self::WorkerLost => "worker_lost",
            Self::TimeLimit => "time_limit",
            Self::NoReport => "no_report",
        }
    }

    /// The sentence for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::LeaseExpired => "the lease expired without a report",
            Self::WorkerLost => "the worker was lost",
            Self::TimeLimit => "the attempt passed its time limit",
            Self::NoReport => "nothing was reported of it for too long",
        }
    }
}

/// What happens to a stalled task (`--stalled-policy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StalledPolicy {
    /// Back to its queue while attempts are left, else failed.
    #[default]
    Retry,
    /// Failed at once.
    Fail,
    /// Only reported; it stays running.
    Report,
}

/// How long to wait between attempts: doubled per retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the first retry, seconds.
    pub base_seconds: u32,
    /// At the most, seconds.
    pub cap_seconds: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base_seconds: 1, cap_seconds: 3_600 }
    }
}

impl Backoff {
    /// The wait before a retry, of which the second half is random ("equal jitter", so that a burst of failures does
    /// not come back as a burst). `jitter` is 0.0–1.0; `retry` is 1 for the first retry.
    #[must_use]
    pub fn wait(self, retry: u32, jitter: f64) -> TimeDelta {
        let doubled = u64::from(self.base_seconds) << retry.saturating_sub(1).min(24);
        let full = TimeDelta::seconds(i64::try_from(doubled).unwrap_or(i64::MAX).min(self.cap_seconds.into()));
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the cap in milliseconds")]
        let random = (full.num_milliseconds() as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as i64;
        full / 2 + TimeDelta::milliseconds(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_and_is_capped() {
        let usual = Backoff::default();
        assert_eq!(usual.wait(1, 0.0), TimeDelta::milliseconds(500));
        assert_eq!(usual.wait(1, 1.0), TimeDelta::seconds(1));
        assert_eq!(usual.wait(4, 1.0), TimeDelta::seconds(8));
        assert_eq!(usual.wait(40, 1.0), TimeDelta::seconds(3_600));
        assert_eq!(usual.wait(u32::MAX, 7.0), TimeDelta::seconds(3_600));
        let steady = Backoff { base_seconds: 86_400, cap_seconds: 86_400 };
        assert_eq!(steady.wait(1, 1.0), steady.wait(9, 1.0));
        assert_eq!(Backoff { base_seconds: 0, cap_seconds: 0 }.wait(3, 1.0), TimeDelta::zero());
    }
}
