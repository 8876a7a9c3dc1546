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

    /// Number of the bucket of a time, since 1970.
    const fn bucket(self, ts: Time) -> i64 {
        ts.timestamp().div_euclid(self.slot_seconds())
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

    /// Adds this minute to the bucket of a longer range that it belongs to.
    fn end(&self, range: Range, slots: &mut VecDeque<Self>) {
        let minutes = range.slot_seconds() / Range::Hour.slot_seconds();
        let number = self.number.div_euclid(minutes);
        if slots.back().is_none_or(|slot| slot.number < number) {
            slots.push_back(Self { number, ..Self::default() });
        }
        let Some(slot) = slots.back_mut() else { return };
        slot.tally.add(&self.tally);
        slot.waits.add_all(&self.waits);
        slot.runs.add_all(&self.runs);
        slot.max_pending = slot.max_pending.max(self.max_pending);
        slot.waiting = self.waiting;
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
    /// Applies a task event; `waiting` is the number of pending tasks after it. Only the minute is counted; when it is
    /// over, the longer buckets take it in.
    pub(super) fn apply(&mut self, event: &Event, waiting: u64) {
        if event.position.is_none() || super::moved(event).is_none() {
            return;
        }
        let number = Range::Hour.bucket(event.ts);
        // Clocks of several servers may differ slightly: a late event counts for the newest bucket.
        if self.hour.back().is_none_or(|minute| minute.number < number) {
            let before = self.hour.back().map_or(0, |minute| minute.waiting);
            self.end_minute();
            self.hour.push_back(Slot { number, max_pending: before, ..Slot::default() });
            trim(&mut self.hour, Range::Hour, number);
        }
        if let Some(minute) = self.hour.back_mut() {
            minute.add(event, waiting);
        }
    }

    /// Adds the newest minute to the longer buckets.
    fn end_minute(&mut self) {
        let Some(minute) = self.hour.back() else { return };
        for (range, slots) in [(Range::Day, &mut self.day), (Range::Week, &mut self.week)] {
            minute.end(range, slots);
            if let Some(number) = slots.back().map(|slot| slot.number) {
                trim(slots, range, number);
            }
        }
    }

    /// Removes buckets that no range shows any more.
    pub(super) fn forget(&mut self, now: Time) {
        for (range, slots) in
            [(Range::Hour, &mut self.hour), (Range::Day, &mut self.day), (Range::Week, &mut self.week)]
        {
            trim(slots, range, range.bucket(now));
            if slots.len() * 2 < slots.capacity() {
                slots.shrink_to_fit();
            }
        }
    }

    /// Whether nothing happened within any range.
    pub(super) fn is_over(&self, now: Time) -> bool {
        let oldest = Range::Week.bucket(now) - Range::Week.slots() as i64;
        let minutes = Range::Week.slot_seconds() / Range::Hour.slot_seconds();
        self.hour.back().is_none_or(|minute| minute.number.div_euclid(minutes) <= oldest)
    }

    /// Adds the counts of another history, bucket by bucket.
    pub(super) fn merge(&mut self, mut other: Self) {
        let newest = |history: &Self| history.hour.back().map(|minute| minute.number);
        let last = newest(self).max(newest(&other));
        for history in [&mut *self, &mut other] {
            // It is not the newest minute any more, and so it is over.
            if newest(history) < last {
                history.end_minute();
            }
        }
        for (mine, others) in
            [(&mut self.hour, &other.hour), (&mut self.day, &other.day), (&mut self.week, &other.week)]
        {
            *mine = merged(mine, others);
        }
    }

    /// The buckets of a range with something in them, and the newest one before, oldest first.
    fn slots(&self, range: Range) -> VecDeque<Slot> {
        let mut slots = match range {
            Range::Hour => self.hour.clone(),
            Range::Day => self.day.clone(),
            Range::Week => self.week.clone(),
        };
        if let Some(minute) = self.hour.back().filter(|_| range != Range::Hour) {
            minute.end(range, &mut slots);
        }
        slots
    }

    /// Every bucket of a range, oldest first, including empty ones. The last one is incomplete.
    #[must_use]
    pub fn over(&self, range: Range, now: Time) -> Vec<Slot> {
        let slots = self.slots(range);
        let last = range.bucket(now);
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

/// Removes the buckets before those of a range that ends with a bucket, but for the last of them: it knows the backlog
/// until the next one.
fn trim(slots: &mut VecDeque<Slot>, range: Range, last: i64) {
    while slots.get(1).is_some_and(|slot| slot.number <= last - range.slots() as i64) {
        slots.pop_front();
    }
}

/// Two series as one. A bucket that only one of them has takes the other's backlog of that time; the maximum of pending
/// tasks is the sum of both maxima, which need not have been at the same moment.
fn merged(mine: &VecDeque<Slot>, others: &VecDeque<Slot>) -> VecDeque<Slot> {
    let (mut mine, mut others) = (mine.iter().peekable(), others.iter().peekable());
    let mut waiting = [0, 0];
    let mut sum = VecDeque::new();
    while let Some(number) = [mine.peek(), others.peek()].into_iter().flatten().map(|slot| slot.number).min() {
        let mut slot = Slot { number, ..Slot::default() };
        for (series, waiting) in [&mut mine, &mut others].into_iter().zip(&mut waiting) {
            let part = series.next_if(|slot| slot.number == number);
            slot.max_pending += part.map_or(*waiting, |part| part.max_pending);
            if let Some(part) = part {
                slot.tally.add(&part.tally);
                slot.waits.add_all(&part.waits);
                slot.runs.add_all(&part.runs);
                *waiting = part.waiting;
            }
        }
        slot.waiting = waiting.iter().sum();
        sum.push_back(slot);
    }
    sum
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::board::samples::{START, at};
    use crate::model::Status;

    fn event(kind: Kind, seconds: i64) -> Event {
        let mut event = Event::new(kind, at(seconds));
        (event.position, event.task_id) = (Some(1), Some(Uuid::nil()));
        (event.old_status, event.status) = match kind {
            Kind::TaskCreated => (None, Some(Status::Pending)),
            Kind::TaskStarted => (Some(Status::Pending), Some(Status::Running)),
            Kind::TaskRetry => (Some(Status::Running), Some(Status::Retrying)),
            Kind::TaskFailed => (Some(Status::Running), Some(Status::Failed)),
            _ => (Some(Status::Running), Some(Status::Completed)),
        };
        event
    }

    /// The numbers of the buckets that hold something.
    fn filled(history: &History, range: Range, now: i64) -> Vec<usize> {
        let slots = history.over(range, at(now));
        slots.iter().enumerate().filter(|(_, slot)| slot.tally.created > 0).map(|(index, _)| index).collect()
    }

    #[test]
    fn buckets_cover_their_range_exactly() {
        let covered = Range::ALL.map(|range| range.slot_seconds() * range.slots() as i64);
        assert_eq!(covered, [3_600, 86_400, 7 * 86_400]);
    }

    #[test]
    fn an_event_leaves_with_its_bucket() {
        for range in Range::ALL {
            let mut history = History::default();
            history.apply(&event(Kind::TaskCreated, 0), 1);
            let (bucket, last) = (range.slot_seconds(), range.slots() - 1);
            assert_eq!(filled(&history, range, bucket - 1), [last], "the newest bucket");
            assert_eq!(filled(&history, range, bucket), [last - 1]);
            assert_eq!(filled(&history, range, bucket * last as i64), [0]);
            assert_eq!(filled(&history, range, bucket * (last as i64 + 1)), Vec::<usize>::new(), "{}", range.words());
        }
    }

    #[test]
    fn a_bucket_begins_where_the_one_before_ends() {
        for range in Range::ALL {
            let slots = History::default().over(range, at(1));
            let begins: Vec<_> = slots.iter().map(|slot| slot.begins(range).unwrap().timestamp()).collect();
            assert!(begins.windows(2).all(|pair| pair[1] - pair[0] == range.slot_seconds()));
            assert_eq!(begins.last(), Some(&START), "the last one has just begun");
        }
    }

    #[test]
    fn a_bucket_beyond_all_times_has_no_beginning() {
        let slot = Slot { number: i64::MAX / 4_000, ..Slot::default() };
        assert_eq!(slot.begins(Range::Week), None);
    }

    #[test]
    fn events_that_move_no_task_or_are_not_stored_change_nothing() {
        let mut history = History::default();
        let ephemeral = Event { position: None, ..event(Kind::TaskCreated, 0) };
        let of_no_task = Event { task_id: None, ..event(Kind::TaskCreated, 0) };
        let same = Event { old_status: Some(Status::Completed), ..event(Kind::TaskUpdated, 0) };
        for event in [ephemeral, of_no_task, same] {
            history.apply(&event, 7);
        }
        assert_eq!(history, History::default());
    }

    #[test]
    fn wait_times_belong_to_claims_and_run_times_to_ended_attempts() {
        let mut history = History::default();
        let mut started = event(Kind::TaskStarted, 0);
        (started.data.wait_ms, started.duration_ms) = (Some(5), Some(9_999));
        history.apply(&started, 0);
        for kind in [Kind::TaskCompleted, Kind::TaskFailed, Kind::TaskRetry] {
            let mut ended = event(kind, 0);
            (ended.data.wait_ms, ended.duration_ms) = (Some(9_999), Some(7));
            history.apply(&ended, 0);
        }
        history.apply(&event(Kind::TaskCompleted, 0), 0);
        let slot = history.over(Range::Hour, at(0)).pop().unwrap();
        assert_eq!((slot.waits.samples(), slot.runs.samples()), (1, 3), "unknown times are not zero");
        assert_eq!((slot.waits.percentile(99), slot.runs.percentile(99)), (Some(6), Some(8)));
        assert_eq!((slot.tally.started, slot.tally.completed, slot.tally.failed, slot.tally.retried), (1, 2, 1, 1));
    }

    #[test]
    fn the_backlog_of_a_bucket_is_its_highest_also_that_of_the_bucket_before() {
        let mut history = History::default();
        for (seconds, waiting) in [(0, 3), (10, 9), (20, 4), (60, 2), (61, 1)] {
            history.apply(&event(Kind::TaskCreated, seconds), waiting);
        }
        let slots = history.over(Range::Hour, at(61));
        let last: Vec<_> = slots[58..].iter().map(|slot| (slot.max_pending, slot.waiting)).collect();
        assert_eq!(last, [(9, 4), (4, 1)], "the second minute began with four");
    }

    #[test]
    fn the_newest_bucket_is_kept_for_the_backlog_however_old_it_is() {
        let mut history = History::default();
        history.apply(&event(Kind::TaskCreated, 0), 12);
        let slots = history.over(Range::Hour, at(30 * 86_400));
        assert!(slots.iter().all(|slot| slot.max_pending == 12 && slot.waiting == 12 && slot.tally.created == 0));
    }

    #[test]
    fn a_backlog_is_known_also_before_the_first_event_of_a_range() {
        for range in Range::ALL {
            let mut history = History::default();
            history.apply(&event(Kind::TaskCreated, 0), 5);
            let later = range.slot_seconds() * range.slots() as i64;
            history.apply(&event(Kind::TaskStarted, later), 4);
            let slots = history.over(range, at(later));
            assert!(slots.iter().all(|slot| slot.max_pending == 5), "{}", range.words());
        }
    }

    #[test]
    fn a_series_is_bounded_whatever_happens() {
        let mut history = History::default();
        for minute in 0..20_000 {
            history.apply(&event(Kind::TaskCreated, minute * 60), 1);
        }
        let kept = [history.hour.len(), history.day.len(), history.week.len()];
        assert_eq!(kept, Range::ALL.map(|range| range.slots() + 1), "and the one before, for the backlog");
    }
}
