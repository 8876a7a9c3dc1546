//! Whether the database accepts writes: since when not, and why.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;

use crate::clock::{Clock, Time};

/// A transaction that takes longer than this counts as stuck.
const STUCK: Duration = Duration::from_secs(5);

/// Write status shared between the writer and those who report it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writing {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
    /// Start of the current transaction.
    attempt: Option<Instant>,
    /// What blocks it.
    held_by: Option<String>,
    /// Last successful write or probe.
    succeeded: Option<Instant>,
}

/// Why writing fails.
#[derive(Debug, Clone)]
pub struct Failing {
    /// Start of the failure, by the server's clock.
    pub since: Time,
    /// Time since then.
    pub elapsed: Duration,
    /// Reason, for people.
    pub reason: String,
    began: Instant,
}

impl Writing {
    /// Initially healthy.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when writing fails, and why; `None` while it works.
    #[must_use]
    pub fn failing(&self) -> Option<Failing> {
        let state = self.state();
        let (began, reason) = match (&state.failing, state.attempt) {
            (Some(failing), _) => (failing.began, failing.reason.clone()),
            (None, Some(begun)) if begun.elapsed() >= STUCK => {
                let held = state.held_by.as_deref().unwrap_or("the database does not answer");
                (begun, format!("a transaction waits: {held}"))
            }
            (None, _) => return None,
        };
        let elapsed = began.elapsed();
        let since = self.clock.now() - chrono::TimeDelta::from_std(elapsed).unwrap_or_default();
        Some(Failing { since, elapsed, reason, began })
    }

    /// Like [`Self::failing`], only once it has lasted for at least this long.
    #[must_use]
    pub fn failing_for(&self, least: Duration) -> Option<Failing> {
        self.failing().filter(|failing| failing.elapsed >= least)
    }

    /// A transaction starts.
    pub(super) fn begins(&self) {
        let mut state = self.state();
        state.attempt = Some(Instant::now());
        state.held_by = None;
    }

    /// The transaction has ended, whatever its outcome.
    pub(super) fn ends(&self) {
        self.state().attempt = None;
    }

    /// A write or probe succeeded.
    pub(super) fn succeeds(&self) {
        let mut state = self.state();
        state.succeeded = Some(Instant::now());
        if let Some(failing) = state.failing.take() {
            let seconds = failing.began.elapsed().as_secs();
            tracing::info!(seconds, reason = failing.reason, "database accepts writes again");
        }
    }

    /// A write or probe failed; the time of the first failure since the last success is kept.
    pub(super) fn fails(&self, reason: &str) {
        let (since, began) = (self.clock.now(), Instant::now());
        let mut state = self.state();
        let began = state.failing.as_ref().map_or(began, |failing| failing.began);
        let since = state.failing.as_ref().map_or(since, |failing| failing.since);
        let held = state.held_by.take();
        let reason = held.unwrap_or_else(|| reason.to_owned());
        state.failing = Some(Failing { since, elapsed: Duration::ZERO, reason, began });
    }

    /// Time since the last success; `None` before the first one.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        self.state().succeeded.map(|at| at.elapsed())
    }

    /// Finds out and logs what blocks the current transaction.
    pub(super) async fn diagnose(&self, pool: &PgPool) {
        let holder = sqlx::query!(
            r#"SELECT a.pid AS "pid!", coalesce(nullif(a.application_name, ''), 'unknown') AS "application!",
                   coalesce(a.usename::text, '') AS "role!", coalesce(a.state, '') AS "state!",
                   coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::bigint AS "seconds!"
               FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
               WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                   AND (l.classid::bigint << 32) | l.objid::bigint = 8386658438437413987
                   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
               LIMIT 1"#
        )
        .fetch_optional(pool)
        .await;
        let Ok(Some(holder)) = holder else { return };
        let text = format!(
            "process {} ({}, role {}, {} for {} s) holds the lock of the event log; end it with pg_terminate_backend({})",
            holder.pid, holder.application, holder.role, holder.state, holder.seconds, holder.pid
        );
        tracing::warn!("the writer waits: {text}");
        self.state().held_by = Some(text);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn a_failure_begins_with_its_first_sign_and_ends_with_a_success() {
        let writing = Writing::new(Clock::default());
        assert!(writing.failing().is_none());
        writing.fails("the disk is full");
        let first = writing.failing().unwrap();
        writing.fails("database not reachable");
        let second = writing.failing().unwrap();
        assert_eq!((first.began, second.reason.as_str()), (second.began, "database not reachable"));
        assert!(writing.failing_for(Duration::from_secs(60)).is_none());
        writing.succeeds();
        assert!(writing.failing().is_none());
    }
}
