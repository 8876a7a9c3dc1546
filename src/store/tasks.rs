//! Reads rows of tasks with their leases; for writing see [`super::save`].

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::task_columns::{self, TaskRow};
use crate::{command::nesting::MAX_LEVELS, model::Task};

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
    let rows: Vec<TaskRow> = sqlx::query_as(task_columns::load()).bind(ids).bind(whole).fetch_all(conn).await?;
    rows.into_iter().map(Task::try_from).collect()
}
