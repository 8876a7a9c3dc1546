//! Identity of the log: the epoch under which this process publishes, and the checks that detect a log that was
//! replaced or lost its newest events (failover, restore, copied directory).
//!
//! Every connection is checked when it is opened, the tailer's again every second, the writer's in each batch
//! (`lock_log`). A failed check only reports a suspicion; only the tailer renews the epoch and reloads the log.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;

use super::{log, recorded};
use crate::{
    clock::{Clock, Time},
    event::envelope::Epoch,
};

/// What this process knows about its log. Cheap to clone; clones share state.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts suspicions; watched by the tailer.
    suspicions: watch::Sender<u64>,
    /// Whether a change of the storage location counts as a change of the log.
    is_bound: bool,
}

#[derive(Debug)]
struct State {
    epoch: Epoch,
    /// When this epoch was accepted: older connections may lead to another server.
    since: Instant,
    /// Number of times that another epoch was accepted.
    changes: u64,
    /// Set from the suspicion until the log has been reloaded.
    suspected: Option<Changed>,
    /// The newest event published by this process.
    newest: Option<Newest>,
}

/// A published event that must still be in the log.
#[derive(Debug, Clone)]
struct Newest {
    position: i64,
    json: Bytes,
}

/// How the log differs from the one that this process knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Changed {
    /// Another process or a command renewed its epoch.
    #[error("the event log has epoch {found}, this server knows {known}: it was restored or promoted")]
    Epoch {
        /// Epoch known to this process.
        known: Epoch,
        /// Epoch in the database.
        found: Epoch,
    },
    /// Its storage location differs from that of the last append.
    #[error("the event log was written last at {stored} and is at {present} now: it was restored, copied or promoted")]
    Moved {
        /// Location of the last append: system identifier, timeline, database, table.
        stored: String,
        /// Current location.
        present: String,
    },
    /// A published event is missing.
    #[error("the event log has lost the event at position {0}, which was published already")]
    Lost(i64),
    /// A different event is stored at a published position.
    #[error("the event log has another event at position {0} than the one that was published")]
    Other(i64),
}

/// Result of one check of the database.
#[derive(Debug)]
pub(super) struct Inspection {
    /// How the log differs from the known one; `None` if it does not.
    pub(super) changed: Option<Changed>,
    /// Epoch in the database.
    pub(super) epoch: Epoch,
    /// Time of the database.
    pub(super) now: Time,
    /// Writes are rejected: a standby, or a read-only database.
    pub(super) read_only: bool,
    /// The server is a standby.
    standby: bool,
}

/// A restore runs its statements in this order: tables and functions, rows, triggers. Until the triggers exist the
/// database must not be used.
const INCOMPLETE: &str = "the schema 'taskwatch' is not complete; is a restore under way?";

impl Identity {
    /// A log with this epoch, of which nothing has been published yet.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self::of(epoch, true)
    }

    /// A log that is only read, wherever it is stored.
    #[must_use]
    pub fn anywhere(epoch: Epoch) -> Self {
        Self::of(epoch, false)
    }

    fn of(epoch: Epoch, is_bound: bool) -> Self {
        let state = State { epoch, since: Instant::now(), changes: 0, suspected: None, newest: None };
        Self(Arc::new(Shared { state: Mutex::new(state), suspicions: watch::Sender::new(0), is_bound }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch under which this process publishes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.state().epoch
    }

    /// Number of changes of the log detected since the start.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Why the log is currently being reloaded; `None` if it is not.
    #[must_use]
    pub fn suspected(&self) -> Option<Changed> {
        self.state().suspected.clone()
    }

    /// Records the newest published event, as stored.
    pub fn remember(&self, position: i64, json: Bytes) {
        self.state().newest = Some(Newest { position, json });
    }

    /// The log was reloaded: publish under this epoch from now on; `newest` is its last event.
    pub fn accept(&self, epoch: Epoch, newest: Option<(i64, Bytes)>) {
        let mut state = self.state();
        state.changes += u64::from(state.epoch != epoch);
        state.epoch = epoch;
        state.since = Instant::now();
        state.suspected = None;
        state.newest = newest.map(|(position, json)| Newest { position, json });
    }

    /// Drops an unfounded suspicion.
    pub fn trust(&self) {
        self.state().suspected = None;
    }

    /// Makes the tailer check the log immediately.
    pub(super) fn suspect(&self, changed: Changed) {
        let mut state = self.state();
        if state.suspected.is_none() {
            tracing::error!(reason = %changed, "event log was replaced; reloading it");
            state.suspected = Some(changed);
        }
        drop(state);
        self.0.suspicions.send_modify(|count| *count += 1);
    }

    /// Notifies of suspicions.
    #[must_use]
    pub fn suspicions(&self) -> watch::Receiver<u64> {
        self.0.suspicions.subscribe()
    }

    /// Whether a connection of this age was opened before the current epoch was accepted.
    pub(super) fn is_outdated(&self, age: Duration) -> bool {
        age > self.state().since.elapsed()
    }

    /// Compares what is stored with what is known.
    pub(super) async fn inspect(&self, conn: &mut PgConnection) -> sqlx::Result<Inspection> {
        let (known, newest) = {
            let state = self.state();
            (state.epoch, state.newest.clone())
        };
        let row = sqlx::query!(
            r#"SELECT l.epoch, l.oldest, l.origin AS stored, p.present AS "present?",
                   taskwatch.same_origin(l.origin, p.present) AS "same!",
                   (SELECT e.body FROM taskwatch.events e WHERE e.position = $1) AS body,
                   clock_timestamp() AS "now!",
                   current_setting('transaction_read_only') = 'on' AS "read_only!",
                   EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = 'taskwatch.enqueued'::regclass
                       AND t.tgname = 'enqueue_at_commit') AS "complete!"
               FROM taskwatch.log l CROSS JOIN LATERAL (SELECT taskwatch.log_origin() AS present) p"#,
            newest.as_ref().map_or(0, |newest| newest.position)
        )
        .fetch_optional(conn)
        .await?;
        let row = row.filter(|row| row.complete).ok_or_else(|| sqlx::Error::Protocol(INCOMPLETE.to_owned()))?;
        let standby = row.present.is_none();
        let epoch: Epoch = row.epoch.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let changed = if epoch != known {
            Some(Changed::Epoch { known, found: epoch })
        } else if !row.same && self.0.is_bound {
            Some(Changed::Moved { stored: row.stored, present: row.present.unwrap_or_default() })
        } else {
            newest.and_then(|newest| match row.body {
                // Removed by retention, together with everything that this process has not read yet.
                None if newest.position < row.oldest => None,
                None => Some(Changed::Lost(newest.position)),
                Some(body) => {
                    let same = recorded::is_published_as(known, newest.position, body, &newest.json);
                    (!same).then_some(Changed::Other(newest.position))
                }
            })
        };
        Ok(Inspection { changed, epoch, now: row.now, read_only: row.read_only, standby })
    }

    /// Fails on a connection whose log is not the known one, and makes the tailer check it. Synchronises the clock with
    /// the database.
    ///
    /// # Errors
    /// Any error of the database, or the log has changed.
    pub(super) async fn check(&self, conn: &mut PgConnection, clock: &Clock) -> sqlx::Result<Inspection> {
        let before = Instant::now();
        let inspection = self.inspect(conn).await?;
        clock.follow(inspection.now, before.elapsed());
        match inspection.changed {
            None => Ok(inspection),
            // A standby may lag, which proves nothing about the log.
            Some(changed) if inspection.standby => Err(sqlx::Error::Protocol(format!(
                "the database is a standby that does not have everything: {changed}"
            ))),
            Some(changed) => {
                let text = changed.to_string();
                self.suspect(changed);
                Err(sqlx::Error::Protocol(text))
            }
        }
    }

    /// Ensures that no reader knows the log's epoch with other events, and returns that epoch. Safe for concurrent
    /// servers: the first one renews the epoch, the others adopt it.
    ///
    /// # Errors
    /// Any error of the database, including a read-only one.
    pub async fn ensure_epoch(&self, conn: &mut PgConnection) -> sqlx::Result<Epoch> {
        let mut tx = conn.begin().await?;
        // Renews the epoch if the log has moved, and blocks all appends.
        log::lock(&mut tx, 0).await?;
        let inspection = self.inspect(&mut tx).await?;
        let epoch = match inspection.changed {
            Some(Changed::Lost(_) | Changed::Other(_)) => renew(&mut tx).await?,
            Some(Changed::Epoch { .. } | Changed::Moved { .. }) | None => inspection.epoch,
        };
        tx.commit().await?;
        Ok(epoch)
    }
}

/// Renews the epoch of the log. The transaction must hold the log's lock.
pub(super) async fn renew(conn: &mut PgConnection) -> sqlx::Result<Epoch> {
    let epoch = Epoch(fastrand::u32(..));
    sqlx::query!("UPDATE taskwatch.log SET epoch = $1", epoch.to_string()).execute(&mut *conn).await?;
    // A checkpoint beyond the head contains events that are lost.
    sqlx::query!(
        "DELETE FROM taskwatch.checkpoints
         WHERE position > (SELECT coalesce(max(e.position), 0) FROM taskwatch.events e)"
    )
    .execute(conn)
    .await?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_lasts_until_the_log_was_read_anew() {
        let identity = Identity::new(Epoch(1));
        identity.suspect(Changed::Lost(7));
        identity.suspect(Changed::Other(7));
        assert_eq!(identity.suspected(), Some(Changed::Lost(7)), "the first reason stays");
        assert!(identity.suspicions().borrow_and_update().eq(&2));
        identity.accept(Epoch(2), None);
        assert_eq!((identity.suspected(), identity.epoch(), identity.changes()), (None, Epoch(2), 1));
    }

    #[test]
    fn connections_from_before_the_change_are_outdated() {
        let identity = Identity::new(Epoch(1));
        assert!(identity.is_outdated(Duration::from_secs(3_600)));
        assert!(!identity.is_outdated(Duration::ZERO));
    }
}
