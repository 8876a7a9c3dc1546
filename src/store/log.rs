//! SQL of the event log: epoch, ends, append, read.

use std::sync::Arc;

use sqlx::{Connection, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::recorded::{PAGE, Recorded, missing, recorded};
use crate::{
    clock::Time,
    event::{Draft, EventId, envelope::Epoch},
};

/// Oldest and newest position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Oldest position in the log.
    pub oldest: i64,
    /// Newest position; `oldest - 1` if the log is empty.
    pub head: i64,
}

/// The current transaction holds the log's lock.
#[derive(Debug)]
pub(super) struct Locked {
    /// Newest position.
    pub(super) head: i64,
    /// Transaction ID, to look up its outcome later.
    pub(super) xid: String,
    /// The epoch; a new one if the storage location has changed since the last append.
    pub(super) epoch: Epoch,
}

/// Inserts the log's row if it is missing, and renews the epoch if the storage location has changed since the last
/// append.
pub(super) async fn ensure_epoch(conn: &mut PgConnection) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    sqlx::query!(
        "INSERT INTO taskwatch.log (epoch, origin) VALUES ($1, '') ON CONFLICT (only_row) DO NOTHING",
        Epoch(fastrand::u32(..)).to_string()
    )
    .execute(&mut *tx)
    .await?;
    let before = epoch(&mut *tx).await?;
    let locked = lock(&mut tx, 0).await?;
    tx.commit().await?;
    if locked.epoch != before {
        tracing::error!(
            old = %before, new = %locked.epoch,
            "event log was restored, copied or promoted since the last write; new epoch, clients restart"
        );
    }
    Ok(())
}

/// The log's epoch.
///
/// # Errors
/// Any error of the database.
pub(super) async fn epoch(db: impl PgExecutor<'_>) -> sqlx::Result<Epoch> {
    let text = sqlx::query_scalar!("SELECT epoch FROM taskwatch.log").fetch_one(db).await?;
    text.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Whether a log exists, of any schema version.
///
/// # Errors
/// Any error of the database.
pub(super) async fn exists(db: impl PgExecutor<'_>) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgname = 'enqueue_at_commit'
               AND t.tgrelid = to_regclass('taskwatch.enqueued')) AS "found!""#
    );
    found.fetch_one(db).await
}

/// Oldest and newest position.
///
/// # Errors
/// Any error of the database.
pub(super) async fn ends(db: impl PgExecutor<'_>) -> sqlx::Result<Ends> {
    sqlx::query_as!(
        Ends,
        r#"SELECT oldest, coalesce((SELECT position FROM taskwatch.events ORDER BY position DESC LIMIT 1), oldest - 1) AS "head!"
           FROM taskwatch.log"#
    )
    .fetch_one(db)
    .await
}

/// The position of the last event before a time; including events at that time if `inclusive`. Binary search: times
/// increase with positions, except for clock skew between servers.
///
/// # Errors
/// Any error of the database.
pub(super) async fn position_before(pool: &PgPool, time: Time, inclusive: bool) -> sqlx::Result<i64> {
    let ends = ends(pool).await?;
    let (mut low, mut high) = (ends.oldest - 1, ends.head);
    while low < high {
        let middle = low + (high - low + 1) / 2;
        let at = sqlx::query_scalar!("SELECT at FROM taskwatch.events WHERE position = $1", middle)
            .fetch_optional(pool)
            .await?;
        // Retention may have removed it concurrently; then it was early.
        if at.is_none_or(|at| at < time || (inclusive && at == time)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// Up to [`PAGE`] events after a position, in order. An event that is unreadable or missing is replaced by a
/// placeholder of an unknown type: one bad row must not stop all readers.
///
/// # Errors
/// Any error of the database.
pub(super) async fn page(db: impl PgExecutor<'_>, epoch: Epoch, after: i64) -> sqlx::Result<Vec<Recorded>> {
    let rows = sqlx::query!(
        r#"SELECT e.position, e.body, l.oldest FROM taskwatch.events e CROSS JOIN taskwatch.log l
           WHERE e.position > $1 AND e.position <= $2 ORDER BY e.position"#,
        after,
        after + PAGE
    )
    .fetch_all(db)
    .await?;
    // Positions below the oldest one are not missing: retention removed them.
    let mut expected = rows.first().map_or(after + 1, |row| row.oldest.max(after + 1));
    let mut page = Vec::with_capacity(rows.len());
    for row in rows {
        page.extend((expected..row.position).map(|position| missing(epoch, position)));
        expected = row.position + 1;
        page.push(recorded(epoch, row.position, row.body));
    }
    Ok(page)
}

/// The newest events of one task up to a position, oldest first.
///
/// # Errors
/// Any error of the database.
pub(super) async fn of_task(
    pool: &PgPool,
    epoch: Epoch,
    task_id: Uuid,
    (until, limit): (i64, i64),
) -> sqlx::Result<Vec<Recorded>> {
    let rows = sqlx::query!(
        "SELECT position, body FROM taskwatch.events WHERE task_id = $1 AND position <= $2
         ORDER BY position DESC LIMIT $3",
        task_id,
        until,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().rev().map(|row| recorded(epoch, row.position, row.body)).collect())
}

/// The last event of each task up to a position, unordered; tasks without events are omitted.
///
/// # Errors
/// Any error of the database.
pub(super) async fn last_of_each(pool: &PgPool, epoch: Epoch, ids: &[Uuid], until: i64) -> sqlx::Result<Vec<Recorded>> {
    let rows = sqlx::query!(
        r#"SELECT e.position AS "position!", e.body AS "body!" FROM unnest($1::uuid[]) AS wanted (id)
           CROSS JOIN LATERAL (SELECT position, body FROM taskwatch.events
               WHERE task_id = wanted.id AND position <= $2 ORDER BY position DESC LIMIT 1) e"#,
        ids,
        until
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| recorded(epoch, row.position, row.body)).collect())
}

/// One event; `None` if the log does not contain it.
///
/// # Errors
/// Any error of the database.
pub(super) async fn at(pool: &PgPool, epoch: Epoch, position: i64) -> sqlx::Result<Option<Recorded>> {
    let body = sqlx::query_scalar!("SELECT body FROM taskwatch.events WHERE position = $1", position)
        .fetch_optional(pool)
        .await?;
    Ok(body.map(|body| recorded(epoch, position, body)))
}

/// Acquires the log's lock until the end of the transaction, then reads the head (law 2).
pub(super) async fn lock(conn: &mut PgConnection, known: i64) -> sqlx::Result<Locked> {
    let row =
        sqlx::query!(r#"SELECT head AS "head!", xid AS "xid!", epoch AS "epoch!" FROM taskwatch.lock_log($1)"#, known)
            .fetch_one(conn)
            .await?;
    let epoch = row.epoch.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    Ok(Locked { head: row.head, xid: row.xid, epoch })
}

/// Appends drafts after the head. The caller holds the lock and commits next.
pub(super) async fn append(
    conn: &mut PgConnection,
    epoch: Epoch,
    head: i64,
    drafts: Vec<Draft>,
) -> sqlx::Result<Vec<Recorded>> {
    let recorded: Vec<_> = (head + 1..)
        .zip(drafts)
        .map(|(position, draft)| {
            let id = EventId { epoch, position };
            let (event, json) = draft.at(id);
            Recorded { id, name: event.event_type.name().into(), event: Arc::new(event), json, intact: true }
        })
        .collect();
    let positions: Vec<_> = recorded.iter().map(|r| r.id.position).collect();
    let ats: Vec<_> = recorded.iter().map(|r| r.event.ts).collect();
    let types: Vec<_> = recorded.iter().map(|r| r.event.event_type.name()).collect();
    let projects: Vec<_> = recorded.iter().map(|r| r.event.project_id.as_ref().map(|n| n.as_str())).collect();
    let parents: Vec<_> = recorded.iter().map(|r| r.event.parent_task_id).collect();
    let tasks: Vec<_> = recorded.iter().map(|r| r.event.task_id).collect();
    let queues: Vec<_> = recorded.iter().map(|r| r.event.queue.as_ref().map(|n| n.as_str())).collect();
    let workers: Vec<_> = recorded.iter().map(|r| r.event.worker_id).collect();
    let bodies: Vec<_> = recorded.iter().map(|r| r.json.as_str()).collect();
    sqlx::query!(
        "INSERT INTO taskwatch.events
             (position, at, event_type, project_id, parent_task_id, task_id, queue, worker_id, body)
         SELECT * FROM UNNEST($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[], $6::uuid[],
             $7::text[], $8::uuid[], $9::text[])",
        &positions,
        &ats,
        &types as &[&str],
        &projects as &[Option<&str>],
        &parents as &[Option<Uuid>],
        &tasks as &[Option<Uuid>],
        &queues as &[Option<&str>],
        &workers as &[Option<Uuid>],
        &bodies as &[&str]
    )
    .execute(conn)
    .await?;
    Ok(recorded)
}

/// Outcome of a transaction whose commit was not acknowledged: whether it committed; `None` while undecided.
pub(super) async fn transaction_outcome(
    conn: &mut PgConnection,
    xid: &str,
    first: &Recorded,
) -> sqlx::Result<Option<bool>> {
    let asked = sqlx::query_scalar!("SELECT pg_xact_status($1::text::xid8)", xid).fetch_one(&mut *conn).await;
    let status = match asked {
        Ok(status) => status,
        // 22023, "in the future": after a crash, the server has never assigned that ID.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("22023") => None,
        Err(error) => return Err(error),
    };
    if status.as_deref() == Some("in progress") {
        return Ok(None);
    }
    // After a crash the ID may have been reused by another transaction, so the log itself decides.
    let stored = sqlx::query_scalar!("SELECT body FROM taskwatch.events WHERE position = $1", first.id.position)
        .fetch_optional(conn)
        .await?;
    Ok(Some(stored.as_deref() == Some(first.json.as_str())))
}

/// Creates partitions ahead of a head; returns their number.
///
/// # Errors
/// Any error of the database.
pub(super) async fn ensure_partitions(pool: &PgPool, head: i64) -> sqlx::Result<i32> {
    sqlx::query_scalar!(r#"SELECT taskwatch.ensure_partitions($1) AS "made!""#, head).fetch_one(pool).await
}
