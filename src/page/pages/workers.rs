//! Machines, their workers, their connectors.

use std::collections::{BTreeMap, HashMap};

use askama::Template;
use uuid::Uuid;

use crate::page::{Content, PageError, Params, View};
use crate::{
    board::{Board, running::RunningTask, workers::LastSeen},
    feed,
    model::{Name, worker::WorkerStatus},
};

#[derive(Template)]
#[template(path = "workers.html")]
struct Workers {
    machines: BTreeMap<Name, Vec<Row>>,
    /// Number of workers not shown.
    more: usize,
    left: Vec<Row>,
    /// Number of stopped workers not shown.
    more_left: usize,
    online: usize,
    heartbeat_seconds: u32,
    url: String,
}

struct Row {
    id: Uuid,
    seen: LastSeen,
    tasks: Vec<(Uuid, RunningTask)>,
    /// Number of tasks not shown.
    more_tasks: usize,
}

/// Maximum number of workers shown; thousands would make the page useless.
const SHOWN: usize = 200;
/// Maximum number of stopped workers shown.
const LEFT: usize = 100;
/// Maximum number of tasks per worker.
const TASKS: usize = 20;

pub(super) fn render(view: &View, _: &Params) -> Result<Content, PageError> {
    let (present, more, left, more_left, online) = {
        let board = feed::read(&view.board);
        // Stopped workers are listed separately; lost ones stay in the main list.
        let (left, present): (Vec<_>, Vec<_>) =
            board.workers.0.iter().partition(|(_, seen)| seen.status == WorkerStatus::Stopped);
        let more = |all: &[Named<'_>], shown: usize| all.len().saturating_sub(shown);
        let (more, more_left) = (more(&present, SHOWN), more(&left, LEFT));
        (rows(&board, present, SHOWN), more, rows(&board, left, LEFT), more_left, board.workers.online())
    };
    let mut machines: BTreeMap<Name, Vec<Row>> = BTreeMap::new();
    for row in present {
        machines.entry(row.seen.machine_id.clone()).or_default().push(row);
    }
    let (heartbeat_seconds, url) = (view.heartbeat_seconds, view.url.clone());
    let page = Workers { machines, more, left, more_left, online, heartbeat_seconds, url };
    Ok(Content { title: format!("({online} online) Workers"), html: page.render()? })
}

/// A worker of the board with its ID.
type Named<'a> = (&'a Uuid, &'a LastSeen);

/// The first workers, online ones first; the others are not even copied.
fn rows(board: &Board, mut workers: Vec<Named<'_>>, shown: usize) -> Vec<Row> {
    workers.sort_by(|(a_id, a), (b_id, b)| {
        let key = |seen: &LastSeen| !seen.status.is_online();
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name)).then_with(|| a_id.cmp(b_id))
    });
    workers.truncate(shown);
    let mut tasks: HashMap<Uuid, (Vec<(Uuid, RunningTask)>, usize)> =
        workers.iter().map(|(id, _)| (**id, Default::default())).collect();
    for (id, task) in &board.running.0 {
        let Some((shown, more)) = task.worker_id.and_then(|worker| tasks.get_mut(&worker)) else { continue };
        if shown.len() < TASKS {
            shown.push((*id, task.clone()));
        } else {
            *more += 1;
        }
    }
    let row = |(id, seen): Named<'_>| {
        let (tasks, more_tasks) = tasks.remove(id).unwrap_or_default();
        Row { id: *id, seen: seen.clone(), tasks, more_tasks }
    };
    workers.into_iter().map(row).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::page::golden::board;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// A board with workers of these names and statuses, numbered from 1.
    fn with_workers(workers: &[(&'static str, WorkerStatus)]) -> Board {
        let mut board = board();
        let some = board.workers.0.values().next().unwrap().clone();
        let workers = workers.iter().zip(1..).map(|((name, status), number)| {
            (id(number), LastSeen { name: Name::literal(name), status: *status, ..some.clone() })
        });
        board.workers.0 = workers.collect();
        board.running.0.clear();
        board
    }

    fn all(board: &Board) -> Vec<Named<'_>> {
        board.workers.0.iter().collect()
    }

    #[test]
    fn online_workers_come_first_each_group_by_name() {
        use WorkerStatus::{Active, Idle, Lost};
        let board = with_workers(&[("b", Lost), ("c", Idle), ("a", Lost), ("a", Active), ("a", Idle)]);
        let shown: Vec<_> =
            rows(&board, all(&board), 9).into_iter().map(|row| (row.seen.name.to_string(), row.id.as_u128())).collect();
        let expected = [("a", 4), ("a", 5), ("c", 2), ("a", 3), ("b", 1)];
        assert_eq!(shown, expected.map(|(name, number)| (name.to_owned(), number)));
    }

    #[test]
    fn the_online_ones_are_kept_when_there_are_too_many() {
        let board = with_workers(&[("a", WorkerStatus::Lost), ("b", WorkerStatus::Idle), ("c", WorkerStatus::Idle)]);
        let shown: Vec<_> = rows(&board, all(&board), 2).into_iter().map(|row| row.id.as_u128()).collect();
        assert_eq!(shown, [2, 3]);
        assert!(rows(&board, all(&board), 0).is_empty());
    }

    #[test]
    fn twenty_tasks_of_a_worker_are_shown_and_the_others_counted() {
        let mut board = with_workers(&[("a", WorkerStatus::Active), ("b", WorkerStatus::Active)]);
        let some = crate::page::golden::board().running.0.into_values().next().unwrap();
        for number in 0..25 {
            let worker_id = (number < 23).then(|| id(1));
            board.running.0.insert(id(100 + number), RunningTask { worker_id, ..some.clone() });
        }
        let rows = rows(&board, all(&board), 9);
        assert_eq!((rows[0].tasks.len(), rows[0].more_tasks), (20, 3));
        assert_eq!((rows[1].tasks.len(), rows[1].more_tasks), (0, 0));
    }
}
