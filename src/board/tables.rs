//! Builds a board from the tables: for a log whose beginning was removed by retention and that no checkpoint of this
//! version covers. Counts and lists come from the tables; rates, history and recent events from the events that are
//! kept.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Board,
    parents::{Parent, Phase},
    queues::Queue,
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
    /// Error groups: fingerprint, number of failed tasks, and the newest of them as an event.
    pub failures: Vec<(Name, u64, Event)>,
}

/// Number of tasks of a queue with a status and a priority.
#[derive(Debug, Clone)]
pub struct Counted {
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
        self.count_tasks(&tables.tasks);
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
        for (fingerprint, open, newest) in tables.failures {
            self.failures.set_open(fingerprint, open, &newest);
        }
    }

    fn count_tasks(&mut self, counted: &[Counted]) {
        self.tasks.clear();
        for queue in self.queues.0.values_mut() {
            queue.tasks.clear();
            queue.depth = [0; 10];
            queue.waiting_since = None;
        }
        for row in counted {
            *self.tasks.entry(row.status).or_default() += row.count;
            let queue: &mut Queue = self.queues.0.entry(row.queue.clone()).or_default();
            *queue.tasks.entry(row.status).or_default() += row.count;
            if row.status == Status::Pending {
                queue.depth[usize::from(row.priority.get())] += row.count;
                let oldest = row.oldest_enqueued_at.into_iter().chain(queue.waiting_since).min();
                queue.waiting_since = oldest;
            }
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

    fn counted(status: Status, priority: i64, count: u64) -> Counted {
        let (queue, priority) = (Name::literal("mails"), Priority::new(priority).unwrap());
        let oldest_enqueued_at = (status == Status::Pending).then_some(Time::UNIX_EPOCH);
        Counted { queue, status, priority, count, oldest_enqueued_at }
    }

    #[test]
    fn counts_come_from_the_tables_whatever_was_folded() {
        let mut board = Board::default();
        board.tasks.insert(Status::Running, 7);
        board.queues.0.entry(Name::literal("gone")).or_default().depth[3] = 4;
        let tasks =
            vec![counted(Status::Pending, 5, 3), counted(Status::Pending, 9, 1), counted(Status::Completed, 5, 2)];
        board.take_over(Tables { tasks, ..Tables::default() });
        assert_eq!((board.count(Status::Pending), board.count(Status::Running)), (4, 0));
        let queue = &board.queues.0[&Name::literal("mails")];
        assert_eq!((queue.waiting(), queue.depth[9], queue.waiting_since), (4, 1, Some(Time::UNIX_EPOCH)));
        assert_eq!(board.queues.0[&Name::literal("gone")].waiting(), 0);
    }
}
