//! The version of a task, for conditional edits.

use uuid::Uuid;

use super::{NewTask, Task, report::Json};

/// Namespace of the versions, which are UUIDs of version 5.
const NAMESPACE: Uuid = Uuid::from_u128(0x0c6d_31f8_8b52_4f0e_a1d7_64e9_25b3_90c4);

impl Task {
    /// Changes whenever the task does, except for its lease and progress: these change with every heartbeat, and no
    /// edit depends on them.
    #[must_use]
    pub fn version(&self) -> Uuid {
        let micros = |at: Option<crate::clock::Time>| at.map(|at| at.timestamp_micros());
        let people = (&self.assignee, &self.collaborators, &self.watchers);
        let said = (&self.title, &self.description, self.priority, &self.queue, &self.labels, &self.phases, people);
        let stands = (self.status, self.attempt, self.retry_count, self.outcome, self.is_parent, &self.depends_on);
        let times = (micros(self.run_at), micros(self.enqueued_at), micros(self.started_at), micros(self.finished_at));
        let by = (self.worker_id, &self.connector_id, &self.error, &self.result);
        Uuid::new_v5(&NAMESPACE, format!("{:?}", (self.id, said, stands, times, by)).as_bytes())
    }
}

impl NewTask {
    /// Whether this request created the task, judging by the fields that cannot be edited afterwards.
    #[must_use]
    pub fn has_made(&self, task: &Task, parent: Option<&super::Name>) -> bool {
        let same_place = self.project(parent) == task.project_id && self.parent_task_id == task.parent_task_id;
        let same_work = self.task_type == task.task_type && self.phase == task.phase;
        let same_rules = self.max_attempts == task.max_attempts
            && self.timeout_seconds == task.timeout_seconds
            && self.backoff == task.backoff
            && self.unique_key == task.unique_key
            && self.on_dependency_failure == task.on_dependency_failure
            && self.auto_complete == task.auto_complete;
        same_place
            && same_work
            && same_json(self.payload.as_ref(), task.payload.as_ref())
            && same_rules
            && task.observed.is_none()
    }
}

/// JSON equality, ignoring white space and the order of fields.
fn same_json(one: Option<&Json>, other: Option<&Json>) -> bool {
    let value = |json: &Json| serde_json::from_str::<serde_json::Value>(json.as_str()).ok();
    match (one, other) {
        (Some(one), Some(other)) => one == other || value(one).is_some_and(|one| value(other) == Some(one)),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use crate::model::{Priority, Status, Task, report::Json};
    use chrono::DateTime;

    use super::*;
    use crate::model::{Name, report::Progress};

    fn new() -> NewTask {
        NewTask::plain(Uuid::nil(), Name::literal("t"), Name::literal("q"))
    }

    #[test]
    fn edits_change_the_version_and_progress_does_not() {
        let task = new().into_task(None, false, DateTime::UNIX_EPOCH);
        let mut edited = task.clone();
        edited.title = Some("x".to_owned());
        assert_ne!(task.version(), edited.version());
        let mut going = task.clone();
        going.lease =
            Some(crate::model::lease::Lease { expires_at: None, progress: Some(Progress::default()), stalled: false });
        assert_eq!(task.version(), going.version());
    }

    #[test]
    fn a_request_is_known_again_by_what_cannot_be_edited() {
        let mut task = new().into_task(None, false, DateTime::UNIX_EPOCH);
        task.title = Some("edited".to_owned());
        assert!(new().has_made(&task, None));
        assert!(!NewTask { max_attempts: 7, ..new() }.has_made(&task, None));
        assert!(!NewTask { unique_key: Some("k".to_owned()), ..new() }.has_made(&task, None));
    }

    fn json(text: &str) -> Option<Json> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn everything_that_an_edit_may_depend_on_makes_another_version() {
        let task = new().into_task(None, false, DateTime::UNIX_EPOCH);
        let others = [
            Task { description: Some("x".to_owned()), ..task.clone() },
            Task { priority: Priority::new(6).unwrap(), ..task.clone() },
            Task { queue: Name::literal("r"), ..task.clone() },
            Task { labels: [(Name::literal("k"), "v".to_owned())].into(), ..task.clone() },
            Task { watchers: vec!["ann".to_owned()], ..task.clone() },
            Task { collaborators: vec!["ann".to_owned()], ..task.clone() },
            Task { status: Status::Running, ..task.clone() },
            Task { attempt: 1, ..task.clone() },
            Task { depends_on: vec![Uuid::nil()], ..task.clone() },
            Task { run_at: Some(DateTime::UNIX_EPOCH), ..task.clone() },
            Task { finished_at: Some(DateTime::UNIX_EPOCH), ..task.clone() },
            Task { error: Some("x".to_owned()), ..task.clone() },
            Task { result: json("1"), ..task.clone() },
            Task { id: Uuid::from_u128(1), ..task.clone() },
        ];
        let versions: std::collections::HashSet<_> = others.iter().chain([&task]).map(Task::version).collect();
        assert_eq!(versions.len(), others.len() + 1, "all differ");
        assert_eq!(task.version().get_version_num(), 5);
    }

    #[test]
    fn a_repeated_request_may_write_its_payload_otherwise() {
        let made =
            |payload: &str| NewTask { payload: json(payload), ..new() }.into_task(None, false, DateTime::UNIX_EPOCH);
        let repeats = |one: &str, other: &str| NewTask { payload: json(one), ..new() }.has_made(&made(other), None);
        assert!(repeats(r#"{"a":1,"b":[2]}"#, r#"{ "b": [2], "a": 1 }"#));
        assert!(!repeats(r#"{"a":1}"#, r#"{"a":2}"#));
        assert!(!repeats("[1,2]", "[2,1]"));
        assert!(!new().has_made(&made("1"), None), "none is not any");
        assert!(!repeats("null", ""), "and null is something");
        assert!(repeats("1e400", "1e400"), "what no number can hold is compared as it is written");
    }

    #[test]
    fn another_place_or_another_system_is_another_request() {
        let task = new().into_task(None, false, DateTime::UNIX_EPOCH);
        let parent = Some(Uuid::from_u128(7));
        for other in [
            NewTask { parent_task_id: parent, ..new() },
            NewTask { project_id: Some(Name::literal("shop")), ..new() },
            NewTask { task_type: Name::literal("u"), ..new() },
            NewTask { phase: Some(Name::literal("load")), ..new() },
            NewTask { timeout_seconds: Some(1), ..new() },
            NewTask { auto_complete: true, ..new() },
        ] {
            assert!(!other.has_made(&task, None), "{other:?}");
        }
        assert!(!new().has_made(&task, Some(&Name::literal("shop"))), "the project that it would inherit");
        assert!(NewTask { queue: Name::literal("r"), ..new() }.has_made(&task, None), "the queue may have been edited");
        assert!(!new().has_made(&Task { observed: Some(Box::default()), ..task }, None));
    }
}
