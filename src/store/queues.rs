//! Rows of queues: operator settings and the usage of limits.

use sqlx::{PgConnection, types::Json as Sql};

use super::values::{name, signed, unsigned};
use crate::{clock::Time, model::queue::QueueState};

struct QueueRow {
    name: String,
    paused_at: Option<Time>,
    concurrency_limit: Option<i32>,
    rate_limit: Option<i32>,
    rate_period_seconds: i32,
    starts: Sql<Vec<(i64, u32)>>,
}

impl QueueRow {
    fn state(self) -> sqlx::Result<QueueState> {
        Ok(QueueState {
            name: name(&self.name)?,
            paused_at: self.paused_at,
            concurrency_limit: self.concurrency_limit.map(unsigned).transpose()?,
            rate_limit: self.rate_limit.map(unsigned).transpose()?,
            rate_period_seconds: unsigned(self.rate_period_seconds)?,
            starts: self.starts.0,
            running: 0,
        })
    }
}

/// The queues requested by claims. A claim locks their rows in share mode, so that a pause takes effect between two
/// commits; the row of a limited queue is locked exclusively, so that its limit holds across servers.
pub(super) async fn claimed_from(conn: &mut PgConnection, names: &[&str]) -> sqlx::Result<Vec<QueueState>> {
    let rows = sqlx::query_as!(
        QueueRow,
        r#"WITH free AS MATERIALIZED (
               SELECT * FROM taskwatch.queues WHERE name = ANY($1) AND NOT limited ORDER BY name FOR SHARE
           ), limited AS MATERIALIZED (
               SELECT * FROM taskwatch.queues WHERE name = ANY($1) AND limited ORDER BY name FOR NO KEY UPDATE
           )
           SELECT name AS "name!", paused_at, concurrency_limit, rate_limit,
               rate_period_seconds AS "rate_period_seconds!", starts AS "starts!: _" FROM free
           UNION ALL
           SELECT name, paused_at, concurrency_limit, rate_limit, rate_period_seconds, starts FROM limited"#,
        names as &[&str]
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut states = rows.into_iter().map(QueueRow::state).collect::<sqlx::Result<Vec<_>>>()?;
    count_running(conn, &mut states).await?;
    Ok(states)
}

/// Counts running tasks of queues with a concurrency limit.
async fn count_running(conn: &mut PgConnection, states: &mut [QueueState]) -> sqlx::Result<()> {
    let limited: Vec<_> = states.iter().filter(|state| state.concurrency_limit.is_some()).collect();
    if limited.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = limited.iter().map(|state| state.name.as_str().to_owned()).collect();
    // A new statement, so that it sees what the previous lock holder committed.
    let running = sqlx::query!(
        r#"SELECT queue AS "queue!", count(*) AS "count!" FROM taskwatch.leases WHERE queue = ANY($1) GROUP BY queue"#,
        &names
    )
    .fetch_all(conn)
    .await?;
    for state in states {
        let count = running.iter().find(|row| row.queue == state.name.as_str()).map_or(0, |row| row.count);
        state.running = u32::try_from(count).unwrap_or(u32::MAX);
    }
    Ok(())
}

/// Locks queues FOR UPDATE, to change their settings.
pub(super) async fn lock(conn: &mut PgConnection, names: &[&str]) -> sqlx::Result<Vec<QueueState>> {
    add(conn, names).await?;
    let rows = sqlx::query_as!(
        QueueRow,
        r#"SELECT name, paused_at, concurrency_limit, rate_limit, rate_period_seconds, starts AS "starts: _"
           FROM taskwatch.queues WHERE name = ANY($1) ORDER BY name FOR UPDATE"#,
        names as &[&str]
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut states = rows.into_iter().map(QueueRow::state).collect::<sqlx::Result<Vec<_>>>()?;
    count_running(conn, &mut states).await?;
    Ok(states)
}

/// Inserts unknown queues.
pub(super) async fn add(conn: &mut PgConnection, names: &[&str]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.queues (name) SELECT DISTINCT name FROM unnest($1::text[]) AS new (name) ORDER BY name
         ON CONFLICT (name) DO NOTHING",
        names as &[&str]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes a changed queue.
pub(super) async fn save(conn: &mut PgConnection, queue: &QueueState) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE taskwatch.queues SET paused_at = $2, concurrency_limit = $3, rate_limit = $4,
                 rate_period_seconds = $5, starts = $6
             WHERE name = $1",
        queue.name.as_str(),
        queue.paused_at,
        queue.concurrency_limit.map(signed),
        queue.rate_limit.map(signed),
        signed(queue.rate_period_seconds),
        Sql(&queue.starts) as Sql<&Vec<(i64, u32)>>
    )
    .execute(conn)
    .await?;
    Ok(())
}
