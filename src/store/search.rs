//! Task lists and task details. Lists use keyset pagination and are never counted.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use sqlx::{PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{
    task_columns::{Payload, TaskRow, query, select},
    values,
};
use crate::{
    clock::Time,
    event::filter,
    model::{
        Name, Task,
        task_query::{Bound, Condition, LABEL_PREFIX, TaskQuery, json_path, without_exclusion},
    },
};

/// Maximum number of tasks that the search for one page looks at. They are found by an index; whatever an index does not
/// know is compared with these only, so that no filter makes a page slow.
pub const EXAMINED: i64 = 20_000;
/// Number of tasks looked at in the first step of a search; after a quick step the next one looks at twice as many. Tasks
/// that an index finds all over the table cost 15 µs each, and far more if they are not in memory; those that lie together
/// cost 1 µs.
const FIRST_STEP: i64 = 250;
/// A step that took no longer was quick.
const QUICK: Duration = Duration::from_millis(4);
/// The same where each task's payload or result has to be read, which may be a megabyte.
const FIRST_STEP_OF_JSON: i64 = 32;
/// Maximum number of tasks looked at in one step.
const LONGEST_STEP: i64 = 4_000;
/// No further step begins after this time.
const BUDGET: Duration = Duration::from_millis(15);

/// Appends the IDs and creation times of the tasks that match a query, newest first. The only place that translates a
/// [`TaskQuery`] to SQL; the columns are those of the table of filters, the values are arguments.
fn matching(statement: &mut QueryBuilder<Postgres>, query: &TaskQuery, examined: Option<i64>) {
    statement.push("SELECT c.created_at, c.id FROM (");
    found_by_index(statement, query, examined);
    statement.push(") c WHERE c.matches ORDER BY c.created_at DESC, c.id DESC LIMIT ").push_bind(query.limit);
}

/// Appends the tasks that an index finds for a query, newest first, at most `most` of them, each with whether it matches
/// all conditions.
fn found_by_index(statement: &mut QueryBuilder<Postgres>, query: &TaskQuery, most: Option<i64>) {
    // One status is one range of the index; several are merged.
    let statuses = match query.led_statuses() {
        Some(statuses) => statuses.iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let is_union = statuses.len() > 1;
    if is_union {
        statement.push("SELECT * FROM (");
    }
    for (place, status) in statuses.into_iter().enumerate() {
        statement.push(if place > 0 {
            ") UNION ALL ("
        } else if is_union {
            "("
        } else {
            ""
        });
        statement.push("SELECT t.created_at, t.id, true");
        for (name, condition) in query.conditions.iter().filter(|(name, _)| !query.is_led_by(name)) {
            compare(statement, name, condition);
        }
        if let Some(text) = query.text.as_ref().map(|text| text.to_lowercase()) {
            statement.push(" AND (strpos(lower(t.title), ").push_bind(text.clone());
            statement.push(") > 0 OR strpos(lower(t.task_type), ").push_bind(text.clone());
            statement.push(") > 0 OR strpos(lower(left(t.error, 300)), ").push_bind(text);
            statement.push(") > 0)");
        }
        statement.push(" AS matches FROM taskwatch.tasks t WHERE true");
        if let Some(status) = status {
            // A word of ours, and no argument: only so can the planner see that a partial index has these tasks.
            statement.push(" AND t.status = '").push(status.as_str()).push("'");
        }
        for (name, condition) in query.conditions.iter().filter(|(name, _)| query.is_led_by(name) && *name != "status")
        {
            compare(statement, name, condition);
        }
        if let Some((at, id)) = query.before {
            statement.push(" AND (t.created_at, t.id) < (").push_bind(at);
            statement.push(", ").push_bind(id);
            statement.push(")");
        }
        statement.push(" ORDER BY t.created_at DESC, t.id DESC");
        // Without further conditions each of them matches.
        if let Some(most) = most.or((!query.is_compared()).then_some(query.limit)) {
            statement.push(" LIMIT ").push_bind(most);
        }
    }
    if is_union {
        statement.push(")) t ORDER BY t.created_at DESC, t.id DESC");
        if let Some(most) = most {
            statement.push(" LIMIT ").push_bind(most);
        }
    }
}

/// Appends ` AND` and one condition.
fn compare(statement: &mut QueryBuilder<Postgres>, name: &str, condition: &Condition) {
    let (name, is_excluded) = without_exclusion(name);
    statement.push(" AND (");
    if let Some(key) = name.strip_prefix(LABEL_PREFIX) {
        statement.push("(t.labels ->> ").push_bind(key.to_owned()).push(")");
    } else if let Some((column, path)) = json_path(name) {
        statement.push("(t.").push(column).push(" #>> ").push_bind(path).push(")");
    } else if let Some(column) = filter::row(name).and_then(|row| row.column) {
        statement.push("t.").push(column);
    } else {
        // A filter of another version; nothing matches rather than everything.
        statement.push("false)");
        return;
    }
    match condition {
        Condition::Names(names) => any(statement, names.iter().map(Name::to_string).collect::<Vec<_>>()),
        Condition::Ids(ids) => any(statement, ids.iter().copied().collect::<Vec<_>>()),
        Condition::Statuses(all) => any(statement, all.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>()),
        Condition::Texts(texts) => any(statement, texts.iter().cloned().collect::<Vec<_>>()),
        Condition::Prefixes(prefixes) => {
            statement.push(" ^@ ANY(").push_bind(prefixes.iter().cloned().collect::<Vec<_>>()).push(")");
        }
        Condition::Priorities(low, high) => {
            statement.push(" BETWEEN ").push_bind(i16::from(low.get()));
            statement.push(" AND ").push_bind(i16::from(high.get()));
        }
        Condition::Times(range) => {
            // Both ends, as far as there are any.
            let column = filter::row(name).and_then(|row| row.column).unwrap_or("created_at");
            statement.push(" IS NOT NULL");
            for (sign, bound) in [(" >= ", range.from), (" < ", range.until)] {
                let Some(bound) = bound else { continue };
                statement.push(" AND t.").push(column).push(sign);
                match bound {
                    Bound::At(time) => statement.push_bind(time),
                    Bound::FromNow(seconds) => {
                        statement.push("now() + make_interval(secs => ").push_bind(seconds as f64).push(")")
                    }
                };
            }
        }
    }
    statement.push(if is_excluded { ") IS NOT TRUE" } else { ")" });
}

/// Appends ` = ANY($n)`.
fn any<T>(statement: &mut QueryBuilder<Postgres>, values: Vec<T>)
where
    Vec<T>: for<'a> sqlx::Encode<'a, Postgres> + sqlx::Type<Postgres>,
{
    statement.push(" = ANY(").push_bind(values);
    statement.push(")");
}

/// A part of a list.
#[derive(Debug)]
pub struct Found {
    /// The tasks, newest first.
    pub tasks: Vec<Task>,
    /// Where the next part begins: after the last task of this one, or after the last one that was looked at.
    pub next: Option<(Time, Uuid)>,
    /// The search ended before the part was full: creation time of the last task that was looked at.
    pub searched_to: Option<Time>,
}

/// A part of a list, newest first, without payloads. It may have fewer tasks than its limit while there is a next one.
///
/// # Errors
/// As [`tasks`].
pub async fn page(pool: &PgPool, query: &TaskQuery) -> sqlx::Result<Found> {
    let limit = usize::try_from(query.limit).unwrap_or_default();
    let is_of_json = query.conditions.keys().any(|name| json_path(without_exclusion(name).0).is_some());
    let first = if is_of_json { FIRST_STEP_OF_JSON } else { FIRST_STEP };
    let (began, mut step, mut looked) = (Instant::now(), first, 0);
    let mut places: Vec<(Time, Uuid)> = Vec::new();
    let mut rest = TaskQuery { limit: query.limit + 1, ..query.clone() };
    let stopped = loop {
        let step_began = Instant::now();
        let last = looked_at(pool, &rest, step, &mut places).await?;
        looked += step;
        rest.before = last;
        if last.is_none() || places.len() > limit || looked >= EXAMINED || began.elapsed() > BUDGET {
            break last;
        }
        rest.limit = query.limit + 1 - i64::try_from(places.len()).unwrap_or_default();
        let factor = if step_began.elapsed() < QUICK { 2 } else { 1 };
        step = (step * factor).min(LONGEST_STEP).min(EXAMINED - looked);
    };
    let is_full = places.len() > limit;
    places.truncate(limit);
    let next = if is_full { places.last().copied() } else { stopped };
    let mut tasks = some(pool, &places.iter().map(|(_, id)| *id).collect::<Vec<_>>()).await?;
    tasks.sort_by_key(|task| Reverse((task.created_at, task.id)));
    Ok(Found { tasks, next, searched_to: next.filter(|_| !is_full).map(|(at, _)| at) })
}

/// Looks at the next `step` tasks that an index finds, and adds those that match. Returns the last one that was looked at;
/// `None` if there are no more.
async fn looked_at(
    pool: &PgPool,
    query: &TaskQuery,
    step: i64,
    places: &mut Vec<(Time, Uuid)>,
) -> sqlx::Result<Option<(Time, Uuid)>> {
    if !query.is_compared() {
        places.extend(self::places(pool, query).await?);
        return Ok(None);
    }
    let mut statement = QueryBuilder::new("WITH c AS MATERIALIZED (");
    found_by_index(&mut statement, query, Some(step));
    statement.push(") (SELECT created_at, id, true FROM c WHERE matches ORDER BY created_at DESC, id DESC LIMIT ");
    statement.push_bind(query.limit);
    statement.push(") UNION ALL (SELECT created_at, id, false FROM c ORDER BY created_at DESC, id DESC OFFSET ");
    statement.push_bind(step - 1).push(" LIMIT 1)");
    let rows: Vec<(Time, Uuid, bool)> = statement.build_query_as().fetch_all(pool).await?;
    places.extend(rows.iter().filter(|(.., matches)| *matches).map(|(at, id, _)| (*at, *id)));
    Ok(rows.iter().find(|(.., matches)| !matches).map(|(at, id, _)| (*at, *id)))
}

/// Some tasks, newest first, without payloads. Unreadable rows are omitted. Looks at [`EXAMINED`] tasks at most.
///
/// # Errors
/// Any error of the database, including the statement timeout for pages.
pub async fn tasks(pool: &PgPool, query: &TaskQuery) -> sqlx::Result<Vec<Task>> {
    let page = async {
        let mut statement = QueryBuilder::new(select(Payload::Omitted));
        statement.push("WHERE t.id = ANY(ARRAY(SELECT id FROM (");
        matching(&mut statement, query, query.is_compared().then_some(EXAMINED));
        statement.push(") matching)) ORDER BY t.created_at DESC, t.id DESC");
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

/// Creation times and IDs of the tasks that match; like [`tasks`], without the rows, and whatever it has to look at.
///
/// # Errors
/// As [`tasks`].
pub async fn places(pool: &PgPool, query: &TaskQuery) -> sqlx::Result<Vec<(Time, Uuid)>> {
    let mut statement = QueryBuilder::new("");
    matching(&mut statement, query, None);
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

/// The pagination cursor of a place in a list, for [`TaskQuery::before`].
#[must_use]
pub fn cursor((at, id): (Time, Uuid)) -> String {
    format!("{:x}-{}", at.timestamp_micros(), id.simple())
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

    use crate::model::{Priority, Status, task_query::TimeRange};

    /// The statement of a query, and how many values it binds.
    fn searched(query: &TaskQuery) -> (String, usize) {
        let mut statement = QueryBuilder::new("");
        matching(&mut statement, query, query.is_compared().then_some(EXAMINED));
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

    fn all() -> TaskQuery {
        TaskQuery::default()
    }

    #[test]
    fn what_an_index_knows_leads_and_the_rest_is_compared_with_a_bounded_number() {
        let lead = |query: &TaskQuery| {
            let (sql, _) = searched(query);
            let inner = sql.split_once("AS matches FROM taskwatch.tasks t WHERE true").unwrap().1;
            inner.split(") c WHERE c.matches").next().unwrap().to_owned()
        };
        let order = "ORDER BY t.created_at DESC, t.id DESC LIMIT";
        assert_eq!(lead(&all()), format!(" {order} $1"), "all tasks by their index: no more than the page");
        let failed = all().in_status([Status::Failed]);
        assert_eq!(lead(&failed), format!(" AND t.status = 'failed' {order} $1"));
        let of_queue = failed.clone().having("queue", names(&["a"]));
        assert_eq!(lead(&of_queue), format!(" AND t.status = 'failed' {order} $2"));
        let parent = Condition::Ids([Uuid::nil()].into());
        let below = of_queue.having("parent_task_id", parent);
        assert_eq!(lead(&below), format!(" AND (t.parent_task_id = ANY($3)) {order} $4"), "the status is compared");
        let both = searched(&all().in_status([Status::Failed, Status::Running])).0;
        assert!(both.contains("SELECT * FROM ((SELECT") && both.contains(") UNION ALL (SELECT"), "{both}");
        let completed = lead(&all().in_status([Status::Completed]));
        assert_eq!(completed, format!(" {order} $2"), "they are most of all tasks");
    }

    #[test]
    fn each_condition_compares_its_column_with_its_values() {
        let range = TimeRange { from: Some(Bound::FromNow(-60)), until: Some(Bound::At(Time::UNIX_EPOCH)) };
        for (filter, condition, right) in [
            ("queue", names(&["a", "b"]), "(t.queue = ANY($1))"),
            ("-queue", names(&["a"]), "(t.queue = ANY($1)) IS NOT TRUE"),
            ("task_type", Condition::Prefixes(["send".to_owned()].into()), "(t.task_type ^@ ANY($1))"),
            ("status", Condition::Statuses([Status::Completed].into()), "(t.status = ANY($1))"),
            (
                "priority",
                Condition::Priorities(Priority::default(), Priority::default()),
                "(t.priority BETWEEN $1 AND $2)",
            ),
            ("label.team", Condition::Texts(["x".to_owned()].into()), "((t.labels ->> $1) = ANY($2))"),
            ("payload.a.0", Condition::Texts(["x".to_owned()].into()), "((t.payload #>> $1) = ANY($2))"),
            (
                "finished",
                Condition::Times(range),
                "(t.finished_at IS NOT NULL AND t.finished_at >= now() + make_interval(secs => $1) AND t.finished_at < $2)",
            ),
            ("colour", names(&["red"]), "(false)"),
        ] {
            let (sql, _) = searched(&all().having(filter, condition));
            assert!(sql.contains(&format!("t.id, true AND {right} AS matches")), "{sql}");
        }
    }

    #[test]
    fn what_people_type_is_a_value_never_a_part_of_the_statement() {
        let evil = "'; DROP TABLE tasks; --";
        let query = TaskQuery { text: Some(evil.to_owned()), ..all() }
            .having(&format!("label.{evil}"), Condition::Texts([evil.to_owned()].into()))
            .having(&format!("result.{evil}"), Condition::Texts([evil.to_owned()].into()))
            .having("queue", Condition::Names([Name::new(evil).unwrap()].into()))
            .having("task_type", Condition::Prefixes([evil.to_owned()].into()))
            .having("unique_key", Condition::Texts([evil.to_owned()].into()));
        let (sql, values) = searched(&query);
        assert!(!sql.contains("DROP"), "{sql}");
        assert_eq!(
            values,
            1 + 1 + 2 + 2 + 1 + 1 + 3 + 1,
            "label and path with their values, queue, type, three texts, key, bound, limit"
        );
    }

    #[test]
    fn a_page_begins_after_the_last_task_of_the_one_before() {
        let before = Some((Time::UNIX_EPOCH, Uuid::nil()));
        let (sql, values) = searched(&TaskQuery { before, ..all() });
        assert!(sql.contains("WHERE true AND (t.created_at, t.id) < ($1, $2) ORDER BY"), "{sql}");
        assert_eq!(values, 4, "the place, and the limit twice");
    }

    #[test]
    fn every_filter_of_tasks_has_a_column_of_the_table() {
        for row in filter::ROWS {
            let Some(column) = row.column else { continue };
            assert!(select(Payload::Omitted).contains(&format!("t.{column}")), "{}: {column}", row.name);
        }
    }
}
