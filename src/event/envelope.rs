//! The event as stored, sent and read back: one flat JSON object.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::{
    Kind,
    field::{Field, FieldType, described},
};
use crate::{
    clock::Time,
    model::{
        Name, Priority, Status,
        edit::Changes,
        phase::Counts,
        report::{Json, WorkCounts},
        stuck::Stuck,
    },
};

/// Version of the envelope written by this program.
pub const SCHEMA_VERSION: u16 = 1;

/// Eight hex digits; changes when the log is created, restored or renumbered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = BadEventId;
    fn from_str(text: &str) -> Result<Self, BadEventId> {
        let hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hex {
            return Err(BadEventId);
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| BadEventId)
    }
}

/// `<epoch>-<position>`: the `id:` of a frame and `event_id` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// Epoch of the log.
    pub epoch: Epoch,
    /// Position in the log; 0 is before the first event.
    pub position: i64,
}

/// Not a valid event ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid event ID; expected <epoch>-<position>, e.g. 5c1f09ae-184")]
pub struct BadEventId;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)
    }
}

impl FromStr for EventId {
    type Err = BadEventId;
    fn from_str(text: &str) -> Result<Self, BadEventId> {
        let (epoch, position) = text.split_once('-').ok_or(BadEventId)?;
        let digits = !position.is_empty() && position.len() <= 19 && position.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(BadEventId);
        }
        Ok(Self { epoch: epoch.parse()?, position: position.parse().map_err(|_| BadEventId)? })
    }
}

macro_rules! envelope {
    ($(#[doc = $doc:literal] $field:ident: $type:ty,)+) => {
        /// One event. Absent fields are omitted from the JSON. Without a position it is a draft or ephemeral.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct Event {
            /// `<epoch>-<position>`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub event_id: Option<String>,
            /// Position in the log, from 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub position: Option<i64>,
            /// Type of the event.
            pub event_type: Kind,
            /// [`SCHEMA_VERSION`] of the writer.
            pub schema_version: u16,
            /// Timestamp, UTC, microseconds.
            #[serde(serialize_with = "micros")]
            pub ts: Time,
            $(#[doc = $doc] #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)+
            /// Fields specific to the event type.
            #[serde(default, skip_serializing_if = "Data::is_empty")]
            pub data: Data,
            /// Fields omitted because the event was too large.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub truncated: Vec<String>,
        }

        impl Event {
            /// An event of a type at a time, without any other field.
            #[must_use]
            pub fn new(event_type: Kind, ts: Time) -> Self {
                Self {
                    event_id: None, position: None, event_type, schema_version: SCHEMA_VERSION, ts,
                    $($field: None,)+
                    data: Data::default(), truncated: Vec::new(),
                }
            }

            /// All optional fields of an event.
            pub(super) fn fields() -> Vec<Field> {
                vec![$((stringify!($field), $doc, <$type as FieldType>::schema())),+]
            }
        }
    };
}

envelope! {
    /// Project.
    project_id: Name,
    /// Parent task of the task.
    parent_task_id: Uuid,
    /// The task.
    task_id: Uuid,
    /// Task type.
    task_type: Name,
    /// Its phase within the parent.
    phase: Name,
    /// The queue.
    queue: Name,
    /// Priority, 0–9.
    priority: Priority,
    /// The worker.
    worker_id: Uuid,
    /// The machine.
    machine_id: Name,
    /// The connector.
    connector_id: Name,
    /// Attempt number, from 1.
    attempt: u32,
    /// Failed attempts before.
    retry_count: u32,
    /// Task status before.
    old_status: Status,
    /// Task status after.
    status: Status,
    /// Duration of the attempt, milliseconds.
    duration_ms: u64,
    /// One-line message.
    message: String,
    /// Error message.
    error: String,
    /// Work units counted by the worker.
    counts: WorkCounts,
    /// The task's labels.
    labels: BTreeMap<Name, String>,
    /// Who requested it.
    actor: String,
}

fn micros<S: Serializer>(ts: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*ts))
}

/// RFC 3339 in UTC with exactly six decimals, as in `2026-11-20T16:05:00.123456Z`.
#[must_use]
pub fn rfc3339(ts: Time) -> String {
    ts.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

impl FieldType for Stats {
    fn schema() -> serde_json::Value {
        described::<Self>()
    }
}

/// Statistics of the overview, in `stats_snapshot`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stats {
    /// Online workers.
    pub workers_online: u64,
    /// Pending tasks.
    pub pending: u64,
    /// Running tasks.
    pub running: u64,
    /// Tasks waiting for their next attempt.
    pub retrying: u64,
    /// Completed tasks, except deleted ones.
    pub completed: u64,
    /// Failed tasks, except deleted ones.
    pub failed: u64,
    /// Tasks completed per second, over the last minute.
    pub throughput_per_second: f64,
    /// Failed attempts as a percentage of all finished attempts, 0–100, over the last minute.
    pub error_rate_1m_percent: f64,
    /// Failed attempts as a percentage of all finished attempts, 0–100, over the last five minutes.
    pub error_rate_5m_percent: f64,
}

macro_rules! data {
    ($(#[doc = $doc:literal] $field:ident: $type:ty,)+) => {
        /// Fields specific to an event type. [`super::kind`] defines which type has which fields.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct Data {
            $(#[doc = $doc] #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)+
        }

        impl Data {
            /// Names of all fields.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// All fields, with description and schema.
            pub(super) fn fields() -> Vec<Field> {
                vec![$((stringify!($field), $doc, <$type as FieldType>::schema())),+]
            }

            /// Whether no field is set.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                $(self.$field.is_none())&&+
            }

            /// Names of the fields that are set.
            #[must_use]
            pub fn set_fields(&self) -> Vec<&'static str> {
                let mut set = Vec::new();
                $(if self.$field.is_some() { set.push(stringify!($field)); })+
                set
            }
        }
    };
}

data! {
    /// Title of the task.
    title: String,
    /// Phases declared for its children.
    phases: Vec<Name>,
    /// Maximum number of attempts.
    max_attempts: u32,
    /// Error group: equal for failures of the same task type whose errors differ only in numbers and IDs.
    fingerprint: Name,
    /// Previous error group, when another failure of a failed task was reported.
    old_fingerprint: Name,
    /// Reason.
    reason: String,
    /// Progress in percent, 0–100.
    percent: f64,
    /// Output of the worker.
    result: Json,
    /// Earliest start of the next attempt.
    next_run_at: Time,
    /// Edited fields: field name to `[old, new]`.
    changes: Changes,
    /// Tasks that must complete first.
    depends_on: Vec<Uuid>,
    /// Earliest start.
    run_at: Time,
    /// ID of the task in the reporting system.
    external_id: String,
    /// Timestamp by the clock of the reporting system.
    reported_at: Time,
    /// How long the task was pending, milliseconds.
    wait_ms: u64,
    /// Children by phase and status.
    children: BTreeMap<Name, Counts>,
    /// When the connector was last reported.
    unreported_since: Time,
    /// Action of the operator.
    action: String,
    /// Tasks matched by the action.
    matched: u64,
    /// Tasks processed successfully.
    succeeded: u64,
    /// Tasks that could not be processed.
    failed: u64,
    /// Schedule that caused the event.
    schedule: String,
    /// Name of the worker.
    name: Name,
    /// Queues that the worker serves.
    queues: Vec<Name>,
    /// Version of the worker's software.
    version: String,
    /// Status of the worker or connector before.
    old_status: Name,
    /// Status of the worker or connector after.
    status: Name,
    /// Number of pending tasks.
    depth: u64,
    /// When the oldest pending task was enqueued.
    oldest_enqueued_at: Time,
    /// The statistics.
    stats: Stats,
    /// Tasks that cannot make progress without an operator, root causes first, at most 50 of `matched`.
    stuck: Vec<Stuck>,
}
