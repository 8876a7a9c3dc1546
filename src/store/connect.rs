//! Connections, the schema and its migrations.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::search::TaskQuery;

/// The oldest Postgres that has what we use.
const OLDEST_SERVER: i32 = 140_000;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// A database that taskwatch may use: how to reach it, and pools for reading.
#[derive(Debug, Clone)]
pub struct Store {
    options: PgConnectOptions,
    pool: PgPool,
    /// What requests read.
    requests: PgPool,
    /// What requests search: few at a time, so that reads of one row never wait behind them.
    searches: PgPool,
    turns: Arc<Semaphore>,
}

/// A turn at reading a list; a search rests when it goes.
#[derive(Debug)]
pub struct Turn {
    pool: PgPool,
    permit: Option<OwnedSemaphorePermit>,
    began: Instant,
}

/// A search rests so many times as long as it took.
const REST: u32 = 4;
/// Its longest rest.
const LONGEST_REST: Duration = Duration::from_secs(2);

impl Turn {
    /// Where to read.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let rest = self.began.elapsed().saturating_mul(REST).min(LONGEST_REST);
        // Without a runtime the process is ending; there is no next search.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(rest).await;
                drop(permit);
            });
        }
    }
}

/// A pool for reading: connections at the most, how long a statement may take, how long one waits for a connection.
struct Reading {
    connections: u32,
    statement: &'static str,
    acquire: Duration,
}

/// The program's own reads.
const OWN: Reading = Reading { connections: 6, statement: "5s", acquire: Duration::from_secs(5) };
/// A page or a list that takes longer than this is not worth waiting for.
const REQUESTS: Reading = Reading { connections: 6, statement: "2s", acquire: Duration::from_secs(3) };
/// Searches that have to look at many rows.
const SEARCHES: Reading = Reading { connections: 2, statement: "2s", acquire: Duration::from_secs(2) };

impl Reading {
    fn pool(&self, options: &PgConnectOptions) -> PgPool {
        let statement = self.statement;
        PgPoolOptions::new()
            .max_connections(self.connections)
            // A round trip for each acquire costs a fifth of the throughput; a dead connection shows itself anyway.
            .test_before_acquire(false)
            .acquire_timeout(self.acquire)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    // Lists have optional filters; only a plan made for the values at hand uses the right index.
                    sqlx::query!(
                        "SELECT set_config('statement_timeout', $1, false) AS timeout,
                                set_config('plan_cache_mode', 'force_custom_plan', false) AS plans",
                        statement
                    )
                    .fetch_one(conn)
                    .await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone())
    }
}

impl Store {
    /// Connects, checks the server's version and brings the schema up to date.
    ///
    /// # Errors
    /// When the server cannot be reached, is too old, or the schema cannot be made; the message says what to do.
    pub async fn open(options: PgConnectOptions) -> anyhow::Result<Self> {
        let options = options.application_name("taskwatch").options([("search_path", "taskwatch")]);
        let host = options.get_host().to_owned();
        let mut conn = PgConnection::connect_with(&options)
            .await
            .with_context(|| format!("cannot reach the database at {host}:{}", options.get_port()))?;
        prepare(&mut conn).await?;
        conn.close().await?;
        let (pool, requests, searches) = (OWN.pool(&options), REQUESTS.pool(&options), SEARCHES.pool(&options));
        let turns = Arc::new(Semaphore::new(SEARCHES.connections as usize));
        Ok(Self { options, pool, requests, searches, turns })
    }

    /// Connection options from a URL such as `postgres://user:password@host:5432/database`.
    ///
    /// # Errors
    /// When it is not a Postgres URL.
    pub fn options(url: &str) -> anyhow::Result<PgConnectOptions> {
        const FORM: &str = "DATABASE_URL is not of the form postgres://user:password@host:5432/database";
        ensure!(url.starts_with("postgres://") || url.starts_with("postgresql://"), FORM);
        PgConnectOptions::from_str(url).context(FORM)
    }

    /// The pool for reading.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The same database as requests read it: with less patience, and never in the way of the program's own reads.
    #[must_use]
    pub fn for_requests(&self) -> Self {
        Self { pool: self.requests.clone(), ..self.clone() }
    }

    /// A turn at reading a list. Nothing else waits for searches, and each rests before another has its turn, so that
    /// searches one after the other leave the database most of its time.
    ///
    /// # Errors
    /// When too many search.
    pub async fn turn(&self, query: &TaskQuery) -> sqlx::Result<Turn> {
        if query.text.is_none() && !query.is_wide() {
            return Ok(Turn { pool: self.pool.clone(), permit: None, began: Instant::now() });
        }
        let permit = tokio::time::timeout(SEARCHES.acquire, self.turns.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        Ok(Turn { pool: self.searches.clone(), permit: Some(permit), began: Instant::now() })
    }

    /// A connection of its own, for one who keeps it.
    pub(super) async fn connect(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect_with(&self.options).await
    }

    /// Closes the pool; bounded, so that a stuck connection does not hold up the end.
    pub async fn close(&self) {
        let all = async { tokio::join!(self.pool.close(), self.requests.close(), self.searches.close()) };
        let _ = tokio::time::timeout(Duration::from_secs(3), all).await;
    }
}

async fn prepare(conn: &mut PgConnection) -> anyhow::Result<()> {
    let version = sqlx::query_scalar!(r#"SELECT current_setting('server_version_num')::int AS "version!""#)
        .fetch_one(&mut *conn)
        .await?;
    if version < OLDEST_SERVER {
        bail!(
            "the database is PostgreSQL {}; taskwatch needs 14 or newer, so upgrade the server or unset DATABASE_URL",
            version / 10_000
        );
    }
    // Two servers may start at once; the session lock of the migrator does not cover the schema itself.
    sqlx::query!("SELECT pg_advisory_lock(hashtextextended('taskwatch.schema', 0))").fetch_one(&mut *conn).await?;
    let made = sqlx::raw_sql("CREATE SCHEMA IF NOT EXISTS taskwatch").execute(&mut *conn).await;
    made.context("cannot create the schema 'taskwatch'; grant CREATE on the database to this user")?;
    MIGRATOR.run(&mut *conn).await.context("cannot bring the schema up to date")?;
    super::log::settle_epoch(&mut *conn).await.context("cannot read the log's epoch")?;
    sqlx::query!("SELECT pg_advisory_unlock(hashtextextended('taskwatch.schema', 0))").fetch_one(&mut *conn).await?;
    Ok(())
}

/// Bounds what the other end may never answer. The connection is dropped then.
pub(super) async fn limited<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}
