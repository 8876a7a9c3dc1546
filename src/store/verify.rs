//! `taskwatch verify`: walks the log, checks density and order, folds it, and compares the result with the tables.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Store, log};
use crate::{
    board::{Board, moved},
    event::{Event, Kind},
    model::Status,
};

/// Differences written out; more are only counted.
const SHOWN: usize = 50;

/// What was checked, and what did not fit.
#[derive(Debug, Default)]
pub struct Report {
    /// Events walked.
    pub events: u64,
    /// The last position.
    pub head: i64,
    /// Tasks compared.
    pub tasks: u64,
    /// Workers compared.
    pub workers: u64,
    /// Every difference, in words.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log: {} events, positions dense up to {}", self.events, self.head)?;
        writeln!(
            f,
            "tables: {} tasks with their queues and leases, {} workers, the board's counts",
            self.tasks, self.workers
        )?;
        for difference in self.differences.iter().take(SHOWN) {
            writeln!(f, "DIFFERENCE {difference}")?;
        }
        match self.differences.len() {
            0 => write!(f, "clean: the log and the tables agree"),
            count => write!(f, "{count} differences: the log and the tables do not agree"),
        }
    }
}

/// What the log says of a task.
#[derive(Debug, PartialEq, Eq)]
struct Folded {
    status: Status,
    attempt: u32,
    retry_count: u32,
    queue: String,
    priority: u8,
    worker_id: Option<Uuid>,
    is_parent: bool,
}

/// Compares the log with the tables, at one moment, while everyone goes on working.
///
/// # Errors
/// When the database does not answer.
pub async fn verify(store: &Store) -> anyhow::Result<Report> {
    let mut conn = store.connect().await?;
    let mut report = Report::default();
    // One snapshot: positions are given inside the transactions that change the rows, so it is exact.
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let epoch = log::epoch(&mut *tx).await?;
    let ends = log::ends(&mut *tx).await?;
    let mut tasks: HashMap<Uuid, Folded> = HashMap::new();
    let mut board = Board::default();
    let mut position = ends.oldest - 1;
    if position > 0 {
        board.position = position;
    }
    loop {
        let page = log::page(&mut *tx, epoch, position).await?;
        if page.is_empty() {
            break;
        }
        for recorded in page {
            let expected = position + 1;
            if recorded.id.position != expected {
                report.differences.push(format!("the log jumps from {position} to {}", recorded.id.position));
            }
            position = recorded.id.position;
            report.events += 1;
            check_body(&recorded, &mut report);
            fold(&recorded.event, &mut tasks, &mut report);
            if let Err(error) = board.apply(&recorded.event) {
                report.differences.push(format!("the board refuses an event: {error}"));
                board.position = position;
            }
        }
    }
    report.head = position;
    if position != ends.head {
        report.differences.push(format!("the log ends at {}, but only {position} could be reached", ends.head));
    }
    compare_tasks(&mut tx, tasks, &mut report).await?;
    compare_sides(&mut tx, &mut report).await?;
    compare_workers(&mut tx, &board, &mut report).await?;
    compare_board(&mut tx, &board, &mut report).await?;
    tx.rollback().await?;
    Ok(report)
}

fn check_body(recorded: &log::Recorded, report: &mut Report) {
    let id = recorded.id.to_string();
    // An epoch may have changed since; the position may not.
    let same = recorded.event.position == Some(recorded.id.position)
        && recorded.event.event_id.as_ref().is_some_and(|own| own.split('-').nth(1) == id.split('-').nth(1));
    if !same {
        report.differences.push(format!("the event stored at {id} calls itself {:?}", recorded.event.event_id));
    }
}

fn fold(event: &Event, tasks: &mut HashMap<Uuid, Folded>, report: &mut Report) {
    let (Some(id), Some(status)) = (event.task_id, event.status) else { return };
    if let Some((from, _)) = moved(event) {
        let known = tasks.get(&id).map(|task| task.status);
        if from != known {
            let words = |status: Option<Status>| status.map_or("absent", Status::as_str);
            report.differences.push(format!(
                "{} at {} moves task {id} from {}, but it was {}",
                event.event_type,
                event.position.unwrap_or_default(),
                words(from),
                words(known)
            ));
        }
    }
    if event.event_type == Kind::TaskDeleted {
        tasks.remove(&id);
        return;
    }
    let becomes = event.data.changes.as_ref().is_some_and(|changes| changes.contains_key("is_parent"));
    let was_parent = tasks.get(&id).is_some_and(|task| task.is_parent);
    tasks.insert(
        id,
        Folded {
            status,
            attempt: event.attempt.unwrap_or_default(),
            retry_count: event.retry_count.unwrap_or_default(),
            queue: event.queue.as_ref().map(ToString::to_string).unwrap_or_default(),
            priority: event.priority.map(|priority| priority.get()).unwrap_or_default(),
            worker_id: event.worker_id,
            is_parent: was_parent || becomes,
        },
    );
}

async fn compare_tasks(
    conn: &mut PgConnection,
    mut folded: HashMap<Uuid, Folded>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        "SELECT id, status, attempt, retry_count, queue, priority, worker_id, is_parent FROM taskwatch.tasks"
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        report.tasks += 1;
        let table = Folded {
            status: row.status.parse()?,
            attempt: u32::try_from(row.attempt)?,
            retry_count: u32::try_from(row.retry_count)?,
            queue: row.queue,
            priority: u8::try_from(row.priority)?,
            worker_id: row.worker_id,
            is_parent: row.is_parent,
        };
        match folded.remove(&row.id) {
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

/// `ready` holds exactly the pending tasks, `leases` exactly the running ones.
async fn compare_sides(conn: &mut PgConnection, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        r#"SELECT coalesce(t.id, r.task_id) AS "id!" FROM (SELECT * FROM taskwatch.tasks WHERE status = 'pending') t
           FULL JOIN taskwatch.ready r ON r.task_id = t.id
           WHERE t.id IS NULL OR r.task_id IS NULL OR r.queue <> t.queue OR r.priority <> t.priority"#
    )
    .fetch_all(&mut *conn)
    .await?;
    report.differences.extend(rows.iter().map(|row| format!("task {}: pending and claimable do not agree", row.id)));
    let rows = sqlx::query!(
        r#"SELECT coalesce(t.id, l.task_id) AS "id!" FROM (SELECT * FROM taskwatch.tasks WHERE status = 'running') t
           FULL JOIN taskwatch.leases l ON l.task_id = t.id
           WHERE t.id IS NULL OR l.task_id IS NULL OR l.attempt <> t.attempt OR l.worker_id <> t.worker_id"#
    )
    .fetch_all(conn)
    .await?;
    report.differences.extend(rows.iter().map(|row| format!("task {}: running and leased do not agree", row.id)));
    Ok(())
}

async fn compare_workers(conn: &mut PgConnection, board: &Board, report: &mut Report) -> anyhow::Result<()> {
    let rows =
        sqlx::query!(r#"SELECT id, status, connectors AS "connectors: serde_json::Value" FROM taskwatch.workers"#)
            .fetch_all(conn)
            .await?;
    let mut online = 0;
    for row in rows {
        report.workers += 1;
        let Some(seen) = board.workers.0.get(&row.id) else {
            // The board forgets workers that have long gone.
            if !matches!(row.status.as_str(), "stopped" | "lost") {
                report
                    .differences
                    .push(format!("worker {} is {} in the table, the board does not know it", row.id, row.status));
            }
            continue;
        };
        online += usize::from(seen.status.is_online());
        let connectors = serde_json::to_value(&seen.connectors)?;
        if seen.status.as_str() != row.status || row.connectors != connectors {
            report.differences.push(format!(
                "worker {}: the log says {} {connectors}, the table {} {}",
                row.id, seen.status, row.status, row.connectors
            ));
        }
    }
    if online != board.workers.online() {
        report.differences.push("the board has workers online that the table does not have".to_owned());
    }
    Ok(())
}

async fn compare_board(conn: &mut PgConnection, board: &Board, report: &mut Report) -> anyhow::Result<()> {
    let rows = sqlx::query!(
        r#"SELECT queue, status, priority, count(*) AS "count!" FROM taskwatch.tasks GROUP BY queue, status, priority"#
    )
    .fetch_all(conn)
    .await?;
    let mut by_status: BTreeMap<Status, u64> = BTreeMap::new();
    let mut depth: BTreeMap<(String, usize), u64> = BTreeMap::new();
    for row in rows {
        let (status, count): (Status, u64) = (row.status.parse()?, u64::try_from(row.count)?);
        *by_status.entry(status).or_default() += count;
        if status == Status::Pending {
            *depth.entry((row.queue, usize::try_from(row.priority)?)).or_default() += count;
        }
    }
    for status in Status::ALL {
        let (table, shown) = (by_status.get(&status).copied().unwrap_or_default(), board.count(status));
        if table != shown {
            report.differences.push(format!("{status}: the table has {table} tasks, the board shows {shown}"));
        }
    }
    for (name, queue) in &board.queues.0 {
        for (priority, shown) in queue.depth.iter().enumerate() {
            let table = depth.get(&(name.to_string(), priority)).copied().unwrap_or_default();
            if table != *shown {
                report.differences.push(format!(
                    "queue {name}, priority {priority}: the table has {table} waiting, the board shows {shown}"
                ));
            }
        }
    }
    Ok(())
}
