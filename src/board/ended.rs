//! Ended attempts in two time windows, and whether more of them fail than usual.

use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// Number of ended attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Completed tasks.
    pub completed: u64,
    /// Failed attempts.
    pub failed: u64,
}

impl Attempts {
    /// All of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.completed + self.failed
    }

    /// Failed attempts as a percentage, 0–100.
    #[must_use]
    pub fn error_percent(self) -> f64 {
        if self.total() == 0 { 0.0 } else { self.failed as f64 * 100.0 / self.total() as f64 }
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { completed: self.completed + other.completed, failed: self.failed + other.failed }
    }

    const fn without(self, other: Self) -> Self {
        Self {
            completed: self.completed.saturating_sub(other.completed),
            failed: self.failed.saturating_sub(other.failed),
        }
    }
}

/// Ended attempts of the current window and the previous one. The length of the windows, seconds, must never vary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    window: i64,
    current: Attempts,
    last: Attempts,
}

impl Ended {
    pub(super) fn add(&mut self, completed: bool, ts: Time, seconds: i64) {
        self.turn(ts.timestamp().div_euclid(seconds));
        let counter = if completed { &mut self.current.completed } else { &mut self.current.failed };
        *counter += 1;
    }

    /// Begins a window, if it is a later one.
    const fn turn(&mut self, window: i64) {
        let ahead = window - self.window;
        if ahead > 0 {
            let zero = Attempts { completed: 0, failed: 0 };
            self.last = if ahead == 1 { self.current } else { zero };
            (self.current, self.window) = (zero, window);
        }
    }

    /// Those of the last one to two windows.
    #[must_use]
    pub const fn both(&self, now: Time, seconds: i64) -> Attempts {
        match now.timestamp().div_euclid(seconds) - self.window {
            ..=0 => self.current.plus(self.last),
            1 => self.current,
            _ => Attempts { completed: 0, failed: 0 },
        }
    }

    /// Completed tasks and failed attempts per second, over one to two windows.
    #[must_use]
    pub fn per_second(&self, now: Time, seconds: i64) -> (f64, f64) {
        let counts = self.both(now, seconds);
        let covered = (seconds + now.timestamp().rem_euclid(seconds)) as f64;
        (counts.completed as f64 / covered, counts.failed as f64 / covered)
    }

    /// Adds those of others, in windows of the same length.
    pub(super) const fn merge(&mut self, other: Self) {
        self.turn(other.window);
        match self.window - other.window {
            0 => {
                self.current = self.current.plus(other.current);
                self.last = self.last.plus(other.last);
            }
            1 => self.last = self.last.plus(other.current),
            _ => {}
        }
    }
}

/// Ended attempts now and usually.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// In windows of [`Self::RECENT`] seconds.
    recent: Ended,
    /// In windows of [`Self::USUAL`] seconds.
    usual: Ended,
    /// Since when more fail than usual.
    high_since: Option<Time>,
}

/// More attempts fail than usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HighErrorRate {
    /// Failed attempts over the last five to ten minutes, percent.
    pub percent: f64,
    /// Failed attempts over the 12 to 24 hours before, percent; `None` if too few are known.
    pub usual_percent: Option<f64>,
    /// Since when.
    pub since: Time,
}

impl Outcomes {
    /// Length of the recent windows, seconds.
    const RECENT: i64 = 300;
    /// Length of the usual windows, seconds.
    const USUAL: i64 = 43_200;
    /// Fewer recent attempts tell nothing.
    const LEAST: u64 = 20;
    /// Fewer usual attempts tell nothing.
    const LEAST_USUAL: u64 = 100;
    /// Lowest error rate that is high, percent.
    const LOWEST: f64 = 5.0;
    /// An error rate is high from this multiple of the usual one,
    const FACTOR: f64 = 3.0;
    /// and from this one if the usual one is unknown, percent.
    const UNKNOWN: f64 = 20.0;

    pub(super) fn add(&mut self, completed: bool, ts: Time) {
        self.recent.add(completed, ts, Self::RECENT);
        self.usual.add(completed, ts, Self::USUAL);
        self.high_since = self.compare(ts).and(self.high_since.or(Some(ts)));
    }

    /// Recent and usual error rate, if the recent one is high.
    fn compare(&self, now: Time) -> Option<(f64, Option<f64>)> {
        let recent = self.recent.both(now, Self::RECENT);
        let percent = recent.error_percent();
        if recent.total() < Self::LEAST || percent < Self::LOWEST {
            return None;
        }
        let before = self.usual.both(now, Self::USUAL).without(recent);
        let usual = (before.total() >= Self::LEAST_USUAL).then(|| before.error_percent());
        let limit = usual.map_or(Self::UNKNOWN, |usual| usual * Self::FACTOR);
        (percent > limit).then_some((percent, usual))
    }

    /// Whether more attempts fail than usual.
    #[must_use]
    pub fn high(&self, now: Time) -> Option<HighErrorRate> {
        let (percent, usual_percent) = self.compare(now)?;
        Some(HighErrorRate { percent, usual_percent, since: self.high_since? })
    }

    /// Adds those of another project.
    pub(super) fn merge(&mut self, other: &Self) {
        self.recent.merge(other.recent);
        self.usual.merge(other.usual);
        self.high_since = self.high_since.into_iter().chain(other.high_since).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::samples::at;

    #[test]
    fn throughput_covers_one_to_two_windows() {
        let mut ended = Ended::default();
        for second in [0, 30, 59] {
            ended.add(true, at(second), 60);
        }
        ended.add(false, at(59), 60);
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-9 && (b - d).abs() < 1e-9;
        let rate = |ended: &Ended, seconds| ended.per_second(at(seconds), 60);
        assert!(near(rate(&ended, 59), (3.0 / 119.0, 1.0 / 119.0)));
        assert!(near(rate(&ended, 60), (3.0 / 60.0, 1.0 / 60.0)), "the minute is over");
        assert!(near(rate(&ended, 119), (3.0 / 119.0, 1.0 / 119.0)));
        assert_eq!(rate(&ended, 120), (0.0, 0.0));
        ended.add(true, at(60), 60);
        assert!(near(rate(&ended, 60), (4.0 / 60.0, 1.0 / 60.0)), "both minutes");
        ended.add(true, at(180), 60);
        assert!(near(rate(&ended, 180), (1.0 / 60.0, 0.0)), "a minute without any is between");
        ended.add(true, at(100), 60);
        assert!(near(rate(&ended, 180), (2.0 / 60.0, 0.0)), "a late one counts now");
    }

    /// So many attempts a minute, of which some fail.
    fn minute(outcomes: &mut Outcomes, minute: i64, completed: u64, failed: u64) {
        for attempt in 0..completed + failed {
            outcomes.add(attempt >= failed, at(minute * 60 + attempt as i64 % 60));
        }
    }

    #[test]
    fn an_error_rate_is_high_against_what_is_usual() {
        let mut outcomes = Outcomes::default();
        (0..600).for_each(|number| minute(&mut outcomes, number, 98, 2));
        assert_eq!(outcomes.high(at(36_000)), None);
        // Three times the usual rate is not more than three times.
        (600..610).for_each(|number| minute(&mut outcomes, number, 95, 5));
        assert_eq!(outcomes.high(at(36_600)), None);
        (610..620).for_each(|number| minute(&mut outcomes, number, 80, 20));
        let high = outcomes.high(at(37_200));
        let near = high.is_some_and(|high| {
            (high.percent - 20.0).abs() < 1.0 && high.usual_percent.is_some_and(|usual| (usual - 2.2).abs() < 0.5)
        });
        assert!(near, "{high:?}");
        assert!(high.is_some_and(|high| high.since > at(36_600) && high.since < at(36_900)), "{high:?}");
        assert_eq!(outcomes.high(at(37_200 + 600)), None, "nothing ended for ten minutes");
        (620..640).for_each(|number| minute(&mut outcomes, number, 98, 2));
        assert_eq!(outcomes.high(at(38_400)), None, "it is over");
    }

    #[test]
    fn without_a_past_a_fifth_of_failures_is_high() {
        for (completed, failed, high) in [(80, 20, false), (79, 21, true), (2, 17, false), (2, 18, true), (0, 0, false)]
        {
            let mut outcomes = Outcomes::default();
            minute(&mut outcomes, 0, completed, failed);
            assert_eq!(outcomes.high(at(59)).is_some(), high, "{completed} {failed}");
        }
    }

    #[test]
    fn what_is_never_wrong_is_high_from_a_twentieth_on() {
        let with = |failed| {
            let mut outcomes = Outcomes::default();
            (0..100).for_each(|number| minute(&mut outcomes, number, 100, 0));
            (100..110).for_each(|number| minute(&mut outcomes, number, 100 - failed, failed));
            outcomes.high(at(6_599)).is_some()
        };
        assert_eq!((with(4), with(6)), (false, true));
    }
}
