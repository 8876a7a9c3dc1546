//! Which log this is: the epoch that this process publishes under, and the checks that find a log that was replaced or
//! lost its newest events (failover, restore, copied folder).
//!
//! Every connection is checked when it is made, the reader's again each second, the writer's in each batch (`lock_log`).
//! A check that fails only raises a suspicion here; the tailer, and it alone, gives the log a new epoch and reads it anew.

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

/// What this process knows of its log. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts suspicions; the tailer waits for it to change.
    suspicions: watch::Sender<u64>,
    /// Whether it matters where the log is stored.
    is_bound: bool,
}

#[derive(Debug)]
struct State {
    epoch: Epoch,
    /// When this epoch was accepted: connections made before may lead to another server.
    since: Instant,
    /// How often another epoch was accepted.
    changes: u64,
    /// Set from the suspicion until the log was read anew.
    suspected: Option<Changed>,
    /// The newest event that this process has published.
    newest: Option<Newest>,
}

/// An event that must stay in the log.
#[derive(Debug, Clone)]
struct Newest {
    position: i64,
    json: Bytes,
}

/// Why the log is not the one that this process knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Changed {
    /// Another process, or a command, gave it a new epoch.
    #[error("the event log has epoch {found}, this server knows {known}: it was restored or promoted")]
    Epoch {
        /// The epoch of this process.
        known: Epoch,
        /// The epoch in the database.
        found: Epoch,
    },
    /// It is stored elsewhere than when it was written last.
    #[error("the event log was written last at {stored} and is at {present} now: it was restored, copied or promoted")]
    Moved {
        /// The place of the last append: system identifier, timeline, database, table.
        stored: String,
        /// The present place.
        present: String,
    },
    /// It has lost an event that was published.
    #[error("the event log has lost the event at position {0}, which was published already")]
    Lost(i64),
    /// It has another event at a position that was published.
    #[error("the event log has another event at position {0} than the one that was published")]
    Other(i64),
}

/// What one look at the database says.
#[derive(Debug)]
pub(super) struct Inspection {
    /// Why the log is not the known one; nothing when it is.
    pub(super) changed: Option<Changed>,
    /// The epoch in the database.
    pub(super) epoch: Epoch,
    /// The database's clock.
    pub(super) now: Time,
    /// Writing is refused: a standby, or a database that was set to read-only.
    pub(super) read_only: bool,
    /// The server is a standby.
    standby: bool,
}

/// Statements of a restore come in this order: tables and functions, rows, and triggers last. Before that the database is
/// not ready for anyone.
const INCOMPLETE: &str = "the schema 'taskwatch' is not complete; is a restore under way?";

impl Identity {
    /// A log with this epoch, of which nothing was published yet.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self::of(epoch, true)
    }

    /// A log that is only looked at, wherever it is stored.
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

    /// The epoch that this process publishes under.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.state().epoch
    }

    /// How often the log was found changed since the start.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Why the log is being read anew at the moment; nothing when it is not.
    #[must_use]
    pub fn suspected(&self) -> Option<Changed> {
        self.state().suspected.clone()
    }

    /// The newest event that was published, as it is stored.
    pub fn remember(&self, position: i64, json: Bytes) {
        self.state().newest = Some(Newest { position, json });
    }

    /// The log was read anew: from now on this epoch is published, and `newest` is its last event.
    pub fn accept(&self, epoch: Epoch, newest: Option<(i64, Bytes)>) {
        let mut state = self.state();
        state.changes += u64::from(state.epoch != epoch);
        state.epoch = epoch;
        state.since = Instant::now();
        state.suspected = None;
        state.newest = newest.map(|(position, json)| Newest { position, json });
    }

    /// A suspicion was unfounded.
    pub fn trust(&self) {
        self.state().suspected = None;
    }

    /// Has the tailer look at the log at once.
    pub(super) fn suspect(&self, changed: Changed) {
        let mut state = self.state();
        if state.suspected.is_none() {
            tracing::error!(reason = %changed, "the event log is not the one that this server knows; it is read anew");
            state.suspected = Some(changed);
        }
        drop(state);
        self.0.suspicions.send_modify(|count| *count += 1);
    }

    /// Changes when there is a suspicion.
    #[must_use]
    pub fn suspicions(&self) -> watch::Receiver<u64> {
        self.0.suspicions.subscribe()
    }

    /// True for a connection of this age that was made before the present epoch was accepted.
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
                // Retention took it, together with everything that this process does not know yet.
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

    /// Fails on a connection whose log is not the known one, and has the tailer look at it. Takes the database's time over.
    ///
    /// # Errors
    /// When the database does not answer, or the log has changed.
    pub(super) async fn check(&self, conn: &mut PgConnection, clock: &Clock) -> sqlx::Result<Inspection> {
        let before = Instant::now();
        let inspection = self.inspect(conn).await?;
        clock.follow(inspection.now, before.elapsed());
        match inspection.changed {
            None => Ok(inspection),
            // It may be behind, which says nothing about the log.
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

    /// Makes sure that the log has an epoch that no reader knows with other events, and answers it. Several servers that
    /// come here at once agree: the first one gives the new epoch, the others find it.
    ///
    /// # Errors
    /// When the database does not answer or cannot be written.
    pub async fn settle(&self, conn: &mut PgConnection) -> sqlx::Result<Epoch> {
        let mut tx = conn.begin().await?;
        // Renews the epoch when the log has moved, and keeps everyone else from appending.
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

/// Gives the log a new epoch. The transaction must hold the log's lock.
pub(super) async fn renew(conn: &mut PgConnection) -> sqlx::Result<Epoch> {
    let epoch = Epoch(fastrand::u32(..));
    sqlx::query!("UPDATE taskwatch.log SET epoch = $1", epoch.to_string()).execute(&mut *conn).await?;
    // A checkpoint ahead of the log is of events that are lost.
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
