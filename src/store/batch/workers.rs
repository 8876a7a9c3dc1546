//! Workers: they come, report, go, or are lost; their connectors follow their tasks.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Answer, Batch, Outcome, Task, TimeDelta, Touched, Worker, WorkerEntry, WorkerEvent, WriteError, transition,
};
use crate::{
    model::{
        lease::StallReason,
        report::{Fence, Progress},
        task,
        worker::{ConnectorReport, StopReason, WorkerStatus},
    },
    store::workers,
};

/// A claim or report is a sign of life; it is written down at most this often, and four times within the time to live.
const TOUCH_EVERY: TimeDelta = TimeDelta::seconds(5);

/// A task that a worker says it has, its attempt, and how far it is.
type Held = (Uuid, u32, Option<Progress>);

impl Batch<'_> {
    pub(super) async fn load_held(&mut self, conn: &mut PgConnection, touched: &Touched) -> sqlx::Result<()> {
        if touched.holders.is_empty() {
            return Ok(());
        }
        for (worker_id, task_id) in workers::held(conn, &touched.holders).await? {
            self.held.entry(worker_id).or_default().push(task_id);
        }
        Ok(())
    }

    pub(super) async fn load_workers(&mut self, conn: &mut PgConnection, touched: &Touched) -> sqlx::Result<()> {
        // Whoever works with a connector: it becomes free with the task.
        let busy = |task: &Task| task.worker_id.filter(|_| task.lease.is_some() && task.connector_id.is_some());
        let busy: BTreeSet<_> = self.tasks.values().filter_map(|entry| busy(entry.after.as_ref()?)).collect();
        let ids: BTreeSet<_> = touched.workers.union(&busy).copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut loaded = workers::load(&mut *conn, &ids.into_iter().collect::<Vec<_>>()).await?;
        let to_change = |worker: &&Worker| {
            touched.changed_workers.contains(&worker.id) || busy.contains(&worker.id) || self.is_stale(worker)
        };
        let changing: Vec<_> = loaded.iter().filter(to_change).map(|worker| worker.id).collect();
        if !changing.is_empty() {
            workers::lock(conn, &changing).await?;
            loaded.retain(|worker| !changing.contains(&worker.id));
            loaded.extend(workers::load(conn, &changing).await?);
        }
        for worker in loaded {
            self.workers.insert(worker.id, WorkerEntry { worker, changed: false });
        }
        Ok(())
    }

    fn is_stale(&self, worker: &Worker) -> bool {
        !worker.status.is_online() || worker.last_seen_at + TOUCH_EVERY.min(self.rules.worker_ttl / 4) <= self.now
    }

    pub(super) fn register(&mut self, worker: &Worker) -> Answer {
        let mut worker = worker.clone();
        worker.started_at = self.now;
        worker.last_seen_at = self.now;
        let mut events = vec![WorkerEvent::Started];
        for (id, connector) in &mut worker.connectors {
            connector.since = self.now;
            connector.reported_at = Some(self.now);
            let connector = connector.clone();
            events.push(WorkerEvent::ConnectorChanged { connector_id: id.clone(), old_status: None, connector });
        }
        self.workers.insert(worker.id, WorkerEntry { worker: worker.clone(), changed: true });
        self.record_worker(worker.id, &events);
        Answer::Worker(worker)
    }

    pub(super) fn heartbeat(
        &mut self,
        worker_id: Uuid,
        status: Option<WorkerStatus>,
        connectors: Option<&[ConnectorReport]>,
        tasks: Option<&[Held]>,
    ) -> Outcome {
        let entry = self.workers.get_mut(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        if entry.worker.status == WorkerStatus::Stopped {
            return Err(WriteError::WorkerStopped(worker_id));
        }
        if !entry.worker.has_room_for(connectors.into_iter().flatten().map(|report| &report.connector_id)) {
            return Err(WriteError::ManyConnectors(worker_id));
        }
        let events = entry.worker.report(status, connectors, self.now);
        entry.changed = true;
        self.record_worker(worker_id, &events);
        self.beat(worker_id, tasks)
    }

    fn beat(&mut self, worker_id: Uuid, listed: Option<&[Held]>) -> Outcome {
        let lease_until = self.now + self.rules.lease;
        let mut cancelled = Vec::new();
        // Without a list the worker lives, and its tasks are not prolonged: it may not know that it has them.
        for (id, attempt, progress) in listed.unwrap_or_default().iter().cloned() {
            let fence = Fence { worker_id, attempt };
            let command = match progress {
                Some(progress) => transition::Command::Progress { fence, progress, lease_until },
                None => transition::Command::Extend { fence, lease_until },
            };
            if self.decide(id, command, None).is_err() {
                cancelled.push(id);
            }
        }
        let worker = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?.worker.clone();
        Ok(Answer::Beat { worker, cancelled })
    }

    /// Tasks it still has go back to their queues.
    pub(super) fn leave(&mut self, worker_id: Uuid) -> Outcome {
        self.stop(worker_id, StopReason::Asked)?;
        self.give_back(worker_id);
        self.worker_answer(worker_id)
    }

    /// What a worker that stopped still holds goes back to its queues.
    pub(super) fn give_back(&mut self, worker_id: Uuid) {
        for id in self.held.remove(&worker_id).unwrap_or_default() {
            let Some(attempt) = self.task(id).map(|task| task.attempt) else { continue };
            // A lease that has meanwhile gone to someone else stays there; a reported task is not ours to give.
            let _ = self.decide(id, transition::Command::Release { fence: Fence { worker_id, attempt } }, None);
        }
    }

    pub(super) fn lose(&mut self, worker_id: Uuid) -> Outcome {
        let entry = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        // While a lease holds, its worker is taken to be alive: nobody else gets the task before.
        let holds = |id: &Uuid| {
            let lease = self.task(*id).filter(|task| task.worker_id == Some(worker_id)).and_then(|t| t.lease.as_ref());
            lease.and_then(|lease| lease.expires_at).is_some_and(|at| at > self.now)
        };
        let pinned = self.held.get(&worker_id).is_some_and(|held| held.iter().any(holds));
        if entry.worker.last_seen_at + self.rules.worker_ttl <= self.now && !pinned {
            self.stop(worker_id, StopReason::Lost)?;
            for id in self.held.remove(&worker_id).unwrap_or_default() {
                if self.task(id).is_some_and(|task| task.worker_id == Some(worker_id)) {
                    let policy = self.rules.stalled_policy;
                    let _ =
                        self.decide(id, transition::Command::Stall { reason: StallReason::WorkerLost, policy }, None);
                }
            }
        }
        self.worker_answer(worker_id)
    }

    fn stop(&mut self, worker_id: Uuid, reason: StopReason) -> Result<(), WriteError> {
        let entry = self.workers.get_mut(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        if let Some(event) = entry.worker.stop(reason, self.now) {
            entry.changed = true;
            self.record_worker(worker_id, &[event]);
        }
        Ok(())
    }

    fn worker_answer(&self, worker_id: Uuid) -> Outcome {
        let entry = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        Ok(Answer::Worker(entry.worker.clone()))
    }

    /// A claim or report shows that the worker lives.
    pub(super) fn touch(&mut self, worker_id: Uuid) {
        let now = self.now;
        let Some(stale) = self.workers.get(&worker_id).map(|entry| self.is_stale(&entry.worker)) else { return };
        if let Some(entry) = self.workers.get_mut(&worker_id)
            && stale
            && entry.worker.status != WorkerStatus::Stopped
        {
            let events = entry.worker.report(None, Some(&[]), now);
            entry.changed = true;
            self.record_worker(worker_id, &events);
        }
    }

    /// Connectors that were not reported for too long: nobody knows what they do.
    pub(super) fn doubt(&mut self, worker_id: Uuid) -> Outcome {
        let (now, stale) = (self.now, self.rules.connector_stale);
        let entry = self.workers.get_mut(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        let events = entry.worker.doubt(now - stale, now);
        entry.changed |= !events.is_empty();
        self.record_worker(worker_id, &events);
        self.worker_answer(worker_id)
    }

    /// A connector is busy while a task runs on it, and idle or in error after it.
    pub(super) fn follow_connector(&mut self, before: &Task, after: Option<&Task>) {
        let now = self.now;
        let hold = |task: &Task| {
            Some((task.worker_id?, task.connector_id.clone()?, task.lease.as_ref().map(|_| task.attempt)?))
        };
        let (held, holds) = (hold(before), after.and_then(hold));
        // What others report of a task says nothing of the connectors of a worker that taskwatch knows by itself.
        let observed = after.unwrap_or(before).observed.is_some();
        let told_by_others = |id: &Uuid| observed && self.workers.get(id).is_some_and(|entry| !entry.worker.observed);
        if held == holds || held.iter().chain(&holds).any(|(id, ..)| told_by_others(id)) {
            return;
        }
        let error = after.filter(|task| task.outcome == Some(task::Outcome::Failed));
        let error = error.map(|task| task.error.clone().unwrap_or_default());
        let mut told = Vec::new();
        if let Some((worker_id, connector, _)) = held
            && let Some(entry) = self.workers.get_mut(&worker_id)
        {
            entry.changed = true;
            if after.is_some_and(|task| task.outcome == Some(task::Outcome::Stalled)) {
                entry.worker.loses(&connector);
            } else {
                told.push((worker_id, entry.worker.frees(&connector, error, now)));
            }
        }
        if let Some((worker_id, connector, _)) = holds
            && let Some(entry) = self.workers.get_mut(&worker_id)
        {
            told.push((worker_id, entry.worker.uses(&connector, now)));
            entry.changed = true;
        }
        for (worker_id, event) in told {
            self.record_worker(worker_id, event.as_slice());
        }
    }
}
