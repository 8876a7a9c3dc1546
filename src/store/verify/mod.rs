//! `taskwatch verify`: replays the log, checks density and order, and compares the folded state with the tables.

mod relations;
mod tables;

use std::{collections::HashMap, fmt};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Store, checkpoints, log,
    recorded::{Recorded, gap},
};
use crate::{
    board::{self, Board, moved},
    event::{Event, Kind},
    model::Status,
};

/// Maximum number of differences listed; more are only counted.
const SHOWN: usize = 50;

/// What was checked, and the differences.
#[derive(Debug, Default)]
pub struct Report {
    /// Events replayed.
    pub events: u64,
    /// Head of the log.
    pub head: i64,
    /// Tasks compared.
    pub tasks: u64,
    /// Workers compared.
    pub workers: u64,
    /// Differences, as text.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log: {} events, positions dense up to {}", self.events, self.head)?;
        writeln!(
            f,
            "tables: {} tasks with their queues, leases, dependencies and phases, {} workers, the board's counts",
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

/// State of a task according to the log.
#[derive(Debug, PartialEq, Eq)]
struct Folded {
    status: Status,
    attempt: u32,
    retry_count: u32,
    queue: String,
    priority: u8,
    worker_id: Option<Uuid>,
    is_parent: bool,
    parent_task_id: Option<Uuid>,
    phase: Option<String>,
    project_id: String,
}

/// Compares the log with the tables in one snapshot, while the system keeps running.
///
/// # Errors
/// Any error of the database.
pub async fn verify(store: &Store) -> anyhow::Result<Report> {
    let mut conn = store.connect().await?;
    let mut report = Report::default();
    // One snapshot: positions are assigned in the transactions that change the rows, so the comparison is exact.
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let epoch = log::epoch(&mut *tx).await?;
    let ends = log::ends(&mut *tx).await?;
    let mut tasks: HashMap<Uuid, Folded> = HashMap::new();
    // If retention removed the beginning of the log, the board continues from a checkpoint of that time.
    let trimmed = ends.oldest > 1;
    let mut board = if trimmed { base(&mut tx, ends, &mut report).await? } else { Board::default() };
    let mut position = ends.oldest - 1;
    let mut stands = board.position == position;
    while position < ends.head {
        let mut page = log::page(&mut *tx, epoch, position).await?;
        if page.is_empty() {
            page = gap(epoch, position, ends.head);
        }
        for recorded in page {
            position = recorded.id.position;
            report.events += 1;
            if recorded.intact {
                check_body(&recorded, &mut report);
            } else {
                report.differences.push(format!("the event at {} is missing or cannot be read", recorded.id));
            }
            fold(&recorded.event, &mut tasks, trimmed, &mut report);
            if stands && let Err(error) = board.apply(&recorded.event) {
                report.differences.push(format!("the board refuses an event: {error}"));
                board.position = position;
            }
            stands |= board.position == position;
        }
    }
    report.head = position;
    tables::compare_tasks(&mut tx, tasks, trimmed, &mut report).await?;
    tables::compare_sides(&mut tx, &mut report).await?;
    tables::compare_workers(&mut tx, &board, &mut report).await?;
    tables::compare_board(&mut tx, &board, &mut report).await?;
    if !trimmed && !board.failures.overflowed {
        tables::compare_failures(&mut tx, &board, &mut report).await?;
    }
    relations::compare_waits(&mut tx, &mut report).await?;
    relations::compare_phases(&mut tx, &board, &mut report).await?;
    relations::compare_queues(&mut tx, &board, &mut report).await?;
    tx.rollback().await?;
    Ok(report)
}

/// The oldest checkpoint from which the rest of the log can be folded.
async fn base(tx: &mut PgConnection, ends: log::Ends, report: &mut Report) -> anyhow::Result<Board> {
    let found = checkpoints::oldest_since(tx, board::VERSION, ends.oldest - 1).await?;
    let read = found.and_then(|checkpoint| serde_json::from_str(&checkpoint.body).ok());
    if read.is_none() {
        report.differences.push(format!("no checkpoint of the board covers what is missing below {}", ends.oldest));
    }
    Ok(read.unwrap_or_default())
}

fn check_body(recorded: &Recorded, report: &mut Report) {
    let id = recorded.id.to_string();
    // The epoch may have changed since; the position must match.
    let same = recorded.event.position == Some(recorded.id.position)
        && recorded.event.event_id.as_ref().is_some_and(|own| own.split('-').nth(1) == id.split('-').nth(1));
    if !same {
        report.differences.push(format!("the event stored at {id} calls itself {:?}", recorded.event.event_id));
    }
}

fn fold(event: &Event, tasks: &mut HashMap<Uuid, Folded>, trimmed: bool, report: &mut Report) {
    let (Some(id), Some(status)) = (event.task_id, event.status) else { return };
    if let Some((from, _)) = moved(event) {
        let known = tasks.get(&id).map(|task| task.status);
        // The status before the first kept event is unknown.
        let told = known.is_some() || !trimmed;
        if from != known && told {
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
            parent_task_id: event.parent_task_id,
            phase: event.phase.as_ref().map(ToString::to_string),
            project_id: event.project_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        },
    );
}
