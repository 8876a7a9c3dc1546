//! The schema: requirements on the server, and migrations.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sqlx::{PgConnection, migrate::Migrator};

/// Oldest supported Postgres version.
const OLDEST_SERVER: i32 = 140_000;
/// Timeout for the schema lock held by another server, and for locks during migrations.
const LOCK: Duration = Duration::from_secs(30);
/// Delay after which a wait is logged.
const QUIET: Duration = Duration::from_secs(3);
/// Interval of attempts to take the lock.
const TRY: Duration = Duration::from_millis(100);

/// All migrations. Applied migrations are recorded in a table of our own schema, whatever the search path is. Our own
/// advisory lock is held, so the migrator's lock, which waits without a timeout, is disabled.
static MIGRATOR: Migrator = Migrator {
    table_name: std::borrow::Cow::Borrowed("taskwatch._sqlx_migrations"),
    locking: false,
    ..sqlx::migrate!()
};

/// Checks that the server is supported.
pub(super) async fn check_server(conn: &mut PgConnection) -> anyhow::Result<()> {
    let server = sqlx::query!(
        r#"SELECT current_setting('server_version_num')::int AS "version!", current_setting('server_encoding') AS "encoding!",
                  current_setting('transaction_read_only') = 'on' AS "read_only!""#
    )
    .fetch_one(&mut *conn)
    .await?;
    if server.version < OLDEST_SERVER {
        bail!(
            "the database is PostgreSQL {}; taskwatch needs 14 or newer, so upgrade the server or unset DATABASE_URL",
            server.version / 10_000
        );
    }
    if server.encoding != "UTF8" {
        bail!(
            "the database's encoding is {}; taskwatch needs UTF8: create one with createdb --encoding UTF8 --template template0",
            server.encoding
        );
    }
    if server.read_only {
        bail!(
            "the database takes no writes (it is a standby, or default_transaction_read_only is on); name the primary"
        );
    }
    Ok(())
}

/// Creates the schema if it is missing, and runs pending migrations.
pub(super) async fn bring_up_to_date(conn: &mut PgConnection) -> anyhow::Result<()> {
    // Two servers may start at once.
    lock(&mut *conn).await?;
    sqlx::query!("SELECT set_config('lock_timeout', $1, false) AS timeout", format!("{}s", LOCK.as_secs()))
        .fetch_one(&mut *conn)
        .await?;
    // Checked first: PostgreSQL checks the CREATE privilege even if the schema exists.
    if !exists(&mut *conn).await? {
        let made = sqlx::raw_sql("CREATE SCHEMA IF NOT EXISTS taskwatch").execute(&mut *conn).await;
        made.context(
            "cannot create the schema 'taskwatch': grant CREATE on the database to this user, or let an administrator run CREATE SCHEMA taskwatch AUTHORIZATION and this user's name",
        )?;
    }
    adopt(&mut *conn).await?;
    saying("the schema to be brought up to date", MIGRATOR.run_direct(None, &mut *conn, false))
        .await
        .context("schema migration failed")?;
    super::log::ensure_epoch(&mut *conn).await.context("cannot read the log's epoch")?;
    sqlx::query!("SELECT pg_advisory_unlock(hashtextextended('taskwatch.schema', 0))").fetch_one(&mut *conn).await?;
    Ok(())
}

/// Checks that the schema exists in the current version; changes nothing.
pub(super) async fn must_be_there(conn: &mut PgConnection) -> anyhow::Result<()> {
    let there = sqlx::query_scalar!(r#"SELECT to_regclass('taskwatch._sqlx_migrations') IS NOT NULL AS "there!""#);
    if !there.fetch_one(&mut *conn).await? {
        bail!(
            "this database holds no taskwatch: name the right one with --data-dir or DATABASE_URL, or start taskwatch on it once"
        );
    }
    // Not checked at compile time: the migrator creates this table.
    let done = sqlx::query_scalar("SELECT max(version) FROM taskwatch._sqlx_migrations WHERE success");
    let done: i64 = done.fetch_one(&mut *conn).await.map(Option::unwrap_or_default)?;
    let newest = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default();
    if done != newest {
        bail!(
            "the schema is of another version of taskwatch (it has {done}, this one needs {newest}); start this version on it once, or use that one"
        );
    }
    Ok(())
}

async fn exists(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'taskwatch') AS "exists!""#)
        .fetch_one(conn)
        .await
}

/// Earlier versions relied on the search path and, if a pooler dropped it, recorded their migrations elsewhere. Such a
/// table is adopted if it is verifiably ours.
async fn adopt(conn: &mut PgConnection) -> anyhow::Result<()> {
    let found = sqlx::query!(
        r#"SELECT to_regclass('taskwatch._sqlx_migrations') IS NOT NULL AS "ours!",
                  to_regclass('public._sqlx_migrations') IS NOT NULL AS "public!",
                  to_regclass('taskwatch.tasks') IS NOT NULL AS "tasks!""#
    )
    .fetch_one(&mut *conn)
    .await?;
    if found.ours || !found.tasks {
        return Ok(());
    }
    let first = MIGRATOR.iter().next().map(|migration| (migration.version, migration.checksum.to_vec()));
    let theirs: Option<(i64, Vec<u8>)> = if found.public {
        // Not checked at compile time: this table does not exist then.
        sqlx::query_as("SELECT version, checksum FROM public._sqlx_migrations ORDER BY version LIMIT 1")
            .fetch_optional(&mut *conn)
            .await?
    } else {
        None
    };
    if theirs.is_none() || theirs != first {
        bail!(
            "the schema 'taskwatch' holds tables, but not the record of their migrations (taskwatch._sqlx_migrations); restore it from a backup"
        );
    }
    sqlx::raw_sql("ALTER TABLE public._sqlx_migrations SET SCHEMA taskwatch")
        .execute(conn)
        .await
        .context("cannot take over the table public._sqlx_migrations, which an older version made there")?;
    tracing::info!("took over the migration record of an older version from the schema public");
    Ok(())
}

/// Takes the schema lock with a timeout: its holder may be stuck.
async fn lock(conn: &mut PgConnection) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut logged = false;
    loop {
        let tried =
            sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock(hashtextextended('taskwatch.schema', 0)) AS "got!""#);
        if tried.fetch_one(&mut *conn).await? {
            return Ok(());
        }
        let waited = started.elapsed();
        if waited > QUIET && !logged {
            logged = true;
            tracing::warn!("waiting for the lock of the schema, which {} holds", holder(&mut *conn).await?);
        }
        if waited > LOCK {
            bail!(
                "the lock of the schema was not free within {} s: {} holds it; end that one, or start again when it is done",
                LOCK.as_secs(),
                holder(&mut *conn).await?
            );
        }
        tokio::time::sleep(TRY).await;
    }
}

/// Describes the holder of the schema lock.
async fn holder(conn: &mut PgConnection) -> sqlx::Result<String> {
    let holder = sqlx::query!(
        r#"SELECT l.pid AS "pid!", coalesce(a.application_name, '') AS "name!", coalesce(a.client_addr::text, 'this machine') AS "from!"
           FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid),
                (SELECT hashtextextended('taskwatch.schema', 0) AS key) k
           WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND l.classid = ((k.key >> 32) & 4294967295)::oid AND l.objid = (k.key & 4294967295)::oid"#
    )
    .fetch_optional(conn)
    .await?;
    Ok(holder.map_or_else(
        || "another connection".to_owned(),
        |holder| format!("database process {} ('{}', from {})", holder.pid, holder.name, holder.from),
    ))
}

/// Logs repeatedly what is being waited for, while it takes long.
pub(super) async fn saying<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = work.as_mut() => return done,
            () = tokio::time::sleep(QUIET) => tracing::info!("waiting for {what}"),
        }
    }
}
