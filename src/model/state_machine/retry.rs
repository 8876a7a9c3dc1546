//! Retrying a finished task on request. Retries after a failed attempt are decided by [`Task::fail`].

use crate::{
    clock::Time,
    model::{
        Status, Task,
        step::{Decision, EventReason, TaskEvent},
        transition::TransitionError,
    },
};

impl Task {
    /// Retries a finished task. With `waits` (unfinished dependencies) it becomes blocked first, like a new one.
    pub(super) fn retry(&self, waits: bool, now: Time) -> Decision {
        if !self.status.is_finished() {
            return Err(TransitionError::Illegal { status: self.status, wanted: "retried" });
        }
        self.is_ours("retried")?;
        if self.auto_complete {
            return Err(TransitionError::Group { wanted: "retried" });
        }
        let afresh = |task: &mut Self| {
            task.retry_count = 0;
            task.run_at = None;
            task.finished_at = None;
            task.result = None;
            task.error = None;
        };
        if waits {
            return Ok(self.step(TaskEvent::StatusChanged { reason: EventReason::Retried }, |task| {
                afresh(task);
                task.status = Status::Blocked;
            }));
        }
        Ok(self.step(TaskEvent::Enqueued { reason: Some(EventReason::Retried) }, |task| {
            afresh(task);
            task.enqueue(now);
        }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::{
        state_machine::tests::{at, finished, pending},
        transition::Transition,
    };

    #[test]
    fn a_retried_task_begins_afresh_but_keeps_counting_attempts() {
        let failed = Task { retry_count: 2, run_at: Some(at(5)), ..finished(Status::Failed) };
        let (task, steps) = failed.decide(Transition::Retry, at(30)).unwrap();
        assert_eq!((task.status, task.enqueued_at), (Status::Pending, Some(at(30))));
        assert_eq!((task.retry_count, task.run_at, task.finished_at, task.error), (0, None, None, None));
        assert_eq!(task.attempt, 1, "a late report of the old attempt stays fenced off");
        assert_eq!(steps[0].event, TaskEvent::Enqueued { reason: Some(EventReason::Retried) });
    }

    #[test]
    fn a_retried_task_with_open_dependencies_waits_first() {
        let (task, steps) = finished(Status::Completed).decide(Transition::RetryBlocked, at(30)).unwrap();
        assert_eq!((task.status, task.enqueued_at, task.finished_at), (Status::Blocked, Some(at(0)), None));
        assert_eq!(steps[0].event, TaskEvent::StatusChanged { reason: EventReason::Retried });
    }

    #[test]
    fn only_finished_tasks_of_our_own_are_retried() {
        for status in Status::ALL {
            let decision = Task { status, ..pending() }.decide(Transition::Retry, at(30));
            match status.is_finished() {
                true => assert!(decision.is_ok(), "{status}"),
                false => assert_eq!(decision.unwrap_err(), TransitionError::Illegal { status, wanted: "retried" }),
            }
        }
        let observed = Task { observed: Some(Box::default()), ..finished(Status::Failed) };
        assert_eq!(observed.decide(Transition::Retry, at(30)), Err(TransitionError::Observed { wanted: "retried" }));
        let parent = Task { auto_complete: true, ..finished(Status::Failed) };
        assert_eq!(parent.decide(Transition::Retry, at(30)), Err(TransitionError::Group { wanted: "retried" }));
    }
}
