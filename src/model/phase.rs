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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hundred_percent_means_all() {
        let percent =
            |open: u64, finished: u64| Counts { pending: open, completed: finished, ..Counts::default() }.percent();
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(1, 999), 99);
        assert_eq!(percent(0, 999), 100);
        assert_eq!(percent(2, 1), 33);
        assert_eq!(Counts { failed: 1, cancelled: 1, running: 2, ..Counts::default() }.percent(), 50);
    }

    #[test]
    fn what_has_not_started_counts_as_pending() {
        let mut counts = Counts::default();
        Status::ALL.into_iter().for_each(|status| counts.add(status));
        assert_eq!(counts.numbers(), [4, 1, 1, 1, 1]);
        assert_eq!((counts.total(), counts.finished()), (8, 3));
    }

    #[test]
    fn counts_never_fall_below_zero() {
        let mut counts = Counts::default();
        Status::ALL.into_iter().for_each(|status| counts.remove(status));
        assert_eq!(counts, Counts::default());
    }

    proptest! {
        #[test]
        fn a_child_that_comes_and_goes_leaves_no_trace(
            numbers in proptest::array::uniform5(0_u64..1_000),
            status in proptest::sample::select(&Status::ALL[..]),
        ) {
            let before = Counts::from_numbers(numbers);
            let mut counts = before;
            counts.add(status);
            prop_assert_eq!(counts.total(), before.total() + 1);
            prop_assert_eq!(counts.finished() - before.finished(), u64::from(status.is_finished()));
            counts.remove(status);
            prop_assert_eq!(counts, before);
        }

        #[test]
        fn the_sum_of_phases_has_all_their_children(
            one in proptest::array::uniform5(0_u64..1_000),
            other in proptest::array::uniform5(0_u64..1_000),
        ) {
            let mut sum = Counts::from_numbers(one);
            sum.add_all(&Counts::from_numbers(other));
            prop_assert_eq!(sum.numbers(), std::array::from_fn(|at| one[at] + other[at]));
            prop_assert!(sum.percent() <= 100 && (sum.percent() == 100) == (sum.total() > 0 && sum.finished() == sum.total()));
        }
    }
}
