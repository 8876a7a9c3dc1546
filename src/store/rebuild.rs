//! Rebuilds the board at the head of the log: from the newest checkpoint and the events since, or, if retention removed
//! events that no checkpoint covers, from the tables.

use std::{panic::AssertUnwindSafe, sync::Arc};

use sqlx::{Connection, PgConnection, types::Json as Sql};
use uuid::Uuid;

use super::{
    checkpoints::{self, Checkpoint},
    children, log,
    recorded::{PAGE, Recorded, gap},
    values::{name, priority, status, unsigned},
    workers,
};
use crate::{
    board::{
        self, Board, OutOfOrder,
        parents::{Parent, Phase},
        running::RunningTask,
        tables::{Counted, Decided, OpenGroup, Tables},
    },
    event::{Event, Kind, envelope::Epoch},
    model::{Name, Status, report::Progress},
};

/// Events folded into a board that is built from the tables: the newest, for rates, history and recent events. About
/// ten seconds of work.
const FOLDED_EVENTS: i64 = 1_000_000;

/// Why the board cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Any error of the database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A checkpoint cannot be encoded.
    #[error(transparent)]
    Encoding(#[from] serde_json::Error),
}

/// Initial state of a server.
#[derive(Debug)]
pub struct Rebuilt {
    /// The board at the head of the log.
    pub board: Board,
    /// The newest events up to the head, oldest first.
    pub newest: Vec<Recorded>,
    /// Oldest position in the log.
    pub oldest: i64,
}

/// Builds the board at the head of the log, and reads the newest events.
///
/// # Errors
/// Any error of the database; [`RebuildError`] if the board cannot be built.
pub async fn rebuild(conn: &mut PgConnection, epoch: Epoch) -> Result<Rebuilt, RebuildError> {
    let board = board(conn, epoch).await?;
    let oldest = log::ends(&mut *conn).await?.oldest;
    let mut newest = log::page(&mut *conn, epoch, (board.position - PAGE).max(oldest - 1)).await?;
    newest.retain(|recorded| recorded.id.position <= board.position);
    Ok(Rebuilt { board, newest, oldest })
}

async fn board(conn: &mut PgConnection, epoch: Epoch) -> Result<Board, RebuildError> {
    let ends = log::ends(&mut *conn).await?;
    let mut board = checkpoint(conn, ends.head).await?.unwrap_or_default();
    if board.position + 1 < ends.oldest {
        tracing::warn!(
            oldest = ends.oldest,
            "no checkpoint covers the events removed by retention; rebuilding state from the tables"
        );
        board = from_tables(conn, epoch).await?;
        save(conn, &board, epoch).await?;
    }
    board.epoch = epoch;
    let mut saved = board.position;
    while board.position < ends.head {
        // This version has not folded a long log yet: time travel needs checkpoints in between.
        if board.position / checkpoints::SPACING > saved / checkpoints::SPACING {
            save(conn, &board, epoch).await?;
            saved = board.position;
        }
        fold_page(conn, &mut board, ends.head).await?;
    }
    Ok(board)
}

/// Folds the next events, up to `to`. Unreadable events count as well.
async fn fold_page(conn: &mut PgConnection, board: &mut Board, to: i64) -> sqlx::Result<()> {
    let mut page = log::page(&mut *conn, board.epoch, board.position).await?;
    if page.is_empty() {
        page = gap(board.epoch, board.position, to);
    }
    for recorded in page.iter().take_while(|recorded| recorded.id.position <= to) {
        fold(board, &recorded.event).map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
    }
    Ok(())
}

/// Folds one event. If the board panics on it, the event is skipped with an error in the log: it must not stop all
/// readers.
///
/// # Errors
/// The event is not the next one.
pub fn fold(board: &mut Board, event: &Arc<Event>) -> Result<(), OutOfOrder> {
    let folded = std::panic::catch_unwind(AssertUnwindSafe(|| board.apply(event)));
    folded.unwrap_or_else(|_| {
        tracing::error!(position = event.position, "event cannot be applied to the state; skipped");
        board.position = event.position.unwrap_or(board.position);
        Ok(())
    })
}

async fn checkpoint(conn: &mut PgConnection, head: i64) -> sqlx::Result<Option<Board>> {
    let Some(checkpoint) = checkpoints::newest(&mut *conn, board::VERSION, head).await? else { return Ok(None) };
    match serde_json::from_str(&checkpoint.body) {
        Ok(board) => Ok(Some(board)),
        Err(error) => {
            tracing::warn!(%error, position = checkpoint.position, "checkpoint unreadable; rebuilding state from the log");
            Ok(None)
        }
    }
}

async fn save(conn: &mut PgConnection, board: &Board, epoch: Epoch) -> Result<(), RebuildError> {
    let checkpoint = Checkpoint { position: board.position, body: serde_json::to_string(board)? };
    checkpoints::save(conn, &checkpoint, board::VERSION, (epoch, board.ts.unwrap_or_default())).await?;
    Ok(())
}

/// The board from the tables and the newest events, consistent at one position.
async fn from_tables(conn: &mut PgConnection, epoch: Epoch) -> sqlx::Result<Board> {
    // Positions are assigned in the transactions that change the rows, so one snapshot shows both at the same position.
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let ends = log::ends(&mut *tx).await?;
    let from = (ends.oldest - 1).max(ends.head - FOLDED_EVENTS);
    let mut tables = tables(&mut tx).await?;
    let pending = |tables: &Tables| -> u64 {
        tables.tasks.iter().filter(|row| row.status == Status::Pending).map(|row| row.count).sum()
    };
    // Pending tasks before the first folded event, as the start value of the history.
    let now = i64::try_from(pending(&tables)).unwrap_or(i64::MAX);
    let before = now - net_pending(&mut tx, epoch, from, ends.head).await?;
    let mut board = Board { epoch, position: from, ..Board::default() };
    board.tasks.add(Status::Pending, u64::try_from(before).unwrap_or_default());
    while board.position < ends.head {
        fold_page(&mut tx, &mut board, ends.head).await?;
    }
    tables.failures = failures(&mut tx).await?;
    board.take_over(tables);
    tx.rollback().await?;
    Ok(board)
}

/// Net change of the number of pending tasks over a range of events.
async fn net_pending(conn: &mut PgConnection, epoch: Epoch, mut after: i64, to: i64) -> sqlx::Result<i64> {
    let mut net = 0;
    while after < to {
        for recorded in log::page(&mut *conn, epoch, after).await? {
            if let Some((from, to)) = board::moved(&recorded.event) {
                net += i64::from(to == Some(Status::Pending)) - i64::from(from == Some(Status::Pending));
            }
        }
        after += PAGE;
    }
    Ok(net)
}

async fn tables(conn: &mut PgConnection) -> sqlx::Result<Tables> {
    Ok(Tables {
        tasks: counted(&mut *conn).await?,
        queues: queues(&mut *conn).await?,
        workers: workers::all(&mut *conn).await?,
        running: running(&mut *conn).await?,
        parents: parents(&mut *conn).await?,
        phases: phases(&mut *conn).await?,
        failures: Vec::new(),
    })
}

async fn counted(conn: &mut PgConnection) -> sqlx::Result<Vec<Counted>> {
    let rows = sqlx::query!(
        r#"SELECT project_id, queue, status, priority, count(*) AS "count!", min(enqueued_at) AS oldest
           FROM taskwatch.tasks GROUP BY project_id, queue, status, priority"#
    )
    .fetch_all(conn)
    .await?;
    let row = rows.into_iter().map(|row| {
        Ok(Counted {
            project_id: name(&row.project_id)?,
            queue: name(&row.queue)?,
            status: status(&row.status)?,
            priority: priority(row.priority)?,
            count: u64::try_from(row.count).unwrap_or_default(),
            oldest_enqueued_at: row.oldest,
        })
    });
    Ok(readable("tasks of a queue", row))
}

/// The readable rows; others are logged and omitted.
fn readable<T>(what: &str, rows: impl Iterator<Item = sqlx::Result<T>>) -> Vec<T> {
    rows.filter_map(|row| row.inspect_err(|error| tracing::error!(%error, what, "unreadable row")).ok()).collect()
}

async fn queues(conn: &mut PgConnection) -> sqlx::Result<Vec<(Name, Decided)>> {
    let rows = sqlx::query!(
        "SELECT name, paused_at, concurrency_limit, rate_limit, rate_period_seconds FROM taskwatch.queues
         WHERE paused_at IS NOT NULL OR concurrency_limit IS NOT NULL OR rate_limit IS NOT NULL"
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let decided = Decided {
            paused_at: row.paused_at,
            concurrency_limit: row.concurrency_limit.map(unsigned).transpose()?,
            rate_limit: row.rate_limit.map(unsigned).transpose()?,
            rate_period_seconds: row.rate_limit.map(|_| unsigned(row.rate_period_seconds)).transpose()?,
        };
        Ok((name(&row.name)?, decided))
    });
    Ok(readable("a queue", rows))
}

async fn running(conn: &mut PgConnection) -> sqlx::Result<Vec<(Uuid, RunningTask)>> {
    let rows = sqlx::query!(
        r#"SELECT t.id, t.project_id, t.task_type, t.queue, t.title, t.parent_task_id, t.phase, t.worker_id, t.attempt,
               t.started_at, t.created_at, l.progress AS "progress?: Sql<Progress>", coalesce(l.stalled, false) AS "stalled!"
           FROM taskwatch.tasks t LEFT JOIN taskwatch.leases l ON l.task_id = t.id WHERE t.status = 'running'"#
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let progress = row.progress.map(|progress| progress.0);
        let task = RunningTask {
            project_id: name(&row.project_id)?,
            task_type: name(&row.task_type)?,
            queue: name(&row.queue)?,
            title: row.title,
            parent_task_id: row.parent_task_id,
            phase: row.phase.as_deref().map(name).transpose()?,
            worker_id: row.worker_id,
            attempt: unsigned(row.attempt)?,
            started_at: row.started_at.unwrap_or(row.created_at),
            percent: progress.as_ref().and_then(|progress| progress.percent),
            message: progress.as_ref().and_then(|progress| progress.message.clone()),
            counts: progress.and_then(|progress| progress.counts),
            stalled: row.stalled.then(|| "lease expired".to_owned()),
        };
        Ok((row.id, task))
    });
    Ok(readable("a running task", rows))
}

/// Parents shown on the board: unfinished ones with children or with declared phases.
async fn parents(conn: &mut PgConnection) -> sqlx::Result<Vec<(Uuid, Parent)>> {
    let rows = sqlx::query!(
        "SELECT id, project_id, task_type, queue, parent_task_id, title, status, created_at, phases FROM taskwatch.tasks
         WHERE status NOT IN ('completed', 'failed', 'cancelled')
             AND (is_parent OR (cardinality(phases) > 0 AND attempt > 0))"
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let declared = row.phases.iter().map(|text| Ok(Phase::counted(name(text)?, Default::default(), None, None)));
        let parent = Parent {
            project_id: name(&row.project_id)?,
            task_type: name(&row.task_type)?,
            queue: name(&row.queue)?,
            parent_task_id: row.parent_task_id,
            title: row.title,
            status: status(&row.status)?,
            created_at: row.created_at,
            finished_at: None,
            phases: declared.collect::<sqlx::Result<_>>()?,
            finishes: std::collections::VecDeque::new(),
        };
        Ok((row.id, parent))
    });
    Ok(readable("a parent", rows))
}

async fn phases(conn: &mut PgConnection) -> sqlx::Result<Vec<(Uuid, Phase)>> {
    let rows = sqlx::query!(
        "SELECT p.parent_task_id, p.name, p.pending, p.running, p.completed, p.failed, p.cancelled, p.started_at,
             p.completed_at
         FROM taskwatch.phases p JOIN taskwatch.tasks t ON t.id = p.parent_task_id
         WHERE t.status NOT IN ('completed', 'failed', 'cancelled') ORDER BY p.started_at, p.name"
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let counts = children::counts([row.pending, row.running, row.completed, row.failed, row.cancelled]);
        Ok((row.parent_task_id, Phase::counted(name(&row.name)?, counts, row.started_at, row.completed_at)))
    });
    Ok(readable("a phase", rows))
}

/// Failed tasks by project and fingerprint, with the newest of each as its failure event.
async fn failures(conn: &mut PgConnection) -> sqlx::Result<Vec<OpenGroup>> {
    let rows = sqlx::query!(
        r#"SELECT DISTINCT ON (project_id, fingerprint) project_id, fingerprint AS "fingerprint!", id, task_type, queue,
               worker_id, error, coalesce(finished_at, created_at) AS "at!",
               count(*) OVER (PARTITION BY project_id, fingerprint) AS "count!"
           FROM taskwatch.tasks WHERE status = 'failed' AND fingerprint IS NOT NULL
           ORDER BY project_id, fingerprint, finished_at DESC"#
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let mut event = Event::new(Kind::TaskFailed, row.at);
        event.task_id = Some(row.id);
        event.project_id = Some(name(&row.project_id)?);
        event.task_type = Some(name(&row.task_type)?);
        event.queue = Some(name(&row.queue)?);
        event.worker_id = row.worker_id;
        event.error = row.error;
        event.status = Some(Status::Failed);
        let open = u64::try_from(row.count).unwrap_or_default();
        Ok(OpenGroup { fingerprint: name(&row.fingerprint)?, open, newest: event })
    });
    Ok(readable("a kind of failure", rows))
}
