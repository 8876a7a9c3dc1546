//! Deregistering a worker: the tasks it still holds go back to their queues.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace};
use crate::model::{report::Fence, transition::Transition, worker::StopReason};

/// Deregisters a worker. Its tasks are released.
#[derive(Debug, Clone)]
pub struct DeregisterWorker(pub Uuid);

impl Command for DeregisterWorker {
    type Answer = ();

    fn locks(&self, locks: &mut LockSet) {
        locks.worker(self.0);
        locks.holders.push(self.0);
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        workspace.stop_worker(self.0, StopReason::Asked)?;
        workspace.release_held(self.0);
        Ok(())
    }
}

impl Workspace {
    pub(super) fn stop_worker(&mut self, worker_id: Uuid, reason: StopReason) -> Result<(), Refusal> {
        let entry = self.workers.get_mut(&worker_id).ok_or(Refusal::NoWorker(worker_id))?;
        if let Some(event) = entry.row.stop(reason, self.now) {
            entry.changed = true;
            self.record_worker(worker_id, &[event]);
        }
        Ok(())
    }

    /// Releases what a worker that stopped still holds.
    pub(super) fn release_held(&mut self, worker_id: Uuid) {
        for id in self.held.remove(&worker_id).unwrap_or_default() {
            let Some(attempt) = self.task(id).map(|task| task.attempt) else { continue };
            // A lease that has meanwhile gone to another worker stays there; an observed task is not ours to release.
            let _ = self.decide(id, Transition::Release { fence: Fence { worker_id, attempt } }, None);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        command::rows::{Rows, id, new_task},
        model::{Status, worker::WorkerStatus},
    };

    #[test]
    fn its_tasks_are_released_without_counting_the_attempt() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.claim(100, 1);
        rows.run(&DeregisterWorker(id(100))).unwrap();
        assert_eq!((rows.status(1), rows.tasks[&id(1)].retry_count), (Status::Pending, 0));
        assert_eq!(rows.workers[&id(100)].status, WorkerStatus::Stopped);
        assert_eq!(rows.kinds(), ["worker_stopped", "task_enqueued"]);
        rows.run(&DeregisterWorker(id(100))).unwrap();
        assert!(rows.events.is_empty());
    }
}
