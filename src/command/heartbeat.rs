//! Heartbeats of workers.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace};
use crate::model::{
    report::{Fence, Progress},
    transition::Transition,
    worker::{ConnectorReport, WorkerStatus},
};

/// A task that a worker says it holds.
#[derive(Debug, Clone)]
pub struct HeldTask {
    /// The task.
    pub id: Uuid,
    /// The attempt that its claim named.
    pub attempt: u32,
    /// Progress, if reported.
    pub progress: Option<Progress>,
}

/// A worker is alive; the leases of the tasks it lists are extended.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The worker.
    pub worker_id: Uuid,
    /// Its status, if reported.
    pub status: Option<WorkerStatus>,
    /// Its connectors that are reported; without a list all are as they were.
    pub connectors: Option<Vec<ConnectorReport>>,
    /// The tasks it holds. A task that is not listed is not extended: the worker may not know that it has it.
    pub tasks: Vec<HeldTask>,
}

impl Command for Heartbeat {
    /// Tasks that the worker must stop working on: no longer its own.
    type Answer = Vec<Uuid>;

    fn locks(&self, locks: &mut LockSet) {
        locks.worker(self.worker_id);
        locks.tasks.extend(self.tasks.iter().map(|task| task.id));
    }

    fn weight(&self) -> usize {
        1 + self.tasks.len()
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<Vec<Uuid>, Refusal> {
        let (worker_id, now) = (self.worker_id, workspace.now);
        let entry = workspace.workers.get_mut(&worker_id).ok_or(Refusal::NoWorker(worker_id))?;
        if entry.row.status == WorkerStatus::Stopped {
            return Err(Refusal::WorkerStopped(worker_id));
        }
        if !entry.row.has_room_for(self.connectors.iter().flatten().map(|report| &report.connector_id)) {
            return Err(Refusal::ManyConnectors(worker_id));
        }
        let events = entry.row.report(self.status, self.connectors.as_deref(), now);
        entry.changed = true;
        workspace.record_worker(worker_id, &events);
        let lease_until = now + workspace.policy.lease;
        let lost = self.tasks.iter().filter(|task| {
            let fence = Fence { worker_id, attempt: task.attempt };
            let transition = match task.progress.clone() {
                Some(progress) => Transition::Progress { fence, progress, lease_until },
                None => Transition::Extend { fence, lease_until },
            };
            workspace.decide(task.id, transition, None).is_err()
        });
        Ok(lost.map(|task| task.id).collect())
    }
}
