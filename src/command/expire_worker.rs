//! Workers that have been silent for too long are lost, and their tasks stall.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace};
use crate::model::{lease::StallReason, transition::Transition, worker::StopReason};

/// A worker is lost if it has been silent for too long; decided under its lock, for it may have reported since.
#[derive(Debug, Clone)]
pub struct ExpireWorker(pub Uuid);

impl Command for ExpireWorker {
    type Answer = ();

    fn locks(&self, locks: &mut LockSet) {
        locks.worker(self.0);
        locks.holders.push(self.0);
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        let worker_id = self.0;
        let entry = workspace.workers.get(&worker_id).ok_or(Refusal::NoWorker(worker_id))?;
        let is_silent = entry.row.last_seen_at + workspace.policy.worker_ttl <= workspace.now;
        // While a lease holds, its worker counts as alive: no other worker gets the task before.
        if !is_silent || workspace.holds_a_lease(worker_id) {
            return Ok(());
        }
        workspace.stop_worker(worker_id, StopReason::Lost)?;
        let policy = workspace.policy.stalled_policy;
        for id in workspace.held.remove(&worker_id).unwrap_or_default() {
            if workspace.task(id).is_some_and(|task| task.worker_id == Some(worker_id)) {
                let _ = workspace.decide(id, Transition::Stall { reason: StallReason::WorkerLost, policy }, None);
            }
        }
        Ok(())
    }
}

impl Workspace {
    fn holds_a_lease(&self, worker_id: Uuid) -> bool {
        let holds = |id: &Uuid| {
            let task = self.task(*id).filter(|task| task.worker_id == Some(worker_id));
            task.and_then(|task| task.lease.as_ref()?.expires_at).is_some_and(|at| at > self.now)
        };
        self.held.get(&worker_id).is_some_and(|held| held.iter().any(holds))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::task::NewTask;
    use crate::{
        command::rows::{Rows, id, new_task},
        model::{Status, worker::WorkerStatus},
    };

    #[test]
    fn a_silent_worker_is_lost_once_no_lease_of_it_holds() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.passes(30);
        rows.claim(100, 1);
        rows.passes(59);
        rows.run(&ExpireWorker(id(100))).unwrap();
        assert_eq!(rows.workers[&id(100)].status, WorkerStatus::Idle);
        rows.passes(1);
        rows.run(&ExpireWorker(id(100))).unwrap();
        assert_eq!(rows.workers[&id(100)].status, WorkerStatus::Lost);
        assert_eq!(rows.status(1), Status::Failed, "it had one attempt");
        assert_eq!(rows.kinds(), ["worker_stopped", "task_stalled", "task_failed"]);
    }

    #[test]
    fn a_worker_is_lost_at_the_end_of_its_time_and_only_once() {
        let mut rows = Rows::new();
        assert_eq!(rows.run(&ExpireWorker(id(100))).unwrap_err(), Refusal::NoWorker(id(100)));
        rows.register(100);
        rows.passes(59);
        rows.run(&ExpireWorker(id(100))).unwrap();
        assert!(rows.events.is_empty());
        rows.passes(1);
        rows.run(&ExpireWorker(id(100))).unwrap();
        assert_eq!(rows.kinds(), ["worker_stopped"]);
        assert_eq!(rows.events[0].data.reason.as_deref(), Some("lost"));
        rows.run(&ExpireWorker(id(100))).unwrap();
        assert!(rows.events.is_empty());
    }

    #[test]
    fn what_a_lost_worker_held_goes_back_to_its_queue() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([1, 2].map(|number| NewTask { max_attempts: 2, ..new_task(number) }));
        rows.claim(100, 1);
        rows.passes(61);
        rows.run(&ExpireWorker(id(100))).unwrap();
        let task = &rows.tasks[&id(1)];
        assert_eq!((task.status, task.retry_count, task.error.as_deref()), (Status::Pending, 1, Some("worker lost")));
        assert_eq!((rows.status(2), rows.tasks[&id(2)].retry_count), (Status::Pending, 0), "it was not held");
    }
}
