//! Whether the database takes what the writer writes: since when not, and why.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;

use crate::clock::{Clock, Time};

/// A transaction that takes longer than this is said to be stuck.
const STUCK: Duration = Duration::from_secs(5);

/// The writer's state, shared with everyone who tells of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writing {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
    /// When the transaction in hand was begun.
    attempt: Option<Instant>,
    /// Who keeps it waiting.
    held_by: Option<String>,
    /// When the database took something last, or was asked whether it would.
    succeeded: Option<Instant>,
}

/// Why nothing can be written.
#[derive(Debug, Clone)]
pub struct Failing {
    /// When it began, by the server's clock.
    pub since: Time,
    /// How long ago that was.
    pub elapsed: Duration,
    /// Why, for people.
    pub reason: String,
    began: Instant,
}

impl Writing {
    /// All is well so far.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when nothing can be written, and why; `None` while writing works.
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

    /// The same once it has lasted for a while.
    #[must_use]
    pub fn failing_for(&self, least: Duration) -> Option<Failing> {
        self.failing().filter(|failing| failing.elapsed >= least)
    }

    /// A transaction begins.
    pub(super) fn begins(&self) {
        let mut state = self.state();
        state.attempt = Some(Instant::now());
        state.held_by = None;
    }

    /// The transaction is over, whatever came of it.
    pub(super) fn ends(&self) {
        self.state().attempt = None;
    }

    /// The database took something.
    pub(super) fn succeeds(&self) {
        let mut state = self.state();
        state.succeeded = Some(Instant::now());
        if let Some(failing) = state.failing.take() {
            let seconds = failing.began.elapsed().as_secs();
            tracing::info!(seconds, reason = failing.reason, "the database takes writes again");
        }
    }

    /// The database did not take something; the first reason since it worked is when it began.
    pub(super) fn fails(&self, reason: &str) {
        let (since, began) = (self.clock.now(), Instant::now());
        let mut state = self.state();
        let began = state.failing.as_ref().map_or(began, |failing| failing.began);
        let since = state.failing.as_ref().map_or(since, |failing| failing.since);
        let held = state.held_by.take();
        let reason = held.unwrap_or_else(|| reason.to_owned());
        state.failing = Some(Failing { since, elapsed: Duration::ZERO, reason, began });
    }

    /// How long ago the database took something; nothing before the first time.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        self.state().succeeded.map(|at| at.elapsed())
    }

    /// Finds out who keeps a transaction waiting, and says so.
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
        writing.fails("the database cannot be reached");
        let second = writing.failing().unwrap();
        assert_eq!((first.began, second.reason.as_str()), (second.began, "the database cannot be reached"));
        assert!(writing.failing_for(Duration::from_secs(60)).is_none());
        writing.succeeds();
        assert!(writing.failing().is_none());
    }
}
