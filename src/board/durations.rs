//! Histograms of durations: exponential buckets with a growth factor of 1.3, over two time windows.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ended::Outcomes;
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::Name,
};

/// Ratio of the widths of consecutive buckets, and thus the accuracy of a percentile.
const GROWTH: f64 = 1.3;
/// Maximum number of task types tracked.
const KEEP_KINDS: usize = 200;
/// Window of the durations of a task type, seconds.
const KIND_WINDOW: i64 = 3_600;
/// A project forgets a task type after this time without an ended attempt, seconds.
const FORGOTTEN_AFTER: i64 = 7 * 86_400;
/// Minimum number of samples for a typical duration.
const LEAST_SAMPLES: u64 = 20;

/// Histogram of durations: buckets in order, each with its count. As JSON an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram(Vec<(u8, u64)>);

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(bucket, count)| (bucket, count)))
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(BTreeMap::deserialize(deserializer)?.into_iter().collect()))
    }
}

impl Histogram {
    pub(super) fn add(&mut self, ms: u64) {
        self.add_to(bucket(ms), 1);
    }

    fn add_to(&mut self, bucket: u8, count: u64) {
        match self.0.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(place) => self.0[place].1 += count,
            Err(place) => self.0.insert(place, (bucket, count)),
        }
    }

    /// Adds all samples of another histogram.
    pub fn add_all(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        other.0.iter().for_each(|(bucket, count)| self.add_to(*bucket, *count));
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// A percentile of the durations, milliseconds; `None` without samples.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let mut wanted = (self.samples() * percent).div_ceil(100).max(1);
        for (bucket, count) in &self.0 {
            if *count >= wanted {
                return Some(upper(*bucket));
            }
            wanted -= count;
        }
        None
    }
}

/// Durations of the current time window and the previous one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// Number of the current window since 1970.
    window: i64,
    current: Histogram,
    /// The previous window.
    last: Histogram,
}

impl Durations {
    /// Records one duration; `seconds` is the length of the window and must never vary.
    pub(super) fn add(&mut self, ms: u64, ts: Time, seconds: i64) {
        self.turn(ts.timestamp().div_euclid(seconds));
        self.current.add(ms);
    }

    /// Begins a window, if it is a later one.
    fn turn(&mut self, window: i64) {
        let ahead = window - self.window;
        if ahead > 0 {
            let current = std::mem::take(&mut self.current);
            self.last = if ahead == 1 { current } else { Histogram::default() };
            self.window = window;
        }
    }

    /// A percentile of the durations of the last one to two windows, milliseconds; `None` without samples.
    #[must_use]
    pub fn percentile(&self, percent: u64, now: Time, seconds: i64) -> Option<u64> {
        let mut both = match now.timestamp().div_euclid(seconds) - self.window {
            ..=0 => self.last.clone(),
            1 => Histogram::default(),
            _ => return None,
        };
        both.add_all(&self.current);
        both.percentile(percent)
    }

    /// Removes windows that no percentile looks at any more; `seconds` is their length.
    pub(super) fn forget(&mut self, now: Time, seconds: i64) {
        if now.timestamp().div_euclid(seconds) > self.window + 1 {
            *self = Self { window: self.window, ..Self::default() };
        }
    }

    /// Adds all samples of another one with windows of the same length.
    pub(super) fn merge(&mut self, other: &Self) {
        self.turn(other.window);
        match self.window - other.window {
            0 => {
                self.current.add_all(&other.current);
                self.last.add_all(&other.last);
            }
            1 => self.last.add_all(&other.current),
            _ => {}
        }
    }

    /// The median of the last one to two windows, milliseconds; `None` with fewer samples than `least`.
    #[must_use]
    pub fn median_ms(&self, now: Time, seconds: i64, least: u64) -> Option<u64> {
        if self.samples() < least { None } else { self.percentile(50, now, seconds) }
    }

    fn samples(&self) -> u64 {
        self.current.samples() + self.last.samples()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a logarithm of a u64 is small and positive"
)]
fn bucket(ms: u64) -> u8 {
    ((ms.saturating_add(1) as f64).ln() / GROWTH.ln()) as u8
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
fn upper(bucket: u8) -> u64 {
    GROWTH.powi(i32::from(bucket) + 1) as u64
}

/// What is usual for each task type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kinds(BTreeMap<Name, Usual>);

/// What is usual for a task type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// Run times of completed tasks.
    runs: Durations,
    /// How attempts ended.
    #[serde(default)]
    pub outcomes: Outcomes,
    /// When one ended last, seconds since 1970.
    #[serde(default)]
    ended_at: i64,
}

impl Kinds {
    pub(super) fn apply(&mut self, event: &Event) {
        if !matches!(event.event_type, Kind::TaskCompleted | Kind::TaskFailed | Kind::TaskRetry) {
            return;
        }
        let Some(kind) = &event.task_type else { return };
        if !self.0.contains_key(kind) {
            self.make_room();
            self.0.insert(kind.clone(), Usual::default());
        }
        let Some(usual) = self.0.get_mut(kind) else { return };
        let completed = event.event_type == Kind::TaskCompleted;
        if let Some(ms) = event.duration_ms.filter(|_| completed) {
            usual.runs.add(ms, event.ts, KIND_WINDOW);
        }
        usual.outcomes.add(completed, event.ts);
        usual.ended_at = usual.ended_at.max(event.ts.timestamp());
    }

    fn make_room(&mut self) {
        if self.0.len() >= KEEP_KINDS {
            let oldest = self.0.iter().min_by_key(|(_, usual)| usual.ended_at).map(|(kind, _)| kind.clone());
            oldest.and_then(|kind| self.0.remove(&kind));
        }
    }

    /// Removes what nobody compares with any more.
    pub(super) fn forget(&mut self, now: Time) {
        self.0.retain(|_, usual| now.timestamp() - usual.ended_at < FORGOTTEN_AFTER);
        self.0.values_mut().for_each(|usual| usual.runs.forget(now, KIND_WINDOW));
    }

    /// Adds what is known from another project.
    pub(super) fn merge(&mut self, other: &Self) {
        for (kind, more) in &other.0 {
            let usual = self.0.entry(kind.clone()).or_default();
            usual.runs.merge(&more.runs);
            usual.outcomes.merge(&more.outcomes);
            usual.ended_at = usual.ended_at.max(more.ended_at);
        }
    }

    /// Each task type with what is usual for it.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Usual)> {
        self.0.iter()
    }

    /// The task types.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    /// A percentile of the run time of a task type, milliseconds; `None` with too few samples.
    #[must_use]
    pub fn run_ms(&self, kind: &Name, percent: u64, now: Time) -> Option<u64> {
        let runs = &self.0.get(kind).filter(|usual| usual.runs.samples() >= LEAST_SAMPLES)?.runs;
        runs.percentile(percent, now, KIND_WINDOW)
    }

    /// p95 of a task type, milliseconds; `None` with too few samples.
    #[must_use]
    pub fn usual_ms(&self, kind: &Name, now: Time) -> Option<u64> {
        self.run_ms(kind, 95, now)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn the_longest_duration_has_a_bucket() {
        let mut histogram = Histogram::default();
        histogram.add(u64::MAX);
        assert!(histogram.percentile(50).unwrap() > 1 << 60);
    }

    #[test]
    fn percentiles_are_right_to_a_bucket_and_old_windows_leave() {
        let start = Time::from_timestamp(1_000_000_200, 0).unwrap();
        let mut durations = Durations::default();
        for ms in 1..=1_000 {
            durations.add(ms, start, 300);
        }
        for (percent, exact) in [(50, 500.0), (95, 950.0), (99, 990.0)] {
            let shown = durations.percentile(percent, start, 300).unwrap() as f64;
            assert!(shown >= exact && shown <= exact * GROWTH + 1.0, "{percent}: {shown}");
        }
        let later = start + TimeDelta::seconds(300);
        assert!(durations.percentile(50, later, 300).is_some());
        assert_eq!(durations.percentile(50, later + TimeDelta::seconds(300), 300), None);
        durations.add(7, later + TimeDelta::seconds(900), 300);
        assert_eq!(durations.samples(), 1);
    }
}
