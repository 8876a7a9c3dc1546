//! A board made from the tables: for a log whose beginning is gone and that no checkpoint of this version covers. What
//! counts and lists say comes from the tables; rates, history and what happened lately from the events that are kept.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Board,
    parents::{Parent, Phase},
    queues::Queue,
    running::RunningTask,
    workers::Seen,
};
use crate::{
    clock::Time,
    event::Event,
    model::{Name, Priority, Status, phase::Counts, worker::Worker},
};

/// What the tables say at one position of the log.
#[derive(Debug, Default)]
pub struct Tables {
    /// Tasks counted.
    pub tasks: Vec<Counted>,
    /// What operators decided about queues.
    pub queues: Vec<(Name, Decided)>,
    /// Every worker.
    pub workers: Vec<Worker>,
    /// Tasks that workers have.
    pub running: Vec<(Uuid, RunningTask)>,
    /// Parents in progress.
    pub parents: Vec<(Uuid, Parent)>,
    /// Children of these, counted by phase.
    pub phases: Vec<(Uuid, Phase)>,
    /// Of each kind of failure: its fingerprint, how many tasks are failed, and the newest of them as an event.
    pub failures: Vec<(Name, u64, Event)>,
}

/// How many tasks of a queue have a state and a priority.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The queue.
    pub queue: Name,
    /// The state.
    pub status: Status,
    /// The priority.
    pub priority: Priority,
    /// How many.
    pub count: u64,
    /// Since when the oldest of them may be claimed.
    pub oldest_enqueued_at: Option<Time>,
}

/// What operators decided about a queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decided {
    /// Since when nothing is handed out.
    pub paused_at: Option<Time>,
    /// At most so many of its tasks run at once.
    pub concurrency_limit: Option<u32>,
    /// At most so many start within the period.
    pub rate_limit: Option<u32>,
    /// The period, seconds, when a rate is set.
    pub rate_period_seconds: Option<u32>,
}

impl Board {
    /// Takes over what the tables say, which must be of the position that the board stands at.
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
        self.workers.0 = tables.workers.into_iter().map(|worker| (worker.id, Seen::of(worker, &folded, ts))).collect();
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

    /// Parents in progress are those of the table; what was folded knows when their children finished.
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
    /// A phase as a row counts it.
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
