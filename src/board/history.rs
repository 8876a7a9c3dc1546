//! History of the last hour, day and week: counts, wait times, run times and backlog in time buckets.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{durations::Histogram, rates::Tally};
use crate::{
    clock::Time,
    event::{Event, Kind},
};

/// A time range and its bucket size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// One hour, in buckets of a minute.
    #[default]
    Hour,
    /// One day, in buckets of 15 minutes.
    Day,
    /// One week, in buckets of an hour.
    Week,
}

impl Range {
    /// All ranges.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// The value in URLs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// Display text.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Hour => "last hour",
            Self::Day => "last 24 hours",
            Self::Week => "last 7 days",
        }
    }

    /// Length of a bucket, seconds.
    #[must_use]
    pub const fn slot_seconds(self) -> i64 {
        match self {
            Self::Hour => 60,
            Self::Day => 900,
            Self::Week => 3_600,
        }
    }

    /// Number of buckets.
    #[must_use]
    pub const fn slots(self) -> usize {
        match self {
            Self::Hour => 60,
            Self::Day => 96,
            Self::Week => 168,
        }
    }
}

/// One series per range.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    hour: VecDeque<Slot>,
    day: VecDeque<Slot>,
    week: VecDeque<Slot>,
}

/// One time bucket.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Bucket number since 1970.
    #[serde(rename = "n")]
    pub number: i64,
    /// Counts.
    #[serde(rename = "t")]
    pub tally: Tally,
    /// Wait times: from pending to claimed.
    #[serde(rename = "w", default, skip_serializing_if = "Histogram::is_empty")]
    pub waits: Histogram,
    /// Run times of attempts.
    #[serde(rename = "r", default, skip_serializing_if = "Histogram::is_empty")]
    pub runs: Histogram,
    /// Maximum number of pending tasks.
    #[serde(rename = "m")]
    pub max_pending: u64,
    /// Number of pending tasks at the end.
    #[serde(rename = "e")]
    pub waiting: u64,
}

impl Slot {
    /// Start of the bucket.
    #[must_use]
    pub fn begins(&self, range: Range) -> Option<Time> {
        Time::from_timestamp(self.number * range.slot_seconds(), 0)
    }

    fn add(&mut self, event: &Event, waiting: u64) {
        self.tally.count(event);
        match event.event_type {
            Kind::TaskStarted => event.data.wait_ms.into_iter().for_each(|ms| self.waits.add(ms)),
            Kind::TaskCompleted | Kind::TaskFailed | Kind::TaskRetry => {
                event.duration_ms.into_iter().for_each(|ms| self.runs.add(ms));
            }
            _ => {}
        }
        self.max_pending = self.max_pending.max(waiting);
        self.waiting = waiting;
    }
}

impl History {
    /// Applies a task event; `waiting` is the number of pending tasks after it.
    pub(super) fn apply(&mut self, event: &Event, waiting: u64) {
        if event.position.is_none() || super::moved(event).is_none() {
            return;
        }
        for range in Range::ALL {
            let number = event.ts.timestamp().div_euclid(range.slot_seconds());
            let slots = self.slots_mut(range);
            // Clocks of several servers may differ slightly: a late event counts for the newest bucket.
            if slots.back().is_none_or(|slot| slot.number < number) {
                let before = slots.back().map_or(0, |slot| slot.waiting);
                slots.push_back(Slot { number, max_pending: before, ..Slot::default() });
                while slots.front().is_some_and(|slot| slot.number <= number - range.slots() as i64) {
                    slots.pop_front();
                }
            }
            if let Some(slot) = slots.back_mut() {
                slot.add(event, waiting);
            }
        }
    }

    const fn slots_mut(&mut self, range: Range) -> &mut VecDeque<Slot> {
        match range {
            Range::Hour => &mut self.hour,
            Range::Day => &mut self.day,
            Range::Week => &mut self.week,
        }
    }

    /// Every bucket of a range, oldest first, including empty ones. The last one is incomplete.
    #[must_use]
    pub fn over(&self, range: Range, now: Time) -> Vec<Slot> {
        let slots = match range {
            Range::Hour => &self.hour,
            Range::Day => &self.day,
            Range::Week => &self.week,
        };
        let last = now.timestamp().div_euclid(range.slot_seconds());
        let first = last - range.slots() as i64 + 1;
        let before = slots.iter().rev().find(|slot| slot.number < first);
        let mut waiting = before.map_or(0, |slot| slot.waiting);
        let mut known = slots.iter().filter(|slot| slot.number >= first).peekable();
        (first..=last)
            .map(|number| {
                let empty = Slot { number, max_pending: waiting, waiting, ..Slot::default() };
                let slot = known.next_if(|slot| slot.number == number).cloned().unwrap_or(empty);
                waiting = slot.waiting;
                slot
            })
            .collect()
    }
}
