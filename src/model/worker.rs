//! Workers and the connectors they drive.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Name;
use crate::clock::Time;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
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

impl Worker {
    /// Takes in what the worker says of itself, and tells what changed.
    pub fn report(
        &mut self,
        status: Option<WorkerStatus>,
        connectors: &[ConnectorReport],
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
        for report in connectors {
            let known = self.connectors.get(&report.connector_id);
            if known.is_some_and(|known| known.status == report.status && known.error == report.error) {
                continue;
            }
            let old_status = known.map(|known| known.status);
            let connector = Connector { status: report.status, error: report.error.clone(), since: now };
            self.connectors.insert(report.connector_id.clone(), connector.clone());
            events.push(WorkerEvent::ConnectorChanged {
                connector_id: report.connector_id.clone(),
                old_status,
                connector,
            });
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
