//! Rows of tasks and leases, in and out.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json as Sql};
use uuid::Uuid;

use crate::{
    clock::Time,
    model::{
        Name, Priority, Task,
        lease::Lease,
        report::{Json, Progress},
        task::Outcome,
    },
};

/// A row of `tasks` with its lease.
pub(super) struct TaskRow {
    pub(super) id: Uuid,
    pub(super) project_id: String,
    pub(super) task_type: String,
    pub(super) queue: String,
    pub(super) parent_task_id: Option<Uuid>,
    pub(super) phase: Option<String>,
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) priority: i16,
    pub(super) status: String,
    pub(super) payload: Option<Sql<Json>>,
    pub(super) labels: Option<Sql<BTreeMap<Name, String>>>,
    pub(super) phases: Vec<String>,
    pub(super) is_parent: bool,
    pub(super) max_attempts: i32,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) attempt: i32,
    pub(super) retry_count: i32,
    pub(super) outcome: Option<String>,
    pub(super) run_at: Option<Time>,
    pub(super) worker_id: Option<Uuid>,
    pub(super) machine_id: Option<String>,
    pub(super) created_at: Time,
    pub(super) enqueued_at: Option<Time>,
    pub(super) started_at: Option<Time>,
    pub(super) finished_at: Option<Time>,
    pub(super) result: Option<Sql<Json>>,
    pub(super) error: Option<String>,
    pub(super) expires_at: Option<Time>,
    pub(super) stalled: Option<bool>,
    pub(super) progress: Option<Sql<Progress>>,
}

/// `SELECT` of [`TaskRow`]s with an expression for the payload (it can be large) and a tail; the one list of columns.
macro_rules! select_tasks {
    ($payload:literal, $tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::store::tasks::TaskRow,
            // Nullability is spelled out: sqlx infers it from a plan, which depends on the size of the tables.
            r#"SELECT t.id AS "id!", t.project_id AS "project_id!", t.task_type AS "task_type!", t.queue AS "queue!",
                   t.parent_task_id AS "parent_task_id?", t.phase AS "phase?", t.title AS "title?",
                   t.description AS "description?", t.priority AS "priority!", t.status AS "status!", "#
                + $payload
                + r#" AS "payload: _", t.labels AS "labels: _", t.phases AS "phases!", t.is_parent AS "is_parent!",
                   t.max_attempts AS "max_attempts!", t.timeout_seconds AS "timeout_seconds?", t.attempt AS "attempt!",
                   t.retry_count AS "retry_count!", t.outcome AS "outcome?", t.run_at AS "run_at?",
                   t.worker_id AS "worker_id?", t.machine_id AS "machine_id?", t.created_at AS "created_at!",
                   t.enqueued_at AS "enqueued_at?", t.started_at AS "started_at?", t.finished_at AS "finished_at?",
                   t.result AS "result: _", t.error AS "error?", l.expires_at AS "expires_at?",
                   l.stalled AS "stalled?", l.progress AS "progress: _"
               FROM taskwatch.tasks t LEFT JOIN taskwatch.leases l ON l.task_id = t.id "#
                + $tail
            $(, $arg)*
        )
    };
}
pub(super) use select_tasks;

impl TryFrom<TaskRow> for Task {
    type Error = sqlx::Error;

    fn try_from(row: TaskRow) -> sqlx::Result<Self> {
        let progress = row.progress.map(|progress| progress.0);
        Ok(Self {
            id: row.id,
            project_id: name(&row.project_id)?,
            task_type: name(&row.task_type)?,
            queue: name(&row.queue)?,
            parent_task_id: row.parent_task_id,
            phase: optional_name(row.phase)?,
            title: row.title,
            description: row.description,
            priority: Priority::new(row.priority.into()).ok_or_else(|| decode("priority out of range"))?,
            status: row.status.parse().map_err(|e: crate::model::status::UnknownStatus| decode(&e.to_string()))?,
            payload: row.payload.map(|json| json.0),
            labels: row.labels.map(|json| json.0).unwrap_or_default(),
            phases: row.phases.iter().map(|text| name(text)).collect::<sqlx::Result<_>>()?,
            is_parent: row.is_parent,
            max_attempts: unsigned(row.max_attempts)?,
            timeout_seconds: row.timeout_seconds.map(unsigned).transpose()?,
            attempt: unsigned(row.attempt)?,
            retry_count: unsigned(row.retry_count)?,
            outcome: row.outcome.as_deref().and_then(Outcome::parse),
            run_at: row.run_at,
            worker_id: row.worker_id,
            machine_id: optional_name(row.machine_id)?,
            created_at: row.created_at,
            enqueued_at: row.enqueued_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            result: row.result.map(|json| json.0),
            error: row.error,
            lease: row.expires_at.map(|expires_at| Lease {
                expires_at,
                progress,
                stalled: row.stalled.unwrap_or_default(),
            }),
        })
    }
}

pub(super) fn decode(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(what.to_owned().into())
}

pub(super) fn name(text: &str) -> sqlx::Result<Name> {
    Name::new(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

fn optional_name(text: Option<String>) -> sqlx::Result<Option<Name>> {
    text.map(|text| name(&text)).transpose()
}

pub(super) fn unsigned(number: i32) -> sqlx::Result<u32> {
    u32::try_from(number).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Our counters are bounded far below this; Postgres has no unsigned integers.
pub(super) fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Locks tasks in the order of their ids, so that two writers never wait for each other in a ring.
pub(super) async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query_scalar!("SELECT id FROM taskwatch.tasks WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", ids)
        .fetch_all(conn)
        .await?;
    Ok(())
}

/// Of some tasks those that do not group others so far; the first child changes them.
pub(super) async fn not_yet_parents(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("SELECT id FROM taskwatch.tasks WHERE id = ANY($1) AND NOT is_parent", ids)
        .fetch_all(conn)
        .await
}

/// Tasks as they are now; with their payload those in `whole`.
pub(super) async fn load(conn: &mut PgConnection, ids: &[Uuid], whole: &[Uuid]) -> sqlx::Result<Vec<Task>> {
    let rows = select_tasks!("CASE WHEN t.id = ANY($2) THEN t.payload END", "WHERE t.id = ANY($1)", ids, whole)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(Task::try_from).collect()
}

pub(super) async fn insert(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    let col = Columns(tasks);
    sqlx::query!(
        "INSERT INTO taskwatch.tasks
             (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, status, payload,
              labels, phases, is_parent, max_attempts, timeout_seconds, attempt, retry_count, outcome, run_at, worker_id,
              machine_id, created_at, enqueued_at, started_at, finished_at, result, error)
         SELECT id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, status, payload,
              labels, ARRAY(SELECT json_array_elements_text(phases)), is_parent, max_attempts, timeout_seconds, attempt,
              retry_count, outcome, run_at, worker_id, machine_id, created_at, enqueued_at, started_at, finished_at,
              result, error
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[],
              $9::smallint[], $10::text[], $11::json[], $12::json[], $13::json[], $14::boolean[], $15::integer[],
              $16::integer[], $17::integer[], $18::integer[], $19::text[], $20::timestamptz[], $21::uuid[], $22::text[],
              $23::timestamptz[], $24::timestamptz[], $25::timestamptz[], $26::timestamptz[], $27::json[], $28::text[])
              AS new (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, status,
              payload, labels, phases, is_parent, max_attempts, timeout_seconds, attempt, retry_count, outcome, run_at,
              worker_id, machine_id, created_at, enqueued_at, started_at, finished_at, result, error)",
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
        &col.map(|t| t.payload.as_ref().map(Sql)) as &[Option<Sql<&Json>>],
        &col.map(|t| (!t.labels.is_empty()).then_some(Sql(&t.labels))) as &[Option<Sql<&BTreeMap<Name, String>>>],
        &col.map(|t| Sql(&t.phases)) as &[Sql<&Vec<Name>>],
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
        &col.map(|t| t.result.as_ref().map(Sql)) as &[Option<Sql<&Json>>],
        &col.map(|t| t.error.as_deref()) as &[Option<&str>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the columns that the state machine changes.
pub(super) async fn update(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    let col = Columns(tasks);
    let done = sqlx::query!(
        "UPDATE taskwatch.tasks t
         SET status = new.status, is_parent = new.is_parent, attempt = new.attempt, retry_count = new.retry_count,
             outcome = new.outcome, run_at = new.run_at, worker_id = new.worker_id, machine_id = new.machine_id,
             enqueued_at = new.enqueued_at, started_at = new.started_at, finished_at = new.finished_at,
             result = new.result, error = new.error
         FROM UNNEST($1::uuid[], $2::text[], $3::boolean[], $4::integer[], $5::integer[], $6::text[], $7::timestamptz[],
             $8::uuid[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::json[], $14::text[])
             AS new (id, status, is_parent, attempt, retry_count, outcome, run_at, worker_id, machine_id, enqueued_at,
             started_at, finished_at, result, error)
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
        &col.map(|t| t.result.as_ref().map(Sql)) as &[Option<Sql<&Json>>],
        &col.map(|t| t.error.as_deref()) as &[Option<&str>],
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

/// Writes the leases of running tasks, new or changed.
pub(super) async fn lease(conn: &mut PgConnection, tasks: &[(&Task, Uuid, &Lease)]) -> sqlx::Result<()> {
    let col = Columns(tasks);
    sqlx::query!(
        "INSERT INTO taskwatch.leases (task_id, worker_id, attempt, expires_at, deadline, stalled, progress)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::timestamptz[], $5::timestamptz[], $6::boolean[],
             $7::json[])
         ON CONFLICT (task_id) DO UPDATE
         SET worker_id = excluded.worker_id, attempt = excluded.attempt, expires_at = excluded.expires_at,
             deadline = excluded.deadline, stalled = excluded.stalled, progress = excluded.progress",
        &col.map(|(t, ..)| t.id),
        &col.map(|(_, worker_id, _)| *worker_id),
        &col.map(|(t, ..)| signed(t.attempt)),
        &col.map(|(.., lease)| lease.expires_at),
        &col.map(|(t, ..)| t.deadline()) as &[Option<Time>],
        &col.map(|(.., lease)| lease.stalled),
        &col.map(|(.., lease)| lease.progress.as_ref().map(Sql)) as &[Option<Sql<&Progress>>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn unlease(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    let done = sqlx::query!("DELETE FROM taskwatch.leases WHERE task_id = ANY($1)", ids).execute(conn).await?;
    expect_rows("leases", done.rows_affected(), ids.len())
}

/// The rows are locked, so each must be there; anything else means that someone else writes these tables.
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
