//! Task lists and task details. Lists use keyset pagination and are never counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{PgPool, Postgres, QueryBuilder};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{
    Store,
    task_columns::{Payload, TaskRow, query, select},
    values,
};
use crate::{
    clock::Time,
    event::filter,
    model::{
        Name, Task,
        task_query::{Condition, LABEL_PREFIX, TaskQuery},
    },
};

/// Appends the conditions of a query, its order and its limit to a statement that reads tasks as `t`. The only place
/// that translates a [`TaskQuery`] to SQL; the columns are those of the table of filters, the values are arguments.
fn narrow(statement: &mut QueryBuilder<Postgres>, query: &TaskQuery) {
    statement.push("WHERE true");
    for (name, condition) in &query.conditions {
        if let Some(key) = name.strip_prefix(LABEL_PREFIX) {
            statement.push(" AND (t.labels ->> ").push_bind(key.to_owned());
            statement.push(")");
        } else if let Some(column) = filter::row(name).and_then(|row| row.column) {
            statement.push(" AND t.").push(column);
        } else {
            // A filter of another version; nothing matches rather than everything.
            statement.push(" AND false");
            continue;
        }
        match condition {
            Condition::Names(names) => any(statement, names.iter().map(Name::to_string).collect::<Vec<_>>()),
            Condition::Ids(ids) => any(statement, ids.iter().copied().collect::<Vec<_>>()),
            Condition::Statuses(all) => {
                any(statement, all.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>())
            }
            Condition::Texts(texts) => any(statement, texts.iter().cloned().collect::<Vec<_>>()),
            Condition::Priorities(low, high) => {
                statement.push(" BETWEEN ").push_bind(i16::from(low.get()));
                statement.push(" AND ").push_bind(i16::from(high.get()));
            }
        }
    }
    if let Some(text) = query.text.as_ref().map(|text| text.to_lowercase()) {
        statement.push(" AND (strpos(lower(t.title), ").push_bind(text.clone());
        statement.push(") > 0 OR strpos(lower(t.task_type), ").push_bind(text.clone());
        statement.push(") > 0 OR strpos(lower(left(t.error, 300)), ").push_bind(text);
        statement.push(") > 0)");
    }
    if let Some(since) = query.since {
        statement.push(" AND t.created_at >= ").push_bind(since);
    }
    if let Some((at, id)) = query.before {
        statement.push(" AND (t.created_at, t.id) < (").push_bind(at);
        statement.push(", ").push_bind(id);
        statement.push(")");
    }
    statement.push(" ORDER BY t.created_at DESC, t.id DESC LIMIT ").push_bind(query.limit);
}

/// Appends ` = ANY($n)`.
fn any<T>(statement: &mut QueryBuilder<Postgres>, values: Vec<T>)
where
    Vec<T>: for<'a> sqlx::Encode<'a, Postgres> + sqlx::Type<Postgres>,
{
    statement.push(" = ANY(").push_bind(values);
    statement.push(")");
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

/// A page of tasks, newest first, without payloads. Unreadable rows are omitted.
///
/// # Errors
/// Any error of the database, including the statement timeout for pages.
pub async fn tasks(pool: &PgPool, query: &TaskQuery) -> sqlx::Result<Vec<Task>> {
    let page = async {
        let mut statement = QueryBuilder::new(select(Payload::Omitted));
        narrow(&mut statement, query);
        let rows: Vec<TaskRow> = statement.build_query_as().fetch_all(pool).await?;
        rows.into_iter().map(Task::try_from).collect()
    };
    match values::readable(page).await {
        Err(error) if values::is_unreadable(&error) => {}
        page => return page,
    }
    let places = places(pool, query).await?;
    one_by_one(pool, places.into_iter().map(|(_, id)| id).collect()).await
}

/// Tasks read one at a time: unreadable ones are logged and omitted.
async fn one_by_one(pool: &PgPool, ids: Vec<Uuid>) -> sqlx::Result<Vec<Task>> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let row = async {
            let statement = query(Payload::Omitted, "WHERE t.id = $1");
            let row: Option<TaskRow> = sqlx::query_as(statement).bind(id).fetch_optional(pool).await?;
            row.map(Task::try_from).transpose()
        };
        match values::readable(row).await {
            Ok(task) => found.extend(task),
            Err(error) if values::is_unreadable(&error) => {
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
    let mut statement = QueryBuilder::new("SELECT t.created_at, t.id FROM taskwatch.tasks t ");
    narrow(&mut statement, query);
    statement.build_query_as().fetch_all(pool).await
}

/// One task with all fields; `None` if it does not exist.
///
/// # Errors
/// Any error of the database.
pub async fn task(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Task>> {
    values::readable(async {
        let statement = query(Payload::Included, "WHERE t.id = $1");
        let row: Option<TaskRow> = sqlx::query_as(statement).bind(id).fetch_optional(pool).await?;
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
        let statement = query(Payload::Omitted, "WHERE t.id = ANY($1)");
        let rows: Vec<TaskRow> = sqlx::query_as(statement).bind(ids).fetch_all(pool).await?;
        rows.into_iter().map(Task::try_from).collect()
    };
    match values::readable(all).await {
        Err(error) if values::is_unreadable(&error) => one_by_one(pool, ids.to_vec()).await,
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::model::{Priority, Status};

    /// The statement of a query, and how many values it binds.
    fn narrowed(query: &TaskQuery) -> (String, usize) {
        let mut statement = QueryBuilder::new("");
        narrow(&mut statement, query);
        let sql = statement.sql().as_str().to_owned();
        let numbers: BTreeSet<usize> = sql
            .split('$')
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
            .collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len()), "one number for each value: {sql}");
        (sql, numbers.len())
    }

    fn names(names: &[&'static str]) -> Condition {
        Condition::Names(names.iter().map(|name| Name::literal(name)).collect())
    }

    #[test]
    fn a_query_without_conditions_reads_the_newest_tasks() {
        let (sql, values) = narrowed(&TaskQuery { limit: 50, ..TaskQuery::default() });
        assert_eq!((sql.as_str(), values), ("WHERE true ORDER BY t.created_at DESC, t.id DESC LIMIT $1", 1));
    }

    #[test]
    fn each_condition_compares_its_column_with_one_value() {
        for (filter, condition, right, values) in [
            ("queue", names(&["a", "b"]), "t.queue = ANY($1)", 1),
            ("parent_task_id", Condition::Ids([Uuid::nil()].into()), "t.parent_task_id = ANY($1)", 1),
            ("status", Condition::Statuses([Status::Failed].into()), "t.status = ANY($1)", 1),
            (
                "priority",
                Condition::Priorities(Priority::default(), Priority::default()),
                "t.priority BETWEEN $1 AND $2",
                2,
            ),
            ("label.team", Condition::Texts(["x".to_owned()].into()), "(t.labels ->> $1) = ANY($2)", 2),
        ] {
            let (sql, all) = narrowed(&TaskQuery::default().having(filter, condition));
            assert!(sql.starts_with(&format!("WHERE true AND {right} ORDER BY")), "{sql}");
            assert_eq!(all, values + 1, "and the limit");
        }
    }

    #[test]
    fn what_people_type_is_a_value_never_a_part_of_the_statement() {
        let evil = "'; DROP TABLE tasks; --";
        let query = TaskQuery { text: Some(evil.to_owned()), ..TaskQuery::default() }
            .having(&format!("label.{evil}"), Condition::Texts([evil.to_owned()].into()))
            .having("queue", Condition::Names([Name::new(evil).unwrap()].into()));
        let (sql, values) = narrowed(&query);
        assert!(!sql.contains("DROP"), "{sql}");
        assert_eq!(values, 2 + 1 + 3 + 1, "label and value, queue, three texts, limit");
    }

    #[test]
    fn a_filter_that_is_not_known_matches_nothing() {
        let (sql, values) = narrowed(&TaskQuery::default().having("colour", names(&["red"])));
        assert!(sql.starts_with("WHERE true AND false ORDER BY") && values == 1, "{sql}");
    }

    #[test]
    fn a_page_begins_after_the_last_task_of_the_one_before() {
        let before = Some((Time::UNIX_EPOCH, Uuid::nil()));
        let (sql, values) = narrowed(&TaskQuery { before, since: Some(Time::UNIX_EPOCH), ..TaskQuery::default() });
        assert!(sql.contains("AND t.created_at >= $1 AND (t.created_at, t.id) < ($2, $3) ORDER BY"), "{sql}");
        assert_eq!(values, 4);
    }

    #[test]
    fn every_filter_of_tasks_has_a_column_of_the_table() {
        for row in filter::ROWS {
            let Some(column) = row.column else { continue };
            assert!(select(Payload::Omitted).contains(&format!("t.{column}")), "{}: {column}", row.name);
        }
    }
}
