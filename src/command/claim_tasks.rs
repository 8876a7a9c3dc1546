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
    /// As many as asked for, of these queues.
    Unlimited(Vec<Name>),
    /// At most so many of each queue.
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
