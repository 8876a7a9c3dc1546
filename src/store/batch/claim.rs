//! Claims: who gets which tasks, within the limits of the queues.

use std::collections::{BTreeMap, VecDeque};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Answer, Batch, Command, Floor, Name, Outcome, WriteError, transition};
use crate::model::{lease::Claimant, worker::WorkerStatus};

impl Batch<'_> {
    /// Takes what all claims together may have, one statement for each list of queues.
    pub(super) async fn take(
        &mut self,
        conn: &mut PgConnection,
        floor: &mut Floor,
        commands: &[&Command],
    ) -> sqlx::Result<Vec<Uuid>> {
        let mut wanted: BTreeMap<&Vec<Name>, i64> = BTreeMap::new();
        for command in commands {
            if let Command::Claim { worker_id, queues, limit, connector_id } = command
                && self.workers.get(worker_id).is_some_and(|entry| {
                    entry.worker.status != WorkerStatus::Stopped && entry.worker.has_room_for(connector_id)
                })
            {
                *wanted.entry(queues).or_default() += i64::from(*limit);
            }
        }
        let mut all = Vec::new();
        for (queues, limit) in wanted {
            let ids = self.take_from(conn, floor, queues, limit).await?;
            all.extend(&ids);
            self.taken.insert(queues.clone(), ids.into());
        }
        self.unready.extend(&all);
        Ok(all)
    }

    async fn take_from(
        &mut self,
        conn: &mut PgConnection,
        floor: &mut Floor,
        queues: &[Name],
        limit: i64,
    ) -> sqlx::Result<Vec<Uuid>> {
        let now = self.now;
        // A queue without a row never had a task.
        let open =
            queues.iter().filter_map(|name| self.queues.get(name)).filter(|entry| entry.state.paused_at.is_none());
        let open: Vec<_> = open.map(|entry| (entry.state.name.clone(), entry.state.allowed(now))).collect();
        if open.iter().all(|(_, allowed)| allowed.is_none()) {
            let names: Vec<_> = open.iter().map(|(name, _)| name.as_str()).collect();
            return if names.is_empty() { Ok(Vec::new()) } else { floor.take(conn, &names, limit).await };
        }
        let rooms: Vec<_> = open
            .iter()
            .map(|(name, allowed)| (name.as_str(), allowed.map_or(limit, |allowed| i64::from(allowed).min(limit))))
            .filter(|(_, room)| *room > 0)
            .collect();
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let taken = floor.take_within(conn, &rooms, limit).await?;
        let mut ids = Vec::with_capacity(taken.len());
        for (id, queue) in taken {
            ids.push(id);
            if let Some(entry) = self.queues.get_mut(queue.as_str()).filter(|entry| entry.state.allowed(now).is_some())
            {
                entry.state.start(1, now);
                entry.changed |= entry.state.rate_limit.is_some();
            }
        }
        Ok(ids)
    }

    pub(super) fn claim(
        &mut self,
        worker_id: Uuid,
        queues: &[Name],
        limit: u32,
        connector_id: Option<&Name>,
    ) -> Outcome {
        let entry = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        if entry.worker.status == WorkerStatus::Stopped {
            return Err(WriteError::WorkerStopped(worker_id));
        }
        if !entry.worker.has_room_for(connector_id) {
            return Err(WriteError::ManyConnectors(worker_id));
        }
        let machine_id = entry.worker.machine_id.clone();
        let by = Claimant { worker_id, machine_id, connector_id: connector_id.cloned() };
        self.touch(worker_id);
        let lease_until = self.now + self.rules.lease;
        let mut tasks = Vec::new();
        while tasks.len() < limit as usize {
            let Some(id) = self.taken.get_mut(queues).and_then(VecDeque::pop_front) else { break };
            // Another command of this batch may have cancelled it.
            if let Ok(task) = self.decide(id, transition::Command::Claim { by: by.clone(), lease_until }, None) {
                tasks.push(task);
            }
        }
        let asked = queues.iter().filter_map(|name| self.queues.get(name)).map(|entry| &entry.state);
        let full = asked.filter(|state| state.allowed(self.now) == Some(0));
        let (mut limited, mut again_after) = (Vec::new(), None);
        for state in full {
            limited.push(state.name.clone());
            again_after = again_after.into_iter().chain(state.again_after(self.now)).min();
        }
        Ok(Answer::Claimed { tasks, limited, again_after })
    }
}
