//! Connections: how they are opened, and what is checked before first use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use sqlx::{
    Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgPool},
};

use super::{
    address,
    failure::Unusable,
    identity::{self, Identity},
    log,
    pools::{Pools, ReadPermit},
    schema,
    timeout::with_timeout,
};
use crate::{clock::Clock, event::envelope::Epoch, model::task_query::TaskQuery};

/// Timeout of one attempt to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Minimum number of connections: one each for writing, for reading the log and for pages.
const FEWEST: usize = 3;

/// A usable database: connection options, and pools for reading.
#[derive(Debug, Clone)]
pub struct Store {
    options: PgConnectOptions,
    pools: Pools,
    identity: Identity,
    clock: Clock,
    reachable: Arc<AtomicBool>,
}

impl Store {
    /// Connects, checks the server and migrates the schema.
    ///
    /// # Errors
    /// The server cannot be reached or used, or the migration fails; the message says what to do.
    pub async fn open(options: PgConnectOptions, clock: Clock) -> Result<Self, Unusable> {
        let options = chosen(options);
        let mut conn = reach(&options).await?;
        schema::check_server(&mut conn).await?;
        schema::bring_up_to_date(&mut conn).await?;
        let identity = Identity::new(log::epoch(&mut conn).await.context("cannot read the event log")?);
        identity.check(&mut conn, &clock).await.context("cannot read the event log")?;
        Ok(Self::on(options, conn, identity, clock).await?)
    }

    /// Like [`Self::open`], but changes nothing: the schema must exist.
    ///
    /// # Errors
    /// The server cannot be reached or used, or the schema is missing or of another version.
    pub async fn existing(options: PgConnectOptions, clock: Clock) -> Result<Self, Unusable> {
        let options = chosen(options);
        let mut conn = reach(&options).await?;
        schema::must_be_there(&mut conn).await?;
        let identity = Identity::anywhere(log::epoch(&mut conn).await.context("cannot read the event log")?);
        Ok(Self::on(options, conn, identity, clock).await?)
    }

    async fn on(
        options: PgConnectOptions,
        mut conn: PgConnection,
        identity: Identity,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        schema_is_first(&mut conn).await?;
        conn.close().await?;
        let pools = Pools::new(&options, &identity, &clock).await;
        Ok(Self { options, pools, identity, clock, reachable: Arc::new(AtomicBool::new(true)) })
    }

    /// Connection options from a URL such as `postgres://user:password@host:5432/database`.
    ///
    /// # Errors
    /// Not a Postgres URL; the message contains no part of the password.
    pub fn options(url: &str) -> anyhow::Result<PgConnectOptions> {
        address::options(url)
    }

    /// The pool for reading. While the database is known to be unreachable, a pool that fails immediately.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        if self.is_reachable() { self.pools.reading() } else { self.pools.refusing() }
    }

    /// The same database for requests: with shorter timeouts, and with its own pool, so that requests do not block the
    /// program's own reads.
    #[must_use]
    pub fn for_requests(&self) -> Self {
        Self { pools: self.pools.for_requests(), ..self.clone() }
    }

    /// Renews the epoch of the log on request, as after a data directory was copied or restored by hand. Returns the
    /// old and the new epoch. Running servers notice it within a second.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn renew_epoch(&self) -> sqlx::Result<(Epoch, Epoch)> {
        let mut conn = self.connect().await?;
        let mut tx = conn.begin().await?;
        log::lock(&mut tx, 0).await?;
        let old = log::epoch(&mut *tx).await?;
        let new = identity::renew(&mut tx).await?;
        tx.commit().await?;
        Ok((old, new))
    }

    /// Acquires a permit to read a list. Nothing else waits for searches, and a pause follows each before the next one
    /// may run, so that consecutive searches leave the database idle most of the time.
    ///
    /// # Errors
    /// Too many concurrent searches.
    pub async fn read_permit(&self, query: &TaskQuery) -> sqlx::Result<ReadPermit> {
        let is_search = query.text.is_some() || query.is_wide();
        self.pools.read_permit(self.pool(), is_search && self.is_reachable()).await
    }

    /// A permit for a search of the log: one search at a time, each with a rest after it.
    ///
    /// # Errors
    /// Too many concurrent searches.
    pub(super) async fn search_permit(&self) -> sqlx::Result<ReadPermit> {
        self.pools.read_permit(self.pool(), self.is_reachable()).await
    }

    /// Whether the database responded to the tailer's last read.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Records whether the database responds.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::Relaxed);
    }

    /// The identity of the log.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The epoch under which this process publishes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.identity.epoch()
    }

    /// The clock, synchronised with the database.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A dedicated connection, checked to lead to the known log.
    ///
    /// # Errors
    /// Any error of the database, or its log is a different one.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        let mut conn = self.connect_unchecked().await?;
        self.identity.check(&mut conn, &self.clock).await?;
        Ok(conn)
    }

    /// A dedicated connection, whatever log the database holds.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn connect_unchecked(&self) -> sqlx::Result<PgConnection> {
        connect(&self.options).await
    }

    /// Whether a log exists, of any schema version.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn has_log(conn: &mut PgConnection) -> sqlx::Result<bool> {
        log::exists(conn).await
    }

    /// Migrates a schema that was restored from a backup.
    ///
    /// # Errors
    /// Any error of the database, or a failed migration.
    pub async fn migrate(&self, conn: &mut PgConnection) -> anyhow::Result<()> {
        schema::bring_up_to_date(conn).await
    }

    /// Closes the pools, with a timeout, so that a stuck connection does not block shutdown.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(3), self.pools.close()).await;
    }
}

/// Poolers reject or drop startup parameters, so almost none is sent: the search path is set by a statement, and floats
/// are transferred in binary.
fn chosen(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("taskwatch").extra_float_digits(None)
}

/// Connects with a timeout and sets the search path, overriding that of the role, the database or a pooler.
async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    with_timeout(CONNECT, async {
        let mut conn = PgConnection::connect_with(options).await?;
        sqlx::raw_sql("SET search_path TO taskwatch").execute(&mut conn).await?;
        Ok(conn)
    })
    .await
}

/// The first connection. Opens the minimum number of connections at once and requires that each has its own server
/// process: otherwise a pooler assigns them per transaction, and locks and prepared statements would be lost.
async fn reach(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let place = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| socket.display().to_string(),
    );
    let mut connections: Vec<PgConnection> = Vec::new();
    let mut processes = Vec::new();
    while connections.len() < FEWEST {
        let opened = schema::saying(&format!("the database at {place}"), connect(options)).await;
        let mut conn = opened.with_context(|| match connections.len() {
            0 => format!("cannot reach the database at {place}"),
            n => format!("the database at {place} gave only {n} of at least {FEWEST} connections"),
        })?;
        let process: i32 = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(&mut conn).await?.try_get(0)?;
        if processes.contains(&process) {
            bail!(
                "the pooler at {place} hands out connections per transaction or statement, which breaks locks and prepared statements; set pool_mode = session for this database in pgbouncer.ini, or connect to PostgreSQL itself"
            );
        }
        processes.push(process);
        connections.push(conn);
    }
    let Some(conn) = connections.pop() else { bail!("no connection was opened") };
    for other in connections {
        other.close().await?;
    }
    Ok(conn)
}

/// Checks that the search path is the one that was set.
async fn schema_is_first(conn: &mut PgConnection) -> anyhow::Result<()> {
    let first = sqlx::query_scalar!("SELECT current_schema()::text").fetch_one(&mut *conn).await?;
    match first.as_deref() {
        Some("taskwatch") => Ok(()),
        None => bail!("this user may not use the schema 'taskwatch'; grant USAGE on it"),
        Some(other) => bail!(
            "the search path is '{other}' though 'taskwatch' was set; connect to PostgreSQL itself, without the pooler"
        ),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store that never connects, for tests of what reads nothing: its pools open no connection before the first use.
    pub(crate) async fn unconnected(clock: Clock) -> Store {
        let options = PgConnectOptions::new_without_pgpass();
        let identity = Identity::new(Epoch(0x5c1f_09ae));
        let pools = Pools::new(&options, &identity, &clock).await;
        Store { options, pools, identity, clock, reachable: Arc::new(AtomicBool::new(false)) }
    }
}
