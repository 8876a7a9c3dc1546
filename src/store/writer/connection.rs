//! The writer's connection: checked to lead to the known log, and probed periodically for whether it accepts writes.

use std::{collections::HashSet, time::Duration};

use sqlx::{Connection, PgConnection};

use super::{ANSWER_TIMEOUT, MAX_PAUSE, PROBE_INTERVAL, TRANSACTION_TIMEOUT, WriterLoop};
use crate::store::{
    log,
    ready_queue::ScanStart,
    recorded::Recorded,
    timeout::with_timeout,
    write_failure::{in_words, is_read_only, read_only_error},
};

impl WriterLoop {
    /// Time until the next write probe.
    pub(super) fn until_probe(&self) -> Duration {
        if self.writing.failing().is_some() {
            return MAX_PAUSE;
        }
        PROBE_INTERVAL.saturating_sub(self.writing.idle_for().unwrap_or_default()).max(MAX_PAUSE)
    }

    /// Probes whether the database accepts writes, without writing: while the writer is idle, or because writes fail.
    pub(super) async fn probe(&mut self) {
        self.writing.begins();
        let asked = with_timeout(TRANSACTION_TIMEOUT, self.ask()).await;
        self.writing.ends();
        match asked {
            Ok(()) => self.writing.succeeds(),
            Err(error) => {
                self.conn = None;
                tracing::warn!(%error, "database unavailable for writes");
                self.writing.fails(&in_words(&error));
            }
        }
    }

    async fn ask(&mut self) -> sqlx::Result<()> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let read_only = sqlx::query_scalar!(r#"SELECT current_setting('transaction_read_only') = 'on' AS "is!""#);
        if read_only.fetch_one(&mut conn).await? {
            return Err(read_only_error());
        }
        let mut tx = conn.begin().await?;
        log::lock(&mut tx, self.known_head).await?;
        tx.rollback().await?;
        self.conn = Some(conn);
        Ok(())
    }

    /// Polls until the outcome of an unacknowledged commit is known. If the log was replaced meanwhile, the commit is
    /// lost.
    pub(super) async fn took_place(&mut self, xid: &str, recorded: &[Recorded]) -> bool {
        let Some(first) = recorded.first() else { return false };
        let epoch = self.epoch;
        let mut pause = Duration::from_millis(20);
        loop {
            self.writing.begins();
            let connected = self.connect().await;
            if self.epoch != epoch {
                return false;
            }
            match connected {
                Ok(mut conn) => {
                    if let Ok(Some(transaction_outcome)) =
                        with_timeout(ANSWER_TIMEOUT, log::transaction_outcome(&mut conn, xid, first)).await
                    {
                        self.conn = Some(conn);
                        return transaction_outcome;
                    }
                }
                Err(error) => self.writing.fails(&in_words(&error)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Opens a connection for the writer. An error here is not the fault of a batch.
    pub(super) async fn connect(&mut self) -> sqlx::Result<PgConnection> {
        let connected = with_timeout(ANSWER_TIMEOUT, self.prepared_connection()).await;
        let conn = connected.map_err(|error| match error {
            // Kept as is, so that its message reaches people.
            error if is_read_only(&error) => error,
            error => sqlx::Error::Io(std::io::Error::other(error)),
        })?;
        let epoch = self.store.epoch();
        if epoch != self.epoch {
            // Cached state of the previous log is invalid.
            (self.epoch, self.known_head) = (epoch, 0);
            (self.scan, self.known_queues) = (ScanStart::default(), HashSet::new());
        }
        Ok(conn)
    }

    async fn prepared_connection(&self) -> sqlx::Result<PgConnection> {
        let mut conn = self.store.connect_unchecked().await?;
        let inspection = self.store.identity().check(&mut conn, self.store.clock()).await?;
        if inspection.read_only {
            return Err(read_only_error());
        }
        // Postgres terminates a hung writer, so that it cannot keep the log's lock. An acknowledged write is durable,
        // whatever the database's default is. The writer's statements access rows by key; plans are cached, maybe
        // while the tables are still empty, and must not be full scans. JIT is off: it would compile what looks like
        // a scan for 10 ms.
        sqlx::query!(
            "SELECT set_config('idle_in_transaction_session_timeout', '10s', false) AS idle,
                    set_config('lock_timeout', '10s', false) AS lock,
                    set_config('statement_timeout', '30s', false) AS statement,
                    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                        ELSE current_setting('synchronous_commit') END, false) AS durable,
                    set_config('plan_cache_mode', 'force_generic_plan', false) AS plans,
                    set_config('jit', 'off', false) AS jit,
                    set_config('enable_seqscan', 'off', false) AS scans,
                    set_config('enable_hashjoin', 'off', false) AS hashes,
                    set_config('enable_mergejoin', 'off', false) AS merges"
        )
        .fetch_one(&mut conn)
        .await?;
        Ok(conn)
    }
}
