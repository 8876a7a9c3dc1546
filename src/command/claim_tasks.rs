//! Claims: which worker gets which tasks, within the limits of the queues.

use std::{collections::VecDeque, time::Duration};

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace, change_tasks::ChangeTasks, lock_set::ClaimRequest};
use crate::model::{Name, Task, lease::Claimant, report::Fence, transition::Transition, worker::WorkerStatus};

/// Claims tasks for a worker, maybe none.
#[derive(Debug, Clone)]
pub struct ClaimTasks(pub ClaimRequest);

/// What a worker got.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// Queues whose limits hold tasks back.
    pub limited: Vec<Name>,
    /// When the rate limits allow more.
    pub again_after: Option<Duration>,
}

/// What may be taken out of some queues.
#[derive(Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Nothing: the queues are unknown, paused, or used up.
    Nothing,
    /// These queues, without a limit.
    Unlimited(Vec<Name>),
    /// Maximum number of tasks per queue.
    Limited(Vec<(Name, u32)>),
}

impl Command for ClaimTasks {
    type Answer = Claimed;

    fn locks(&self, locks: &mut LockSet) {
        locks.workers.insert(self.0.worker_id);
        if self.0.connector_id.is_some() {
            locks.changed_workers.insert(self.0.worker_id);
        }
        locks.claims.push(self.0.clone());
    }

    fn weight(&self) -> usize {
        self.0.limit as usize
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<Claimed, Refusal> {
        let ClaimRequest { worker_id, queues, limit, connector_id } = &self.0;
        let worker = &workspace.workers.get(worker_id).ok_or(Refusal::NoWorker(*worker_id))?.row;
        if worker.status == WorkerStatus::Stopped {
            return Err(Refusal::WorkerStopped(*worker_id));
        }
        if !worker.has_room_for(connector_id) {
            return Err(Refusal::ManyConnectors(*worker_id));
        }
        let machine_id = worker.machine_id.clone();
        let by = Claimant { worker_id: *worker_id, machine_id, connector_id: connector_id.clone() };
        workspace.touch(*worker_id);
        let lease_until = workspace.now + workspace.policy.lease;
        let mut tasks = Vec::new();
        while tasks.len() < *limit as usize {
            let Some(id) = workspace.taken.get_mut(queues).and_then(VecDeque::pop_front) else { break };
            // Another command of this batch may have cancelled it.
            if let Ok(task) = workspace.decide(id, Transition::Claim { by: by.clone(), lease_until }, None) {
                tasks.push(task);
            }
        }
        let asked = queues.iter().filter_map(|name| workspace.queues.get(name)).map(|entry| &entry.row);
        let (mut limited, mut again_after) = (Vec::new(), None);
        for queue in asked.filter(|queue| queue.allowed(workspace.now) == Some(0)) {
            limited.push(queue.name.clone());
            again_after = again_after.into_iter().chain(queue.again_after(workspace.now)).min();
        }
        Ok(Claimed { tasks, limited, again_after })
    }

    /// The tasks go back to their queues at once.
    fn compensation(claimed: &Claimed) -> Option<ChangeTasks> {
        let released = claimed.tasks.iter().filter_map(|task| {
            let fence = Fence { worker_id: task.worker_id?, attempt: task.attempt };
            Some((task.id, Transition::Release { fence }))
        });
        let released: Vec<_> = released.collect();
        (!released.is_empty()).then(|| ChangeTasks::new(released))
    }
}

impl Workspace {
    /// The worker of a claim may have tasks.
    #[must_use]
    pub fn may_claim(&self, claim: &ClaimRequest) -> bool {
        self.workers.get(&claim.worker_id).is_some_and(|entry| {
            entry.row.status != WorkerStatus::Stopped && entry.row.has_room_for(&claim.connector_id)
        })
    }

    /// What may be taken out of some queues, which must be loaded as far as they have a row.
    #[must_use]
    pub fn allowance(&self, queues: &[Name]) -> Allowance {
        // A queue without a row never had a task.
        let known = queues.iter().filter_map(|name| self.queues.get(name)).map(|entry| &entry.row);
        let active: Vec<_> = known
            .filter(|queue| queue.paused_at.is_none())
            .map(|queue| (queue.name.clone(), queue.allowed(self.now)))
            .collect();
        if active.is_empty() {
            return Allowance::Nothing;
        }
        if active.iter().all(|(_, allowed)| allowed.is_none()) {
            return Allowance::Unlimited(active.into_iter().map(|(name, _)| name).collect());
        }
        let rooms = active.into_iter().map(|(name, allowed)| (name, allowed.unwrap_or(u32::MAX)));
        let rooms: Vec<_> = rooms.filter(|(_, room)| *room > 0).collect();
        if rooms.is_empty() { Allowance::Nothing } else { Allowance::Limited(rooms) }
    }

    /// A task was taken out of a queue with limits.
    pub fn count_start(&mut self, queue: &str) {
        let now = self.now;
        if let Some(entry) = self.queues.get_mut(queue).filter(|entry| entry.row.allowed(now).is_some()) {
            entry.row.start(1, now);
            entry.changed |= entry.row.rate_limit.is_some();
        }
    }

    /// Takes in what was taken out of `ready` for those who ask for some queues.
    pub fn load_taken(&mut self, queues: &[Name], ids: Vec<Uuid>) {
        self.unready.extend(&ids);
        self.taken.insert(queues.to_vec(), ids.into());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        command::rows::{Rows, id, new_task},
        model::{Priority, Status, queue::QueueChange, task::NewTask},
    };

    fn limit(rows: &mut Rows, change: &QueueChange) {
        let now = rows.now;
        rows.queues.get_mut("q").unwrap().change(change, now);
    }

    #[test]
    fn the_highest_priority_comes_first_then_the_oldest() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.passes(1);
        rows.create([NewTask { priority: Priority::new(9).unwrap(), ..new_task(2) }, new_task(3)]);
        let ids: Vec<_> = rows.claim(100, 2).tasks.iter().map(|task| task.id).collect();
        assert_eq!(ids, [id(2), id(1)]);
        assert_eq!((rows.status(2), rows.status(3)), (Status::Running, Status::Pending));
    }

    #[test]
    fn nobody_gets_a_task_twice() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.register(101);
        rows.create([new_task(1)]);
        assert_eq!(rows.claim(100, 5).tasks.len() + rows.claim(101, 5).tasks.len(), 1);
    }

    #[test]
    fn a_worker_must_be_known_and_not_stopped() {
        let request = |number| {
            ClaimTasks(ClaimRequest {
                worker_id: id(number),
                connector_id: None,
                queues: vec![Name::literal("q")],
                limit: 1,
            })
        };
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        assert_eq!(rows.run(&request(100)).unwrap_err(), Refusal::NoWorker(id(100)));
        rows.register(100);
        rows.run(&crate::command::deregister_worker::DeregisterWorker(id(100))).unwrap();
        assert_eq!(rows.run(&request(100)).unwrap_err(), Refusal::WorkerStopped(id(100)));
        assert_eq!(rows.status(1), Status::Pending);
    }

    #[test]
    fn limits_hold_tasks_back_and_say_so() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create((1..=5).map(new_task));
        limit(&mut rows, &QueueChange::Limit { concurrency: None, rate: Some(Some((2, 10))) });
        let claimed = rows.claim(100, 5);
        assert_eq!(claimed.tasks.len(), 2);
        let claimed = rows.claim(100, 5);
        assert_eq!((claimed.tasks.len(), claimed.limited.len()), (0, 1));
        assert!(claimed.again_after.is_some_and(|after| after <= Duration::from_secs(11)));
        rows.passes(11);
        assert_eq!(rows.claim(100, 5).tasks.len(), 2);
    }

    #[test]
    fn a_paused_queue_gives_nothing() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        limit(&mut rows, &QueueChange::Pause);
        assert!(rows.claim(100, 5).tasks.is_empty());
        limit(&mut rows, &QueueChange::Resume);
        assert_eq!(rows.claim(100, 5).tasks.len(), 1);
    }

    #[test]
    fn an_undelivered_claim_is_released() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        let claimed = rows.claim(100, 1);
        rows.run(&ClaimTasks::compensation(&claimed).unwrap()).unwrap();
        assert_eq!(rows.status(1), Status::Pending);
        let none = Claimed { tasks: Vec::new(), limited: Vec::new(), again_after: None };
        assert!(ClaimTasks::compensation(&none).is_none());
    }
}
