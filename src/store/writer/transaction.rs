//! One transaction: load the rows that the commands need, decide, write changes, append events, commit.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use sqlx::PgConnection;

use super::{ANSWER_TIMEOUT, DIAGNOSE_AFTER, MAX_PAUSE, Pending, Persisted, TRANSACTION_TIMEOUT, WriterLoop};
use crate::{
    model::Name,
    store::{
        identity::Changed,
        load::load,
        log,
        recorded::Recorded,
        save::{Saved, save},
        timeout::with_timeout,
        write_failure::{Panicked, in_words, is_fault_of_batch},
    },
};

/// A transaction ready to commit; with its ID if it has events.
struct Prepared {
    xid: Option<String>,
    recorded: Vec<Recorded>,
    queues: Vec<Name>,
}

impl WriterLoop {
    /// Writes a batch durably, reconnecting as often as necessary. Fails only if the database rejects the batch itself.
    pub(super) async fn persist(&mut self, batch: &mut [Box<dyn Pending>]) -> sqlx::Result<Persisted> {
        let mut pause = Duration::from_millis(20);
        loop {
            self.writing.begins();
            let attempted = self.attempt(batch).await;
            self.writing.ends();
            let error = match attempted {
                Ok(()) => {
                    self.writing.succeeds();
                    return Ok(Persisted::Durable);
                }
                Err(error) => error,
            };
            if is_fault_of_batch(&error) {
                return Err(error);
            }
            self.conn = None;
            self.writing.fails(&in_words(&error));
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, commands = batch.len(), "database unavailable; retrying batch");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            if batch.iter().all(|command| command.is_abandoned()) {
                return Ok(Persisted::Abandoned);
            }
        }
    }

    async fn attempt(&mut self, batch: &mut [Box<dyn Pending>]) -> sqlx::Result<()> {
        if self.epoch != self.store.epoch() {
            // The tailer has reloaded the log; this connection may lead to the previous server.
            self.conn = None;
        }
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let prepared = self.prepare_watched(&mut conn, batch).await;
        let Prepared { xid, recorded, queues } = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // An error caused by the batch costs its answer, not the connection with its prepared statements.
                if error.as_database_error().is_some()
                    && is_fault_of_batch(&error)
                    && with_timeout(ANSWER_TIMEOUT, async { sqlx::query!("ROLLBACK").execute(&mut conn).await })
                        .await
                        .is_ok()
                {
                    self.conn = Some(conn);
                }
                return Err(error);
            }
        };
        let began = Instant::now();
        let committed = with_timeout(ANSWER_TIMEOUT, async { sqlx::query!("COMMIT").execute(&mut conn).await }).await;
        self.counters.commits.add(began.elapsed());
        let Some(xid) = xid else {
            committed?;
            self.conn = Some(conn);
            return Ok(());
        };
        match committed {
            Ok(_) => self.conn = Some(conn),
            Err(error) => {
                drop(conn);
                if !self.took_place(&xid, &recorded).await {
                    return Err(error);
                }
            }
        }
        self.known_queues.extend(queues);
        self.known_head = recorded.last().map_or(self.known_head, |last| last.id.position);
        self.counters.events.fetch_add(recorded.len() as u64, Ordering::Relaxed);
        // A full channel loses nothing: the tailer reads the log.
        let _ = self.committed.try_send(recorded);
        Ok(())
    }

    /// Like [`Self::prepare`], with a timeout; a panic becomes an error of the batch. Diagnoses what blocks it.
    async fn prepare_watched(
        &mut self,
        conn: &mut PgConnection,
        batch: &mut [Box<dyn Pending>],
    ) -> sqlx::Result<Prepared> {
        let (writing, store) = (self.writing.clone(), self.store.clone());
        let prepare = AssertUnwindSafe(self.prepare(conn, batch)).catch_unwind();
        let mut prepare = std::pin::pin!(with_timeout(TRANSACTION_TIMEOUT, async {
            prepare.await.unwrap_or_else(|_| Err(sqlx::Error::Configuration(Box::new(Panicked))))
        }));
        match tokio::time::timeout(DIAGNOSE_AFTER, &mut prepare).await {
            Ok(prepared) => prepared,
            Err(_) => tokio::join!(prepare, writing.diagnose(store.pool())).0,
        }
    }

    /// The whole transaction except for its commit.
    async fn prepare(&mut self, conn: &mut PgConnection, batch: &mut [Box<dyn Pending>]) -> sqlx::Result<Prepared> {
        // READ COMMITTED regardless of the database's default: the head must be read after the lock is taken (law 2).
        sqlx::query!("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *conn).await?;
        let now = self.clock.now();
        let mut workspace = load(conn, &mut self.scan, self.policy, batch, now).await?;
        batch.iter_mut().for_each(|command| command.apply(&mut workspace));
        let Saved { drafts, queues } = save(conn, workspace, &self.known_queues).await?;
        if drafts.is_empty() {
            return Ok(Prepared { xid: None, recorded: Vec::new(), queues });
        }
        // Last before the commit: take the log's lock, then read its head in a new statement (law 2).
        let locked = log::lock(conn, self.known_head).await?;
        if locked.epoch != self.epoch || locked.head < self.known_head {
            let changed = if locked.epoch == self.epoch {
                Changed::Lost(self.known_head)
            } else {
                Changed::Epoch { known: self.epoch, found: locked.epoch }
            };
            let text = changed.to_string();
            self.store.identity().suspect(changed);
            return Err(sqlx::Error::Protocol(text));
        }
        let recorded = log::append(conn, self.epoch, locked.head, drafts).await?;
        Ok(Prepared { xid: Some(locked.xid), recorded, queues })
    }
}
