//! Connections, the schema and its migrations.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::{identity::Identity, log};
use crate::{clock::Clock, event::envelope::Epoch};

/// The oldest Postgres that has what we use.
const OLDEST_SERVER: i32 = 140_000;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// A database that taskwatch may use: how to reach it, and a pool for reading.
#[derive(Debug, Clone)]
pub struct Store {
    options: PgConnectOptions,
    pool: PgPool,
    /// Closed from the start: what is asked of it fails at once.
    refusing: PgPool,
    identity: Identity,
    clock: Clock,
    reachable: Arc<AtomicBool>,
}

impl Store {
    /// Connects, checks the server's version and brings the schema up to date.
    ///
    /// # Errors
    /// When the server cannot be reached, is too old, or the schema cannot be made; the message says what to do.
    pub async fn open(options: PgConnectOptions, clock: Clock) -> anyhow::Result<Self> {
        let options = options.application_name("taskwatch").options([("search_path", "taskwatch")]);
        let host = options.get_host().to_owned();
        let mut conn = PgConnection::connect_with(&options)
            .await
            .with_context(|| format!("cannot reach the database at {host}:{}", options.get_port()))?;
        prepare(&mut conn).await?;
        let identity = Identity::new(log::epoch(&mut conn).await?);
        identity.check(&mut conn, &clock).await.context("cannot read the event log")?;
        conn.close().await?;
        let pool = pool(options.clone(), &identity, &clock);
        let refusing = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
        refusing.close().await;
        Ok(Self { options, pool, refusing, identity, clock, reachable: Arc::new(AtomicBool::new(true)) })
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

    /// The pool for reading. While the database is known to be away, one that refuses at once.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        if self.is_reachable() { &self.pool } else { &self.refusing }
    }

    /// The database answered when the tailer asked it last.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Takes note whether the database answers.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::Relaxed);
    }

    /// Which log this is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The epoch that this process publishes under.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.identity.epoch()
    }

    /// The clock that follows the database's.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A connection for one who keeps it, to the log that is known.
    ///
    /// # Errors
    /// When the database does not answer, or its log is another one.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        let mut conn = self.connect_unchecked().await?;
        self.identity.check(&mut conn, &self.clock).await?;
        Ok(conn)
    }

    /// A connection to whatever log is there.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn connect_unchecked(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect_with(&self.options).await
    }

    /// Brings the schema up to date that a restore has put there.
    ///
    /// # Errors
    /// When the database does not answer or a migration fails.
    pub async fn migrate(&self, conn: &mut PgConnection) -> anyhow::Result<()> {
        prepare(conn).await
    }

    /// Closes the pool; bounded, so that a stuck connection does not hold up the end.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(3), self.pool.close()).await;
    }
}

/// Connections that read for pages and lists.
fn pool(options: PgConnectOptions, identity: &Identity, clock: &Clock) -> PgPool {
    let (identity, clock) = (identity.clone(), clock.clone());
    let current = identity.clone();
    PgPoolOptions::new()
        .max_connections(8)
        // A round trip for each acquire costs a fifth of the throughput; a dead connection shows itself anyway.
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(5))
        // One from before the log changed may lead to a server that was replaced.
        .before_acquire(move |_, meta| {
            let usable = !current.is_outdated(meta.age);
            Box::pin(async move { Ok(usable) })
        })
        .after_connect(move |conn, _| {
            let (identity, clock) = (identity.clone(), clock.clone());
            Box::pin(async move {
                // A page or a list that takes longer than this is not worth waiting for. Lists have optional
                // filters; only a plan made for the values at hand uses the right index.
                sqlx::query!(
                    "SELECT set_config('statement_timeout', '5s', false) AS timeout,
                            set_config('plan_cache_mode', 'force_custom_plan', false) AS plans"
                )
                .fetch_one(&mut *conn)
                .await?;
                identity.check(conn, &clock).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options)
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
    MIGRATOR.run_direct(None, &mut *conn, false).await.context("cannot bring the schema up to date")?;
    log::ensure_epoch(&mut *conn).await.context("cannot read the log's epoch")?;
    sqlx::query!("SELECT pg_advisory_unlock(hashtextextended('taskwatch.schema', 0))").fetch_one(&mut *conn).await?;
    Ok(())
}

/// Bounds what the other end may never answer. The connection is dropped then.
pub(super) async fn limited<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}
