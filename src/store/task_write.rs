//! Writes rows of tasks, leases and `ready`. Only the writer's batches use it.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    task_columns,
    values::{decode, json_text, signed},
};
use crate::{
    clock::Time,
    model::{Task, lease::Lease},
};

pub(super) async fn insert(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    task_columns::insert(tasks).execute(conn).await?;
    Ok(())
}

/// Writes the columns changed by the state machine.
pub(super) async fn update_state(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    let done = task_columns::update_state(tasks).execute(conn).await?;
    expect_rows("tasks", done.rows_affected(), tasks.len())
}

/// Writes descriptive columns, which edits and reports change.
pub(super) async fn update_description(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    let done = task_columns::update_description(tasks).execute(conn).await?;
    expect_rows("tasks", done.rows_affected(), tasks.len())
}

pub(super) async fn delete(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    let done = sqlx::query!("DELETE FROM taskwatch.tasks WHERE id = ANY($1)", ids).execute(conn).await?;
    expect_rows("tasks", done.rows_affected(), ids.len())
}

pub(super) async fn make_ready(conn: &mut PgConnection, tasks: &[&Task], now: Time) -> sqlx::Result<()> {
    let col = Columns(tasks);
    sqlx::query!(
        "INSERT INTO taskwatch.ready (task_id, queue, priority, enqueued_at)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::smallint[], $4::timestamptz[])",
        &col.ids(),
        &col.map(|t| t.queue.as_str()) as &[&str],
        &col.map(|t| i16::from(t.priority.get())),
        &col.map(|t| t.enqueued_at.unwrap_or(now)),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn unready(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    let done = sqlx::query!("DELETE FROM taskwatch.ready WHERE task_id = ANY($1)", ids).execute(conn).await?;
    expect_rows("ready", done.rows_affected(), ids.len())
}

/// Upserts the leases of running tasks.
pub(super) async fn lease(conn: &mut PgConnection, tasks: &[(&Task, &Lease)]) -> sqlx::Result<()> {
    let col = Columns(tasks);
    sqlx::query!(
        "INSERT INTO taskwatch.leases (task_id, worker_id, attempt, expires_at, deadline, stalled, progress, queue)
         SELECT task_id, worker_id, attempt, expires_at, deadline, stalled, progress::json, queue
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::timestamptz[], $5::timestamptz[], $6::boolean[],
             $7::text[], $8::text[])
             AS new (task_id, worker_id, attempt, expires_at, deadline, stalled, progress, queue)
         ON CONFLICT (task_id) DO UPDATE
         SET worker_id = excluded.worker_id, attempt = excluded.attempt, expires_at = excluded.expires_at,
             deadline = excluded.deadline, stalled = excluded.stalled, progress = excluded.progress",
        &col.map(|(t, _)| t.id),
        &col.map(|(t, _)| t.worker_id) as &[Option<Uuid>],
        &col.map(|(t, _)| signed(t.attempt)),
        &col.map(|(_, lease)| lease.expires_at) as &[Option<Time>],
        &col.map(|(t, _)| t.deadline()) as &[Option<Time>],
        &col.map(|(_, lease)| lease.stalled),
        &col.map(|(_, lease)| lease.progress.as_ref().map(json_text)) as &[Option<String>],
        // Only claimed tasks count against the limits of their queue.
        &col.map(|(t, lease)| lease.expires_at.map(|_| t.queue.as_str())) as &[Option<&str>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn unlease(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    let done = sqlx::query!("DELETE FROM taskwatch.leases WHERE task_id = ANY($1)", ids).execute(conn).await?;
    expect_rows("leases", done.rows_affected(), ids.len())
}

/// The rows are locked, so all must exist; otherwise another program writes these tables.
fn expect_rows(table: &str, changed: u64, expected: usize) -> sqlx::Result<()> {
    if usize::try_from(changed) == Ok(expected) {
        return Ok(());
    }
    Err(decode(&format!("{changed} rows of {table} changed instead of {expected}; run taskwatch verify")))
}

/// Rows as columns, the shape of `UNNEST`.
struct Columns<'a, T>(&'a [T]);

impl<T> Columns<'_, T> {
    fn map<C>(&self, column: impl Fn(&T) -> C) -> Vec<C> {
        self.0.iter().map(column).collect()
    }
}

impl Columns<'_, &Task> {
    fn ids(&self) -> Vec<Uuid> {
        self.map(|task| task.id)
    }
}
