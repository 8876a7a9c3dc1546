//! Validates one report of another system and converts it for the writer.

use serde::{Deserialize, Deserializer, de::Error};
use uuid::Uuid;

use super::super::fields::{Attempts, Labels, Phases, Seconds};
use crate::{
    clock::Time,
    command::ingest::{IngestedReport, WorkerReport},
    event::Kind,
    http::input::{Free, Mended, Text},
    model::{
        Name, NewName, Priority, Timestamp,
        observation::{Facts, Observation, ObservedKind},
        report::{Progress, WorkCounts},
        whole,
        worker::{ConnectorReport, ConnectorStatus, WorkerStatus},
    },
};

/// Namespace for IDs that are not UUIDs; they are mapped to UUIDs of version 5.
pub(super) const NAMESPACE: Uuid = Uuid::from_u128(0x7a1c_9f04_63de_4b58_9d2e_5b1f_0c8a_6e31);
/// Maximum accepted skew of a reporter's clock into the future.
const AHEAD: chrono::TimeDelta = chrono::TimeDelta::days(1);

/// Maximum duration of an attempt: ten years, milliseconds.
const LONGEST_MS: u64 = 10 * 366 * 86_400_000;

/// An ID in the reporting system: a string or an integer.
#[derive(Debug, Clone)]
pub(super) struct ForeignId(Name);

impl<'de> Deserialize<'de> for ForeignId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Negative(i64),
            Text(String),
        }
        let wrong = "must be a string of 1–128 bytes without control characters, or an integer of 64 bits";
        let text = match Either::deserialize(deserializer).map_err(|_| D::Error::custom(wrong))? {
            Either::Number(number) => number.to_string(),
            Either::Negative(number) => number.to_string(),
            Either::Text(text) => text,
        };
        Name::new(&text).map(Self).map_err(|_| D::Error::custom(wrong))
    }
}

impl ForeignId {
    fn uuid(&self, kind: &str, source: Option<&Name>) -> Uuid {
        let text = self.0.as_str();
        Uuid::parse_str(text).unwrap_or_else(|_| {
            let source = source.map_or("", Name::as_str);
            Uuid::new_v5(&NAMESPACE, format!("{kind}\0{source}\0{text}").as_bytes())
        })
    }

    fn is_uuid(&self) -> bool {
        Uuid::parse_str(self.0.as_str()).is_ok()
    }
}

/// A native report: the fields of an event. Fields that taskwatch itself adds are allowed and ignored, so that the
/// events of one taskwatch can be reported to another.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NativeReport {
    /// Event type: `task_created`, `task_enqueued`, `task_started`, `task_progress`, `task_completed`, `task_retry`,
    /// `task_failed`, `task_cancelled`, `worker_started`, `worker_heartbeat`, `worker_status_changed`, `worker_stopped`
    /// or `connector_status_changed`.
    event_type: String,
    /// Timestamp by the clock of the reporting system; defaults to now.
    #[schema(value_type = Option<String>, format = DateTime)]
    ts: Option<Timestamp>,
    /// Reporting system; namespace of IDs that are not UUIDs.
    source: Option<Name>,
    /// Task ID, any string of up to 128 bytes.
    #[schema(value_type = Option<String>, max_length = 128)]
    task_id: Option<ForeignId>,
    /// Attempt number; send it if tasks are retried. Defaults to 1.
    #[schema(value_type = Option<u32>, minimum = 1)]
    #[serde(default, deserialize_with = "whole::optional")]
    attempt: Option<u32>,
    /// Task type.
    task_type: Option<NewName>,
    project_id: Option<NewName>,
    /// Parent task; it may be reported later, or never.
    #[schema(value_type = Option<String>, max_length = 128)]
    parent_task_id: Option<ForeignId>,
    phase: Option<NewName>,
    queue: Option<NewName>,
    #[schema(value_type = Option<u8>, minimum = 0, maximum = 9)]
    priority: Option<Priority>,
    /// Worker ID, any string of up to 128 bytes; unknown workers are created.
    #[schema(value_type = Option<String>, max_length = 128)]
    worker_id: Option<ForeignId>,
    machine_id: Option<NewName>,
    connector_id: Option<NewName>,
    /// Duration of the attempt, milliseconds.
    #[serde(default, deserialize_with = "whole::optional")]
    duration_ms: Option<u64>,
    /// One-line message.
    #[schema(value_type = Option<String>, max_length = 2000)]
    message: Option<Mended<2000>>,
    /// Error message.
    #[schema(value_type = Option<String>, max_length = 16384)]
    error: Option<Mended<16384>>,
    counts: Option<WorkCounts>,
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    labels: Option<Labels>,
    /// Status of the worker or connector.
    status: Option<Name>,
    /// Payload of the task, any JSON.
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Free>,
    /// Fields specific to the event type.
    #[serde(default)]
    data: NativeData,
    #[schema(value_type = Option<serde_json::Value>)]
    #[expect(dead_code, reason = "taskwatch's own fields: allowed, not used")]
    event_id: Option<serde::de::IgnoredAny>,
    #[schema(value_type = Option<serde_json::Value>)]
    #[expect(dead_code, reason = "as above")]
    position: Option<serde::de::IgnoredAny>,
    #[schema(value_type = Option<serde_json::Value>)]
    #[expect(dead_code, reason = "as above")]
    schema_version: Option<serde::de::IgnoredAny>,
    #[schema(value_type = Option<serde_json::Value>)]
    #[expect(dead_code, reason = "as above")]
    retry_count: Option<serde::de::IgnoredAny>,
    #[schema(value_type = Option<serde_json::Value>)]
    #[expect(dead_code, reason = "as above")]
    old_status: Option<serde::de::IgnoredAny>,
    #[schema(value_type = Option<serde_json::Value>)]
    #[expect(dead_code, reason = "as above")]
    actor: Option<serde::de::IgnoredAny>,
    #[schema(value_type = Option<serde_json::Value>)]
    #[expect(dead_code, reason = "as above")]
    truncated: Option<serde::de::IgnoredAny>,
}

/// Fields specific to the event type; unknown ones are ignored.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(super) struct NativeData {
    #[schema(value_type = Option<String>, max_length = 500)]
    title: Option<Text<500>>,
    #[schema(value_type = Option<String>, max_length = 16384)]
    description: Option<Text<16384>>,
    /// Phases of its children, in order.
    #[schema(value_type = Option<Vec<String>>)]
    phases: Option<Phases>,
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100)]
    max_attempts: Option<Attempts>,
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 604800)]
    timeout_seconds: Option<Seconds>,
    /// Earliest start time.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// With a retry: earliest start of the next attempt.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_run_at: Option<Timestamp>,
    /// Progress in percent, 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    percent: Option<f64>,
    /// Result, any JSON.
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Free>,
    /// Display name of the worker.
    name: Option<NewName>,
    /// Queues that the worker serves.
    queues: Option<Vec<Name>>,
    /// Version of the worker's software.
    #[schema(value_type = Option<String>, max_length = 128)]
    version: Option<Text<128>>,
    /// Status of the worker or connector.
    status: Option<Name>,
}

/// An invalid field, and what is wrong with it.
pub(super) type Wrong = (&'static str, String);

impl NativeReport {
    /// The report for the writer, with the ID of its task.
    pub(super) fn check(self, now: Time) -> Result<(Option<Uuid>, IngestedReport), Wrong> {
        let at = self.ts.map_or(now, Timestamp::get);
        if at > now + AHEAD || at < Time::UNIX_EPOCH {
            return Err(("ts", "out of range (before 1970 or more than a day ahead); check the clock".to_owned()));
        }
        if self.attempt.is_some_and(|attempt| attempt > 1_000_000) {
            return Err(("attempt", "must be at most 1000000".to_owned()));
        }
        if self.duration_ms.is_some_and(|ms| ms > LONGEST_MS) {
            return Err(("duration_ms", "must be at most ten years".to_owned()));
        }
        if self.data.percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            return Err(("data.percent", "must be a number from 0 to 100".to_owned()));
        }
        let happened = match self.event_type.parse::<Kind>() {
            Ok(Kind::TaskCreated) => ObservedKind::Created,
            Ok(Kind::TaskEnqueued) => ObservedKind::Enqueued,
            Ok(Kind::TaskStarted) => ObservedKind::Started,
            Ok(Kind::TaskProgress) => ObservedKind::Progressed,
            Ok(Kind::TaskRetry) => ObservedKind::Retried,
            Ok(Kind::TaskCancelled) => ObservedKind::Cancelled,
            Ok(Kind::TaskFailed) => ObservedKind::Failed,
            Ok(Kind::TaskCompleted) => ObservedKind::Completed,
            Ok(
                kind @ (Kind::WorkerStarted
                | Kind::WorkerHeartbeat
                | Kind::WorkerStatusChanged
                | Kind::WorkerStopped
                | Kind::ConnectorStatusChanged),
            ) => return Ok((None, IngestedReport::Worker(Box::new(self.worker(kind, at)?)))),
            Ok(_) | Err(_) => {
                let right = "unsupported event type; supported: task_created, task_enqueued, task_started, task_progress, task_completed, task_retry, task_failed, task_cancelled, worker_started, worker_heartbeat, worker_status_changed, worker_stopped or connector_status_changed";
                return Err(("event_type", right.to_owned()));
            }
        };
        self.task(happened, at)
    }

    fn task(self, happened: ObservedKind, at: Time) -> Result<(Option<Uuid>, IngestedReport), Wrong> {
        let Some(task_id) = &self.task_id else {
            return Err(("task_id", "required for task events".to_owned()));
        };
        let source = self.source.as_ref();
        let id = task_id.uuid("task", source);
        let parent_task_id = self.parent_task_id.map(|parent| parent.uuid("task", source));
        if parent_task_id == Some(id) {
            return Err(("parent_task_id", "must not reference the task itself".to_owned()));
        }
        let machine_id = self.machine_id.map(Name::from);
        let note = self.worker_id.as_ref().map(|worker| {
            Box::new(WorkerReport {
                id: worker.uuid("worker", source),
                name: worker.0.clone(),
                machine_id: machine_id.clone(),
                at,
                stops: false,
                status: None,
                connectors: Vec::new(),
                queues: None,
                version: None,
            })
        });
        let machine = machine_id.unwrap_or_else(|| Name::literal("-"));
        let progress =
            Progress { percent: self.data.percent, message: self.message.map(|text| text.0), counts: self.counts };
        let observation = Observation {
            happened,
            at,
            attempt: self.attempt,
            external_id: (!task_id.is_uuid()).then(|| task_id.0.to_string()),
            worker: note.as_ref().map(|note| (note.id, machine)),
            connector_id: self.connector_id.map(Name::from),
            progress: (happened == ObservedKind::Progressed).then_some(progress),
            result: self.data.result.map(|json| json.0),
            error: self.error.map(|text| text.0),
            duration_ms: self.duration_ms,
            facts: Facts {
                project_id: self.project_id.map(Name::from),
                task_type: self.task_type.map(Name::from),
                queue: self.queue.map(Name::from),
                parent_task_id,
                phase: self.phase.map(Name::from),
                title: self.data.title.map(|text| text.0),
                description: self.data.description.map(|text| text.0),
                priority: self.priority,
                labels: self.labels.map(|labels| labels.0),
                phases: self.data.phases.map(|phases| phases.0),
                max_attempts: self.data.max_attempts.map(|attempts| attempts.0),
                timeout_seconds: self.data.timeout_seconds.map(|seconds| seconds.0),
                payload: self.payload.map(|json| json.0),
                run_at: self.data.run_at.or(self.data.next_run_at).map(Timestamp::get),
            },
        };
        Ok((Some(id), IngestedReport::Task(id, Box::new(observation), note)))
    }

    fn worker(self, kind: Kind, at: Time) -> Result<WorkerReport, Wrong> {
        let Some(worker) = &self.worker_id else {
            return Err(("worker_id", "required for worker events".to_owned()));
        };
        let word = self.data.status.or(self.status);
        let is_connector = kind == Kind::ConnectorStatusChanged;
        let mut connectors = Vec::new();
        let mut status: Option<WorkerStatus> = None;
        if is_connector {
            let Some(connector_id) = self.connector_id else {
                return Err(("connector_id", "required for connector events".to_owned()));
            };
            let Some(word) = word else { return Err(("status", "required for connector events".to_owned())) };
            let status: ConnectorStatus = word.as_str().parse().map_err(|detail| ("status", detail))?;
            connectors.push(ConnectorReport {
                connector_id: connector_id.0,
                status,
                error: self.error.map(|text| text.0),
            });
        } else if let Some(word) = word.filter(|_| kind != Kind::WorkerStopped) {
            let parsed: WorkerStatus = word.as_str().parse().map_err(|detail| ("status", detail))?;
            if !parsed.is_online() {
                return Err(("status", "cannot be set; send worker_stopped".to_owned()));
            }
            status = Some(parsed);
        }
        if self.data.queues.as_ref().is_some_and(|queues| queues.len() > 64) {
            return Err(("data.queues", "at most 64 items".to_owned()));
        }
        Ok(WorkerReport {
            id: worker.uuid("worker", self.source.as_ref()),
            name: self.data.name.map_or_else(|| worker.0.clone(), Name::from),
            machine_id: self.machine_id.map(Name::from),
            at,
            stops: kind == Kind::WorkerStopped,
            status,
            connectors,
            queues: self.data.queues,
            version: self.data.version.map(|text| text.0),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::http::input::parse;

    fn now() -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap()
    }

    /// The report, or the field that is wrong.
    fn read(json: &str) -> Result<(Option<Uuid>, IngestedReport), String> {
        let report =
            parse::<NativeReport>(json.as_bytes(), "").map_err(|mut problem| problem.errors.remove(0).field)?;
        report.check(now()).map_err(|(field, _)| field.to_owned())
    }

    /// A report of a task with one more field.
    fn with(field: &str, value: &str) -> Result<Observation, String> {
        let (_, report) = read(&format!(r#"{{"event_type":"task_progress","task_id":"t-1","{field}":{value}}}"#))?;
        let IngestedReport::Task(_, observation, _) = report else { panic!("{report:?}") };
        Ok(*observation)
    }

    fn of_worker(event_type: &str, rest: &str) -> Result<WorkerReport, String> {
        let (task, report) = read(&format!(r#"{{"event_type":"{event_type}","worker_id":"w-1"{rest}}}"#))?;
        let (IngestedReport::Worker(worker), None) = (report, task) else { panic!("it is about a worker") };
        Ok(*worker)
    }

    #[test]
    fn each_event_of_a_task_says_what_happened() {
        for (event_type, happened) in [
            ("task_created", ObservedKind::Created),
            ("task_enqueued", ObservedKind::Enqueued),
            ("task_started", ObservedKind::Started),
            ("task_progress", ObservedKind::Progressed),
            ("task_retry", ObservedKind::Retried),
            ("task_cancelled", ObservedKind::Cancelled),
            ("task_failed", ObservedKind::Failed),
            ("task_completed", ObservedKind::Completed),
        ] {
            let (_, report) = read(&format!(r#"{{"event_type":"{event_type}","task_id":"t-1"}}"#)).unwrap();
            let IngestedReport::Task(_, observation, worker) = report else { panic!("{report:?}") };
            assert_eq!((observation.happened, observation.at), (happened, now()), "without a time it is now");
            assert!(worker.is_none());
            assert_eq!(observation.progress.is_some(), event_type == "task_progress");
        }
        for other in ["", "Task_created", "task_updated", "task_deleted", "phase_started", "operator_action", "nothing"]
        {
            let refused = read(&format!(r#"{{"event_type":"{other}","task_id":"t-1"}}"#)).unwrap_err();
            assert_eq!(refused, "event_type", "{other}");
        }
    }

    #[test]
    fn an_id_is_a_uuid_or_belongs_to_its_source() {
        let id = |task_id: &str, source: &str| {
            read(&format!(r#"{{"event_type":"task_created","task_id":{task_id},"source":"{source}"}}"#))
                .unwrap()
                .0
                .unwrap()
        };
        let uuid = "\"0190b6a2-3f5e-7a10-8c11-2d5f0c3b9a77\"";
        assert_eq!(id(uuid, "a"), id(uuid, "b"));
        assert_eq!(id("\"job-17\"", "a"), id("\"job-17\"", "a"));
        assert_ne!(id("\"job-17\"", "a"), id("\"job-17\"", "b"));
        assert_eq!(id("17", "a"), id("\"17\"", "a"), "a number is its text");
        assert_ne!(id("-17", "a"), id("17", "a"));
        assert_ne!(id("\"c\"", "ab"), id("\"bc\"", "a"));
        let worker = of_worker("worker_started", r#","source":"a""#).unwrap().id;
        let task = read(r#"{"event_type":"task_created","task_id":"w-1","source":"a"}"#).unwrap().0;
        assert_ne!(Some(worker), task, "a worker and a task of one name");
    }

    #[test]
    fn an_id_is_text_or_a_whole_number() {
        let id = |task_id: &str| read(&format!(r#"{{"event_type":"task_created","task_id":{task_id}}}"#));
        for right in ["18446744073709551615", "-9223372036854775808", "0", &format!("\"{}\"", "x".repeat(128))] {
            assert!(id(right).is_ok(), "{right}");
        }
        let long = format!("\"{}\"", "x".repeat(129));
        for wrong in ["18446744073709551616", "1.5", "true", "[1]", "{}", "\"\"", "\"a\\n\"", &long] {
            assert_eq!(id(wrong).unwrap_err(), "task_id", "{wrong}");
        }
        assert_eq!(with("external_id", "1").unwrap_err(), "external_id", "unknown fields are refused");
        assert_eq!(with("title", "\"x\"").unwrap_err(), "title", "it belongs into data");
    }

    #[test]
    fn the_own_id_of_a_task_is_kept_unless_it_is_a_uuid() {
        assert_eq!(with("attempt", "1").unwrap().external_id.as_deref(), Some("t-1"));
        let (_, report) =
            read(r#"{"event_type":"task_created","task_id":"0190b6a2-3f5e-7a10-8c11-2d5f0c3b9a77"}"#).unwrap();
        let IngestedReport::Task(_, observation, _) = report else { panic!("{report:?}") };
        assert_eq!(observation.external_id, None);
    }

    #[test]
    fn a_clock_may_be_a_day_ahead_and_not_before_1970() {
        let at = |time: Time| with("ts", &format!("\"{}\"", time.to_rfc3339())).map(|report| report.at);
        for right in [now() + AHEAD, Time::UNIX_EPOCH, now()] {
            assert_eq!(at(right), Ok(right));
        }
        for wrong in
            [now() + AHEAD + chrono::TimeDelta::microseconds(1), Time::UNIX_EPOCH - chrono::TimeDelta::microseconds(1)]
        {
            assert_eq!(at(wrong), Err("ts".to_owned()), "{wrong}");
        }
        assert_eq!(with("ts", "\"2026-11-20T16:05:00\"").unwrap_err(), "ts", "no zone");
    }

    #[test]
    fn numbers_beyond_their_bounds_are_named() {
        assert_eq!(with("attempt", "1000000").unwrap().attempt, Some(1_000_000));
        assert_eq!(with("attempt", "1000001").unwrap_err(), "attempt");
        assert_eq!(with("attempt", "4294967297").unwrap_err(), "attempt");
        assert_eq!(with("duration_ms", &LONGEST_MS.to_string()).unwrap().duration_ms, Some(LONGEST_MS));
        assert_eq!(with("duration_ms", &(LONGEST_MS + 1).to_string()).unwrap_err(), "duration_ms");
        assert_eq!(with("duration_ms", "-1").unwrap_err(), "duration_ms");
        for (percent, wrong) in [("0", false), ("100", false), ("100.5", true), ("-1", true)] {
            let read = with("data", &format!(r#"{{"percent":{percent}}}"#));
            assert_eq!(read.is_err_and(|field| field == "data.percent"), wrong, "{percent}");
        }
        assert_eq!(with("data", r#"{"max_attempts":101}"#).unwrap_err(), "data.max_attempts");
        assert_eq!(with("priority", "10").unwrap_err(), "priority");
    }

    #[test]
    fn a_task_is_named_and_is_not_its_own_parent() {
        assert_eq!(read(r#"{"event_type":"task_created"}"#).unwrap_err(), "task_id");
        assert_eq!(with("parent_task_id", "\"t-1\"").unwrap_err(), "parent_task_id");
        let parent = with("parent_task_id", "\"t-2\"").unwrap().facts.parent_task_id;
        assert_eq!(parent, read(r#"{"event_type":"task_created","task_id":"t-2"}"#).unwrap().0);
    }

    #[test]
    fn a_worker_of_a_task_is_brought_along() {
        let json = r#"{"event_type":"task_started","task_id":1,"worker_id":"w-1","machine_id":"m"}"#;
        let IngestedReport::Task(_, observation, Some(worker)) = read(json).unwrap().1 else {
            panic!("it has a worker")
        };
        assert_eq!(observation.worker, Some((worker.id, Name::literal("m"))));
        assert_eq!((worker.name.as_str(), worker.stops, worker.status), ("w-1", false, None));
        let nowhere = with("worker_id", "\"w-1\"").unwrap();
        assert_eq!(nowhere.worker.map(|(_, machine)| machine), Some(Name::literal("-")));
    }

    #[test]
    fn what_another_taskwatch_adds_is_allowed_and_not_used() {
        for (field, value) in [
            ("event_id", "\"5c1f09ae-184\""),
            ("position", "184"),
            ("schema_version", "1"),
            ("retry_count", "2"),
            ("old_status", "\"pending\""),
            ("actor", "\"ann\""),
            ("truncated", "[\"error\"]"),
            ("status", "\"running\""),
            ("data", r#"{"reason":"due","wait_ms":7}"#),
        ] {
            let plain = with("attempt", "null").unwrap();
            assert_eq!(with(field, value), Ok(plain), "{field}");
        }
    }

    #[test]
    fn a_time_for_the_next_attempt_is_its_earliest_start() {
        let run_at = |data: &str| with("data", data).unwrap().facts.run_at.map(|at| at.timestamp());
        assert_eq!(run_at(r#"{"next_run_at":"1970-01-01T00:00:07Z"}"#), Some(7));
        assert_eq!(run_at(r#"{"next_run_at":"1970-01-01T00:00:07Z","run_at":"1970-01-01T00:00:08Z"}"#), Some(8));
    }

    #[test]
    fn an_error_is_mended_and_a_title_is_not() {
        assert_eq!(with("error", r#""a\u0000""#).unwrap().error.as_deref(), Some("a\u{fffd}"));
        assert_eq!(with("data", r#"{"title":"a\u0000"}"#).unwrap_err(), "data.title");
    }

    #[test]
    fn events_of_workers_say_how_they_are() {
        assert_eq!(read(r#"{"event_type":"worker_started"}"#).unwrap_err(), "worker_id");
        let started =
            of_worker("worker_started", r#","machine_id":"m","data":{"name":"n","queues":["a"],"version":"1"}"#);
        let started = started.unwrap();
        assert_eq!((started.name.as_str(), started.machine_id), ("n", Some(Name::literal("m"))));
        assert_eq!((started.queues, started.version.as_deref()), (Some(vec![Name::literal("a")]), Some("1")));
        let status = |rest: &str| of_worker("worker_status_changed", rest).map(|worker| worker.status);
        assert_eq!(status(""), Ok(None));
        assert_eq!(status(r#","status":"draining""#), Ok(Some(WorkerStatus::Draining)));
        assert_eq!(status(r#","status":"idle","data":{"status":"active"}"#), Ok(Some(WorkerStatus::Active)));
        for offline in ["stopped", "lost", "busy", "Idle"] {
            assert_eq!(status(&format!(r#","status":"{offline}""#)), Err("status".to_owned()), "{offline}");
        }
        let stopped = of_worker("worker_stopped", r#","status":"whatever""#).unwrap();
        assert!(stopped.stops && stopped.status.is_none());
    }

    #[test]
    fn events_of_connectors_name_the_connector_and_its_status() {
        let event = |rest: &str| of_worker("connector_status_changed", rest);
        assert_eq!(event(r#","status":"idle""#).unwrap_err(), "connector_id");
        assert_eq!(event(r#","connector_id":"smtp""#).unwrap_err(), "status");
        assert_eq!(event(r#","connector_id":"smtp","status":"stopped""#).unwrap_err(), "status");
        let failing = event(r#","connector_id":"smtp","status":"error","error":"HTTP 503""#).unwrap();
        let right = ConnectorReport {
            connector_id: Name::literal("smtp"),
            status: ConnectorStatus::Error,
            error: Some("HTTP 503".to_owned()),
        };
        assert_eq!((failing.connectors, failing.status), (vec![right], None));
    }

    #[test]
    fn a_worker_serves_at_most_sixty_four_queues() {
        let queues = |count: usize| {
            let queues: Vec<_> = (0..count).map(|number| format!("q{number}")).collect();
            of_worker("worker_heartbeat", &format!(r#","data":{{"queues":{}}}"#, serde_json::json!(queues)))
        };
        assert!(queues(64).is_ok());
        assert_eq!(queues(65).unwrap_err(), "data.queues");
    }
}
