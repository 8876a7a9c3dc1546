//! The event as it is stored, sent and read back: one flat JSON object.

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

/// The version of the envelope that this program writes.
pub const SCHEMA_VERSION: u16 = 1;

/// Eight hex digits that change when the log is created, restored or renumbered.
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
    /// Which log.
    pub epoch: Epoch,
    /// Where in it; 0 is before the first event.
    pub position: i64,
}

/// A text that is no event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event id is eight hex digits, a dash and a position, as in 5c1f09ae-184")]
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
        /// One event. Absent fields are left out of the JSON. Without a position it is a draft or ephemeral.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct Event {
            /// `<epoch>-<position>`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub event_id: Option<String>,
            /// Place in the log, from 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub position: Option<i64>,
            /// What happened.
            pub event_type: Kind,
            /// [`SCHEMA_VERSION`] of the writer.
            pub schema_version: u16,
            /// When it happened, UTC, microseconds.
            #[serde(serialize_with = "micros")]
            pub ts: Time,
            $(#[doc = $doc] #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)+
            /// What belongs to this kind only.
            #[serde(default, skip_serializing_if = "Data::is_empty")]
            pub data: Data,
            /// Fields left out because the event was too large.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub truncated: Vec<String>,
        }

        impl Event {
            /// An event of a kind at a time, with nothing else said yet.
            #[must_use]
            pub fn new(event_type: Kind, ts: Time) -> Self {
                Self {
                    event_id: None, position: None, event_type, schema_version: SCHEMA_VERSION, ts,
                    $($field: None,)+
                    data: Data::default(), truncated: Vec::new(),
                }
            }

            /// Every field that an event may have beside those it always has.
            pub(super) fn fields() -> Vec<Field> {
                vec![$((stringify!($field), $doc, <$type as FieldType>::schema())),+]
            }
        }
    };
}

envelope! {
    /// The tenant.
    project_id: Name,
    /// The task that groups the task.
    parent_task_id: Uuid,
    /// The task.
    task_id: Uuid,
    /// What kind of work it is.
    task_type: Name,
    /// Its phase within the parent.
    phase: Name,
    /// The queue.
    queue: Name,
    /// 0–9.
    priority: Priority,
    /// The worker.
    worker_id: Uuid,
    /// The machine.
    machine_id: Name,
    /// The connector.
    connector_id: Name,
    /// Number of the attempt, from 1.
    attempt: u32,
    /// Attempts that failed before.
    retry_count: u32,
    /// The task's state before.
    old_status: Status,
    /// The task's state after.
    status: Status,
    /// Time of the attempt, milliseconds.
    duration_ms: u64,
    /// One line for people.
    message: String,
    /// What went wrong.
    error: String,
    /// Work in units, as the worker counts it.
    counts: WorkCounts,
    /// The task's labels.
    labels: BTreeMap<Name, String>,
    /// Who asked for it.
    actor: String,
}

fn micros<S: Serializer>(ts: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*ts))
}

/// UTC RFC 3339 with exactly six decimals, as in `2026-11-20T16:05:00.123456Z`.
#[must_use]
pub fn rfc3339(ts: Time) -> String {
    ts.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

impl FieldType for Stats {
    fn schema() -> serde_json::Value {
        described::<Self>()
    }
}

/// Figures of the overview, in `stats_snapshot`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stats {
    /// Workers that are expected to report.
    pub workers_online: u64,
    /// Tasks that may be claimed.
    pub pending: u64,
    /// Tasks that workers have.
    pub running: u64,
    /// Tasks that wait for another attempt.
    pub retrying: u64,
    /// Tasks done, of those not deleted.
    pub completed: u64,
    /// Tasks given up, of those not deleted.
    pub failed: u64,
    /// Tasks done per second, over the last minute.
    pub throughput_per_second: f64,
    /// Attempts that failed of attempts that ended, 0–100, over the last minute.
    pub error_rate_1m_percent: f64,
    /// The same over five minutes.
    pub error_rate_5m_percent: f64,
}

macro_rules! data {
    ($(#[doc = $doc:literal] $field:ident: $type:ty,)+) => {
        /// What belongs to one kind only. Which kind carries which field stands in [`super::kind`].
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct Data {
            $(#[doc = $doc] #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)+
        }

        impl Data {
            /// Every field's name.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// Every field, with what it says and its schema.
            pub(super) fn fields() -> Vec<Field> {
                vec![$((stringify!($field), $doc, <$type as FieldType>::schema())),+]
            }

            /// True when no field is set.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                $(self.$field.is_none())&&+
            }

            /// The names of the fields that are set.
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
    /// The task's title.
    title: String,
    /// Phases declared for its children.
    phases: Vec<Name>,
    /// Attempts allowed.
    max_attempts: u32,
    /// Failures with the same one are alike: the kind of work and the error, but for numbers and names.
    fingerprint: Name,
    /// The one it had before, when a failed task is told of anew.
    old_fingerprint: Name,
    /// Why.
    reason: String,
    /// 0–100.
    percent: f64,
    /// The worker's output.
    result: Json,
    /// When the next attempt may start.
    next_run_at: Time,
    /// What was edited: field to `[old, new]`.
    changes: Changes,
    /// Tasks that must complete first.
    depends_on: Vec<Uuid>,
    /// Not to start before.
    run_at: Time,
    /// The id in the system that reports the task.
    external_id: String,
    /// When it happened, by the clock of the system that reported it.
    reported_at: Time,
    /// How long the task could have been claimed before, milliseconds.
    wait_ms: u64,
    /// Children by phase and state.
    children: BTreeMap<Name, Counts>,
    /// Since when a connector has not been reported.
    unreported_since: Time,
    /// What an operator did.
    action: String,
    /// Tasks it was to be done to.
    matched: u64,
    /// Tasks it was done to.
    succeeded: u64,
    /// Tasks it could not be done to.
    failed: u64,
    /// The recurring task that is the reason.
    schedule: String,
    /// The worker's name.
    name: Name,
    /// Queues the worker serves.
    queues: Vec<Name>,
    /// Version of the worker's program.
    version: String,
    /// The worker's or connector's state before.
    old_status: Name,
    /// The worker's or connector's state after.
    status: Name,
    /// Tasks that may be claimed.
    depth: u64,
    /// Since when the oldest of them waits.
    oldest_enqueued_at: Time,
    /// The figures.
    stats: Stats,
    /// Tasks that cannot go on without help, the causes first, at most 50 of those `matched`.
    stuck: Vec<Stuck>,
}
