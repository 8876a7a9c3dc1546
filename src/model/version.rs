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
mod tests {
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
}
