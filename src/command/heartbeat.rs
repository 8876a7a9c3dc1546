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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::command::rows::{Rows, id, new_task};
    use crate::model::{
        Name, Status,
        worker::{ConnectorStatus, MAX_CONNECTORS},
    };

    fn heartbeat(held: &[(u128, u32)]) -> Heartbeat {
        let held = held.iter().map(|(number, attempt)| HeldTask { id: id(*number), attempt: *attempt, progress: None });
        Heartbeat { worker_id: id(100), status: None, connectors: None, tasks: held.collect() }
    }

    #[test]
    fn what_it_lists_is_extended_and_nothing_else() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1), new_task(2)]);
        rows.claim(100, 2);
        let expiry = |rows: &Rows, number| rows.tasks[&id(number)].lease.as_ref().unwrap().expires_at.unwrap();
        let before = expiry(&rows, 2);
        rows.passes(30);
        assert!(rows.run(&heartbeat(&[(1, 1)])).unwrap().is_empty());
        assert_eq!(expiry(&rows, 1), rows.now + crate::command::rows::POLICY.lease);
        assert_eq!(expiry(&rows, 2), before);
        assert_eq!(rows.workers[&id(100)].last_seen_at, rows.now);
    }

    #[test]
    fn lost_tasks_are_named() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1), new_task(2)]);
        rows.claim(100, 2);
        rows.change(1, Transition::Cancel { reason: None }).unwrap();
        assert_eq!(rows.run(&heartbeat(&[(1, 1), (2, 1), (3, 1)])).unwrap(), [id(1), id(3)]);
        assert_eq!(rows.run(&heartbeat(&[(2, 2)])).unwrap(), [id(2)], "another attempt is not its own");
    }

    #[test]
    fn progress_comes_with_it() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.claim(100, 1);
        let progress = Some(Progress { percent: Some(40.0), ..Progress::default() });
        let tasks = vec![HeldTask { id: id(1), attempt: 1, progress }];
        rows.run(&Heartbeat { tasks, ..heartbeat(&[]) }).unwrap();
        assert!(rows.kinds().contains(&"task_progress"));
    }

    #[test]
    fn an_unknown_worker_is_refused() {
        assert_eq!(Rows::new().run(&heartbeat(&[])).unwrap_err(), Refusal::NoWorker(id(100)));
    }

    fn connectors(count: usize) -> Option<Vec<ConnectorReport>> {
        let one = |number: usize| ConnectorReport {
            connector_id: Name::new(&format!("c{number}")).unwrap(),
            status: ConnectorStatus::Idle,
            error: None,
        };
        Some((0..count).map(one).collect())
    }

    #[test]
    fn a_worker_that_left_is_told_to_register_again() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.run(&crate::command::deregister_worker::DeregisterWorker(id(100))).unwrap();
        let refused = rows.run(&heartbeat(&[])).unwrap_err();
        assert_eq!(refused, Refusal::WorkerStopped(id(100)));
        assert!(refused.to_string().contains("register it again with POST /api/v1/workers"), "{refused}");
    }

    #[test]
    fn a_worker_that_was_lost_is_welcome_back_without_its_tasks() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.claim(100, 1);
        rows.passes(120);
        rows.run(&crate::command::expire_worker::ExpireWorker(id(100))).unwrap();
        assert_eq!(rows.workers[&id(100)].status, WorkerStatus::Lost);
        assert_eq!(rows.run(&heartbeat(&[(1, 1)])).unwrap(), [id(1)]);
        assert_eq!((rows.workers[&id(100)].status, rows.status(1)), (WorkerStatus::Idle, Status::Failed));
        assert_eq!(rows.kinds(), ["worker_started"]);
    }

    #[test]
    fn too_many_connectors_are_refused_with_the_whole_heartbeat() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.claim(100, 1);
        rows.passes(30);
        let before = rows.workers[&id(100)].clone();
        let many = Heartbeat { connectors: connectors(MAX_CONNECTORS + 1), ..heartbeat(&[(1, 1)]) };
        assert_eq!(rows.run(&many).unwrap_err(), Refusal::ManyConnectors(id(100)));
        assert_eq!(rows.workers[&id(100)], before);
        rows.run(&Heartbeat { connectors: connectors(MAX_CONNECTORS), ..heartbeat(&[(1, 1)]) }).unwrap();
        assert_eq!(rows.workers[&id(100)].connectors.len(), MAX_CONNECTORS);
    }

    #[test]
    fn a_task_listed_twice_is_lost_or_held_twice() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.register(101);
        rows.create([new_task(1)]);
        rows.claim(100, 1);
        assert!(rows.run(&heartbeat(&[(1, 1), (1, 1)])).unwrap().is_empty());
        let foreign = Heartbeat { worker_id: id(101), ..heartbeat(&[(1, 1), (1, 1)]) };
        assert_eq!(rows.run(&foreign).unwrap(), [id(1), id(1)], "it is held by another worker");
        assert_eq!(foreign.weight(), 3);
    }

    #[test]
    fn a_draining_worker_says_so_with_its_heartbeat() {
        let mut rows = Rows::new();
        rows.register(100);
        let draining = Heartbeat { status: Some(WorkerStatus::Draining), ..heartbeat(&[]) };
        rows.run(&draining).unwrap();
        assert_eq!(rows.kinds(), ["worker_status_changed"]);
        rows.run(&heartbeat(&[])).unwrap();
        assert_eq!((rows.workers[&id(100)].status, rows.events.len()), (WorkerStatus::Draining, 0));
    }
}
