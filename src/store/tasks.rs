//! Reads rows of tasks with their leases; for writing see [`super::save`].

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
};

use futures_util::FutureExt;
use sqlx::{PgConnection, types::Json as Sql};
use uuid::Uuid;

use crate::{
    clock::Time,
    command::nesting::MAX_LEVELS,
    model::{
        Name, Priority, Status, Task,
        dependency::DependencyPolicy,
        lease::{Backoff, Lease},
        observation::Observed,
        report::{Json, Progress},
        status::UnknownStatus,
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
    pub(super) connector_id: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) unique_key: Option<String>,
    pub(super) depends_on: Vec<Uuid>,
    pub(super) on_dependency_failure: String,
    pub(super) has_dependents: bool,
    pub(super) auto_complete: bool,
    pub(super) backoff_initial_seconds: i32,
    pub(super) backoff_max_seconds: i32,
    pub(super) assignee: Option<String>,
    pub(super) collaborators: Vec<String>,
    pub(super) watchers: Vec<String>,
    pub(super) observed: Option<Sql<Box<Observed>>>,
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

/// `SELECT` of [`TaskRow`]s with an expression for the payload (it can be large) and a trailing clause; the only list
/// of columns.
macro_rules! select_tasks {
    ($payload:literal, $tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::store::tasks::TaskRow,
            // Nullability is annotated: sqlx infers it from a plan, which depends on the size of the tables.
            r#"SELECT t.id AS "id!", t.project_id AS "project_id!", t.task_type AS "task_type!", t.queue AS "queue!",
                   t.parent_task_id AS "parent_task_id?", t.phase AS "phase?", t.title AS "title?",
                   t.description AS "description?", t.priority AS "priority!", t.status AS "status!", "#
                + $payload
                + r#" AS "payload: _", t.labels AS "labels: _", t.phases AS "phases!", t.is_parent AS "is_parent!",
                   t.connector_id AS "connector_id?", t.external_id AS "external_id?", t.unique_key AS "unique_key?",
                   t.depends_on AS "depends_on!", t.on_dependency_failure AS "on_dependency_failure!",
                   t.has_dependents AS "has_dependents!", t.auto_complete AS "auto_complete!",
                   t.backoff_initial_seconds AS "backoff_initial_seconds!", t.backoff_max_seconds AS "backoff_max_seconds!",
                   t.assignee AS "assignee?", t.collaborators AS "collaborators!", t.watchers AS "watchers!",
                   t.observed AS "observed: _",
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
            priority: priority(row.priority)?,
            status: status(&row.status)?,
            payload: row.payload.map(|json| json.0),
            labels: row.labels.map(|json| json.0).unwrap_or_default(),
            phases: row.phases.iter().map(|text| name(text)).collect::<sqlx::Result<_>>()?,
            is_parent: row.is_parent,
            max_attempts: unsigned(row.max_attempts)?,
            timeout_seconds: row.timeout_seconds.map(unsigned).transpose()?,
            backoff: Backoff {
                initial_seconds: unsigned(row.backoff_initial_seconds)?,
                max_seconds: unsigned(row.backoff_max_seconds)?,
            },
            unique_key: row.unique_key,
            depends_on: row.depends_on,
            on_dependency_failure: DependencyPolicy::parse(&row.on_dependency_failure)
                .ok_or_else(|| decode("unknown dependency policy"))?,
            has_dependents: row.has_dependents,
            auto_complete: row.auto_complete,
            assignee: row.assignee,
            collaborators: row.collaborators,
            watchers: row.watchers,
            external_id: row.external_id,
            observed: row.observed.map(|json| json.0),
            attempt: unsigned(row.attempt)?,
            retry_count: unsigned(row.retry_count)?,
            outcome: row.outcome.as_deref().and_then(Outcome::parse),
            run_at: row.run_at,
            worker_id: row.worker_id,
            machine_id: optional_name(row.machine_id)?,
            connector_id: optional_name(row.connector_id)?,
            created_at: row.created_at,
            enqueued_at: row.enqueued_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            result: row.result.map(|json| json.0),
            error: row.error,
            lease: row.stalled.map(|stalled| Lease { expires_at: row.expires_at, progress, stalled }),
        })
    }
}

/// Runs a read in which a row may be so damaged that the driver panics (sqlx does on timestamps out of its range,
/// transact-rs/sqlx#2234); the panic becomes a decoding error.
pub(super) async fn readable<T>(read: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    AssertUnwindSafe(read).catch_unwind().await.unwrap_or_else(|_| Err(decode("a value is out of range")))
}

/// Whether a row is damaged, as opposed to a failing database.
pub(super) const fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
}

pub(super) fn decode(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(what.to_owned().into())
}

pub(super) fn name(text: &str) -> sqlx::Result<Name> {
    Name::new(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

pub(super) fn status(text: &str) -> sqlx::Result<Status> {
    text.parse().map_err(|error: UnknownStatus| decode(&error.to_string()))
}

pub(super) fn priority(number: i16) -> sqlx::Result<Priority> {
    Priority::new(number.into()).ok_or_else(|| decode("priority out of range"))
}

fn optional_name(text: Option<String>) -> sqlx::Result<Option<Name>> {
    text.map(|text| name(&text)).transpose()
}

pub(super) fn unsigned(number: i32) -> sqlx::Result<u32> {
    u32::try_from(number).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// A value as JSON text, to be cast to json by the statement.
pub(super) fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own types have string keys only and no failing serializer")
}

/// Our counters are bounded far below `i32::MAX`; Postgres has no unsigned integers.
pub(super) fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Locks tasks in ID order, so that two writers cannot deadlock.
pub(super) async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query_scalar!("SELECT id FROM taskwatch.tasks WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", ids)
        .fetch_all(conn)
        .await?;
    Ok(())
}

/// Unfinished tasks with the given unique keys.
pub(super) async fn with_keys(conn: &mut PgConnection, keys: &[String]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM taskwatch.tasks
         WHERE unique_key = ANY($1) AND status NOT IN ('completed', 'failed', 'cancelled')",
        keys
    )
    .fetch_all(conn)
    .await
}

/// Dependencies of those of the given tasks that are blocked.
pub(super) async fn waited_for(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(r#"SELECT DISTINCT depends_on AS "id!" FROM taskwatch.dependents WHERE task_id = ANY($1)"#, ids)
        .fetch_all(conn)
        .await
}

/// Dependencies of the given tasks.
pub(super) async fn dependencies(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT awaited AS "id!" FROM taskwatch.tasks t, unnest(t.depends_on) AS awaited WHERE t.id = ANY($1)"#,
        ids
    )
    .fetch_all(conn)
    .await
}

/// Ancestors of the given tasks, up to the maximum depth: task to parent.
pub(super) async fn ancestors(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Uuid>> {
    let rows = sqlx::query!(
        r#"WITH RECURSIVE up (id, parent, level) AS (
               SELECT t.id, t.parent_task_id, 1 FROM taskwatch.tasks t
               WHERE t.id = ANY($1) AND t.parent_task_id IS NOT NULL
               UNION
               SELECT t.id, t.parent_task_id, up.level + 1 FROM up JOIN taskwatch.tasks t ON t.id = up.parent
               WHERE t.parent_task_id IS NOT NULL AND up.level < $2
           )
           SELECT id AS "id!", parent AS "parent!" FROM up"#,
        ids,
        MAX_LEVELS + 1
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.parent)).collect())
}

/// Number of levels of tasks below the given tasks; tasks beyond the limit of rows are omitted.
pub(super) async fn levels_below(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, i32>> {
    let rows = sqlx::query!(
        r#"WITH RECURSIVE down (root, id, level) AS (
               SELECT seed, seed, 1 FROM unnest($1::uuid[]) AS seed
               UNION
               SELECT down.root, t.id, down.level + 1 FROM down JOIN taskwatch.tasks t ON t.parent_task_id = down.id
               WHERE t.is_parent AND down.level <= $2
           )
           SELECT root AS "root!", max(level) AS "levels!" FROM (SELECT * FROM down LIMIT 10000) AS walked GROUP BY root"#,
        ids,
        MAX_LEVELS
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.root, row.levels)).collect())
}

/// Those of the given tasks that are not parents yet; their first child changes them.
pub(super) async fn not_yet_parents(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("SELECT id FROM taskwatch.tasks WHERE id = ANY($1) AND NOT is_parent", ids)
        .fetch_all(conn)
        .await
}

/// Loads tasks; with payload if listed in `whole`.
pub(super) async fn load(conn: &mut PgConnection, ids: &[Uuid], whole: &[Uuid]) -> sqlx::Result<Vec<Task>> {
    let rows = select_tasks!("CASE WHEN t.id = ANY($2) THEN t.payload END", "WHERE t.id = ANY($1)", ids, whole)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(Task::try_from).collect()
}
