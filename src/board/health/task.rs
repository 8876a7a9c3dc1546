//! Health of one task: why it makes no progress.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Health, Level, Reason, Serving, of_queue, rules, running_reasons, worker_reasons};
use crate::{
    board::Board,
    clock::Time,
    event::envelope::rfc3339,
    model::{Status, Task},
};

/// Maximum number of dependencies listed in a reason.
const MAX_NAMED: usize = 5;

/// Why one task makes no progress; `open` are its unfinished dependencies.
#[must_use]
pub fn of_task(board: &Board, task: &Task, open: &[Uuid], quiet: TimeDelta, now: Time) -> Health {
    let because =
        |code, text| Health::of(vec![Reason { task_id: Some(task.id), ..Reason::new(code, Level::Ok, text) }]);
    if let Some(found) = board.stuck.iter().find(|stuck| stuck.task_id == task.id && !task.status.is_finished()) {
        return Health::of(rules::stuck_reason(found).into_iter().collect());
    }
    match task.status {
        Status::Blocked if task.auto_complete => {
            because("waits_for_children", "it starts with its first child".to_owned())
        }
        Status::Blocked => {
            let ids: Vec<_> = open.iter().take(MAX_NAMED).map(Uuid::to_string).collect();
            let more = open.len().saturating_sub(ids.len());
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            because("blocked_by", format!("it waits for {}{rest}", ids.join(", ")))
        }
        Status::Scheduled | Status::Retrying => {
            let code = if task.status == Status::Scheduled { "waits_for_time" } else { "waits_to_retry" };
            because(code, format!("it may run at {}", task.run_at.map(rfc3339).unwrap_or_default()))
        }
        Status::Pending => {
            let queue = board.queues.0.get(&task.queue);
            let health = queue.map(|queue| of_queue(&Serving::taking(board), &task.queue, queue, now));
            let in_line = || because("waits_in_line", format!("it waits in queue {} to be claimed", task.queue));
            health.filter(|health| !health.reasons.is_empty()).unwrap_or_else(in_line)
        }
        Status::Running => {
            let worker = task.worker_id.map(|id| worker_reasons(board, id, quiet, now));
            Health::of(worker.unwrap_or_default().into_iter().chain(running_reasons(board, task.id, now)).collect())
        }
        Status::Completed | Status::Failed | Status::Cancelled => Health::of(Vec::new()),
    }
}
