//! Builds a board from the tables: for a log whose beginning was removed by retention and that no checkpoint of this
//! version covers. Counts and lists come from the tables; rates, history and recent events from the events that are
//! kept.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Board,
    counts::StatusCounts,
    parents::{Parent, Phase},
    projects::Project,
    queues::Queues,
    running::RunningTask,
    workers::LastSeen,
};
use crate::{
    clock::Time,
    event::Event,
    model::{Name, Priority, Status, phase::Counts, worker::Worker},
};

/// Content of the tables at one position of the log.
#[derive(Debug, Default)]
pub struct Tables {
    /// Counts of tasks.
    pub tasks: Vec<Counted>,
    /// Operator settings of queues.
    pub queues: Vec<(Name, Decided)>,
    /// Every worker.
    pub workers: Vec<Worker>,
    /// Running tasks.
    pub running: Vec<(Uuid, RunningTask)>,
    /// Parents in progress.
    pub parents: Vec<(Uuid, Parent)>,
    /// Counts of their children by phase.
    pub phases: Vec<(Uuid, Phase)>,
    /// Error groups.
    pub failures: Vec<OpenGroup>,
}

/// Failed tasks of a project with the same fingerprint.
#[derive(Debug, Clone)]
pub struct OpenGroup {
    /// The fingerprint.
    pub fingerprint: Name,
    /// Number of failed tasks.
    pub open: u64,
    /// The newest of them as an event.
    pub newest: Event,
}

/// Number of tasks of a project and a queue with a status and a priority.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The project.
    pub project_id: Name,
    /// The queue.
    pub queue: Name,
    /// The status.
    pub status: Status,
    /// The priority.
    pub priority: Priority,
    /// The count.
    pub count: u64,
    /// When the oldest of them was enqueued.
    pub oldest_enqueued_at: Option<Time>,
}

/// Operator settings of a queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decided {
    /// When it was paused; `None` if it is active.
    pub paused_at: Option<Time>,
    /// Concurrency limit: maximum number of running tasks.
    pub concurrency_limit: Option<u32>,
    /// Rate limit: maximum number of tasks started per period.
    pub rate_limit: Option<u32>,
    /// Period of the rate limit, seconds, if one is set.
    pub rate_period_seconds: Option<u32>,
}

impl Board {
    /// Replaces counts and lists by the content of the tables, which must be of the board's position.
    pub fn take_over(&mut self, tables: Tables) {
        let whole = self.whole();
        self.projects.replace(counted(&tables), &whole);
        self.tasks = StatusCounts::default();
        self.queues.clear_tasks();
        tables.tasks.iter().for_each(|row| row.count(&mut self.tasks, &mut self.queues));
        for (name, decided) in tables.queues {
            let queue = self.queues.0.entry(name).or_default();
            queue.paused_at = decided.paused_at;
            queue.concurrency_limit = decided.concurrency_limit;
            queue.rate_limit = decided.rate_limit;
            queue.rate_period_seconds = decided.rate_period_seconds;
        }
        let folded = std::mem::take(&mut self.workers.0);
        let ts = self.ts.unwrap_or_default();
        self.workers.0 =
            tables.workers.into_iter().map(|worker| (worker.id, LastSeen::of(worker, &folded, ts))).collect();
        self.workers.forget_long_gone();
        self.running.0 = tables.running.into_iter().collect();
        self.take_parents(tables.parents, tables.phases);
        for group in self.failures.groups.values_mut() {
            group.open = 0;
        }
        let mut sums: BTreeMap<Name, (u64, Event)> = BTreeMap::new();
        for group in tables.failures {
            let (open, newest) = sums.entry(group.fingerprint).or_insert_with(|| (0, group.newest.clone()));
            *open += group.open;
            if group.newest.ts > newest.ts {
                *newest = group.newest;
            }
        }
        for (fingerprint, (open, newest)) in sums {
            self.failures.set_open(fingerprint, open, &newest);
        }
    }

    /// Takes parents in progress from the table, and the finish times of their children from the folded board.
    fn take_parents(&mut self, parents: Vec<(Uuid, Parent)>, phases: Vec<(Uuid, Phase)>) {
        let mut folded = std::mem::take(&mut self.parents.open);
        let mut counted: BTreeMap<Uuid, Vec<Phase>> = BTreeMap::new();
        for (id, phase) in phases {
            counted.entry(id).or_default().push(phase);
        }
        for (id, mut parent) in parents {
            if let Some(folded) = folded.remove(&id) {
                parent.finishes = folded.finishes;
            }
            for phase in counted.remove(&id).into_iter().flatten() {
                let name = phase.name.clone();
                *parent.phase(&name) = phase;
            }
            self.parents.open.insert(id, parent);
        }
    }
}

/// What the tables count of each project.
fn counted(tables: &Tables) -> BTreeMap<Name, Project> {
    let mut projects: BTreeMap<Name, Project> = BTreeMap::new();
    for row in &tables.tasks {
        let project = projects.entry(row.project_id.clone()).or_default();
        row.count(&mut project.tasks, &mut project.queues);
    }
    for group in &tables.failures {
        if let Some(project) = group.newest.project_id.as_ref().and_then(|name| projects.get_mut(name)) {
            project.failures.set_open(group.fingerprint.clone(), group.open, &group.newest);
        }
    }
    projects
}

impl Counted {
    fn count(&self, tasks: &mut StatusCounts, queues: &mut Queues) {
        tasks.add(self.status, self.count);
        let queue = queues.0.entry(self.queue.clone()).or_default();
        queue.tasks.add(self.status, self.count);
        if self.status == Status::Pending {
            queue.depth[usize::from(self.priority.get())] += self.count;
            queue.waiting_since = self.oldest_enqueued_at.into_iter().chain(queue.waiting_since).min();
        }
    }
}

impl Phase {
    /// A phase from the counts of a row.
    #[must_use]
    pub const fn counted(name: Name, counts: Counts, started_at: Option<Time>, completed_at: Option<Time>) -> Self {
        Self { name, counts, started_at, completed_at }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::board::samples::{at, folded};
    use crate::event::Kind;

    fn counted(status: Status, priority: i64, count: u64) -> Counted {
        let (queue, priority) = (Name::literal("mails"), Priority::new(priority).unwrap());
        let oldest_enqueued_at = (status == Status::Pending).then_some(Time::UNIX_EPOCH);
        Counted { project_id: Name::literal("default"), queue, status, priority, count, oldest_enqueued_at }
    }

    #[test]
    fn counts_come_from_the_tables_whatever_was_folded() {
        let mut board = Board::default();
        board.tasks.add(Status::Running, 7);
        board.queues.0.entry(Name::literal("gone")).or_default().depth[3] = 4;
        let tasks =
            vec![counted(Status::Pending, 5, 3), counted(Status::Pending, 9, 1), counted(Status::Completed, 5, 2)];
        board.take_over(Tables { tasks, ..Tables::default() });
        assert_eq!((board.count(Status::Pending), board.count(Status::Running)), (4, 0));
        let queue = &board.queues.0[&Name::literal("mails")];
        assert_eq!((queue.waiting(), queue.depth[9], queue.waiting_since), (4, 1, Some(Time::UNIX_EPOCH)));
        assert_eq!(board.queues.0[&Name::literal("gone")].waiting(), 0);
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn event(kind: Kind, task: u128, from: Option<Status>, to: Option<Status>) -> Event {
        let mut event = Event::new(kind, at(0));
        (event.task_id, event.queue) = (Some(id(task)), Some(Name::literal("mails")));
        (event.task_type, event.priority) = (Some(Name::literal("mail")), Priority::new(5));
        (event.old_status, event.status) = (from, to);
        event
    }

    /// What the tables hold of a board: its counts, queues, running tasks and parents.
    fn tables_of(board: &Board) -> Tables {
        let mut tables = Tables::default();
        for (name, queue) in &board.queues.0 {
            let decided = Decided {
                paused_at: queue.paused_at,
                concurrency_limit: queue.concurrency_limit,
                rate_limit: queue.rate_limit,
                rate_period_seconds: queue.rate_period_seconds,
            };
            tables.queues.push((name.clone(), decided));
            let other = queue.tasks.iter().filter(|(status, _)| *status != Status::Pending);
            let other = other.map(|(status, count)| (status, 0, count));
            let pending = (0_i64..).zip(queue.depth).map(|(priority, count)| (Status::Pending, priority, count));
            for (status, priority, count) in other.chain(pending).filter(|(_, _, count)| *count > 0) {
                let (queue, oldest_enqueued_at) = (name.clone(), queue.waiting_since);
                let priority = Priority::new(priority).unwrap();
                let project_id = Name::literal("default");
                tables.tasks.push(Counted { project_id, queue, status, priority, count, oldest_enqueued_at });
            }
        }
        tables.running = board.running.0.iter().map(|(id, task)| (*id, task.clone())).collect();
        for (id, parent) in &board.parents.open {
            tables.phases.extend(parent.phases.iter().map(|phase| (*id, phase.clone())));
            let blank = |phase: &Phase| Phase::counted(phase.name.clone(), Counts::default(), None, None);
            let phases = parent.phases.iter().map(blank).collect();
            tables.parents.push((*id, Parent { phases, finishes: Default::default(), ..parent.clone() }));
        }
        let open = board.failures.groups.iter().filter(|(_, group)| group.open > 0);
        let newest = event(Kind::TaskFailed, 1, Some(Status::Running), Some(Status::Failed));
        tables.failures = open
            .map(|(key, group)| OpenGroup { fingerprint: key.clone(), open: group.open, newest: newest.clone() })
            .collect();
        tables
    }

    const PENDING: Option<Status> = Some(Status::Pending);
    const RUNNING: Option<Status> = Some(Status::Running);
    const FAILED: Option<Status> = Some(Status::Failed);

    /// Two tasks fail, one of them with children; one runs; two wait; a queue is limited.
    fn story() -> Vec<Event> {
        let mut events: Vec<_> = (1..=5).map(|task| event(Kind::TaskCreated, task, None, PENDING)).collect();
        for task in 1..=3 {
            let mut started = event(Kind::TaskStarted, task, PENDING, RUNNING);
            started.data.phases = (task == 3).then(|| vec![Name::literal("load")]);
            events.push(started);
        }
        for task in 1..=2 {
            events
                .push(Event { error: Some("disk full".to_owned()), ..event(Kind::TaskFailed, task, RUNNING, FAILED) });
        }
        let mut child = event(Kind::TaskCreated, 9, None, PENDING);
        (child.parent_task_id, child.phase) = (Some(id(3)), Some(Name::literal("load")));
        events.push(child);
        let mut limit = event(Kind::OperatorAction, 0, None, None);
        limit.task_id = None;
        limit.data.changes = Some([("rate_limit".to_owned(), [serde_json::Value::Null, 9.into()])].into());
        events.push(limit);
        events
    }

    #[test]
    fn a_board_from_the_tables_equals_the_board_of_the_events() {
        let board = folded(story());
        let mut rebuilt = board.clone();
        rebuilt.take_over(tables_of(&board));
        assert_eq!(rebuilt.tasks, board.tasks);
        assert_eq!(rebuilt.queues, board.queues);
        assert_eq!(rebuilt.running, board.running);
        assert_eq!(rebuilt.parents, board.parents);
        assert_eq!(rebuilt.failures, board.failures);
    }

    #[test]
    fn a_board_without_events_gets_the_same_counts() {
        let board = folded(story());
        let mut rebuilt = Board { position: board.position, ts: board.ts, ..Board::default() };
        rebuilt.take_over(tables_of(&board));
        let open = |board: &Board| board.failures.open().iter().map(|(_, group)| group.open).collect::<Vec<_>>();
        assert_eq!((&rebuilt.tasks, open(&rebuilt)), (&board.tasks, open(&board)));
        assert_eq!((&rebuilt.running, &rebuilt.parents), (&board.running, &board.parents));
        let depth = |board: &Board| board.queues.0["mails"].depth;
        assert_eq!(depth(&rebuilt), depth(&board));
        assert_eq!(rebuilt.queues.0["mails"].rate_limit, Some(9));
    }

    #[test]
    fn the_oldest_of_all_priorities_begins_the_backlog() {
        let mut board = Board::default();
        let mut tasks = vec![counted(Status::Pending, 5, 1), counted(Status::Pending, 9, 1)];
        (tasks[0].oldest_enqueued_at, tasks[1].oldest_enqueued_at) = (Some(at(9)), Some(at(3)));
        tasks.push(Counted { oldest_enqueued_at: Some(at(-99)), ..counted(Status::Completed, 5, 1) });
        board.take_over(Tables { tasks, ..Tables::default() });
        assert_eq!(board.queues.0["mails"].waiting_since, Some(at(3)), "finished tasks wait for nothing");
    }

    #[test]
    fn what_the_tables_do_not_have_is_gone() {
        let mut board = folded(story());
        board.take_over(Tables::default());
        assert!(board.running.0.is_empty() && board.parents.open.is_empty() && board.workers.0.is_empty());
        assert!(board.tasks.is_zero() && board.failures.open().is_empty());
        let group = board.failures.groups.values().next().unwrap();
        assert_eq!((group.open, group.failed), (0, 2), "the group itself is still known");
    }

    #[test]
    fn the_pace_of_a_parent_comes_from_the_events() {
        let mut board = folded(story());
        let finish =
            Event { parent_task_id: Some(id(3)), ..event(Kind::TaskCompleted, 9, RUNNING, Some(Status::Completed)) };
        board.parents.apply(&finish);
        let tables = tables_of(&board);
        assert!(tables.parents[0].1.finishes.is_empty());
        board.take_over(tables);
        assert_eq!(board.parents.open[&id(3)].finishes, [at(0)]);
    }

    #[test]
    fn phases_of_a_parent_that_is_gone_are_left_out() {
        let phase = Phase::counted(Name::literal("load"), Counts::default(), None, None);
        let mut board = Board::default();
        board.take_over(Tables { phases: vec![(id(1), phase)], ..Tables::default() });
        assert!(board.parents.open.is_empty());
    }
}
