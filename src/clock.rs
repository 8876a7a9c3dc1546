//! The only place that reads the clock. Everything else receives the time as a parameter.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// A point in time, UTC, in whole microseconds (what Postgres stores).
pub type Time = DateTime<Utc>;

/// The machine's own time: to compare with process times of the operating system, and to detect suspends.
#[must_use]
pub fn machine_time() -> SystemTime {
    SystemTime::now()
}

/// The clock of a server, synchronised with the database's, which all servers share. Clones share the offsets.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offsets: Arc<Offsets>,
    stopped_at: Option<Time>,
}

/// Microseconds added to the machine's clock.
#[derive(Debug, Default)]
struct Offsets {
    /// Offset of the database's clock from the machine's.
    database: AtomicI64,
    /// Offset set by tests.
    moved: AtomicI64,
}

/// Measurements with a longer round trip are too inaccurate.
const LONGEST_MEASUREMENT: Duration = Duration::from_millis(500);
/// Smaller changes of the offset are within the error of the fastest measurements, microseconds.
const TOLERANCE_MICROS: i64 = 5_000;
/// Offset above which a warning is logged, microseconds.
const WARN_MICROS: i64 = 2_000_000;

impl Clock {
    /// A stopped clock, for the historical view.
    #[must_use]
    pub fn stopped(at: Time) -> Self {
        Self { stopped_at: Some(at), ..Self::default() }
    }

    /// Current time, truncated to whole microseconds.
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

    /// Moves this clock forward (or backward, with a negative delta) for everyone who shares it.
    pub fn advance(&self, by: TimeDelta) {
        let micros = by.num_microseconds().unwrap_or_default();
        self.offsets.moved.fetch_add(micros, Ordering::Relaxed);
    }

    /// Synchronises with the database's time, read by a statement that took `round_trip`.
    pub fn follow(&self, database: Time, round_trip: Duration) {
        if round_trip > LONGEST_MEASUREMENT {
            return;
        }
        let at = Utc::now() - round_trip / 2;
        let Some(offset) = (database - at).num_microseconds() else { return };
        let old = self.offsets.database.load(Ordering::Relaxed);
        // The database read its clock at some point of the round trip, so a slow answer on a busy machine says less.
        let error = i64::try_from(round_trip.as_micros() / 2).unwrap_or(i64::MAX);
        if (offset - old).abs() < TOLERANCE_MICROS.max(error) {
            return;
        }
        self.offsets.database.store(offset, Ordering::Relaxed);
        if offset.abs() >= WARN_MICROS && (offset - old).abs() >= WARN_MICROS {
            let seconds = offset as f64 / 1e6;
            tracing::warn!(seconds, "clock differs from the database's, which is used; synchronise this machine (NTP)");
        }
    }

    /// Offset of the database's clock from this machine's, in seconds; negative if it is behind.
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
        let before = clock.database_offset_seconds();
        clock.follow(Utc::now() - TimeDelta::milliseconds(90_040), Duration::from_millis(200));
        assert_eq!(clock.database_offset_seconds(), before, "60 ms are within the error of a round trip of 200 ms");
        assert!((clock.now() - Utc::now() - TimeDelta::minutes(58)).num_minutes().abs() <= 1);
    }
}
