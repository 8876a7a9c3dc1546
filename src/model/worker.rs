//! Workers and the connectors they drive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Name;
use crate::clock::Time;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:tt),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in JSON, SQL, URLs and pages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    other => Err(format!("'{other}' is not one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

words! {
    /// What a worker does.
    WorkerStatus {
        /// Not ready for work yet.
        Starting = "starting",
        /// Ready, nothing to do.
        Idle = "idle",
        /// Working.
        Active = "active",
        /// Finishes what it has, takes nothing new.
        Draining = "draining",
        /// Left by itself.
        Stopped = "stopped",
        /// Silent for longer than its time to live.
        Lost = "lost",
    }
}

words! {
    /// What a connector does, as its worker reports it.
    ConnectorStatus {
        /// Not ready yet.
        Starting = "starting",
        /// Ready, nothing to do.
        Idle = "idle",
        /// Working.
        Active = "active",
        /// Does not work; the message says why.
        Error = "error",
        /// No report for long.
        Unknown = "unknown",
    }
}

impl WorkerStatus {
    /// True while it is expected to report.
    #[must_use]
    pub const fn is_online(self) -> bool {
        !matches!(self, Self::Stopped | Self::Lost)
    }
}

/// A service that a worker talks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Connector {
    /// What it does.
    pub status: ConnectorStatus,
    /// What is wrong, with status `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When this status began.
    #[schema(value_type = String, format = DateTime)]
    pub since: Time,
    /// With status `unknown`: when it was reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reported_at: Option<Time>,
    /// Tasks that run on it.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(value_type = u32)]
    pub tasks: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Connector {
    /// What it does, when nothing new is said: an unknown one is what its tasks and its last error say.
    fn settled(&self) -> (ConnectorStatus, Option<String>) {
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
    /// Identity, given at registration.
    pub id: Uuid,
    /// Its name for people.
    pub name: Name,
    /// Where it lives.
    pub machine_id: Name,
    /// Queues it serves.
    pub queues: Vec<Name>,
    /// What it can do, in words of its own.
    pub capabilities: Vec<Name>,
    /// Version of its program.
    pub version: Option<String>,
    /// What it does.
    pub status: WorkerStatus,
    /// Its connectors.
    pub connectors: BTreeMap<Name, Connector>,
    /// When it registered.
    pub started_at: Time,
    /// Its last sign of life.
    pub last_seen_at: Time,
    /// When it left or was lost.
    pub stopped_at: Option<Time>,
    /// Known by the reports of another system only.
    pub observed: bool,
}

/// What happened to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// It registered.
    Started,
    /// It does something else now.
    StatusChanged {
        /// What it did before.
        old_status: WorkerStatus,
    },
    /// It left (`asked`) or was lost (`lost`).
    Stopped {
        /// Which of the two.
        reason: StopReason,
        /// What it did before.
        old_status: WorkerStatus,
    },
    /// One of its connectors does something else now.
    ConnectorChanged {
        /// Which.
        connector_id: Name,
        /// What it did before, if it was known.
        old_status: Option<ConnectorStatus>,
        /// What it does now.
        connector: Connector,
    },
}

words! {
    /// Why a worker stopped.
    StopReason {
        /// It said so.
        Asked = "asked",
        /// It was silent for longer than its time to live.
        Lost = "lost",
    }
}

/// A connector in a registration or heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorReport {
    /// Which.
    pub connector_id: Name,
    /// What it does.
    pub status: ConnectorStatus,
    /// What is wrong.
    pub error: Option<String>,
}

/// Most connectors of a worker.
pub const MAX_CONNECTORS: usize = 64;

impl Worker {
    /// All these connectors fit beside those that are known.
    #[must_use]
    pub fn has_room_for<'a>(&self, connectors: impl IntoIterator<Item = &'a Name>) -> bool {
        let new: BTreeSet<_> = connectors.into_iter().filter(|id| !self.connectors.contains_key(*id)).collect();
        new.is_empty() || self.connectors.len() + new.len() <= MAX_CONNECTORS
    }

    /// Takes in what the worker says of itself, and tells what changed. Connectors that are not in the list were not
    /// reported; without a list all are as they were.
    pub fn report(
        &mut self,
        status: Option<WorkerStatus>,
        connectors: Option<&[ConnectorReport]>,
        now: Time,
    ) -> Vec<WorkerEvent> {
        self.last_seen_at = self.last_seen_at.max(now);
        let mut events = Vec::new();
        if !self.status.is_online() {
            // It was lost and speaks again. Who watches may have forgotten it, so it is announced whole.
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
                let known: Vec<_> = self.connectors.iter().map(|(id, known)| (id.clone(), known.settled())).collect();
                for (id, (status, error)) in known {
                    events.extend(self.set_connector_status(&id, status, error, now));
                }
            }
        }
        events
    }

    /// A connector is reported; nothing when that is what was known, or when there is no room for one more.
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

    /// A task begins on a connector.
    pub fn connector_acquired(&mut self, id: &Name, now: Time) -> Option<WorkerEvent> {
        let event = self.set_connector_status(id, ConnectorStatus::Active, None, now);
        if let Some(connector) = self.connectors.get_mut(id) {
            connector.tasks += 1;
        }
        event
    }

    /// A task on a connector was taken away; what the connector does is for its worker to say.
    pub fn connector_lost(&mut self, id: &Name) {
        if let Some(connector) = self.connectors.get_mut(id) {
            connector.tasks = connector.tasks.saturating_sub(1);
        }
    }

    /// A task on a connector is over, with an error or without.
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

    /// The oldest last report of its connectors, but of those that are unknown already.
    #[must_use]
    pub fn unreported_since(&self) -> Option<Time> {
        let known = self.connectors.values().filter(|connector| connector.status != ConnectorStatus::Unknown);
        known.map(|connector| connector.reported_at.unwrap_or(connector.since)).min()
    }

    /// Connectors that were last reported at or before `since` are unknown from now on.
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

    /// Marks it as gone; nothing when it is gone already.
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
