//! Counts of events in buckets of five seconds over the last hour.

use std::collections::VecDeque;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

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
        let bad = self.failed + self.retried;
        match bad + self.completed {
            0 => 0.0,
            ended => bad as f64 * 100.0 / ended as f64,
        }
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
        let oldest = number - SLOTS as i64;
        while self.slots.front().is_some_and(|slot| slot.number < oldest) {
            self.slots.pop_front();
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
