//! The one place that reads the time. Everything else is handed a time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// A moment, UTC, whole microseconds (what Postgres stores).
pub type Time = DateTime<Utc>;

/// The clock of one server. Clones share the offset, so that a test can move time for a whole server.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_micros: Arc<AtomicI64>,
    stopped_at: Option<Time>,
}

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
        let now = Utc::now() + TimeDelta::microseconds(self.offset_micros.load(Ordering::Relaxed));
        now.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(now)
    }

    /// Moves this clock forward (or back, with a negative delta) for everyone who shares it.
    pub fn advance(&self, by: TimeDelta) {
        let micros = by.num_microseconds().unwrap_or_default();
        self.offset_micros.fetch_add(micros, Ordering::Relaxed);
    }
}
