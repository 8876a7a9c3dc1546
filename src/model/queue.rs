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
}
