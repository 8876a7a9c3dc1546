//! Counts of events in buckets of five seconds over the last hour.

use std::collections::VecDeque;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::ended::Attempts;
use crate::{
    clock::Time,
    event::{Event, Kind},
};

/// Length of a bucket, seconds.
const SLOT_SECONDS: i64 = 5;
/// Number of buckets: one hour.
const SLOTS: usize = 720;

/// Counts over time, oldest bucket first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    slots: VecDeque<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Slot {
    /// Bucket number since 1970.
    number: i64,
    tally: Tally,
}

/// Counts of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Tasks created.
    pub created: u64,
    /// Attempts started.
    pub started: u64,
    /// Tasks completed.
    pub completed: u64,
    /// Tasks failed.
    pub failed: u64,
    /// Failed attempts that were retried.
    pub retried: u64,
}

impl Tally {
    /// Failed attempts as a percentage of all finished attempts, 0–100.
    #[must_use]
    pub fn error_percent(&self) -> f64 {
        Attempts { completed: self.completed, failed: self.failed + self.retried }.error_percent()
    }

    /// Counts an event; returns whether it is of a counted type.
    pub(super) const fn count(&mut self, event: &Event) -> bool {
        let counter = match event.event_type {
            Kind::TaskCreated => &mut self.created,
            Kind::TaskStarted => &mut self.started,
            Kind::TaskCompleted => &mut self.completed,
            Kind::TaskFailed => &mut self.failed,
            Kind::TaskRetry => &mut self.retried,
            _ => return false,
        };
        *counter += 1;
        true
    }

    /// Adds all counts of another tally.
    pub const fn add(&mut self, other: &Self) {
        self.created += other.created;
        self.started += other.started;
        self.completed += other.completed;
        self.failed += other.failed;
        self.retried += other.retried;
    }
}

impl Rates {
    pub(super) fn apply(&mut self, event: &Event) {
        let mut counted = Tally::default();
        if !counted.count(event) {
            return;
        }
        let number = slot_of(event.ts);
        // Clocks of several servers may differ slightly: a late event counts for the newest bucket.
        if self.slots.back().is_none_or(|slot| slot.number < number) {
            self.slots.push_back(Slot { number, tally: Tally::default() });
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.tally.add(&counted);
        }
        self.forget_before(number - SLOTS as i64);
    }

    fn forget_before(&mut self, oldest: i64) {
        while self.slots.front().is_some_and(|slot| slot.number < oldest) {
            self.slots.pop_front();
        }
    }

    /// Removes buckets older than an hour.
    pub(super) fn forget(&mut self, now: Time) {
        self.forget_before(slot_of(now) - SLOTS as i64);
        if self.slots.len() * 2 < self.slots.capacity() {
            self.slots.shrink_to_fit();
        }
    }

    /// Adds the counts of others.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut slots: Vec<_> = self.slots.iter().chain(&other.slots).copied().collect();
        slots.sort_by_key(|slot| slot.number);
        self.slots.clear();
        for slot in slots {
            match self.slots.back_mut().filter(|last| last.number == slot.number) {
                Some(last) => last.tally.add(&slot.tally),
                None => self.slots.push_back(slot),
            }
        }
    }

    /// Counts over the last given seconds.
    #[must_use]
    pub fn over(&self, now: Time, seconds: i64) -> Tally {
        let since = slot_of(now - TimeDelta::seconds(seconds));
        let mut sum = Tally::default();
        for slot in self.slots.iter().rev().take_while(|slot| slot.number > since) {
            sum.add(&slot.tally);
        }
        sum
    }
}

fn slot_of(ts: Time) -> i64 {
    ts.timestamp().div_euclid(SLOT_SECONDS)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::board::samples::at;

    /// Rates after completions at these seconds.
    fn completed(seconds: impl IntoIterator<Item = i64>) -> Rates {
        let mut rates = Rates::default();
        for second in seconds {
            rates.apply(&Event::new(Kind::TaskCompleted, at(second)));
        }
        rates
    }

    #[test]
    fn five_seconds_make_a_bucket() {
        assert_eq!(completed([0, 1, 4]).slots.len(), 1);
        assert_eq!(completed([0, 4, 5, 9, 10]).slots.len(), 3);
    }

    #[test]
    fn an_event_counts_until_its_bucket_is_over() {
        let rates = completed([0]);
        for (age, count) in [(0, 1), (59, 1), (60, 0), (61, 0)] {
            assert_eq!(rates.over(at(age), 60).completed, count, "{age} s later");
        }
        assert_eq!(rates.over(at(0), 0), Tally::default(), "no time, no events");
        assert_eq!(rates.over(at(-60), 60).completed, 1, "a reader's clock may be behind");
    }

    #[test]
    fn an_hour_is_kept_and_not_more() {
        let rates = completed((0..10_000).map(|number| number * 5));
        assert_eq!(rates.slots.len(), SLOTS + 1);
        assert_eq!(rates.over(at(49_995), 3_600).completed, SLOTS as u64);
        let after_a_pause = completed([0, 1, 1_000_000]);
        assert_eq!(after_a_pause.slots.len(), 1);
    }

    #[test]
    fn times_before_1970_have_buckets_too() {
        let mut rates = Rates::default();
        for second in [-6, -5, -1, 0] {
            rates.apply(&Event::new(Kind::TaskCreated, Time::from_timestamp(second, 0).unwrap()));
        }
        assert_eq!(rates.slots.iter().map(|slot| slot.number).collect::<Vec<_>>(), [-2, -1, 0]);
    }

    #[test]
    fn each_counted_type_has_its_count_and_no_other_is_kept() {
        let mut rates = Rates::default();
        for kind in Kind::ALL {
            rates.apply(&Event::new(*kind, at(0)));
        }
        let one = Tally { created: 1, started: 1, completed: 1, failed: 1, retried: 1 };
        assert_eq!(rates.over(at(0), 5), one);
        let mut quiet = Rates::default();
        quiet.apply(&Event::new(Kind::TaskProgress, at(0)));
        assert!(quiet.slots.is_empty());
    }

    #[test]
    fn errors_are_a_share_of_the_attempts_that_ended() {
        let percent = |completed, failed, retried| {
            Tally { completed, failed, retried, created: 1_000, started: 1_000 }.error_percent()
        };
        for (tally, expected) in
            [((0, 0, 0), 0.0), ((7, 0, 0), 0.0), ((0, 1, 0), 100.0), ((0, 0, 1), 100.0), ((6, 1, 1), 25.0)]
        {
            let (completed, failed, retried) = tally;
            assert!((percent(completed, failed, retried) - expected).abs() < 1e-12, "{tally:?}");
        }
    }

    proptest! {
        /// However the events come in order, every one of the last hour is counted once.
        #[test]
        fn no_event_of_the_last_hour_is_lost(gaps in prop::collection::vec(0_i64..120, 0..60)) {
            let mut second = 0;
            let seconds: Vec<_> = gaps.iter().map(|gap| { second += gap; second }).collect();
            let rates = completed(seconds.iter().copied());
            let now = second - second.rem_euclid(5) + 4;
            let young = seconds.iter().filter(|at| **at > now - 3_600).count() as u64;
            prop_assert_eq!(rates.over(at(now), 3_600).completed, young);
        }
    }
}
