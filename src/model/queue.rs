//! Queues with their operator settings: paused or active, a concurrency limit, and a rate limit as a sliding window.

use std::{collections::BTreeMap, time::Duration};

use super::{Name, edit::Changes};
use crate::clock::Time;

/// Number of time slots per rate limit period.
const SLOTS: i64 = 10;

/// Operator settings of a queue and the usage of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// Its name.
    pub name: Name,
    /// When it was paused; `None` if it is active.
    pub paused_at: Option<Time>,
    /// Concurrency limit: maximum number of running tasks.
    pub concurrency_limit: Option<u32>,
    /// Rate limit: maximum number of tasks started per period.
    pub rate_limit: Option<u32>,
    /// Period of the rate limit, seconds.
    pub rate_period_seconds: u32,
    /// Starts within the last period: slot and count.
    pub starts: Vec<(i64, u32)>,
    /// Claimed running tasks; counted for limited queues only.
    pub running: u32,
}

/// A change of queue settings by an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueChange {
    /// Stop dispatch; running tasks continue.
    Pause,
    /// Resume dispatch.
    Resume,
    /// New limits; `None` removes a limit, absent ones stay.
    Limit {
        /// Concurrency limit.
        concurrency: Option<Option<u32>>,
        /// Rate limit: starts, and period in seconds.
        rate: Option<Option<(u32, u32)>>,
    },
}

impl QueueState {
    /// A queue without operator settings.
    pub const fn new(name: Name) -> Self {
        Self {
            name,
            paused_at: None,
            concurrency_limit: None,
            rate_limit: None,
            rate_period_seconds: 1,
            starts: Vec::new(),
            running: 0,
        }
    }

    /// How many more tasks may start now; `None` if no limit is set.
    pub fn allowed(&self, now: Time) -> Option<u32> {
        let free = self.concurrency_limit.map(|limit| limit.saturating_sub(self.running));
        let rest = self.rate_limit.map(|limit| limit.saturating_sub(self.used(now)));
        match (free, rest) {
            (Some(free), Some(rest)) => Some(free.min(rest)),
            (free, rest) => free.or(rest),
        }
    }

    /// Starts that count against the rate limit. A slot counts while any part of it lies within the period, and so do
    /// slots written by another server with a later clock: no window of one period ever contains more starts than the
    /// limit.
    fn used(&self, now: Time) -> u32 {
        let oldest = self.slot(now) - SLOTS;
        self.starts.iter().filter(|(slot, _)| *slot >= oldest).map(|(_, count)| count).sum()
    }

    fn slot(&self, now: Time) -> i64 {
        now.timestamp_millis().div_euclid(self.slot_millis())
    }

    fn slot_millis(&self) -> i64 {
        i64::from(self.rate_period_seconds) * 1_000 / SLOTS
    }

    /// Records starts.
    pub fn start(&mut self, count: u32, now: Time) {
        self.running += count;
        if self.rate_limit.is_none() {
            return;
        }
        let slot = self.slot(now);
        self.starts.retain(|(number, _)| *number >= slot - SLOTS);
        match self.starts.iter_mut().find(|(number, _)| *number == slot) {
            Some((_, starts)) => *starts += count,
            None => self.starts.push((slot, count)),
        }
    }

    /// Delay until the rate limit allows more, if it is used up.
    pub fn again_after(&self, now: Time) -> Option<Duration> {
        let limit = self.rate_limit?;
        if self.used(now) < limit {
            return None;
        }
        let oldest = self.slot(now) - SLOTS;
        let first = self.starts.iter().map(|(slot, _)| *slot).filter(|slot| *slot >= oldest).min()?;
        let free = (first + SLOTS + 1) * self.slot_millis();
        Some(Duration::from_millis(u64::try_from(free - now.timestamp_millis()).unwrap_or_default().max(5)))
    }

    /// Applies a change; returns the old and new value of each changed field.
    pub fn change(&mut self, change: &QueueChange, now: Time) -> Changes {
        let old = self.clone();
        match change {
            QueueChange::Pause => self.paused_at = self.paused_at.or(Some(now)),
            QueueChange::Resume => self.paused_at = None,
            QueueChange::Limit { concurrency, rate } => {
                self.concurrency_limit = concurrency.unwrap_or(self.concurrency_limit);
                if let Some(rate) = rate {
                    self.rate_limit = rate.map(|(limit, _)| limit);
                    self.rate_period_seconds = rate.map_or(1, |(_, period)| period);
                    self.starts.clear();
                }
            }
        }
        let mut changes = BTreeMap::new();
        let mut compare = |field: &str, old: serde_json::Value, new: serde_json::Value| {
            if old != new {
                changes.insert(field.to_owned(), [old, new]);
            }
        };
        compare("paused_at", serde_json::json!(old.paused_at), serde_json::json!(self.paused_at));
        compare("concurrency_limit", old.concurrency_limit.into(), self.concurrency_limit.into());
        compare("rate_limit", old.rate_limit.into(), self.rate_limit.into());
        compare("rate_period_seconds", old.rate_period_seconds.into(), self.rate_period_seconds.into());
        changes
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn no_window_holds_more_than_the_limit() {
        let mut queue = QueueState { rate_limit: Some(5), ..QueueState::new(Name::literal("q")) };
        let start = Time::from_timestamp_millis(1_000_000_033).unwrap();
        let mut starts = Vec::new();
        for step in 0..5_000 {
            let now = start + TimeDelta::milliseconds(step * 7);
            let count = queue.allowed(now).unwrap().min(3);
            queue.start(count, now);
            queue.running = 0;
            starts.extend(std::iter::repeat_n(now, count as usize));
            assert!(queue.starts.len() <= 12);
        }
        for window in starts.windows(6) {
            assert!(window[5] - window[0] >= TimeDelta::seconds(1), "{window:?}");
        }
        // 35 s at 5/s, minus the loss from whole slots.
        assert!(starts.len() > 140, "{}", starts.len());
    }

    fn queue() -> QueueState {
        QueueState::new(Name::literal("q"))
    }

    fn at(millis: i64) -> Time {
        Time::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    fn limited(concurrency: Option<u32>, rate: Option<(u32, u32)>) -> QueueState {
        let mut queue = queue();
        queue.change(&QueueChange::Limit { concurrency: Some(concurrency), rate: Some(rate) }, at(0));
        queue
    }

    #[test]
    fn the_tighter_limit_counts() {
        assert_eq!(queue().allowed(at(0)), None);
        assert_eq!(limited(Some(3), None).allowed(at(0)), Some(3));
        assert_eq!(limited(None, Some((5, 1))).allowed(at(0)), Some(5));
        assert_eq!(limited(Some(3), Some((5, 1))).allowed(at(0)), Some(3));
        let busy = QueueState { running: 7, ..limited(Some(3), None) };
        assert_eq!(busy.allowed(at(0)), Some(0), "a limit set below what runs stops no task");
    }

    #[test]
    fn a_rate_limit_tells_when_it_allows_more() {
        let mut queue = limited(None, Some((2, 10)));
        assert_eq!(queue.again_after(at(0)), None);
        queue.start(2, at(0));
        let wait = queue.again_after(at(0)).unwrap();
        assert_eq!(queue.allowed(at(0)), Some(0));
        let after = at(i64::try_from(wait.as_millis()).unwrap());
        assert_eq!(queue.allowed(after - chrono::TimeDelta::milliseconds(1)), Some(0));
        assert_eq!((queue.allowed(after), queue.again_after(after)), (Some(2), None));
        assert_eq!(limited(Some(0), None).again_after(at(0)), None, "only time lifts a rate limit");
    }

    #[test]
    fn starts_written_by_a_server_with_a_later_clock_count() {
        let mut queue = limited(None, Some((2, 1)));
        queue.start(2, at(5_000));
        assert_eq!(queue.allowed(at(0)), Some(0));
        assert!(queue.again_after(at(0)).is_some_and(|wait| wait > Duration::from_secs(5)));
    }

    #[test]
    fn a_queue_without_a_rate_limit_remembers_no_starts() {
        let mut queue = limited(Some(9), None);
        queue.start(4, at(0));
        assert_eq!((queue.running, queue.starts.len()), (4, 0));
    }

    #[test]
    fn a_queue_is_paused_since_it_was_first_paused() {
        let mut queue = queue();
        let changes = queue.change(&QueueChange::Pause, at(0));
        assert_eq!(changes.keys().collect::<Vec<_>>(), ["paused_at"]);
        assert_eq!(queue.change(&QueueChange::Pause, at(9_000)), Changes::new());
        assert_eq!(queue.paused_at, Some(at(0)));
        assert_eq!(queue.change(&QueueChange::Resume, at(9_000)).len(), 1);
        assert_eq!(queue.change(&QueueChange::Resume, at(9_001)), Changes::new());
    }

    #[test]
    fn a_limit_that_is_not_named_stays_and_none_removes_it() {
        let mut queue = limited(Some(3), Some((5, 60)));
        let only = QueueChange::Limit { concurrency: Some(None), rate: None };
        assert_eq!(
            queue.change(&only, at(0)),
            Changes::from([("concurrency_limit".to_owned(), [json!(3), json!(null)])])
        );
        assert_eq!((queue.rate_limit, queue.rate_period_seconds), (Some(5), 60));
        let changes = queue.change(&QueueChange::Limit { concurrency: None, rate: Some(None) }, at(0));
        assert_eq!(changes["rate_period_seconds"], [json!(60), json!(1)]);
        assert_eq!(queue.allowed(at(0)), None);
    }

    #[test]
    fn a_new_rate_limit_begins_afresh() {
        let mut queue = limited(None, Some((2, 60)));
        queue.start(2, at(0));
        queue.change(&QueueChange::Limit { concurrency: None, rate: Some(Some((3, 60))) }, at(1));
        assert_eq!(queue.allowed(at(1)), Some(3));
    }

    proptest! {
        /// Starting only what is allowed never exceeds the rate in any window, and after the wait that is given one may start.
        #[test]
        fn the_rate_holds_for_any_period(
            limit in 1_u32..6,
            period in 1_u32..90,
            steps in proptest::collection::vec((0_i64..30_000, 1_u32..4), 1..60),
        ) {
            let mut queue = limited(None, Some((limit, period)));
            let (mut now, mut starts) = (0, Vec::new());
            for (passes, wanted) in steps {
                now += passes;
                let count = queue.allowed(at(now)).unwrap().min(wanted);
                (0..count).for_each(|_| queue.start(1, at(now)));
                starts.extend(std::iter::repeat_n(now, count as usize));
                if let Some(wait) = queue.again_after(at(now)) {
                    let then = at(now + i64::try_from(wait.as_millis()).unwrap());
                    prop_assert!(queue.allowed(then) > Some(0));
                }
            }
            let window = limit as usize + 1;
            prop_assert!(starts.windows(window).all(|all| all[window - 1] - all[0] >= i64::from(period) * 1_000));
        }
    }
}
