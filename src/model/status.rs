//! The statuses of a task.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Status of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Has a future `run_at`.
    Scheduled,
    /// Has unfinished dependencies.
    Blocked,
    /// Ready to be claimed.
    Pending,
    /// Claimed by a worker.
    Running,
    /// An attempt failed; the next one is scheduled.
    Retrying,
    /// Completed successfully.
    Completed,
    /// Failed; no attempts left or not retryable.
    Failed,
    /// Cancelled by a person or an API call.
    Cancelled,
}

impl Status {
    /// Every status, in the order of the life cycle.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Pending,
        Self::Running,
        Self::Retrying,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The value in JSON, SQL, URLs and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the status is terminal: `completed`, `failed` or `cancelled`.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown status '{0}'; supported: scheduled, blocked, pending, running, retrying, completed, failed, cancelled"
)]
pub struct UnknownStatus(pub String);

impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == word).ok_or_else(|| UnknownStatus(word.to_owned()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_spelling() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
        }
        for unknown in ["", "Pending", "pending ", "done"] {
            let error = unknown.parse::<Status>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown status '{unknown}'")), "{error}");
            assert!(Status::ALL.iter().all(|status| error.contains(status.as_str())), "{error}");
        }
    }

    #[test]
    fn three_statuses_are_final() {
        let finished: Vec<_> = Status::ALL.into_iter().filter(|status| status.is_finished()).collect();
        assert_eq!(finished, [Status::Completed, Status::Failed, Status::Cancelled]);
    }
}
