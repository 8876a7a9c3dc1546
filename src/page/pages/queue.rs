//! One queue: status, who paused it and why, backlog by priority, limits, workers.

use askama::Template;
use uuid::Uuid;

use crate::page::{Content, PageError, Params, View, problem_list::ProblemRow, queue_table::QueueRow};
use crate::{
    board::{Board, health::Serving, workers::LastSeen},
    clock::Time,
    feed,
    model::Name,
};

/// Maximum number of workers listed.
const WORKERS: usize = 50;

#[derive(Template)]
#[template(path = "queue.html")]
struct QueuePage {
    queue: QueueRow,
    problems: Vec<ProblemRow>,
    workers: Vec<(Uuid, LastSeen, usize)>,
    more_workers: usize,
    is_past: bool,
}

pub(super) fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing = || PageError::NotFound("Queue not found. A queue exists while it has tasks or settings.".to_owned());
    let name = params.name.as_ref().ok_or_else(missing)?;
    let page = QueuePage::of(&feed::read(&view.board), name, params.at.is_some(), view.now()).ok_or_else(missing)?;
    let title = match page.queue.status {
        "OK" => format!("Queue {name}"),
        status => format!("{status} · Queue {name}"),
    };
    Content::new(title, &page)
}

impl QueuePage {
    fn of(board: &Board, name: &Name, is_past: bool, now: Time) -> Option<Self> {
        let serving = (Serving::taking(board), Serving::online(board));
        let queue = QueueRow::of(&serving, name, board.queues.0.get(name)?, now);
        let serves = |worker: &LastSeen| worker.serves_any() || worker.serves().any(|queue| queue == name);
        let online = board.workers.0.iter().filter(|(_, worker)| worker.status.is_online() && serves(worker));
        let running = |id: Uuid| board.running.of_worker(id).filter(|(_, task)| task.queue == *name).count();
        let mut workers: Vec<_> = online.map(|(id, worker)| (*id, worker.clone(), running(*id))).collect();
        workers.sort_by(|(_, a, _), (_, b, _)| (&a.machine_id, &a.name).cmp(&(&b.machine_id, &b.name)));
        let more_workers = workers.len().saturating_sub(WORKERS);
        workers.truncate(WORKERS);
        let problems = queue.health.reasons.iter().map(ProblemRow::of).collect();
        Some(Self { queue, problems, workers, more_workers, is_past })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::page::golden::{board, check_template, hostile, now};

    #[test]
    fn the_page_of_a_queue_is_as_it_was() {
        let board = board();
        let paused = board.queues.0.iter().find(|(_, queue)| queue.paused_at.is_some()).unwrap().0.clone();
        check_template("queue", &QueuePage::of(&board, &paused, false, now()).unwrap());
        assert!(QueuePage::of(&board, &hostile("unknown"), false, now()).is_none());
    }
}
