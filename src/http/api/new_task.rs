//! Validation of tasks to create.

use std::collections::HashSet;

use serde::Deserialize;
use uuid::Uuid;

use super::fields::{Attempts, Labels, People, Phases, Seconds, Wait};
use crate::{
    http::{
        input::{Free, Text},
        problem::Problem,
    },
    model::{Name, NewName, Priority, Timestamp, dependency::DependencyPolicy, lease::Backoff, task::NewTask},
};

/// Maximum number of dependencies of a task.
pub(in crate::http) const MAX_DEPENDENCIES: usize = 1_000;

/// A task to create.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct CreateTask {
    /// Chosen by the client, so that a repeated request creates no duplicate.
    id: Option<Uuid>,
    /// Task type.
    task_type: NewName,
    /// Queue.
    #[serde(default = "default_name")]
    #[schema(default = "default")]
    queue: NewName,
    /// Project; a child task inherits its parent's, others get `default`.
    project_id: Option<NewName>,
    /// Parent task.
    parent_task_id: Option<Uuid>,
    /// Its phase within the parent.
    phase: Option<NewName>,
    /// Title.
    #[schema(value_type = Option<String>, max_length = 500)]
    title: Option<Text<500>>,
    /// Description.
    #[schema(value_type = Option<String>, max_length = 16384)]
    description: Option<Text<16384>>,
    /// Priority, 0 (lowest) to 9 (highest).
    #[serde(default)]
    #[schema(value_type = u8, minimum = 0, maximum = 9, default = 5)]
    priority: Priority,
    /// Arbitrary JSON passed to the worker.
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Free>,
    /// Maximum number of attempts, 1 to 100.
    #[serde(default = "default_attempts")]
    #[schema(value_type = u32, minimum = 1, maximum = 100, default = 3)]
    max_attempts: Attempts,
    /// Attempt timeout, 1 to 604800 seconds.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 604800)]
    timeout_seconds: Option<Seconds>,
    /// Labels (max 32).
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    labels: Labels,
    /// Phases of its children, in order (max 32). A task with phases is a parent task.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    phases: Phases,
    /// Earliest start time.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// Deduplication key: while an unfinished task of the project has this key, that task is returned instead.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 256)]
    unique_key: Option<Text<256>>,
    /// IDs of tasks that must complete first (max 1000, existing or in the same request).
    #[serde(default)]
    #[schema(max_items = 1000)]
    depends_on: Vec<Uuid>,
    /// Policy when a dependency fails, is cancelled or deleted.
    #[serde(default)]
    on_dependency_failure: DependencyPolicy,
    /// Parent task only: not claimed, starts with its first child and finishes with its last.
    #[serde(default)]
    auto_complete: bool,
    /// Initial retry delay, 0 to 604800 seconds; doubles per attempt, about half of it is random.
    #[serde(default = "default_base")]
    #[schema(value_type = u32, minimum = 0, maximum = 604800, default = 1)]
    backoff_initial_seconds: Wait,
    /// Maximum retry delay, 0 to 604800 seconds.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 604800, default = 3600)]
    backoff_max_seconds: Option<Wait>,
    /// Assignee.
    #[schema(value_type = Option<String>, max_length = 128)]
    assignee: Option<Text<128>>,
    /// Collaborators (max 32).
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 32)]
    collaborators: People,
    /// Watchers (max 32).
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 32)]
    watchers: People,
}

fn default_name() -> NewName {
    NewName(Name::literal("default"))
}

const fn default_base() -> Wait {
    Wait(1)
}

const fn default_attempts() -> Attempts {
    Attempts(3)
}

impl CreateTask {
    /// Validates combinations of fields; `prefix` is the path of this task in the request.
    pub(in crate::http) fn check(self, prefix: &str) -> Result<NewTask, Problem> {
        let wrong = |field: &str, detail: &str| Err(Problem::invalid_field(format!("{prefix}{field}"), detail));
        let backoff = Backoff {
            initial_seconds: self.backoff_initial_seconds.0,
            max_seconds: self.backoff_max_seconds.map_or(self.backoff_initial_seconds.0.max(3_600), |cap| cap.0),
        };
        if backoff.max_seconds < backoff.initial_seconds {
            return wrong("backoff_max_seconds", "must be at least backoff_initial_seconds");
        }
        if self.unique_key.as_ref().is_some_and(|key| key.0.is_empty()) {
            return wrong("unique_key", "must not be empty");
        }
        if self.depends_on.len() > MAX_DEPENDENCIES {
            return wrong("depends_on", "must list at most 1,000 tasks");
        }
        if self.auto_complete && (!self.depends_on.is_empty() || self.run_at.is_some()) {
            return wrong("auto_complete", "does not go with depends_on or run_at; put these on the children");
        }
        let mut depends_on = Vec::with_capacity(self.depends_on.len());
        let mut seen = HashSet::new();
        depends_on.extend(self.depends_on.into_iter().filter(|id| seen.insert(*id)));
        Ok(NewTask {
            id: self.id.unwrap_or_else(Uuid::now_v7),
            id_is_chosen: self.id.is_some(),
            project_id: self.project_id.map(Name::from),
            task_type: self.task_type.0,
            queue: self.queue.0,
            parent_task_id: self.parent_task_id,
            phase: self.phase.map(Name::from),
            title: self.title.map(|text| text.0),
            description: self.description.map(|text| text.0),
            priority: self.priority,
            payload: self.payload.map(|json| json.0),
            labels: self.labels.0,
            phases: self.phases.0,
            max_attempts: self.max_attempts.0,
            timeout_seconds: self.timeout_seconds.map(|seconds| seconds.0),
            backoff,
            run_at: self.run_at.map(Timestamp::get),
            unique_key: self.unique_key.map(|text| text.0),
            depends_on,
            on_dependency_failure: self.on_dependency_failure,
            auto_complete: self.auto_complete,
            assignee: self.assignee.map(|text| text.0),
            collaborators: self.collaborators.0,
            watchers: self.watchers.0,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    use crate::http::{codes::ErrorCode, input::parse};

    fn read(json: &str) -> Result<NewTask, Problem> {
        parse::<CreateTask>(json.as_bytes(), "")?.check("")
    }

    /// A task with one more field.
    fn with(field: &str, value: &str) -> Result<NewTask, Problem> {
        read(&format!(r#"{{"task_type":"t","{field}":{value}}}"#))
    }

    fn text(bytes: usize) -> String {
        format!("\"{}\"", "x".repeat(bytes))
    }

    #[test]
    fn a_task_needs_a_type_and_has_defaults_for_the_rest() {
        let task = read(r#"{"task_type":"mail"}"#).unwrap();
        let right = NewTask {
            id_is_chosen: false,
            max_attempts: 3,
            ..NewTask::plain(task.id, Name::literal("mail"), Name::literal("default"))
        };
        assert_eq!(task, right);
        assert_eq!((task.backoff.initial_seconds, task.backoff.max_seconds), (1, 3_600));
        let problem = read("{}").unwrap_err();
        assert_eq!((problem.code, problem.errors[0].field.as_str()), (ErrorCode::InvalidField, "task_type"));
    }

    #[test]
    fn a_field_is_accepted_up_to_its_bound_and_named_beyond_it() {
        let ids = |count: u128| serde_json::to_string(&(0..count).map(Uuid::from_u128).collect::<Vec<_>>()).unwrap();
        let people =
            |count: usize| serde_json::to_string(&(0..count).map(|n| format!("p{n}")).collect::<Vec<_>>()).unwrap();
        for (field, right, wrong) in [
            ("task_type", text(128), text(129)),
            ("queue", text(1), text(0)),
            ("project_id", text(128), "\" a\"".to_owned()),
            ("phase", text(1), "\"..\"".to_owned()),
            ("title", text(500), text(501)),
            ("description", text(16_384), text(16_385)),
            ("priority", "9".to_owned(), "10".to_owned()),
            ("priority", "0".to_owned(), "-1".to_owned()),
            ("max_attempts", "100".to_owned(), "101".to_owned()),
            ("max_attempts", "1.0".to_owned(), "0".to_owned()),
            ("timeout_seconds", "604800".to_owned(), "604801".to_owned()),
            ("timeout_seconds", "1".to_owned(), "0".to_owned()),
            ("backoff_initial_seconds", "0".to_owned(), "-1".to_owned()),
            ("backoff_max_seconds", "604800".to_owned(), "604801".to_owned()),
            ("unique_key", text(256), text(257)),
            ("unique_key", text(1), text(0)),
            ("depends_on", ids(1_000), ids(1_001)),
            ("assignee", text(128), text(129)),
            ("collaborators", people(32), people(33)),
            ("watchers", people(32), r#"["ann","ann"]"#.to_owned()),
            ("phases", r#"["a","b"]"#.to_owned(), r#"["a","a"]"#.to_owned()),
            ("labels", r#"{"k":""}"#.to_owned(), r#"{"":""}"#.to_owned()),
            ("on_dependency_failure", "\"ignore\"".to_owned(), "\"Ignore\"".to_owned()),
            ("run_at", "\"2026-11-20T16:05:00Z\"".to_owned(), "\"2026-11-20T16:05:00\"".to_owned()),
        ] {
            // The type is given twice then, which is another error.
            let with = |value: &str| match field {
                "task_type" => read(&format!(r#"{{"task_type":{value}}}"#)),
                field => with(field, value),
            };
            assert!(with(&right).is_ok(), "{field}: {:?}", with(&right).unwrap_err());
            let problem = with(&wrong).unwrap_err();
            assert_eq!(problem.code, ErrorCode::InvalidField, "{field}");
            assert!(problem.errors[0].field.starts_with(field), "{field}: {problem:?}");
        }
    }

    #[test]
    fn a_longest_wait_is_never_shorter_than_the_first() {
        let problem = read(r#"{"task_type":"t","backoff_initial_seconds":10,"backoff_max_seconds":9}"#).unwrap_err();
        assert_eq!(problem.errors[0].field, "backoff_max_seconds");
        let backoff = |json: &str| read(json).unwrap().backoff;
        let long = backoff(r#"{"task_type":"t","backoff_initial_seconds":7200}"#);
        assert_eq!(long, Backoff { initial_seconds: 7_200, max_seconds: 7_200 });
        let none = backoff(r#"{"task_type":"t","backoff_initial_seconds":0,"backoff_max_seconds":0}"#);
        assert_eq!(none, Backoff { initial_seconds: 0, max_seconds: 0 });
    }

    #[test]
    fn a_parent_that_follows_its_children_waits_for_nothing_else() {
        let id = Uuid::from_u128(7);
        for other in [format!(r#""depends_on":["{id}"]"#), r#""run_at":"2026-11-20T16:05:00Z""#.to_owned()] {
            let problem = read(&format!(r#"{{"task_type":"t","auto_complete":true,{other}}}"#)).unwrap_err();
            assert_eq!(problem.errors[0].field, "auto_complete", "{other}");
            assert!(problem.detail.contains("put these on the children"));
        }
        assert!(read(r#"{"task_type":"t","auto_complete":true,"depends_on":[],"run_at":null}"#).is_ok());
    }

    #[test]
    fn a_dependency_named_twice_is_one_in_the_place_of_the_first() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let task = with("depends_on", &format!(r#"["{two}","{one}","{two}"]"#)).unwrap();
        assert_eq!(task.depends_on, [two, one]);
    }

    #[test]
    fn an_id_in_any_spelling_is_the_clients_choice() {
        for spelling in ["\"0190b6a2-3f5e-7a10-8c11-2d5f0c3b9a77\"", "\"0190B6A23F5E7A108C112D5F0C3B9A77\""] {
            let task = with("id", spelling).unwrap();
            assert!(task.id_is_chosen && task.id.as_u128() >> 112 == 0x0190, "{spelling}");
        }
        assert_eq!(with("id", "\"17\"").unwrap_err().errors[0].field, "id");
        assert!(with("id", "null").is_ok_and(|task| !task.id_is_chosen));
    }

    #[test]
    fn a_time_is_kept_in_utc() {
        let run_at = with("run_at", "\"2026-11-20T17:05:00.1234567+01:00\"").unwrap().run_at.unwrap();
        let right: crate::clock::Time = "2026-11-20T16:05:00Z".parse().unwrap();
        assert_eq!(run_at, right + TimeDelta::microseconds(123_456));
    }

    #[test]
    fn an_error_in_one_of_many_names_its_place() {
        let task: CreateTask = parse(br#"{"task_type":"t","unique_key":""}"#, "").unwrap();
        assert_eq!(task.check("[3].").unwrap_err().errors[0].field, "[3].unique_key");
    }

    #[test]
    fn a_payload_is_kept_as_it_was_sent() {
        let task = with("payload", r#"{"b": 1.0,  "a" : [1e400]}"#).unwrap();
        assert_eq!(task.payload.unwrap().as_str(), r#"{"b": 1.0,  "a" : [1e400]}"#);
        assert_eq!(with("payload", "null").unwrap().payload, None);
        assert_eq!(with("payload", r#"["\u0000"]"#).unwrap_err().errors[0].field, "payload");
    }
}
