//! Dependencies, children per phase, queue settings: the tables compared with each other and with the log.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::Report;
use crate::{
    board::Board,
    model::{Status, phase::NO_PHASE},
};

/// `dependents` contains exactly the dependencies of blocked tasks; tasks that block others are marked as such.
pub(super) async fn compare_waits(conn: &mut PgConnection, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        r#"SELECT coalesce(t.id, d.task_id) AS "id!", coalesce(t.awaited, d.depends_on) AS "awaited!"
           FROM (SELECT id, unnest(depends_on) AS awaited FROM taskwatch.tasks WHERE status = 'blocked') t
           FULL JOIN taskwatch.dependents d ON d.task_id = t.id AND d.depends_on = t.awaited
           WHERE t.id IS NULL OR d.task_id IS NULL"#
    )
    .fetch_all(&mut *conn)
    .await?;
    report.differences.extend(
        rows.iter().map(|row| format!("task {}: blocked and waiting for {} do not agree", row.id, row.awaited)),
    );
    let rows = sqlx::query!(
        "SELECT DISTINCT t.id FROM taskwatch.tasks t JOIN taskwatch.dependents d ON d.depends_on = t.id
         WHERE NOT t.has_dependents AND d.task_id NOT IN (SELECT task_id FROM taskwatch.rechecks)"
    )
    .fetch_all(conn)
    .await?;
    report.differences.extend(rows.iter().map(|row| format!("task {} does not know that others wait for it", row.id)));
    Ok(())
}

/// `phases` counts the children; the board shows the same for the parents it contains.
pub(super) async fn compare_phases(conn: &mut PgConnection, board: &Board, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        r#"SELECT coalesce(p.parent_task_id, t.parent_task_id) AS "id!", coalesce(p.name, t.name) AS "name!"
           FROM taskwatch.phases p
           FULL JOIN (SELECT parent_task_id, coalesce(phase, '-') AS name,
                   count(*) FILTER (WHERE status IN ('scheduled', 'blocked', 'pending', 'retrying')) AS pending,
                   count(*) FILTER (WHERE status = 'running') AS running,
                   count(*) FILTER (WHERE status = 'completed') AS completed,
                   count(*) FILTER (WHERE status = 'failed') AS failed,
                   count(*) FILTER (WHERE status = 'cancelled') AS cancelled
               FROM taskwatch.tasks WHERE parent_task_id IS NOT NULL GROUP BY 1, 2) t
               ON t.parent_task_id = p.parent_task_id AND t.name = p.name
           WHERE (coalesce(p.pending, 0), coalesce(p.running, 0), coalesce(p.completed, 0), coalesce(p.failed, 0),
                  coalesce(p.cancelled, 0))
              <> (coalesce(t.pending, 0), coalesce(t.running, 0), coalesce(t.completed, 0), coalesce(t.failed, 0),
                  coalesce(t.cancelled, 0))"#
    )
    .fetch_all(&mut *conn)
    .await?;
    report.differences.extend(
        rows.iter().map(|row| format!("parent {}, phase {}: the children are not those counted", row.id, row.name)),
    );
    let open: Vec<Uuid> = board.parents.open.keys().copied().collect();
    let rows = sqlx::query!(
        r#"SELECT parent_task_id AS "id!", coalesce(phase, '-') AS "name!", status, count(*) AS "count!"
           FROM taskwatch.tasks WHERE parent_task_id = ANY($1) GROUP BY 1, 2, 3"#,
        &open
    )
    .fetch_all(conn)
    .await?;
    let mut tables: BTreeMap<(Uuid, String), crate::model::phase::Counts> = BTreeMap::new();
    for row in rows {
        let status: Status = row.status.parse()?;
        let counts = tables.entry((row.id, row.name)).or_default();
        (0..row.count).for_each(|_| counts.add(status));
    }
    for (id, parent) in &board.parents.open {
        for phase in &parent.phases {
            let name = if phase.name.as_str() == NO_PHASE { NO_PHASE.to_owned() } else { phase.name.to_string() };
            let table = tables.get(&(*id, name)).copied().unwrap_or_default();
            if table != phase.counts {
                report.differences.push(format!(
                    "parent {id}, phase {}: the table has {table:?}, the board shows {:?}",
                    phase.name, phase.counts
                ));
            }
        }
    }
    Ok(())
}

/// The board shows the operators' queue settings.
pub(super) async fn compare_queues(conn: &mut PgConnection, board: &Board, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!("SELECT name, paused_at, concurrency_limit, rate_limit FROM taskwatch.queues")
        .fetch_all(conn)
        .await?;
    for row in rows {
        let shown = board.queues.0.get(row.name.as_str());
        let limit = |limit: Option<i32>| limit.and_then(|limit| u32::try_from(limit).ok());
        let table = (row.paused_at, limit(row.concurrency_limit), limit(row.rate_limit));
        let shown = shown.map_or((None, None, None), |q| (q.paused_at, q.concurrency_limit, q.rate_limit));
        if table != shown {
            report.differences.push(format!("queue {}: the table says {table:?}, the board {shown:?}", row.name));
        }
    }
    Ok(())
}
