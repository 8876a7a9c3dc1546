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
