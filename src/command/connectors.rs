//! Workers and their connectors as claims and reports change them.

use chrono::TimeDelta;
use uuid::Uuid;

use super::Workspace;
use crate::model::{
    Task,
    task::Outcome,
    worker::{Worker, WorkerStatus},
};

/// A claim or report shows that its worker is alive; that is written at most this often, and four times within the
/// worker's time to live.
const TOUCH_EVERY: TimeDelta = TimeDelta::seconds(5);

impl Workspace {
    /// That a worker is alive has not been written for some time.
    #[must_use]
    pub fn is_stale(&self, worker: &Worker) -> bool {
        !worker.status.is_online() || worker.last_seen_at + TOUCH_EVERY.min(self.policy.worker_ttl / 4) <= self.now
    }

    /// A claim or report shows that the worker is alive.
    pub(super) fn touch(&mut self, worker_id: Uuid) {
        let now = self.now;
        let Some(stale) = self.workers.get(&worker_id).map(|entry| self.is_stale(&entry.row)) else { return };
        if let Some(entry) = self.workers.get_mut(&worker_id)
            && stale
            && entry.row.status != WorkerStatus::Stopped
        {
            let events = entry.row.report(None, Some(&[]), now);
            entry.changed = true;
            self.record_worker(worker_id, &events);
        }
    }

    /// A connector is active while a task runs on it, and idle or in error after it.
    pub(super) fn follow_connector(&mut self, before: &Task, after: Option<&Task>) {
        let now = self.now;
        let use_of = |task: &Task| {
            Some((task.worker_id?, task.connector_id.clone()?, task.lease.as_ref().map(|_| task.attempt)?))
        };
        let (used, uses) = (use_of(before), after.and_then(use_of));
        // Reports of other systems about a task say nothing of the connectors of a worker that is registered here.
        let observed = after.unwrap_or(before).observed.is_some();
        let foreign = |id: &Uuid| observed && self.workers.get(id).is_some_and(|entry| !entry.row.observed);
        if used == uses || used.iter().chain(&uses).any(|(id, ..)| foreign(id)) {
            return;
        }
        let error = after.filter(|task| task.outcome == Some(Outcome::Failed));
        let error = error.map(|task| task.error.clone().unwrap_or_default());
        let mut events = Vec::new();
        if let Some((worker_id, connector, _)) = used
            && let Some(entry) = self.workers.get_mut(&worker_id)
        {
            entry.changed = true;
            if after.is_some_and(|task| task.outcome == Some(Outcome::Stalled)) {
                entry.row.connector_lost(&connector);
            } else {
                events.push((worker_id, entry.row.connector_released(&connector, error, now)));
            }
        }
        if let Some((worker_id, connector, _)) = uses
            && let Some(entry) = self.workers.get_mut(&worker_id)
        {
            events.push((worker_id, entry.row.connector_acquired(&connector, now)));
            entry.changed = true;
        }
        for (worker_id, event) in events {
            self.record_worker(worker_id, event.as_slice());
        }
    }
}
