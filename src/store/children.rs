//! Counts of child tasks per phase, written in the transaction that changes them.

use sqlx::PgConnection;
use uuid::Uuid;

use super::values::name;
use crate::{
    clock::Time,
    command::children::{ChildCounts, PhaseChange, StoredPhase},
    model::phase::Counts,
};

/// Loads the counts of the given parents.
pub(super) async fn load(conn: &mut PgConnection, parents: &[Uuid], children: &mut ChildCounts) -> sqlx::Result<()> {
    let rows = sqlx::query!(
        "SELECT parent_task_id, name, pending, running, completed, failed, cancelled FROM taskwatch.phases
             WHERE parent_task_id = ANY($1)",
        parents
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let counts = counts([row.pending, row.running, row.completed, row.failed, row.cancelled]);
        children.load(row.parent_task_id, name(&row.name)?, counts);
    }
    Ok(())
}

/// Writes the counts; returns the phases that started or completed. Each transition is returned once: the row records
/// it.
pub(super) async fn save(conn: &mut PgConnection, children: &ChildCounts, now: Time) -> sqlx::Result<Vec<PhaseChange>> {
    let deltas = children.deltas();
    if deltas.is_empty() {
        return Ok(Vec::new());
    }
    let column = |status: usize| deltas.iter().map(|(.., delta)| delta.by_status()[status]).collect::<Vec<_>>();
    let (parents, names): (Vec<_>, Vec<_>) = deltas.iter().map(|(id, name, _)| (**id, name.as_str())).unzip();
    // In key order, so that two writers cannot deadlock.
    let rows = sqlx::query!(
        r#"INSERT INTO taskwatch.phases AS old (parent_task_id, name, pending, running, completed, failed, cancelled)
               SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                   $7::bigint[])
               ON CONFLICT (parent_task_id, name) DO UPDATE
               SET pending = old.pending + excluded.pending, running = old.running + excluded.running,
                   completed = old.completed + excluded.completed, failed = old.failed + excluded.failed,
                   cancelled = old.cancelled + excluded.cancelled
               RETURNING parent_task_id, name, pending, running, completed, failed, cancelled, started_at, completed_at"#,
        &parents,
        &names as &[&str],
        &column(0),
        &column(1),
        &column(2),
        &column(3),
        &column(4),
    )
    .fetch_all(&mut *conn)
    .await?;
    let (mut changes, mut empty) = (Vec::new(), false);
    for row in rows {
        let phase = StoredPhase {
            parent_task_id: row.parent_task_id,
            name: name(&row.name)?,
            counts: counts([row.pending, row.running, row.completed, row.failed, row.cancelled]),
            started_at: row.started_at,
            completed_at: row.completed_at,
        };
        empty |= phase.counts.total() == 0;
        changes.extend(children.phase_change(phase));
    }
    mark(conn, &changes, now).await?;
    if empty {
        forget(conn, &parents, &names).await?;
    }
    Ok(changes)
}

/// Counts from the columns of a row: pending, running, completed, failed, cancelled.
pub(super) fn counts(row: [i64; 5]) -> Counts {
    Counts::from_numbers(row.map(|number| u64::try_from(number).unwrap_or_default()))
}

/// Deletes the rows of phases whose last child was deleted.
async fn forget(conn: &mut PgConnection, parents: &[Uuid], names: &[&str]) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM taskwatch.phases p USING unnest($1::uuid[], $2::text[]) AS left_by (parent_task_id, name)
         WHERE p.parent_task_id = left_by.parent_task_id AND p.name = left_by.name
             AND p.pending + p.running + p.completed + p.failed + p.cancelled = 0",
        parents,
        names as &[&str]
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn mark(conn: &mut PgConnection, changes: &[PhaseChange], now: Time) -> sqlx::Result<()> {
    let marked: Vec<_> = changes.iter().filter(|change| change.starts || change.completes).collect();
    if marked.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE taskwatch.phases p
         SET started_at = CASE WHEN new.starts THEN $5 ELSE p.started_at END,
             completed_at = CASE WHEN new.completes THEN $5 ELSE p.completed_at END
         FROM unnest($1::uuid[], $2::text[], $3::boolean[], $4::boolean[]) AS new (parent_task_id, name, starts, completes)
         WHERE p.parent_task_id = new.parent_task_id AND p.name = new.name",
        &marked.iter().map(|change| change.parent_task_id).collect::<Vec<_>>(),
        &marked.iter().map(|change| change.name.as_str()).collect::<Vec<_>>() as &[&str],
        &marked.iter().map(|change| change.starts).collect::<Vec<_>>(),
        &marked.iter().map(|change| change.completes).collect::<Vec<_>>(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Enqueues parents for re-evaluation whose children started, finished or were reopened.
pub(super) async fn recheck_parents(conn: &mut PgConnection, changes: &[PhaseChange]) -> sqlx::Result<()> {
    let parents: Vec<_> =
        changes.iter().filter(|change| change.concerns_parent).map(|change| change.parent_task_id).collect();
    if parents.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO taskwatch.rechecks (task_id)
         SELECT id FROM taskwatch.tasks WHERE id = ANY($1) AND auto_complete",
        &parents
    )
    .execute(conn)
    .await?;
    Ok(())
}
