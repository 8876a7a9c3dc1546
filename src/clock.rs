//! The one place that reads the time. Everything else is handed a time.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// A moment, UTC, whole microseconds (what Postgres stores).
pub type Time = DateTime<Utc>;

/// The machine's own time: for what the operating system says of processes, and for gaps that a sleep leaves.
#[must_use]
pub fn machine_time() -> SystemTime {
    SystemTime::now()
}

/// The clock of one server: the database's time, which all servers on it share, as far as it was measured. Clones share
/// the offsets.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offsets: Arc<Offsets>,
    stopped_at: Option<Time>,
}

/// Microseconds added to the machine's clock.
#[derive(Debug, Default)]
struct Offsets {
    /// What the database's clock is ahead of the machine's.
    database: AtomicI64,
    /// What a test has moved the clock by.
    moved: AtomicI64,
}

/// Measurements that took longer say too little about the other clock.
const LONGEST_MEASUREMENT: Duration = Duration::from_millis(500);
/// Offsets that differ by less are the same: the measurement is no better than this.
const TOLERANCE_MICROS: i64 = 5_000;
/// An offset from which on the operator is warned.
const WARN_MICROS: i64 = 2_000_000;

impl Clock {
    /// A clock that stands still: for a look at the past.
    #[must_use]
    pub fn stopped(at: Time) -> Self {
        Self { stopped_at: Some(at), ..Self::default() }
    }

    /// Now, cut to whole microseconds.
    #[must_use]
    pub fn now(&self) -> Time {
        if let Some(at) = self.stopped_at {
            return at;
        }
        let offset =
            self.offsets.database.load(Ordering::Relaxed).saturating_add(self.offsets.moved.load(Ordering::Relaxed));
        let now = Utc::now();
        let now = now.checked_add_signed(TimeDelta::microseconds(offset)).unwrap_or(now);
        now.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(now)
    }

    /// Moves this clock forward (or back, with a negative delta) for everyone who shares it.
    pub fn advance(&self, by: TimeDelta) {
        let micros = by.num_microseconds().unwrap_or_default();
        self.offsets.moved.fetch_add(micros, Ordering::Relaxed);
    }

    /// Takes over the database's time, which was asked for in a statement that took `round_trip`.
    pub fn follow(&self, database: Time, round_trip: Duration) {
        if round_trip > LONGEST_MEASUREMENT {
            return;
        }
        let at = Utc::now() - round_trip / 2;
        let Some(offset) = (database - at).num_microseconds() else { return };
        let old = self.offsets.database.load(Ordering::Relaxed);
        if (offset - old).abs() < TOLERANCE_MICROS {
            return;
        }
        self.offsets.database.store(offset, Ordering::Relaxed);
        if offset.abs() >= WARN_MICROS && (offset - old).abs() >= WARN_MICROS {
            let seconds = offset as f64 / 1e6;
            tracing::warn!(
                seconds,
                "the database's clock differs from this machine's; the database's is used, so set the machine's (NTP)"
            );
        }
    }

    /// What the database's clock is ahead of this machine's, in seconds; negative when it is behind.
    #[must_use]
    pub fn database_offset_seconds(&self) -> f64 {
        self.offsets.database.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_the_database() {
        let clock = Clock::default();
        clock.follow(Utc::now() - TimeDelta::seconds(90), Duration::from_millis(1));
        assert!((clock.now() - Utc::now() + TimeDelta::seconds(90)).num_milliseconds().abs() < 1_000);
        clock.advance(TimeDelta::hours(1));
        clock.follow(Utc::now(), Duration::from_secs(3));
        assert!(clock.database_offset_seconds() < -89.0, "a slow answer is no measurement");
        assert!((clock.now() - Utc::now() - TimeDelta::minutes(58)).num_minutes().abs() <= 1);
    }
}
