//! Workers on their machines, with their connectors.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::name_or_dash;
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{
        Name,
        worker::{Connector, ConnectorStatus, Worker, WorkerStatus},
    },
};

/// Number of stopped or lost workers kept.
const KEEP_GONE: usize = 20;

/// Maximum number of queues tracked for a worker that does not list its queues.
const MOST_QUEUES: usize = 64;

/// All online workers, and the last stopped or lost ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Workers(pub BTreeMap<Uuid, LastSeen>);

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastSeen {
    /// Its name.
    pub name: Name,
    /// Its machine.
    pub machine_id: Name,
    /// Queues that it declared.
    pub queues: Vec<Name>,
    /// Further queues from which it claimed tasks.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub took_from: BTreeSet<Name>,
    /// Version of its software.
    pub version: Option<String>,
    /// Its status.
    pub status: WorkerStatus,
    /// Since when it has this status.
    pub since: Time,
    /// When it registered.
    pub started_at: Time,
    /// Tasks completed by it.
    pub completed: u64,
    /// Attempts that failed on it.
    pub failed: u64,
    /// Its connectors.
    pub connectors: BTreeMap<Name, Connector>,
    /// Last heartbeat; measured, not folded.
    #[serde(skip)]
    pub last_seen_at: Option<Time>,
}

impl Workers {
    pub(super) fn apply(&mut self, event: &Event) {
        let Some(id) = event.worker_id else { return };
        match event.event_type {
            Kind::WorkerStarted => {
                self.0.insert(id, LastSeen::new(event));
            }
            Kind::WorkerStatusChanged | Kind::WorkerStopped => {
                let status = event.data.status.as_ref().and_then(|status| status.as_str().parse().ok());
                let worker = self.0.entry(id).or_insert_with(|| LastSeen::new(event));
                worker.status = status.unwrap_or(worker.status);
                worker.since = event.ts;
                self.forget_long_gone();
            }
            Kind::ConnectorStatusChanged => {
                let status = event.data.status.as_ref().and_then(|status| status.as_str().parse().ok());
                if let (Some(worker), Some(connector_id)) = (self.0.get_mut(&id), &event.connector_id) {
                    let status = status.unwrap_or(ConnectorStatus::Unknown);
                    let connector = Connector {
                        status,
                        error: event.error.clone(),
                        since: event.ts,
                        reported_at: event.data.unreported_since,
                        tasks: 0,
                    };
                    worker.connectors.insert(connector_id.clone(), connector);
                }
            }
            Kind::WorkerHeartbeat => {
                if let Some(worker) = self.0.get_mut(&id) {
                    worker.last_seen_at = Some(event.ts);
                }
            }
            Kind::TaskStarted => {
                if let (Some(worker), Some(queue)) = (self.0.get_mut(&id), &event.queue) {
                    worker.took(queue);
                }
            }
            Kind::TaskCompleted => {
                if let Some(worker) = self.0.get_mut(&id) {
                    worker.completed += 1;
                }
            }
            Kind::TaskFailed | Kind::TaskRetry => {
                if let Some(worker) = self.0.get_mut(&id) {
                    worker.failed += 1;
                }
            }
            _ => {}
        }
    }

    /// Number of workers that are expected to send heartbeats.
    #[must_use]
    pub fn online(&self) -> usize {
        self.0.values().filter(|worker| worker.status.is_online()).count()
    }

    pub(super) fn forget_long_gone(&mut self) {
        let mut gone: Vec<_> = self
            .0
            .iter()
            .filter(|(_, worker)| !worker.status.is_online())
            .map(|(id, worker)| (worker.since, *id))
            .collect();
        gone.sort_unstable();
        for (_, id) in gone.iter().take(gone.len().saturating_sub(KEEP_GONE)) {
            self.0.remove(id);
        }
    }
}

impl LastSeen {
    fn took(&mut self, queue: &Name) {
        if self.took_from.len() < MOST_QUEUES && !self.queues.contains(queue) && !self.took_from.contains(queue) {
            self.took_from.insert(queue.clone());
        }
    }

    /// It declared no queues and claimed nothing, so it may serve any queue.
    #[must_use]
    pub fn serves_any(&self) -> bool {
        self.queues.is_empty() && self.took_from.is_empty()
    }

    /// The queues it serves, declared or observed; without duplicates.
    pub fn serves(&self) -> impl Iterator<Item = &Name> {
        self.queues.iter().chain(&self.took_from).collect::<BTreeSet<_>>().into_iter()
    }

    /// From its row; what only events contain comes from the folded board.
    pub(super) fn of(worker: Worker, folded: &BTreeMap<Uuid, Self>, ts: Time) -> Self {
        let known = folded.get(&worker.id);
        let since = worker.stopped_at.or_else(|| known.filter(|known| known.status == worker.status).map(|k| k.since));
        Self {
            name: worker.name,
            machine_id: worker.machine_id,
            queues: worker.queues,
            took_from: known.map(|known| known.took_from.clone()).unwrap_or_default(),
            version: worker.version,
            status: worker.status,
            since: since.unwrap_or(worker.last_seen_at).min(ts),
            started_at: worker.started_at,
            completed: known.map_or(0, |known| known.completed),
            failed: known.map_or(0, |known| known.failed),
            connectors: worker.connectors,
            last_seen_at: Some(worker.last_seen_at),
        }
    }

    fn new(event: &Event) -> Self {
        let data = &event.data;
        Self {
            name: name_or_dash(data.name.as_ref()),
            machine_id: name_or_dash(event.machine_id.as_ref()),
            queues: data.queues.clone().unwrap_or_default(),
            took_from: BTreeSet::new(),
            version: data.version.clone(),
            status: data.status.as_ref().and_then(|status| status.as_str().parse().ok()).unwrap_or(WorkerStatus::Idle),
            since: event.ts,
            started_at: event.ts,
            completed: 0,
            failed: 0,
            connectors: BTreeMap::new(),
            last_seen_at: None,
        }
    }
}
