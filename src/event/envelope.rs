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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Time {
        Time::from_timestamp_micros(micros).unwrap()
    }

    fn keys(event: &Event) -> Vec<String> {
        let json = serde_json::to_value(event).unwrap();
        json.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn an_epoch_is_eight_small_hex_digits() {
        for text in ["00000000", "5c1f09ae", "ffffffff"] {
            assert_eq!(text.parse::<Epoch>().map(|epoch| epoch.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "5c1f09a", "5c1f09ae0", "5C1F09AE", "+c1f09ae", "0x1f09ae", "5c1f 9ae", "５c1f0", "5c1f09é"]
        {
            assert_eq!(text.parse::<Epoch>(), Err(BadEventId), "{text}");
        }
    }

    #[test]
    fn an_event_id_ends_at_the_greatest_position() {
        let greatest = format!("5c1f09ae-{}", i64::MAX);
        assert_eq!(greatest.parse::<EventId>().unwrap().position, i64::MAX);
        for text in ["5c1f09ae-9223372036854775808", "5c1f09ae-00000000000000000001", "5c1f09ae-9999999999999999999"] {
            assert_eq!(text.parse::<EventId>(), Err(BadEventId), "{text}");
        }
    }

    #[test]
    fn what_is_no_event_id_is_refused_and_the_error_shows_one() {
        for text in [
            "",
            "-",
            "184",
            "5c1f09ae",
            "5c1f09ae-",
            "-184",
            "5c1f09ae--1",
            "5c1f09ae-+1",
            "5c1f09ae-1 ",
            "5c1f09ae-１",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(BadEventId), "{text}");
        }
        let example = BadEventId.to_string().rsplit(' ').next().unwrap().to_owned();
        assert!(example.parse::<EventId>().is_ok(), "{example}");
    }

    #[test]
    fn times_have_exactly_six_decimals() {
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(at(1)), "1970-01-01T00:00:00.000001Z");
        assert_eq!(rfc3339(at(-1)), "1969-12-31T23:59:59.999999Z");
        let finer = Time::from_timestamp(0, 1_999).unwrap();
        assert_eq!(rfc3339(finer), "1970-01-01T00:00:00.000001Z", "nanoseconds are cut, not rounded");
    }

    #[test]
    fn absent_fields_are_not_in_the_json() {
        let event = Event::new(Kind::TaskCreated, at(0));
        assert_eq!(keys(&event), ["event_type", "schema_version", "ts"]);
    }

    #[test]
    fn every_field_that_is_set_is_in_the_json() {
        let mut event = Event::new(Kind::TaskCreated, at(0));
        event.data.wait_ms = Some(0);
        event.truncated = vec!["error".to_owned()];
        event.retry_count = Some(0);
        event.message = Some(String::new());
        assert_eq!(
            keys(&event),
            ["data", "event_type", "message", "retry_count", "schema_version", "truncated", "ts"],
            "zero and empty texts are values"
        );
        assert_eq!(event.data.set_fields(), ["wait_ms"]);
        assert!(!event.data.is_empty());
    }

    #[test]
    fn a_field_of_a_newer_version_is_ignored() {
        let json = r#"{"event_type":"task_created","schema_version":1,"ts":"2026-11-20T16:05:00Z","mood":"good","data":{"mood":1}}"#;
        let event: Event = serde_json::from_str(json).unwrap();
        assert_eq!((event.event_type, event.data.is_empty()), (Kind::TaskCreated, true));
    }

    #[test]
    fn a_bad_field_is_refused_whatever_else_is_right() {
        for bad in [
            r#""queue":"""#,
            r#""queue":"a\nb""#,
            r#""priority":10"#,
            r#""priority":-1"#,
            r#""task_id":"7""#,
            r#""status":"done""#,
            r#""attempt":-1"#,
            r#""attempt":4294967296"#,
            r#""position":9223372036854775808"#,
            r#""labels":{"":"x"}"#,
        ] {
            let json =
                format!(r#"{{"event_type":"task_created","schema_version":1,"ts":"2026-11-20T16:05:00Z",{bad}}}"#);
            assert!(serde_json::from_str::<Event>(&json).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_fields_are_unique() {
        let unique = |mut names: Vec<&str>| {
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            names.len() == all
        };
        assert!(unique(Data::FIELDS.to_vec()));
        assert!(unique(Event::fields().into_iter().map(|(name, ..)| name).collect()));
    }

    prop_compose! {
        fn event()(
            kind in 0..Kind::ALL.len(),
            micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999,
            position in prop::option::of(0..=i64::MAX),
            numbers in prop::collection::vec(prop::option::of(any::<u64>()), 4),
            attempt in prop::option::of(any::<u32>()),
            texts in prop::collection::vec(prop::option::of("\\PC{0,12}|[\\x00-\\x1f\u{2028}\"\\\\]{0,6}"), 4),
            queue in prop::option::of("[^\\x00-\\x1f\\x7f-\\x9f]{1,30}"),
            priority in prop::option::of(0_i64..=9),
            task_id in prop::option::of(any::<u128>()),
        ) -> Event {
            let mut event = Event::new(Kind::ALL[kind], at(micros));
            event.position = position;
            event.event_id = position.map(|position| EventId { epoch: Epoch(7), position }.to_string());
            (event.duration_ms, event.data.wait_ms) = (numbers[0], numbers[1]);
            (event.data.matched, event.attempt) = (numbers[2], attempt);
            event.counts = numbers[3].map(|done| WorkCounts { completed: Some(done), ..WorkCounts::default() });
            let mut texts = texts.into_iter();
            event.error = texts.next().flatten();
            event.message = texts.next().flatten();
            event.data.title = texts.next().flatten();
            event.labels = texts.next().flatten().map(|text| [(Name::literal("k"), text)].into());
            event.queue = queue.and_then(|queue| Name::new(&queue).ok());
            event.priority = priority.and_then(Priority::new);
            event.task_id = task_id.map(Uuid::from_u128);
            event
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn an_event_is_read_as_it_was_written(event in event()) {
            let json = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Event>(&json).unwrap(), &event);
            let again = serde_json::to_string(&serde_json::from_str::<Event>(&json).unwrap()).unwrap();
            prop_assert_eq!(json, again, "the bytes stay the same too");
        }

        #[test]
        fn ids_are_read_as_they_were_written(epoch: u32, position in 0..=i64::MAX) {
            let id = EventId { epoch: Epoch(epoch), position };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn no_text_panics_as_an_id(text in "\\PC{0,24}|[0-9a-f-]{0,30}") {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }
}
