//! Workers by machine, lost ones first.

use std::collections::{BTreeMap, HashMap};

use askama::Template;
use uuid::Uuid;

use crate::page::{Content, PageError, Params, View};
use crate::{
    board::{Board, ended::Attempts, running::RunningTask, workers::LastSeen},
    feed,
    model::{Name, worker::WorkerStatus},
};

#[derive(Template)]
#[template(path = "workers.html")]
struct Workers {
    machines: Vec<Machine>,
    /// Number of workers not shown.
    more: usize,
    stopped: Vec<Row>,
    /// Number of stopped workers not shown.
    more_stopped: usize,
    online: usize,
    lost: usize,
    heartbeat_seconds: u32,
    url: String,
}

/// The workers of a machine, and their sums.
struct Machine {
    name: Name,
    rows: Vec<Row>,
    running: usize,
    attempts: Attempts,
}

struct Row {
    id: Uuid,
    seen: LastSeen,
    /// Number of tasks that it runs.
    running: usize,
    /// One of them.
    task: Option<(Uuid, RunningTask)>,
    /// Its version is not that of most workers.
    is_other_version: bool,
}

/// Maximum number of workers shown; thousands would make the page useless.
const SHOWN: usize = 200;
/// Maximum number of stopped workers shown.
const STOPPED: usize = 100;

pub(super) fn render(view: &View, _: &Params) -> Result<Content, PageError> {
    let page = Workers::of(&feed::read(&view.board), view.heartbeat_seconds, view.url.clone());
    Content::new(format!("({} online) Workers", page.online), &page)
}

/// A worker of the board with its ID.
type Named<'a> = (&'a Uuid, &'a LastSeen);

impl Workers {
    fn of(board: &Board, heartbeat_seconds: u32, url: String) -> Self {
        // Stopped workers are listed separately; lost ones are what one looks for.
        let (stopped, present): (Vec<_>, Vec<_>) =
            board.workers.0.iter().partition(|(_, seen)| seen.status == WorkerStatus::Stopped);
        let more = |all: &[Named<'_>], shown: usize| all.len().saturating_sub(shown);
        let mut page = Self {
            machines: Vec::new(),
            more: more(&present, SHOWN),
            more_stopped: more(&stopped, STOPPED),
            stopped: rows(board, stopped, STOPPED),
            online: board.workers.online(),
            lost: present.iter().filter(|(_, seen)| seen.status == WorkerStatus::Lost).count(),
            heartbeat_seconds,
            url,
        };
        // In the order of their first workers, so that those with lost ones come first.
        for row in rows(board, present, SHOWN) {
            match page.machines.iter_mut().find(|machine| machine.name == row.seen.machine_id) {
                Some(machine) => machine.add(row),
                None => {
                    let name = row.seen.machine_id.clone();
                    let mut machine = Machine { name, rows: Vec::new(), running: 0, attempts: Attempts::default() };
                    machine.add(row);
                    page.machines.push(machine);
                }
            }
        }
        page
    }
}

impl Machine {
    fn add(&mut self, row: Row) {
        self.running += row.running;
        self.attempts = self.attempts.plus(row.seen.attempts());
        self.rows.push(row);
    }
}

/// The first workers: lost ones, then by machine and name. The others are not even copied.
fn rows(board: &Board, mut workers: Vec<Named<'_>>, shown: usize) -> Vec<Row> {
    let usual = usual_version(&workers).cloned();
    workers.sort_by(|(a_id, a), (b_id, b)| {
        let key = |seen: &LastSeen| seen.status.is_online();
        let place = |seen: &LastSeen| (seen.machine_id.clone(), seen.name.clone());
        key(a).cmp(&key(b)).then_with(|| place(a).cmp(&place(b))).then_with(|| a_id.cmp(b_id))
    });
    workers.truncate(shown);
    let mut tasks: HashMap<Uuid, (usize, Option<(Uuid, RunningTask)>)> =
        workers.iter().map(|(id, _)| (**id, (0, None))).collect();
    for (id, task) in &board.running.0 {
        let Some((running, one)) = task.worker_id.and_then(|worker| tasks.get_mut(&worker)) else { continue };
        *running += 1;
        one.get_or_insert_with(|| (*id, task.clone()));
    }
    let row = |(id, seen): Named<'_>| {
        let (running, task) = tasks.remove(id).unwrap_or_default();
        let is_other_version = seen.version.is_some() && seen.version != usual;
        Row { id: *id, seen: seen.clone(), running, task, is_other_version }
    };
    workers.into_iter().map(row).collect()
}

/// The version of most workers that are online.
fn usual_version<'a>(workers: &[Named<'a>]) -> Option<&'a String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for version in
        workers.iter().filter(|(_, seen)| seen.status.is_online()).filter_map(|(_, seen)| seen.version.as_ref())
    {
        *counts.entry(version).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(version, count)| (*count, *version)).map(|(version, _)| version)
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
    fn lost_workers_come_first_each_group_by_name() {
        use WorkerStatus::{Active, Idle, Lost};
        let board = with_workers(&[("b", Lost), ("c", Idle), ("a", Lost), ("a", Active), ("a", Idle)]);
        let shown: Vec<_> =
            rows(&board, all(&board), 9).into_iter().map(|row| (row.seen.name.to_string(), row.id.as_u128())).collect();
        let expected = [("a", 3), ("b", 1), ("a", 4), ("a", 5), ("c", 2)];
        assert_eq!(shown, expected.map(|(name, number)| (name.to_owned(), number)));
    }

    #[test]
    fn no_more_are_shown_than_can_be_read() {
        let board = with_workers(&[("a", WorkerStatus::Lost), ("b", WorkerStatus::Idle), ("c", WorkerStatus::Idle)]);
        let shown: Vec<_> = rows(&board, all(&board), 2).into_iter().map(|row| row.id.as_u128()).collect();
        assert_eq!(shown, [1, 2]);
        assert!(rows(&board, all(&board), 0).is_empty());
    }

    #[test]
    fn the_tasks_of_a_worker_are_counted_and_those_of_its_machine_added() {
        let mut board = with_workers(&[("a", WorkerStatus::Active), ("b", WorkerStatus::Active)]);
        let some = crate::page::golden::board().running.0.into_values().next().unwrap();
        for number in 0..25 {
            let worker_id = (number < 23).then(|| id(1));
            board.running.0.insert(id(100 + number), RunningTask { worker_id, ..some.clone() });
        }
        let page = Workers::of(&board, 10, String::new());
        let machine = &page.machines[0];
        assert_eq!((page.machines.len(), machine.rows.len(), machine.running), (1, 2, 23));
        assert_eq!(machine.rows[0].task.as_ref().map(|(task, _)| *task), Some(id(100)));
        assert_eq!((machine.rows[1].running, machine.rows[1].task.is_none()), (0, true));
    }

    #[test]
    fn a_version_that_few_have_is_marked() {
        use WorkerStatus::{Idle, Lost};
        let mut board = with_workers(&[("a", Idle), ("b", Idle), ("c", Idle), ("d", Lost), ("e", Lost), ("f", Idle)]);
        for (seen, version) in board.workers.0.values_mut().zip(["1.2", "1.2", "1.1", "1.1", "1.1", ""]) {
            seen.version = (!version.is_empty()).then(|| version.to_owned());
        }
        let other = rows(&board, all(&board), 9).into_iter().filter(|row| row.is_other_version);
        assert_eq!(other.map(|row| row.seen.name.to_string()).collect::<Vec<_>>(), ["d", "e", "c"]);
    }
}
