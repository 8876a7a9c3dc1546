//! Descendants of parent tasks, read for decisions on whole families of tasks.

use sqlx::PgPool;
use uuid::Uuid;

use crate::model::phase::Counts;

/// Maximum number of parents of one family that are considered.
pub const MOST_PARENTS: usize = 10_000;

/// The given tasks and their descendants that are parents, nearest first, at most [`MOST_PARENTS`] + 1.
///
/// # Errors
/// Any error of the database.
pub async fn parents(pool: &PgPool, roots: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE down (id) AS (
               SELECT unnest($1::uuid[])
               UNION
               SELECT t.id FROM down JOIN taskwatch.tasks t ON t.parent_task_id = down.id
               WHERE t.is_parent OR t.auto_complete
           )
           SELECT id AS "id!" FROM down LIMIT $2"#,
        roots,
        i64::try_from(MOST_PARENTS).unwrap_or(i64::MAX) + 1
    )
    .fetch_all(pool)
    .await
}

/// Counts of the children of the given parents, by status.
///
/// # Errors
/// Any error of the database.
pub async fn children(pool: &PgPool, parents: &[Uuid]) -> sqlx::Result<Counts> {
    let row = sqlx::query!(
        r#"SELECT coalesce(sum(pending), 0)::bigint AS "pending!", coalesce(sum(running), 0)::bigint AS "running!",
               coalesce(sum(completed), 0)::bigint AS "completed!", coalesce(sum(failed), 0)::bigint AS "failed!",
               coalesce(sum(cancelled), 0)::bigint AS "cancelled!"
           FROM taskwatch.phases WHERE parent_task_id = ANY($1)"#,
        parents
    )
    .fetch_one(pool)
    .await?;
    Ok(super::children::counts([row.pending, row.running, row.completed, row.failed, row.cancelled]))
}
