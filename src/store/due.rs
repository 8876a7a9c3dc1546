//! Queries for maintenance: due and stalled tasks, lost workers, backlogs. Reads only; the writer decides.

use sqlx::PgPool;
use uuid::Uuid;

use crate::{clock::Time, model::lease::StallReason};

/// Maximum number of tasks or workers returned per query.
const LIMIT: i64 = 500;

/// Tasks whose `run_at` has passed.
///
/// # Errors
/// Any error of the database.
pub async fn tasks(pool: &PgPool, now: Time) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM taskwatch.tasks WHERE status IN ('scheduled', 'retrying') AND run_at <= $1 ORDER BY run_at LIMIT $2",
        now,
        LIMIT
    )
    .fetch_all(pool)
    .await
}

/// Running tasks whose lease or timeout has expired.
///
/// # Errors
/// Any error of the database.
pub async fn stalled(pool: &PgPool, now: Time) -> sqlx::Result<Vec<(Uuid, StallReason)>> {
    let rows = sqlx::query!(
        r#"SELECT task_id, coalesce(deadline <= $1, false) AS "late!" FROM taskwatch.leases
           WHERE NOT stalled AND (expires_at <= $1 OR deadline <= $1) LIMIT $2"#,
        now,
        LIMIT
    )
    .fetch_all(pool)
    .await?;
    let reason = |late| if late { StallReason::TimeLimit } else { StallReason::LeaseExpired };
    Ok(rows.into_iter().map(|row| (row.task_id, reason(row.late))).collect())
}

/// Workers whose last heartbeat is before `since`, and that hold no valid lease.
///
/// # Errors
/// Any error of the database.
pub async fn silent_workers(pool: &PgPool, since: Time, now: Time) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM taskwatch.workers w WHERE status NOT IN ('stopped', 'lost') AND last_seen_at <= $1
             AND NOT EXISTS (SELECT 1 FROM taskwatch.leases l WHERE l.worker_id = w.id AND l.expires_at > $2) LIMIT $3",
        since,
        now,
        LIMIT
    )
    .fetch_all(pool)
    .await
}

/// Unfinished observed tasks whose last report is before a time, by the reporters' clocks.
///
/// # Errors
/// Any error of the database.
pub async fn silent_tasks(pool: &PgPool, before: Time) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM taskwatch.tasks t
         WHERE observed IS NOT NULL AND status NOT IN ('completed', 'failed', 'cancelled') AND created_at < $1
             AND greatest((observed ->> 'enqueued')::timestamptz, (observed ->> 'started')::timestamptz,
                 (observed ->> 'progressed')::timestamptz, (observed -> 'ended' ->> 0)::timestamptz,
                 (SELECT max(at::timestamptz) FROM json_each_text(observed -> 'said') AS said (field, at)),
                 (observed ->> 'first')::timestamptz) < $1
         ORDER BY created_at LIMIT $2",
        before,
        LIMIT
    )
    .fetch_all(pool)
    .await
}

/// Online workers with a connector that was last reported before a time and is not `unknown` yet.
///
/// # Errors
/// Any error of the database.
pub async fn unreported_connectors(pool: &PgPool, since: Time) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM taskwatch.workers
         WHERE status <> 'stopped' AND unreported_since <= $1 ORDER BY unreported_since LIMIT $2",
        since,
        LIMIT
    )
    .fetch_all(pool)
    .await
}

/// Last heartbeat of a worker.
#[derive(Debug, Clone, Copy)]
pub struct LastSeen {
    /// The worker.
    pub worker_id: Uuid,
    /// Time of the last heartbeat.
    pub last_seen_at: Time,
}

/// Workers with a heartbeat after a time.
///
/// # Errors
/// Any error of the database.
pub async fn heartbeats(pool: &PgPool, since: Time) -> sqlx::Result<Vec<LastSeen>> {
    sqlx::query_as!(
        LastSeen,
        "SELECT id AS worker_id, last_seen_at FROM taskwatch.workers
         WHERE status NOT IN ('stopped', 'lost') AND last_seen_at > $1",
        since
    )
    .fetch_all(pool)
    .await
}

/// Since when the oldest pending task of a queue has been pending.
#[derive(Debug, Clone)]
pub struct OldestPending {
    /// The queue.
    pub queue: String,
    /// When that task was enqueued.
    pub enqueued_at: Time,
}

/// The oldest pending task of each queue with a backlog; one index lookup per queue and priority.
///
/// # Errors
/// Any error of the database.
pub async fn oldest_pending(pool: &PgPool) -> sqlx::Result<Vec<OldestPending>> {
    sqlx::query_as!(
        OldestPending,
        r#"
        -- The first of each line (queue and priority), jumping from line to line along the index.
        WITH RECURSIVE line AS (
            (SELECT queue, priority, ticket, enqueued_at FROM taskwatch.ready ORDER BY queue, priority, ticket LIMIT 1)
            UNION ALL
            SELECT next.* FROM line CROSS JOIN LATERAL (
                SELECT r.queue, r.priority, r.ticket, r.enqueued_at FROM taskwatch.ready r
                WHERE (r.queue, r.priority) > (line.queue, line.priority)
                ORDER BY r.queue, r.priority, r.ticket LIMIT 1
            ) next
        )
        SELECT queue AS "queue!", min(enqueued_at) AS "enqueued_at!" FROM line GROUP BY queue
        "#
    )
    .fetch_all(pool)
    .await
}
