//! Error groups of task events.

use crate::model::{
    Name, Status, Task,
    fingerprint::fingerprint,
    step::{FingerprintChange, TaskEvent},
};

impl Task {
    /// The error group of a failed task.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Name> {
        (self.status == Status::Failed).then(|| fingerprint(&self.task_type, self.error.as_deref()))
    }

    /// The error groups concerned by an event that changes this task to `after`.
    pub(super) fn fingerprint_change(&self, after: &Self, event: &TaskEvent) -> FingerprintChange {
        let (before, now) = (self.fingerprint(), after.fingerprint());
        match event {
            TaskEvent::RetryScheduled { .. } => {
                let current = Some(fingerprint(&after.task_type, after.error.as_deref()));
                FingerprintChange { previous: before.filter(|before| current.as_ref() != Some(before)), current }
            }
            TaskEvent::Deleted => FingerprintChange { current: before, previous: None },
            _ if now.is_none() => FingerprintChange { current: before, previous: None },
            TaskEvent::Failed { .. } => {
                FingerprintChange { previous: before.filter(|before| now.as_ref() != Some(before)), current: now }
            }
            _ if before.is_some() && before != now => FingerprintChange { current: now, previous: before },
            // The group of the project that it leaves has one less, that of the other one more.
            _ if before.is_some() && self.project_id != after.project_id => {
                FingerprintChange { current: now, previous: None }
            }
            _ => FingerprintChange::default(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::{
        state_machine::tests::{at, finished, pending, running},
        transition::Transition,
    };

    #[test]
    fn only_a_failed_task_belongs_to_an_error_group() {
        for status in Status::ALL {
            let task = Task { status, error: Some("disk full".to_owned()), ..pending() };
            assert_eq!(task.fingerprint().is_some(), status == Status::Failed, "{status}");
        }
        let nothing_said = Task { error: None, ..finished(Status::Failed) };
        assert_eq!(nothing_said.fingerprint(), Some(fingerprint(&nothing_said.task_type, Some("no error given"))));
    }

    #[test]
    fn a_failure_names_its_group_and_a_retry_the_group_it_leaves() {
        let failed = finished(Status::Failed);
        let group = failed.fingerprint();
        let end = Transition::Cancel { reason: None };
        assert_eq!(running().decide(end, at(20)).unwrap().1[0].fingerprints, FingerprintChange::default());
        for leaving in [Transition::Retry, Transition::RetryBlocked, Transition::Delete] {
            let steps = failed.decide(leaving, at(30)).unwrap().1;
            assert_eq!(steps[0].fingerprints, FingerprintChange { current: group.clone(), previous: None });
        }
    }

    #[test]
    fn an_attempt_that_will_be_retried_counts_in_its_group_too() {
        let after = Task { status: Status::Retrying, error: Some("disk full".to_owned()), ..running() };
        let event = TaskEvent::RetryScheduled { duration_ms: 1, error: "disk full".to_owned(), next_run_at: at(9) };
        let group = fingerprint(&after.task_type, Some("disk full"));
        let change = running().fingerprint_change(&after, &event);
        assert_eq!(change, FingerprintChange { current: Some(group), previous: None });
    }

    #[test]
    fn another_error_moves_a_failed_task_to_another_group() {
        let failed = |error: &str| Task { error: Some(error.to_owned()), ..finished(Status::Failed) };
        let event = TaskEvent::Failed { duration_ms: 1, error: "no route".to_owned() };
        let (full, route) = (failed("disk full"), failed("no route"));
        let moved = FingerprintChange { current: route.fingerprint(), previous: full.fingerprint() };
        assert_eq!(full.fingerprint_change(&route, &event), moved);
        let same = FingerprintChange { current: full.fingerprint(), previous: None };
        assert_eq!(full.fingerprint_change(&full, &event), same, "it is counted again, but does not move");
        let kind = crate::model::edit::EditKind::Facts;
        let edited = TaskEvent::Edited { kind, changes: Default::default() };
        assert_eq!(full.fingerprint_change(&route, &edited), moved);
        assert_eq!(full.fingerprint_change(&full, &edited), FingerprintChange::default());
    }
}
