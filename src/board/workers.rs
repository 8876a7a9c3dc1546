//! Workers on their machines, with their connectors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ended::Attempts, name_or_dash};
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

/// Number of stalled tasks kept for each worker.
const KEEP_STALLED: usize = 20;

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
    /// Tasks that stalled on it, the latest last.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub stalled: VecDeque<Uuid>,
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
            Kind::TaskStalled => {
                if let (Some(worker), Some(task_id)) = (self.0.get_mut(&id), event.task_id) {
                    worker.stalled.retain(|known| *known != task_id);
                    worker.stalled.push_back(task_id);
                    while worker.stalled.len() > KEEP_STALLED {
                        worker.stalled.pop_front();
                    }
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

    /// Its attempts that ended.
    #[must_use]
    pub const fn attempts(&self) -> Attempts {
        Attempts { completed: self.completed, failed: self.failed }
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
            stalled: known.map(|known| known.stalled.clone()).unwrap_or_default(),
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
            stalled: VecDeque::new(),
            connectors: BTreeMap::new(),
            last_seen_at: None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::board::samples::at;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn event(kind: Kind, number: u128, seconds: i64) -> Event {
        let mut event = Event::new(kind, at(seconds));
        event.worker_id = Some(id(number));
        event
    }

    fn status(kind: Kind, number: u128, status: &'static str, seconds: i64) -> Event {
        let mut event = event(kind, number, seconds);
        event.data.status = Some(Name::literal(status));
        event
    }

    /// Workers after some events.
    fn after(events: impl IntoIterator<Item = Event>) -> Workers {
        let mut workers = Workers::default();
        events.into_iter().for_each(|event| workers.apply(&event));
        workers
    }

    fn connector(number: u128, connector: &'static str, word: &'static str, seconds: i64) -> Event {
        let mut event = status(Kind::ConnectorStatusChanged, number, word, seconds);
        event.connector_id = Some(Name::literal(connector));
        event
    }

    /// The row of a worker in the tables.
    fn row(number: u128, status: WorkerStatus) -> Worker {
        Worker {
            id: id(number),
            name: Name::literal("w"),
            machine_id: Name::literal("m"),
            queues: vec![Name::literal("a")],
            capabilities: Vec::new(),
            version: None,
            status,
            connectors: BTreeMap::new(),
            started_at: at(0),
            last_seen_at: at(50),
            stopped_at: None,
            observed: false,
        }
    }

    #[test]
    fn the_last_twenty_that_left_are_kept() {
        let leaves = |number: i64| status(Kind::WorkerStopped, u128::try_from(number).unwrap(), "stopped", number);
        let workers = after((1..=21).rev().map(leaves));
        assert_eq!(workers.0.len(), 20);
        assert!(!workers.0.contains_key(&id(1)), "the one that left first was forgotten");
        let workers = after((1..=20).map(leaves));
        assert_eq!(workers.0.len(), 20);
    }

    #[test]
    fn online_workers_are_never_forgotten() {
        let come = (1..=30).map(|number| status(Kind::WorkerStarted, number, "idle", 0));
        let go = (100..150).map(|number| status(Kind::WorkerStopped, number, "lost", 1));
        let workers = after(come.chain(go));
        assert_eq!((workers.online(), workers.0.len()), (30, 50));
    }

    #[test]
    fn a_status_that_is_not_known_changes_only_since_when() {
        let workers = after([
            status(Kind::WorkerStarted, 1, "active", 0),
            status(Kind::WorkerStatusChanged, 1, "dreaming", 9),
            event(Kind::WorkerStatusChanged, 1, 10),
        ]);
        assert_eq!((workers.0[&id(1)].status, workers.0[&id(1)].since), (WorkerStatus::Active, at(10)));
    }

    #[test]
    fn a_worker_whose_start_was_not_seen_comes_with_its_first_change() {
        let workers = after([status(Kind::WorkerStatusChanged, 1, "draining", 3)]);
        let seen = &workers.0[&id(1)];
        assert_eq!((seen.status, seen.name.as_str(), seen.machine_id.as_str()), (WorkerStatus::Draining, "-", "-"));
    }

    #[test]
    fn a_worker_that_registers_again_starts_from_nothing() {
        let workers = after([
            status(Kind::WorkerStarted, 1, "idle", 0),
            event(Kind::TaskCompleted, 1, 1),
            connector(1, "smtp", "error", 2),
            status(Kind::WorkerStarted, 1, "idle", 3),
        ]);
        let seen = &workers.0[&id(1)];
        assert_eq!((seen.completed, seen.connectors.len(), seen.started_at), (0, 0, at(3)));
    }

    #[test]
    fn a_retried_attempt_is_a_failure_of_its_worker() {
        let mut events = vec![status(Kind::WorkerStarted, 1, "idle", 0)];
        for kind in [Kind::TaskCompleted, Kind::TaskFailed, Kind::TaskRetry, Kind::TaskCancelled, Kind::TaskStalled] {
            events.push(event(kind, 1, 1));
        }
        let workers = after(events);
        assert_eq!((workers.0[&id(1)].completed, workers.0[&id(1)].failed), (1, 2));
    }

    #[test]
    fn the_last_tasks_that_stalled_on_a_worker_are_known() {
        let mut events = vec![status(Kind::WorkerStarted, 1, "idle", 0), status(Kind::WorkerStopped, 1, "lost", 1)];
        for number in [7, 8, 7].into_iter().chain(100..100 + KEEP_STALLED as u128 - 1) {
            events.push(Event { task_id: Some(id(number)), ..event(Kind::TaskStalled, 1, 2) });
        }
        let stalled = &after(events).0[&id(1)].stalled;
        assert_eq!(stalled.len(), KEEP_STALLED);
        assert_eq!(stalled.front(), Some(&id(7)), "the latest that did so last");
    }

    #[test]
    fn what_an_unknown_worker_does_makes_it_no_worker() {
        let mut started = event(Kind::TaskStarted, 1, 0);
        started.queue = Some(Name::literal("a"));
        let events = [
            started,
            event(Kind::TaskCompleted, 1, 0),
            event(Kind::WorkerHeartbeat, 1, 0),
            connector(1, "c", "idle", 0),
        ];
        assert_eq!(after(events), Workers::default());
    }

    #[test]
    fn a_connector_is_replaced_by_its_newest_status() {
        let failed = Event { error: Some("HTTP 503".to_owned()), ..connector(1, "smtp", "error", 1) };
        let workers = after([status(Kind::WorkerStarted, 1, "idle", 0), failed, connector(1, "smtp", "active", 2)]);
        let smtp = &workers.0[&id(1)].connectors["smtp"];
        assert_eq!((smtp.status, smtp.error.as_deref(), smtp.since), (ConnectorStatus::Active, None, at(2)));
    }

    #[test]
    fn a_connector_status_of_a_newer_version_is_unknown() {
        let workers = after([status(Kind::WorkerStarted, 1, "idle", 0), connector(1, "smtp", "sulking", 1)]);
        assert_eq!(workers.0[&id(1)].connectors["smtp"].status, ConnectorStatus::Unknown);
    }

    #[test]
    fn queues_that_were_only_claimed_from_are_bounded() {
        let mut events = vec![status(Kind::WorkerStarted, 1, "idle", 0)];
        for number in 0..MOST_QUEUES + 10 {
            let mut started = event(Kind::TaskStarted, 1, 1);
            started.queue = Some(Name::new(&format!("q{number}")).unwrap());
            events.push(started);
        }
        let workers = after(events);
        assert_eq!(workers.0[&id(1)].serves().count(), MOST_QUEUES);
        assert!(!workers.0[&id(1)].serves_any());
    }

    #[test]
    fn a_declared_queue_is_listed_once() {
        let mut started = status(Kind::WorkerStarted, 1, "idle", 0);
        started.data.queues = Some(vec![Name::literal("b"), Name::literal("a"), Name::literal("b")]);
        let mut claimed = event(Kind::TaskStarted, 1, 1);
        claimed.queue = Some(Name::literal("b"));
        let workers = after([started, claimed]);
        let seen = &workers.0[&id(1)];
        assert!(seen.took_from.is_empty());
        assert_eq!(seen.serves().map(Name::as_str).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_row_keeps_what_only_events_told() {
        let mut claimed = event(Kind::TaskStarted, 1, 1);
        claimed.queue = Some(Name::literal("b"));
        let folded = after([
            status(Kind::WorkerStarted, 1, "active", 7),
            claimed,
            event(Kind::TaskCompleted, 1, 8),
            event(Kind::TaskRetry, 1, 9),
        ]);
        let seen = LastSeen::of(row(1, WorkerStatus::Active), &folded.0, at(100));
        assert_eq!((seen.completed, seen.failed, seen.serves().count()), (1, 1, 2));
        assert_eq!((seen.since, seen.last_seen_at), (at(7), Some(at(50))));
        let changed = LastSeen::of(row(1, WorkerStatus::Lost), &folded.0, at(100));
        assert_eq!(changed.since, at(50), "of another status since its last sign, as far as is known");
        let stopped = Worker { stopped_at: Some(at(60)), ..row(1, WorkerStatus::Stopped) };
        assert_eq!(LastSeen::of(stopped, &folded.0, at(100)).since, at(60));
    }

    #[test]
    fn a_row_is_never_younger_than_the_board() {
        let seen = LastSeen::of(row(1, WorkerStatus::Idle), &BTreeMap::new(), at(20));
        assert_eq!((seen.since, seen.completed), (at(20), 0));
    }
}
