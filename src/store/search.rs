//! Task lists and task details. Lists use keyset pagination and are never counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{PgPool, types::Json as Sql};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{
    Store,
    tasks::{self, TaskRow, select_tasks},
};
use crate::{
    clock::Time,
    model::{Name, Task, task_query::TaskQuery},
};

/// Selects creation time and ID of tasks, with a trailing clause.
macro_rules! select_places {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query!("SELECT t.created_at, t.id FROM taskwatch.tasks t " + $tail $(, $arg)*)
    };
}

/// Selects IDs of tasks, with a trailing clause.
macro_rules! select_ids {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_scalar!("SELECT t.id FROM taskwatch.tasks t " + $tail $(, $arg)*)
    };
}

/// A page of results of a [`TaskQuery`]: the only place that translates its fields to SQL.
macro_rules! narrowed {
    ($select:ident, [$($head:tt)*], $query:ident, $found:ident) => {
        $select!(
            $($head)*
            "WHERE (cardinality($1::text[]) = 0 OR t.status = ANY($1))
               AND (cardinality($2::text[]) = 0 OR t.project_id = ANY($2))
               AND (cardinality($3::text[]) = 0 OR t.queue = ANY($3))
               AND (cardinality($4::text[]) = 0 OR t.task_type = ANY($4))
               AND (cardinality($5::text[]) = 0 OR t.phase = ANY($5))
               AND (cardinality($6::uuid[]) = 0 OR t.parent_task_id = ANY($6))
               AND (cardinality($7::uuid[]) = 0 OR t.worker_id = ANY($7))
               AND t.priority BETWEEN $8 AND $9
               AND ($10::text IS NULL OR strpos(lower(t.title), $10) > 0 OR strpos(lower(t.task_type), $10) > 0
                    OR strpos(lower(left(t.error, 300)), $10) > 0)
               AND (cardinality($14::text[]) = 0 OR t.machine_id = ANY($14))
               AND (cardinality($15::text[]) = 0 OR t.connector_id = ANY($15))
               AND (cardinality($16::text[]) = 0 OR t.fingerprint = ANY($16))
               AND ($17::jsonb IS NULL OR NOT EXISTS (SELECT 1 FROM jsonb_each($17) wanted
                   WHERE NOT coalesce(wanted.value ? (t.labels ->> wanted.key), false)))
               AND ($18::timestamptz IS NULL OR t.created_at >= $18)
               AND ($11::timestamptz IS NULL OR (t.created_at, t.id) < ($11, $12))
             ORDER BY t.created_at DESC, t.id DESC LIMIT $13",
            &$found.statuses as &[&str],
            &$found.projects,
            &$found.queues,
            &$found.task_types,
            &$found.phases,
            &$query.parents,
            &$query.workers,
            i16::from($query.priority_min.unwrap_or(0)),
            i16::from($query.priority_max.unwrap_or(9)),
            $found.text,
            $query.before.map(|(at, _)| at),
            $query.before.map(|(_, id)| id),
            $query.limit,
            &$found.machines,
            &$found.connectors,
            &$found.fingerprints,
            $found.labels as Option<Sql<&BTreeMap<Name, BTreeSet<String>>>>,
            $query.since,
        )
    };
}

/// How long a [`Horizon`] is cached.
const HORIZON_AGE: Duration = Duration::from_secs(60);

/// Creation time of the n-th newest task, looked up once a minute. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Horizon(Arc<Mutex<Option<Looked>>>);

/// When it was looked up, and the result.
type Looked = (Instant, Option<Time>);

impl Horizon {
    /// Approximate creation time of the oldest of the `newest` tasks; `None` if there are no more tasks than that.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn get(&self, store: &Store, newest: i64) -> sqlx::Result<Option<Time>> {
        let mut known = self.0.lock().await;
        if let Some((_, since)) = known.filter(|(read, _)| read.elapsed() < HORIZON_AGE) {
            return Ok(since);
        }
        let since = horizon(store.pool(), newest).await?;
        *known = Some((Instant::now(), since));
        Ok(since)
    }
}

async fn horizon(pool: &PgPool, newest: i64) -> sqlx::Result<Option<Time>> {
    sqlx::query_scalar!(
        "SELECT created_at FROM taskwatch.tasks ORDER BY created_at DESC, id DESC OFFSET $1 LIMIT 1",
        newest
    )
    .fetch_optional(pool)
    .await
}

/// Query parameters as SQL arguments.
struct Narrowed<'a> {
    statuses: Vec<&'a str>,
    projects: Vec<String>,
    queues: Vec<String>,
    task_types: Vec<String>,
    phases: Vec<String>,
    machines: Vec<String>,
    connectors: Vec<String>,
    fingerprints: Vec<String>,
    labels: Option<Sql<&'a BTreeMap<Name, BTreeSet<String>>>>,
    text: Option<String>,
}

impl<'a> Narrowed<'a> {
    fn new(query: &'a TaskQuery) -> Self {
        let names = |list: &[Name]| list.iter().map(ToString::to_string).collect();
        Self {
            statuses: query.statuses.iter().map(|status| status.as_str()).collect(),
            projects: names(&query.projects),
            queues: names(&query.queues),
            task_types: names(&query.task_types),
            phases: names(&query.phases),
            machines: names(&query.machines),
            connectors: names(&query.connectors),
            fingerprints: names(&query.fingerprints),
            labels: (!query.labels.is_empty()).then_some(Sql(&query.labels)),
            text: query.text.as_ref().map(|text| text.to_lowercase()),
        }
    }
}

/// A page of tasks, newest first, without payloads. Unreadable rows are omitted.
///
/// # Errors
/// Any error of the database, including the statement timeout for pages.
pub async fn tasks(pool: &PgPool, query: &TaskQuery) -> sqlx::Result<Vec<Task>> {
    let found = Narrowed::new(query);
    let page = async {
        let rows = narrowed!(select_tasks, ["NULL::json",], query, found).fetch_all(pool).await?;
        rows.into_iter().map(Task::try_from).collect()
    };
    match tasks::readable(page).await {
        Err(error) if tasks::is_unreadable(&error) => {}
        page => return page,
    }
    one_by_one(pool, narrowed!(select_ids, [], query, found).fetch_all(pool).await?).await
}

/// Tasks read one at a time: unreadable ones are logged and omitted.
async fn one_by_one(pool: &PgPool, ids: Vec<Uuid>) -> sqlx::Result<Vec<Task>> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let row = async {
            let row: Option<TaskRow> = select_tasks!("NULL::json", "WHERE t.id = $1", id).fetch_optional(pool).await?;
            row.map(Task::try_from).transpose()
        };
        match tasks::readable(row).await {
            Ok(task) => found.extend(task),
            Err(error) if tasks::is_unreadable(&error) => {
                tracing::error!(task = %id, %error, "unreadable task row; omitted from lists");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Creation times and IDs of the tasks of a page; like [`tasks`], without the rows.
///
/// # Errors
/// As [`tasks`].
pub async fn places(pool: &PgPool, query: &TaskQuery) -> sqlx::Result<Vec<(Time, Uuid)>> {
    let found = Narrowed::new(query);
    let rows = narrowed!(select_places, [], query, found).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| (row.created_at, row.id)).collect())
}

/// One task with all fields; `None` if it does not exist.
///
/// # Errors
/// Any error of the database.
pub async fn task(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Task>> {
    tasks::readable(async {
        let row: Option<TaskRow> = select_tasks!("t.payload", "WHERE t.id = $1", id).fetch_optional(pool).await?;
        row.map(Task::try_from).transpose()
    })
    .await
}

/// Unfinished dependencies of a blocked task.
///
/// # Errors
/// Any error of the database.
pub async fn open_dependencies(pool: &PgPool, id: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT d.depends_on FROM taskwatch.dependents d LEFT JOIN taskwatch.tasks t ON t.id = d.depends_on
         WHERE d.task_id = $1 AND (t.status IS NULL OR t.status <> 'completed') ORDER BY d.depends_on LIMIT 1000",
        id
    )
    .fetch_all(pool)
    .await
}

/// The pagination cursor of a task, for [`TaskQuery::before`].
#[must_use]
pub fn cursor(task: &Task) -> String {
    format!("{:x}-{}", task.created_at.timestamp_micros(), task.id.simple())
}

/// Tasks by ID, without payloads, unordered; deleted ones are omitted.
///
/// # Errors
/// Any error of the database.
pub async fn some(pool: &PgPool, ids: &[Uuid]) -> sqlx::Result<Vec<Task>> {
    let all = async {
        let rows = select_tasks!("NULL::json", "WHERE t.id = ANY($1)", ids).fetch_all(pool).await?;
        rows.into_iter().map(Task::try_from).collect()
    };
    match tasks::readable(all).await {
        Err(error) if tasks::is_unreadable(&error) => one_by_one(pool, ids.to_vec()).await,
        all => all,
    }
}

/// Tasks blocked by a task, up to `limit`.
///
/// # Errors
/// Any error of the database.
pub async fn dependents(pool: &PgPool, id: Uuid, limit: i64) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT task_id FROM taskwatch.dependents WHERE depends_on = $1 ORDER BY task_id LIMIT $2",
        id,
        limit
    )
    .fetch_all(pool)
    .await
}
