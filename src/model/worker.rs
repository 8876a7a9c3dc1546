//! Workers and their connectors.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Name, words::words};
use crate::clock::Time;

words! {
    /// Status of a worker.
    WorkerStatus {
        /// Not ready for tasks yet.
        Starting = "starting",
        /// Ready, no task.
        Idle = "idle",
        /// Running tasks.
        Active = "active",
        /// Finishing its tasks, claims no new ones.
        Draining = "draining",
        /// Stopped in an orderly way.
        Stopped = "stopped",
        /// No heartbeat within the worker timeout.
        Lost = "lost",
    }
}

words! {
    /// Status of a connector, as reported by its worker.
    ConnectorStatus {
        /// Not ready yet.
        Starting = "starting",
        /// Ready, no task.
        Idle = "idle",
        /// In use.
        Active = "active",
        /// Not working; the message says why.
        Error = "error",
        /// Not reported for too long.
        Unknown = "unknown",
    }
}

impl WorkerStatus {
    /// Whether it is expected to send heartbeats.
    #[must_use]
    pub const fn is_online(self) -> bool {
        !matches!(self, Self::Stopped | Self::Lost)
    }
}

/// An external service that a worker drives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Connector {
    /// Its status.
    pub status: ConnectorStatus,
    /// Error message, with status `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When this status began.
    #[schema(value_type = String, format = DateTime)]
    pub since: Time,
    /// With status `unknown`: time of the last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reported_at: Option<Time>,
    /// Number of tasks that run on it.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(value_type = u32)]
    pub tasks: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Connector {
    /// Its status without a new report: an unknown one is derived from its tasks and its last error.
    fn derived_status(&self) -> (ConnectorStatus, Option<String>) {
        let status = match (self.status, &self.error) {
            (ConnectorStatus::Unknown, Some(_)) => ConnectorStatus::Error,
            (ConnectorStatus::Unknown, None) if self.tasks > 0 => ConnectorStatus::Active,
            (ConnectorStatus::Unknown, None) => ConnectorStatus::Idle,
            (status, _) => status,
        };
        (status, self.error.clone())
    }
}

/// A process that runs tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// ID, assigned at registration.
    pub id: Uuid,
    /// Display name.
    pub name: Name,
    /// Machine it runs on.
    pub machine_id: Name,
    /// Queues it serves.
    pub queues: Vec<Name>,
    /// Its capabilities, free-form.
    pub capabilities: Vec<Name>,
    /// Version of its software.
    pub version: Option<String>,
    /// Its status.
    pub status: WorkerStatus,
    /// Its connectors.
    pub connectors: BTreeMap<Name, Connector>,
    /// When it registered.
    pub started_at: Time,
    /// Last heartbeat.
    pub last_seen_at: Time,
    /// When it stopped or was lost.
    pub stopped_at: Option<Time>,
    /// Known only from reports of another system.
    pub observed: bool,
}

/// An event of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// It registered.
    Started,
    /// Its status changed.
    StatusChanged {
        /// Status before.
        old_status: WorkerStatus,
    },
    /// It stopped (`asked`) or was lost (`lost`).
    Stopped {
        /// Which of the two.
        reason: StopReason,
        /// Status before.
        old_status: WorkerStatus,
    },
    /// The status of one of its connectors changed.
    ConnectorChanged {
        /// Connector ID.
        connector_id: Name,
        /// Status before, if known.
        old_status: Option<ConnectorStatus>,
        /// The connector now.
        connector: Connector,
    },
}

words! {
    /// Why a worker stopped.
    StopReason {
        /// It deregistered.
        Asked = "asked",
        /// No heartbeat within the worker timeout.
        Lost = "lost",
    }
}

/// Report on a connector in a registration or heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorReport {
    /// Connector ID.
    pub connector_id: Name,
    /// Status.
    pub status: ConnectorStatus,
    /// Error message.
    pub error: Option<String>,
}

/// Maximum number of connectors of a worker.
pub const MAX_CONNECTORS: usize = 64;

impl Worker {
    /// A worker that appears at a time, idle, with nothing else known of it.
    #[must_use]
    pub const fn new(id: Uuid, name: Name, machine_id: Name, now: Time) -> Self {
        Self {
            id,
            name,
            machine_id,
            queues: Vec::new(),
            capabilities: Vec::new(),
            version: None,
            status: WorkerStatus::Idle,
            connectors: BTreeMap::new(),
            started_at: now,
            last_seen_at: now,
            stopped_at: None,
            observed: false,
        }
    }

    /// Whether these connectors fit within the limit in addition to the known ones.
    #[must_use]
    pub fn has_room_for<'a>(&self, connectors: impl IntoIterator<Item = &'a Name>) -> bool {
        let new: BTreeSet<_> = connectors.into_iter().filter(|id| !self.connectors.contains_key(*id)).collect();
        new.is_empty() || self.connectors.len() + new.len() <= MAX_CONNECTORS
    }

    /// Applies a report of the worker; returns the events. Connectors missing from the list were not reported; without
    /// a list all stay unchanged.
    pub fn report(
        &mut self,
        status: Option<WorkerStatus>,
        connectors: Option<&[ConnectorReport]>,
        now: Time,
    ) -> Vec<WorkerEvent> {
        self.last_seen_at = self.last_seen_at.max(now);
        let mut events = Vec::new();
        if !self.status.is_online() {
            // A lost worker reports again. Subscribers may have dropped it, so it is announced with all its fields.
            self.status = status.unwrap_or(WorkerStatus::Idle);
            self.stopped_at = None;
            events.push(WorkerEvent::Started);
            for (id, connector) in &mut self.connectors {
                connector.since = now;
                events.push(WorkerEvent::ConnectorChanged {
                    connector_id: id.clone(),
                    old_status: None,
                    connector: connector.clone(),
                });
            }
        } else if let Some(status) = status.filter(|status| *status != self.status) {
            events.push(WorkerEvent::StatusChanged { old_status: self.status });
            self.status = status;
        }
        match connectors {
            Some(reports) => {
                for report in reports {
                    events.extend(self.set_connector_status(
                        &report.connector_id,
                        report.status,
                        report.error.clone(),
                        now,
                    ));
                }
            }
            None => {
                let known: Vec<_> =
                    self.connectors.iter().map(|(id, known)| (id.clone(), known.derived_status())).collect();
                for (id, (status, error)) in known {
                    events.extend(self.set_connector_status(&id, status, error, now));
                }
            }
        }
        events
    }

    /// Applies a connector report; `None` if nothing changed or the limit is reached.
    fn set_connector_status(
        &mut self,
        id: &Name,
        status: ConnectorStatus,
        error: Option<String>,
        now: Time,
    ) -> Option<WorkerEvent> {
        if !self.has_room_for([id]) {
            return None;
        }
        let known = self.connectors.get_mut(id);
        let tasks = known.as_ref().map_or(0, |known| known.tasks);
        let old_status = known.as_ref().map(|known| known.status);
        if let Some(known) = known.filter(|known| known.status == status && known.error == error) {
            known.reported_at = Some(now);
            return None;
        }
        let connector = Connector { status, error, since: now, reported_at: Some(now), tasks };
        self.connectors.insert(id.clone(), connector.clone());
        Some(WorkerEvent::ConnectorChanged { connector_id: id.clone(), old_status, connector })
    }

    /// A task starts on a connector.
    pub fn connector_acquired(&mut self, id: &Name, now: Time) -> Option<WorkerEvent> {
        let event = self.set_connector_status(id, ConnectorStatus::Active, None, now);
        if let Some(connector) = self.connectors.get_mut(id) {
            connector.tasks += 1;
        }
        event
    }

    /// A task on a connector was lost; the status of the connector is up to its worker.
    pub fn connector_lost(&mut self, id: &Name) {
        if let Some(connector) = self.connectors.get_mut(id) {
            connector.tasks = connector.tasks.saturating_sub(1);
        }
    }

    /// A task on a connector ended, with or without an error.
    pub fn connector_released(&mut self, id: &Name, error: Option<String>, now: Time) -> Option<WorkerEvent> {
        let connector = self.connectors.get_mut(id)?;
        connector.tasks = connector.tasks.saturating_sub(1);
        let status = match (&error, connector.tasks) {
            (Some(_), _) => ConnectorStatus::Error,
            (None, 0) => ConnectorStatus::Idle,
            (None, _) => ConnectorStatus::Active,
        };
        self.set_connector_status(id, status, error, now)
    }

    /// The oldest last report of its connectors, except those already unknown.
    #[must_use]
    pub fn unreported_since(&self) -> Option<Time> {
        let known = self.connectors.values().filter(|connector| connector.status != ConnectorStatus::Unknown);
        known.map(|connector| connector.reported_at.unwrap_or(connector.since)).min()
    }

    /// Sets connectors last reported at or before `since` to unknown.
    pub fn expire_connectors(&mut self, since: Time, now: Time) -> Vec<WorkerEvent> {
        let mut events = Vec::new();
        for (id, connector) in &mut self.connectors {
            let silent = connector.reported_at.unwrap_or(connector.since) <= since;
            if silent && connector.status != ConnectorStatus::Unknown {
                let old_status = Some(connector.status);
                (connector.status, connector.since) = (ConnectorStatus::Unknown, now);
                let connector = connector.clone();
                events.push(WorkerEvent::ConnectorChanged { connector_id: id.clone(), old_status, connector });
            }
        }
        events
    }

    /// Marks it as stopped or lost; `None` if it already is.
    pub fn stop(&mut self, reason: StopReason, now: Time) -> Option<WorkerEvent> {
        if !self.status.is_online() {
            return None;
        }
        let old_status = self.status;
        self.status = match reason {
            StopReason::Asked => WorkerStatus::Stopped,
            StopReason::Lost => WorkerStatus::Lost,
        };
        self.stopped_at = Some(now);
        Some(WorkerEvent::Stopped { reason, old_status })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn worker() -> Worker {
        Worker {
            id: Uuid::nil(),
            name: Name::literal("w"),
            machine_id: Name::literal("m"),
            queues: Vec::new(),
            capabilities: Vec::new(),
            version: None,
            status: WorkerStatus::Idle,
            connectors: BTreeMap::new(),
            started_at: at(0),
            last_seen_at: at(0),
            stopped_at: None,
            observed: false,
        }
    }

    fn smtp() -> Name {
        Name::literal("smtp")
    }

    fn reported(status: ConnectorStatus, error: Option<&str>) -> ConnectorReport {
        ConnectorReport { connector_id: smtp(), status, error: error.map(str::to_owned) }
    }

    /// Has reported its connector in second 0.
    fn with_connector(status: ConnectorStatus, error: Option<&str>) -> Worker {
        let mut worker = worker();
        worker.report(None, Some(&[reported(status, error)]), at(0));
        worker
    }

    #[test]
    fn a_status_is_an_event_only_when_it_changed() {
        let mut worker = worker();
        assert_eq!(worker.report(Some(WorkerStatus::Idle), None, at(1)), []);
        let events = worker.report(Some(WorkerStatus::Draining), None, at(2));
        assert_eq!(events, [WorkerEvent::StatusChanged { old_status: WorkerStatus::Idle }]);
        assert_eq!(worker.report(None, None, at(3)), []);
        assert_eq!((worker.status, worker.last_seen_at), (WorkerStatus::Draining, at(3)));
    }

    #[test]
    fn a_late_report_does_not_make_a_worker_look_older() {
        let mut worker = worker();
        worker.report(None, None, at(9));
        worker.report(None, None, at(4));
        assert_eq!(worker.last_seen_at, at(9));
    }

    #[test]
    fn a_worker_stops_once_and_for_one_reason() {
        for (reason, status) in [(StopReason::Asked, WorkerStatus::Stopped), (StopReason::Lost, WorkerStatus::Lost)] {
            let mut worker = worker();
            let stopped = WorkerEvent::Stopped { reason, old_status: WorkerStatus::Idle };
            assert_eq!(worker.stop(reason, at(5)), Some(stopped));
            assert_eq!((worker.status, worker.stopped_at), (status, Some(at(5))));
            assert_eq!(worker.stop(StopReason::Asked, at(6)), None);
            assert_eq!((worker.status, worker.stopped_at), (status, Some(at(5))));
        }
    }

    #[test]
    fn a_lost_worker_that_reports_again_is_announced_with_its_connectors() {
        let mut worker = with_connector(ConnectorStatus::Error, Some("HTTP 503"));
        worker.stop(StopReason::Lost, at(100));
        let events = worker.report(None, None, at(200));
        assert_eq!((worker.status, worker.stopped_at), (WorkerStatus::Idle, None));
        assert_eq!(events[0], WorkerEvent::Started);
        let WorkerEvent::ConnectorChanged { old_status, connector, .. } = &events[1] else { panic!("{events:?}") };
        assert_eq!((*old_status, connector.status, connector.since), (None, ConnectorStatus::Error, at(200)));
    }

    #[test]
    fn a_connector_changes_with_its_status_or_its_error() {
        let mut worker = with_connector(ConnectorStatus::Error, Some("HTTP 503"));
        let again = reported(ConnectorStatus::Error, Some("HTTP 503"));
        assert_eq!(worker.report(None, Some(&[again]), at(5)), []);
        let known = &worker.connectors[&smtp()];
        assert_eq!((known.since, known.reported_at), (at(0), Some(at(5))), "it was heard of, and has not changed");
        let other = reported(ConnectorStatus::Error, Some("HTTP 404"));
        assert_eq!(worker.report(None, Some(&[other]), at(6)).len(), 1);
        assert_eq!(worker.report(None, Some(&[]), at(7)), [], "what is not listed was not reported");
        assert_eq!(worker.connectors[&smtp()].reported_at, Some(at(6)));
    }

    #[test]
    fn a_connector_is_idle_when_its_last_task_ended_well() {
        let mut worker = worker();
        worker.connector_acquired(&smtp(), at(1));
        assert_eq!(worker.connector_acquired(&smtp(), at(2)), None, "it is active already");
        assert_eq!(worker.connectors[&smtp()].tasks, 2);
        assert_eq!(worker.connector_released(&smtp(), None, at(3)), None);
        let event = worker.connector_released(&smtp(), None, at(4)).unwrap();
        let WorkerEvent::ConnectorChanged { old_status, connector, .. } = event else { panic!("{event:?}") };
        assert_eq!((old_status, connector.status), (Some(ConnectorStatus::Active), ConnectorStatus::Idle));
        assert_eq!(connector.tasks, 0);
    }

    #[test]
    fn an_error_of_a_task_is_an_error_of_its_connector() {
        let mut worker = worker();
        worker.connector_acquired(&smtp(), at(1));
        worker.connector_acquired(&smtp(), at(1));
        worker.connector_released(&smtp(), Some("HTTP 503".to_owned()), at(2));
        let known = &worker.connectors[&smtp()];
        assert_eq!((known.status, known.error.as_deref(), known.tasks), (ConnectorStatus::Error, Some("HTTP 503"), 1));
        worker.connector_acquired(&smtp(), at(3));
        assert_eq!(worker.connectors[&smtp()].error, None, "the next task shows whether it works again");
    }

    #[test]
    fn tasks_of_a_connector_are_never_fewer_than_none() {
        let mut worker = worker();
        assert_eq!(worker.connector_released(&smtp(), None, at(1)), None, "it is not known");
        worker.connector_lost(&smtp());
        assert!(worker.connectors.is_empty());
        worker.connector_acquired(&smtp(), at(1));
        worker.connector_lost(&smtp());
        worker.connector_lost(&smtp());
        let known = &worker.connectors[&smtp()];
        assert_eq!((known.tasks, known.status), (0, ConnectorStatus::Active), "its status is up to its worker");
    }

    #[test]
    fn a_connector_is_unknown_after_the_time_for_a_report() {
        let mut worker = with_connector(ConnectorStatus::Active, None);
        assert_eq!(worker.unreported_since(), Some(at(0)));
        assert_eq!(worker.expire_connectors(at(-1), at(60)), []);
        let events = worker.expire_connectors(at(0), at(60));
        let WorkerEvent::ConnectorChanged { old_status, connector, .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!((*old_status, connector.status), (Some(ConnectorStatus::Active), ConnectorStatus::Unknown));
        assert_eq!((connector.since, connector.reported_at), (at(60), Some(at(0))));
        assert_eq!(worker.expire_connectors(at(99), at(99)), [], "it is unknown already");
        assert_eq!(worker.unreported_since(), None);
    }

    #[test]
    fn an_unknown_connector_comes_back_as_its_tasks_and_its_error_say() {
        for (error, tasks, status) in [
            (None, 0, ConnectorStatus::Idle),
            (None, 1, ConnectorStatus::Active),
            (Some("HTTP 503"), 1, ConnectorStatus::Error),
        ] {
            let mut worker = with_connector(ConnectorStatus::Idle, error);
            worker.connectors.get_mut(&smtp()).unwrap().tasks = tasks;
            worker.expire_connectors(at(0), at(60));
            assert_eq!(worker.report(None, None, at(61)).len(), 1);
            assert_eq!(worker.connectors[&smtp()].status, status, "{error:?}, {tasks} tasks");
        }
    }

    #[test]
    fn a_worker_has_room_for_sixty_four_connectors() {
        let name = |number: usize| Name::new(&format!("c{number}")).unwrap();
        let mut worker = worker();
        for number in 0..MAX_CONNECTORS {
            assert!(worker.has_room_for([&name(number)]));
            worker.connector_acquired(&name(number), at(1));
        }
        assert!(!worker.has_room_for([&name(0), &name(64)]));
        assert!(worker.has_room_for([&name(0), &name(63)]), "those are known");
        assert_eq!(worker.connector_acquired(&name(64), at(2)), None);
        assert_eq!(worker.connectors.len(), MAX_CONNECTORS);
        worker.connectors.remove(&name(0));
        assert!(worker.has_room_for([&name(64), &name(64)]), "one named twice is one");
    }

    #[test]
    fn a_worker_is_online_until_it_stopped_or_was_lost() {
        let online = WorkerStatus::ALL.iter().filter(|status| status.is_online()).map(|status| status.as_str());
        assert_eq!(online.collect::<Vec<_>>(), ["starting", "idle", "active", "draining"]);
    }

    #[test]
    fn a_connector_is_stored_without_what_it_has_not() {
        let connector = with_connector(ConnectorStatus::Idle, None).connectors.remove(&smtp()).unwrap();
        let bare = Connector { reported_at: None, ..connector };
        let json = serde_json::to_value(&bare).unwrap();
        assert_eq!(json, serde_json::json!({ "status": "idle", "since": "2027-01-15T08:00:00Z" }));
        assert_eq!(serde_json::from_value::<Connector>(json).unwrap(), bare);
    }
}
