//! The event log as used outside this folder: read by position, by task, by time, and sequentially.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, log, log_search, timeout::with_timeout};
use crate::{
    clock::Time,
    event::{Event, Filter, Kind, envelope::Epoch},
};

pub use super::{
    log::Ends,
    log_search::{AUDITED, Found, Range},
    recorded::{PAGE, Recorded, gap, unreadable},
};

/// Timeout of one sequential read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The event log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog(Store);

impl EventLog {
    /// The event log of a store.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self(store)
    }

    /// Oldest and newest position.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn ends(&self) -> sqlx::Result<Ends> {
        log::ends(self.0.pool()).await
    }

    /// Up to [`PAGE`] events after a position, in order. An event that is unreadable or missing is replaced by a
    /// placeholder of an unknown type: one bad row must not stop all readers.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn page(&self, epoch: Epoch, after: i64) -> sqlx::Result<Vec<Recorded>> {
        log::page(self.0.pool(), epoch, after).await
    }

    /// One event; `None` if the log does not contain it.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn at(&self, epoch: Epoch, position: i64) -> sqlx::Result<Option<Recorded>> {
        log::at(self.0.pool(), epoch, position).await
    }

    /// The newest events of one task up to a position, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn of_task(&self, epoch: Epoch, task_id: Uuid, until: i64, limit: i64) -> sqlx::Result<Vec<Recorded>> {
        log::of_task(self.0.pool(), epoch, task_id, (until, limit)).await
    }

    /// The last event of each task up to a position, unordered; tasks without events are omitted.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn last_of_each(&self, epoch: Epoch, ids: &[Uuid], until: i64) -> sqlx::Result<Vec<Recorded>> {
        log::last_of_each(self.0.pool(), epoch, ids, until).await
    }

    /// Events in a range of the log that pass a filter and a test, newest first. The search ends after a bounded time.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn search(
        &self,
        epoch: Epoch,
        filter: &Filter,
        range: Range,
        test: impl Fn(&Event) -> bool,
    ) -> sqlx::Result<Found> {
        log_search::search(self.0.search_permit().await?.pool(), epoch, filter, range, test).await
    }

    /// What people did, in a range of the log, as far as it passes a filter and a test, newest first; only some kinds, if
    /// they are named.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn audit(
        &self,
        epoch: Epoch,
        (filter, kinds): (&Filter, Option<&[Kind]>),
        range: Range,
        test: impl Fn(&Event) -> bool,
    ) -> sqlx::Result<Found> {
        log_search::audit(self.0.search_permit().await?.pool(), epoch, (filter, kinds), range, test).await
    }

    /// The position of the last event before a time; including events at that time if `inclusive`.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn position_before(&self, time: Time, inclusive: bool) -> sqlx::Result<i64> {
        log::position_before(self.0.pool(), time, inclusive).await
    }

    /// Creates the partitions that a log with this head needs next; returns their number.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn ensure_partitions(&self, head: i64) -> sqlx::Result<i32> {
        log::ensure_partitions(self.0.pool(), head).await
    }

    /// A sequential reader with its own connection.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader { store: self.0.clone(), conn: None }
    }
}

/// Reads the log sequentially over its own connection. Every read has a timeout, so that a dead connection is
/// abandoned.
#[derive(Debug)]
pub struct LogReader {
    store: Store,
    conn: Option<PgConnection>,
}

impl LogReader {
    /// As [`EventLog::page`].
    ///
    /// # Errors
    /// The database fails or times out, or its log is not the known one; the next call reconnects.
    pub async fn page(&mut self, epoch: Epoch, after: i64) -> sqlx::Result<Vec<Recorded>> {
        let (conn, read) = with_timeout(READ_TIMEOUT, async {
            let mut conn = self.connection().await?;
            let read = log::page(&mut conn, epoch, after).await?;
            Ok((conn, read))
        })
        .await?;
        self.conn = Some(conn);
        Ok(read)
    }

    /// Checks that the log is the known one, and synchronises the clock with the database. Returns the head.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn check(&mut self) -> sqlx::Result<i64> {
        let (conn, head) = with_timeout(READ_TIMEOUT, async {
            let mut conn = self.connection().await?;
            self.store.identity().check(&mut conn, self.store.clock()).await?;
            let head = log::ends(&mut conn).await?.head;
            Ok((conn, head))
        })
        .await?;
        self.conn = Some(conn);
        Ok(head)
    }

    async fn connection(&mut self) -> sqlx::Result<PgConnection> {
        match self.conn.take() {
            Some(conn) => Ok(conn),
            None => self.store.connect().await,
        }
    }
}
