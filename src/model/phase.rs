//! Children of a parent task, counted per phase.

use serde::{Deserialize, Serialize};

use super::Status;

/// Placeholder for children without a phase.
pub const NO_PHASE: &str = "-";

/// Number of child tasks by status. `pending` counts everything not yet started: scheduled, blocked, pending and
/// retrying.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counts {
    /// Not started, or awaiting another attempt.
    pub pending: u64,
    /// Claimed by a worker.
    pub running: u64,
    /// Completed.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl Counts {
    /// Total number.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pending + self.running + self.completed + self.failed + self.cancelled
    }

    /// Number of finished children.
    #[must_use]
    pub const fn finished(&self) -> u64 {
        self.completed + self.failed + self.cancelled
    }

    /// Finished children in percent, 0–100, rounded down so that 100 means all.
    #[must_use]
    pub const fn percent(&self) -> u64 {
        match self.total() {
            0 => 0,
            total => self.finished() * 100 / total,
        }
    }

    /// Pending, running, completed, failed, cancelled.
    #[must_use]
    pub const fn numbers(&self) -> [u64; 5] {
        [self.pending, self.running, self.completed, self.failed, self.cancelled]
    }

    /// Counts from numbers in the order of [`Counts::numbers`].
    #[must_use]
    pub const fn from_numbers([pending, running, completed, failed, cancelled]: [u64; 5]) -> Self {
        Self { pending, running, completed, failed, cancelled }
    }

    /// Adds one child with a status.
    pub const fn add(&mut self, status: Status) {
        let slot = self.slot(status);
        *slot += 1;
    }

    /// Removes one child with a status.
    pub const fn remove(&mut self, status: Status) {
        let slot = self.slot(status);
        *slot = slot.saturating_sub(1);
    }

    /// Adds other counts.
    pub const fn add_all(&mut self, other: &Self) {
        self.pending += other.pending;
        self.running += other.running;
        self.completed += other.completed;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
    }

    const fn slot(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Scheduled | Status::Blocked | Status::Pending | Status::Retrying => &mut self.pending,
            Status::Running => &mut self.running,
            Status::Completed => &mut self.completed,
            Status::Failed => &mut self.failed,
            Status::Cancelled => &mut self.cancelled,
        }
    }
}
