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
