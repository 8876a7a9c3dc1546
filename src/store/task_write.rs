//! Writes rows of tasks, leases and `ready`. Only the writer's batches use it.
//!
//! JSON is sent as text and cast to json, so that it is stored byte for byte: sqlx's own type would send it as jsonb.

use sqlx::PgConnection;
use uuid::Uuid;

use super::tasks::{decode, json_text, signed};
use crate::{
    clock::Time,
    model::{Name, Task, lease::Lease, report::Json, task::Outcome},
};

pub(super) async fn insert(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    let col = Columns(tasks);
    sqlx::query!(
        "INSERT INTO taskwatch.tasks
             (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, status, payload,
              labels, phases, is_parent, max_attempts, timeout_seconds, attempt, retry_count, outcome, run_at, worker_id,
              machine_id, created_at, enqueued_at, started_at, finished_at, result, error, connector_id, external_id,
              unique_key, depends_on, on_dependency_failure, has_dependents, auto_complete, backoff_initial_seconds,
              backoff_max_seconds, assignee, collaborators, watchers, observed, fingerprint)
         SELECT id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, status,
              payload::json, labels::json, ARRAY(SELECT json_array_elements_text(phases::json)), is_parent, max_attempts, timeout_seconds, attempt,
              retry_count, outcome, run_at, worker_id, machine_id, created_at, enqueued_at, started_at, finished_at,
              result::json, error, connector_id, external_id, unique_key,
              ARRAY(SELECT json_array_elements_text(depends_on::json)::uuid), on_dependency_failure, has_dependents,
              auto_complete, backoff_initial_seconds, backoff_max_seconds, assignee,
              ARRAY(SELECT json_array_elements_text(collaborators::json)),
              ARRAY(SELECT json_array_elements_text(watchers::json)), observed::json, fingerprint
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[],
              $9::smallint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::integer[],
              $16::integer[], $17::integer[], $18::integer[], $19::text[], $20::timestamptz[], $21::uuid[], $22::text[],
              $23::timestamptz[], $24::timestamptz[], $25::timestamptz[], $26::timestamptz[], $27::text[], $28::text[],
              $29::text[], $30::text[], $31::text[], $32::text[], $33::text[], $34::boolean[], $35::boolean[],
              $36::integer[], $37::integer[], $38::text[], $39::text[], $40::text[], $41::text[],
              $42::text[])
              AS new (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, status,
              payload, labels, phases, is_parent, max_attempts, timeout_seconds, attempt, retry_count, outcome, run_at,
              worker_id, machine_id, created_at, enqueued_at, started_at, finished_at, result, error, connector_id,
              external_id, unique_key, depends_on, on_dependency_failure, has_dependents, auto_complete,
              backoff_initial_seconds, backoff_max_seconds, assignee, collaborators, watchers, observed, fingerprint)",
        &col.ids(),
        &col.map(|t| t.project_id.as_str()) as &[&str],
        &col.map(|t| t.task_type.as_str()) as &[&str],
        &col.map(|t| t.queue.as_str()) as &[&str],
        &col.map(|t| t.parent_task_id) as &[Option<Uuid>],
        &col.map(|t| t.phase.as_ref().map(Name::as_str)) as &[Option<&str>],
        &col.map(|t| t.title.as_deref()) as &[Option<&str>],
        &col.map(|t| t.description.as_deref()) as &[Option<&str>],
        &col.map(|t| i16::from(t.priority.get())),
        &col.map(|t| t.status.as_str()) as &[&str],
        &col.map(|t| t.payload.as_ref().map(Json::as_str)) as &[Option<&str>],
        &col.map(|t| (!t.labels.is_empty()).then(|| json_text(&t.labels))) as &[Option<String>],
        &col.map(|t| json_text(&t.phases)),
        &col.map(|t| t.is_parent),
        &col.map(|t| signed(t.max_attempts)),
        &col.map(|t| t.timeout_seconds.map(signed)) as &[Option<i32>],
        &col.map(|t| signed(t.attempt)),
        &col.map(|t| signed(t.retry_count)),
        &col.map(|t| t.outcome.map(Outcome::as_str)) as &[Option<&str>],
        &col.map(|t| t.run_at) as &[Option<Time>],
        &col.map(|t| t.worker_id) as &[Option<Uuid>],
        &col.map(|t| t.machine_id.as_ref().map(Name::as_str)) as &[Option<&str>],
        &col.map(|t| t.created_at),
        &col.map(|t| t.enqueued_at) as &[Option<Time>],
        &col.map(|t| t.started_at) as &[Option<Time>],
        &col.map(|t| t.finished_at) as &[Option<Time>],
        &col.map(|t| t.result.as_ref().map(Json::as_str)) as &[Option<&str>],
        &col.map(|t| t.error.as_deref()) as &[Option<&str>],
        &col.map(|t| t.connector_id.as_ref().map(Name::as_str)) as &[Option<&str>],
        &col.map(|t| t.external_id.as_deref()) as &[Option<&str>],
        &col.map(|t| t.unique_key.as_deref()) as &[Option<&str>],
        &col.map(|t| json_text(&t.depends_on)),
        &col.map(|t| t.on_dependency_failure.as_str()) as &[&str],
        &col.map(|t| t.has_dependents),
        &col.map(|t| t.auto_complete),
        &col.map(|t| signed(t.backoff.initial_seconds)),
        &col.map(|t| signed(t.backoff.max_seconds)),
        &col.map(|t| t.assignee.as_deref()) as &[Option<&str>],
        &col.map(|t| json_text(&t.collaborators)),
        &col.map(|t| json_text(&t.watchers)),
        &col.map(|t| t.observed.as_ref().map(json_text)) as &[Option<String>],
        &col.fingerprints() as &[Option<String>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the columns changed by the state machine.
pub(super) async fn update(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    let col = Columns(tasks);
    let done = sqlx::query!(
        "UPDATE taskwatch.tasks t
         SET status = new.status, is_parent = new.is_parent, attempt = new.attempt, retry_count = new.retry_count,
             outcome = new.outcome, run_at = new.run_at, worker_id = new.worker_id, machine_id = new.machine_id,
             enqueued_at = new.enqueued_at, started_at = new.started_at, finished_at = new.finished_at,
             result = new.result::json, error = new.error, connector_id = new.connector_id,
             has_dependents = new.has_dependents, fingerprint = new.fingerprint
         FROM UNNEST($1::uuid[], $2::text[], $3::boolean[], $4::integer[], $5::integer[], $6::text[], $7::timestamptz[],
             $8::uuid[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[],
             $15::text[], $16::boolean[], $17::text[])
             AS new (id, status, is_parent, attempt, retry_count, outcome, run_at, worker_id, machine_id, enqueued_at,
             started_at, finished_at, result, error, connector_id, has_dependents, fingerprint)
         WHERE t.id = new.id",
        &col.ids(),
        &col.map(|t| t.status.as_str()) as &[&str],
        &col.map(|t| t.is_parent),
        &col.map(|t| signed(t.attempt)),
        &col.map(|t| signed(t.retry_count)),
        &col.map(|t| t.outcome.map(Outcome::as_str)) as &[Option<&str>],
        &col.map(|t| t.run_at) as &[Option<Time>],
        &col.map(|t| t.worker_id) as &[Option<Uuid>],
        &col.map(|t| t.machine_id.as_ref().map(Name::as_str)) as &[Option<&str>],
        &col.map(|t| t.enqueued_at) as &[Option<Time>],
        &col.map(|t| t.started_at) as &[Option<Time>],
        &col.map(|t| t.finished_at) as &[Option<Time>],
        &col.map(|t| t.result.as_ref().map(Json::as_str)) as &[Option<&str>],
        &col.map(|t| t.error.as_deref()) as &[Option<&str>],
        &col.map(|t| t.connector_id.as_ref().map(Name::as_str)) as &[Option<&str>],
        &col.map(|t| t.has_dependents),
        &col.fingerprints() as &[Option<String>],
    )
    .execute(conn)
    .await?;
    expect_rows("tasks", done.rows_affected(), tasks.len())
}

/// Writes descriptive columns, which edits and reports change.
pub(super) async fn describe(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    let col = Columns(tasks);
    let done = sqlx::query!(
        "UPDATE taskwatch.tasks t
         SET project_id = new.project_id, task_type = new.task_type, queue = new.queue,
             parent_task_id = new.parent_task_id, phase = new.phase, title = new.title, description = new.description,
             priority = new.priority, labels = new.labels::json, max_attempts = new.max_attempts,
             phases = ARRAY(SELECT json_array_elements_text(new.phases::json)), timeout_seconds = new.timeout_seconds,
             depends_on = ARRAY(SELECT json_array_elements_text(new.depends_on::json)::uuid), assignee = new.assignee,
             collaborators = ARRAY(SELECT json_array_elements_text(new.collaborators::json)),
             watchers = ARRAY(SELECT json_array_elements_text(new.watchers::json)), external_id = new.external_id,
             observed = new.observed::json, created_at = new.created_at,
             payload = coalesce(new.payload::json, t.payload)
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[],
             $9::smallint[], $10::text[], $11::integer[], $12::text[], $13::integer[], $14::text[], $15::text[],
             $16::text[], $17::text[], $18::text[], $19::text[], $20::timestamptz[], $21::text[])
             AS new (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, labels,
             max_attempts, phases, timeout_seconds, depends_on, assignee, collaborators, watchers, external_id, observed,
             created_at, payload)
         WHERE t.id = new.id",
        &col.ids(),
        &col.map(|t| t.project_id.as_str()) as &[&str],
        &col.map(|t| t.task_type.as_str()) as &[&str],
        &col.map(|t| t.queue.as_str()) as &[&str],
        &col.map(|t| t.parent_task_id) as &[Option<Uuid>],
        &col.map(|t| t.phase.as_ref().map(Name::as_str)) as &[Option<&str>],
        &col.map(|t| t.title.as_deref()) as &[Option<&str>],
        &col.map(|t| t.description.as_deref()) as &[Option<&str>],
        &col.map(|t| i16::from(t.priority.get())),
        &col.map(|t| (!t.labels.is_empty()).then(|| json_text(&t.labels))) as &[Option<String>],
        &col.map(|t| signed(t.max_attempts)),
        &col.map(|t| json_text(&t.phases)),
        &col.map(|t| t.timeout_seconds.map(signed)) as &[Option<i32>],
        &col.map(|t| json_text(&t.depends_on)),
        &col.map(|t| t.assignee.as_deref()) as &[Option<&str>],
        &col.map(|t| json_text(&t.collaborators)),
        &col.map(|t| json_text(&t.watchers)),
        &col.map(|t| t.external_id.as_deref()) as &[Option<&str>],
        &col.map(|t| t.observed.as_ref().map(json_text)) as &[Option<String>],
        &col.map(|t| t.created_at),
        &col.map(|t| t.payload.as_ref().map(Json::as_str)) as &[Option<&str>],
    )
    .execute(conn)
    .await?;
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

    /// Fingerprints of failed tasks.
    fn fingerprints(&self) -> Vec<Option<String>> {
        self.map(|task| task.fingerprint().map(|name| name.to_string()))
    }
}
