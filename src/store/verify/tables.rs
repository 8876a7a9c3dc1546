//! Tasks, workers and counts: the tables compared with the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{PgConnection, types::Json as Sql};
use uuid::Uuid;

use super::{Folded, Report};
use crate::{
    board::{Board, counts::StatusCounts, queues::Queues},
    clock::Time,
    model::{
        Name, Status,
        worker::{Connector, ConnectorStatus},
    },
};

type Connectors = BTreeMap<Name, Connector>;

/// The visible fields of connectors.
fn badges(connectors: &Connectors) -> Vec<(&Name, ConnectorStatus, Option<&str>, Time)> {
    connectors.iter().map(|(id, c)| (id, c.status, c.error.as_deref(), c.since)).collect()
}

pub(super) async fn compare_tasks(
    conn: &mut PgConnection,
    mut folded: HashMap<Uuid, Folded>,
    trimmed: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        "SELECT id, status, attempt, retry_count, queue, priority, worker_id, is_parent, parent_task_id, phase,
             project_id
         FROM taskwatch.tasks"
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        report.tasks += 1;
        // The task may have become a parent before the first kept event.
        if let Some(log) = folded.get_mut(&row.id).filter(|_| trimmed) {
            log.is_parent |= row.is_parent;
        }
        let (Ok(status), Ok(priority)) = (row.status.parse(), u8::try_from(row.priority)) else {
            let (status, priority) = (row.status, row.priority);
            report.differences.push(format!("task {}: its row cannot be read: {status}, priority {priority}", row.id));
            folded.remove(&row.id);
            continue;
        };
        let table = Folded {
            status,
            attempt: u32::try_from(row.attempt)?,
            retry_count: u32::try_from(row.retry_count)?,
            queue: row.queue,
            priority,
            worker_id: row.worker_id,
            is_parent: row.is_parent,
            parent_task_id: row.parent_task_id,
            phase: row.phase,
            project_id: row.project_id,
        };
        match folded.remove(&row.id) {
            None if trimmed => {}
            None => report.differences.push(format!("task {} is in the table, the log does not know it", row.id)),
            Some(log) if log != table => {
                report.differences.push(format!("task {}: the log says {log:?}, the table {table:?}", row.id));
            }
            Some(_) => {}
        }
    }
    report.differences.extend(folded.keys().map(|id| format!("task {id} is in the log, the table does not have it")));
    Ok(())
}

/// `ready` contains exactly the pending tasks, `leases` exactly the running ones.
pub(super) async fn compare_sides(conn: &mut PgConnection, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        r#"SELECT coalesce(t.id, r.task_id) AS "id!" FROM (SELECT * FROM taskwatch.tasks WHERE status = 'pending' AND observed IS NULL) t
           FULL JOIN taskwatch.ready r ON r.task_id = t.id
           WHERE t.id IS NULL OR r.task_id IS NULL OR r.queue <> t.queue OR r.priority <> t.priority"#
    )
    .fetch_all(&mut *conn)
    .await?;
    report.differences.extend(rows.iter().map(|row| format!("task {}: pending and claimable do not agree", row.id)));
    let rows = sqlx::query!(
        r#"SELECT coalesce(t.id, l.task_id) AS "id!" FROM (SELECT * FROM taskwatch.tasks WHERE status = 'running') t
           FULL JOIN taskwatch.leases l ON l.task_id = t.id
           WHERE t.id IS NULL OR l.task_id IS NULL OR l.attempt <> t.attempt OR l.worker_id IS DISTINCT FROM t.worker_id
               OR l.queue <> t.queue"#
    )
    .fetch_all(conn)
    .await?;
    report.differences.extend(rows.iter().map(|row| format!("task {}: running and leased do not agree", row.id)));
    Ok(())
}

pub(super) async fn compare_workers(conn: &mut PgConnection, board: &Board, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!(r#"SELECT id, status, connectors AS "connectors: Sql<Connectors>" FROM taskwatch.workers"#)
        .fetch_all(conn)
        .await?;
    let mut online = 0;
    for row in rows {
        report.workers += 1;
        let Some(seen) = board.workers.0.get(&row.id) else {
            // The board drops workers that stopped long ago.
            if !matches!(row.status.as_str(), "stopped" | "lost") {
                report
                    .differences
                    .push(format!("worker {} is {} in the table, the board does not know it", row.id, row.status));
            }
            continue;
        };
        online += usize::from(seen.status.is_online());
        let (shown, stored) = (badges(&seen.connectors), badges(&row.connectors.0));
        if seen.status.as_str() != row.status || shown != stored {
            report.differences.push(format!(
                "worker {}: the log says {} {shown:?}, the table {} {stored:?}",
                row.id, seen.status, row.status
            ));
        }
    }
    if online != board.workers.online() {
        report.differences.push("the board has workers online that the table does not have".to_owned());
    }
    Ok(())
}

/// What tables count of all tasks, or of those of a project.
#[derive(Default)]
struct Counted {
    /// By status.
    tasks: StatusCounts,
    /// Pending tasks by queue and priority.
    depth: BTreeMap<(String, usize), u64>,
}

impl Counted {
    /// Compares with counts of the board; `whose` begins each difference.
    fn compare(&self, whose: &str, tasks: &StatusCounts, queues: &Queues, report: &mut Report) {
        for status in Status::ALL {
            let [table, shown] = [&self.tasks, tasks].map(|counts| counts.get(status));
            if table != shown {
                report
                    .differences
                    .push(format!("{whose}{status}: the table has {table} tasks, the board shows {shown}"));
            }
        }
        for (name, queue) in &queues.0 {
            for (priority, shown) in queue.depth.iter().enumerate() {
                let table = self.depth.get(&(name.to_string(), priority)).copied().unwrap_or_default();
                if table != *shown {
                    report.differences.push(format!(
                        "{whose}queue {name}, priority {priority}: the table has {table} pending, the board shows {shown}"
                    ));
                }
            }
        }
    }
}

/// Counts of the board, and those of each project, against the tasks.
pub(super) async fn compare_board(conn: &mut PgConnection, board: &Board, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        r#"SELECT project_id, queue, status, priority, count(*) AS "count!" FROM taskwatch.tasks
           GROUP BY project_id, queue, status, priority"#
    )
    .fetch_all(conn)
    .await?;
    let mut all = Counted::default();
    let mut projects: BTreeMap<String, Counted> = BTreeMap::new();
    for row in rows {
        // An unreadable row was already reported with its task.
        let (Ok(status), Ok(count)) = (row.status.parse::<Status>(), u64::try_from(row.count)) else { continue };
        let line = (row.queue, usize::try_from(row.priority)?);
        for counted in [&mut all, projects.entry(row.project_id).or_default()] {
            counted.tasks.add(status, count);
            if status == Status::Pending {
                *counted.depth.entry(line.clone()).or_default() += count;
            }
        }
    }
    all.compare("", &board.tasks, &board.queues, report);
    if board.projects.overflowed() {
        return Ok(());
    }
    let shown = board.projects.names().map(ToString::to_string);
    for name in projects.keys().cloned().chain(shown).collect::<BTreeSet<_>>() {
        let project = board.narrowed(&Name::new(&name).into_iter().collect());
        let counted = projects.remove(&name).unwrap_or_default();
        counted.compare(&format!("project {name}, "), &project.tasks, &project.queues, report);
    }
    Ok(())
}

/// Error groups of the board, and those of each project, against the failed tasks. Groups evicted from the board are not
/// reported.
pub(super) async fn compare_failures(
    conn: &mut PgConnection,
    board: &Board,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        r#"SELECT project_id, coalesce(fingerprint, '') AS "fingerprint!", count(*) AS "count!" FROM taskwatch.tasks
           WHERE status = 'failed' GROUP BY project_id, fingerprint"#
    )
    .fetch_all(conn)
    .await?;
    let mut table: HashMap<(Option<String>, String), i64> = HashMap::new();
    for row in rows {
        *table.entry((None, row.fingerprint.clone())).or_default() += row.count;
        table.insert((Some(row.project_id), row.fingerprint), row.count);
    }
    let projects = board.projects.names().filter_map(|name| Some((Some(name.to_string()), board.projects.get(name)?)));
    let shown = projects.map(|(name, project)| (name, &project.failures)).chain([(None, &board.failures)]);
    for (project, failures) in shown {
        for (key, group) in &failures.groups {
            let count = table.get(&(project.clone(), key.to_string())).copied().unwrap_or_default();
            if u64::try_from(count) != Ok(group.open) {
                let (shown, whose) = (group.open, project.as_deref().unwrap_or("all projects"));
                let text =
                    format!("failures {key}, {whose}: the table has {count} failed tasks, the board shows {shown}");
                report.differences.push(text);
            }
        }
    }
    Ok(())
}
