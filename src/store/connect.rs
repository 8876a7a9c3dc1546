//! Connections: how they are opened, and what is checked before the first is used.

use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::{
    Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::{address, failure::Unusable, schema};

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Connections that it cannot work without: for writing, for reading the log, for pages.
const FEWEST: usize = 3;

/// A database that taskwatch may use: how to reach it, and a pool for reading.
#[derive(Debug, Clone)]
pub struct Store {
    options: PgConnectOptions,
    pool: PgPool,
}

impl Store {
    /// Connects, checks the server and brings the schema up to date.
    ///
    /// # Errors
    /// When the server cannot be reached or used, or the schema cannot be made; the message says what to do.
    pub async fn open(options: PgConnectOptions) -> Result<Self, Unusable> {
        let options = chosen(options);
        let mut conn = reach(&options).await?;
        schema::check_server(&mut conn).await?;
        schema::bring_up_to_date(&mut conn).await?;
        Ok(Self::on(options, conn).await?)
    }

    /// The same for who must not change anything: the schema must be there already.
    ///
    /// # Errors
    /// When the server cannot be reached or used, or the schema is not there or of another version.
    pub async fn existing(options: PgConnectOptions) -> Result<Self, Unusable> {
        let options = chosen(options);
        let mut conn = reach(&options).await?;
        schema::must_be_there(&mut conn).await?;
        Ok(Self::on(options, conn).await?)
    }

    async fn on(options: PgConnectOptions, mut conn: PgConnection) -> anyhow::Result<Self> {
        schema_is_first(&mut conn).await?;
        conn.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            // A round trip for each acquire costs a fifth of the throughput; a dead connection shows itself anyway.
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(5))
            .after_connect(|conn, _| {
                Box::pin(async move {
                    // A page or a list that takes longer than this is not worth waiting for. Lists have optional
                    // filters; only a plan made for the values at hand uses the right index.
                    sqlx::query!(
                        "SELECT set_config('search_path', 'taskwatch', false) AS path,
                                set_config('statement_timeout', '5s', false) AS timeout,
                                set_config('plan_cache_mode', 'force_custom_plan', false) AS plans"
                    )
                    .fetch_one(conn)
                    .await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone());
        Ok(Self { options, pool })
    }

    /// Connection options from a URL such as `postgres://user:password@host:5432/database`.
    ///
    /// # Errors
    /// When it is not a Postgres URL; the message never holds a part of the password.
    pub fn options(url: &str) -> anyhow::Result<PgConnectOptions> {
        address::options(url)
    }

    /// The pool for reading.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection of its own, for one who keeps it.
    pub(super) async fn connect(&self) -> sqlx::Result<PgConnection> {
        connect(&self.options).await
    }

    /// Closes the pool; bounded, so that a stuck connection does not hold up the end.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(3), self.pool.close()).await;
    }
}

/// Poolers refuse or drop what is asked for at the start of a connection, so next to nothing is: the search path is set by
/// a statement, and floats come in binary.
fn chosen(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("taskwatch").extra_float_digits(None)
}

/// Connects within a bound, and sets the search path, whatever the role, the database or a pooler set.
async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    limited(CONNECT, async {
        let mut conn = PgConnection::connect_with(options).await?;
        sqlx::raw_sql("SET search_path TO taskwatch").execute(&mut conn).await?;
        Ok(conn)
    })
    .await
}

/// Connects for the first time. As many connections as are needed are opened at once and each must have a server process
/// for itself: else a pooler hands them out per transaction, and locks and prepared statements would get lost.
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

/// The search path must be the one that was set.
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

/// Bounds what the other end may never answer. The connection is dropped then.
pub(super) async fn limited<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}
