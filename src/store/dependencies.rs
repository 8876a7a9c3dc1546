//! Dependencies between tasks, and tasks to re-evaluate.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool, types::Json as Sql};
use uuid::Uuid;

use crate::model::Task;

/// Maximum number of tasks re-evaluated per command.
const LIMIT: i64 = 500;

/// Maximum number of dependencies followed when looking for a cycle.
const MOST_WAITERS: i32 = 10_000;

/// Tasks blocked by the given tasks, directly or transitively: task to the tasks that it blocks. `None` if there are
/// too many.
pub(super) async fn waiters(conn: &mut PgConnection, seeds: &[Uuid]) -> sqlx::Result<Option<HashMap<Uuid, Vec<Uuid>>>> {
    let rows = sqlx::query!(
        r#"SELECT awaited AS "awaited!", waiter AS "waiter!" FROM taskwatch.waiters($1, $2)"#,
        seeds,
        MOST_WAITERS + 1
    )
    .fetch_all(conn)
    .await?;
    if i32::try_from(rows.len()).is_ok_and(|found| found > MOST_WAITERS) {
        return Ok(None);
    }
    let mut waiters: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        waiters.entry(row.awaited).or_default().push(row.waiter);
    }
    Ok(Some(waiters))
}

/// Tasks to re-evaluate, oldest first: row number and task.
///
/// # Errors
/// Any error of the database.
pub async fn rechecks(pool: &PgPool) -> sqlx::Result<Vec<(i64, Uuid)>> {
    let rows = sqlx::query!("SELECT number, task_id FROM taskwatch.rechecks ORDER BY number LIMIT $1", LIMIT)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|row| (row.number, row.task_id)).collect())
}

/// Deletes re-evaluation requests that were handled.
pub(super) async fn rechecked(conn: &mut PgConnection, numbers: &[i64]) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM taskwatch.rechecks WHERE number = ANY($1)", numbers).execute(conn).await?;
    Ok(())
}

/// Inserts the dependencies of blocked tasks.
pub(super) async fn wait(conn: &mut PgConnection, tasks: &[&Task]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.dependents (depends_on, task_id)
         SELECT depends_on::uuid, task_id
         FROM unnest($1::uuid[], $2::json[]) AS waiting (task_id, all_of),
             LATERAL json_array_elements_text(all_of) AS depends_on
         ON CONFLICT DO NOTHING",
        &tasks.iter().map(|task| task.id).collect::<Vec<_>>(),
        &tasks.iter().map(|task| Sql(&task.depends_on)).collect::<Vec<_>>() as &[Sql<&Vec<Uuid>>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the dependencies of tasks that are no longer blocked.
pub(super) async fn unblock(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM taskwatch.dependents WHERE task_id = ANY($1)", ids).execute(conn).await?;
    Ok(())
}

/// Requests re-evaluation of the tasks blocked by these.
pub(super) async fn request_reevaluation(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.rechecks (task_id)
         SELECT DISTINCT task_id FROM taskwatch.dependents WHERE depends_on = ANY($1)",
        ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Requests re-evaluation of observed children of these tasks, which may inherit another project.
pub(super) async fn inherit_project(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO taskwatch.rechecks (task_id)
         SELECT child.id FROM taskwatch.tasks child JOIN taskwatch.tasks parent ON parent.id = child.parent_task_id
         WHERE child.parent_task_id = ANY($1) AND child.observed IS NOT NULL AND child.project_id <> parent.project_id",
        ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Serialises batches that ingest reports or change dependencies: their rules read tasks that they cannot lock, because
/// these may not exist yet.
pub(super) async fn lock_graph(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(5180124417830623921) AS locked").fetch_one(conn).await?;
    Ok(())
}
