//! Blocked tasks follow their dependencies; finished tasks are retried.

use crate::{
    clock::Time,
    model::{
        Status, Task,
        dependency::{Dependencies, DependencyPolicy},
        step::{Decision, EventReason, TaskEvent},
    },
};

impl Task {
    /// Applies the combined status of the dependencies to a blocked task.
    pub(super) fn depend(&self, dependencies: Dependencies, now: Time) -> Decision {
        if self.status != Status::Blocked || self.auto_complete {
            return Ok(self.unchanged());
        }
        match dependencies {
            Dependencies::Open => Ok(self.unchanged()),
            Dependencies::Done if self.run_at.is_some_and(|run_at| run_at > now) => Ok(self
                .step(TaskEvent::StatusChanged { reason: EventReason::Unblocked }, |task| {
                    task.status = Status::Scheduled
                })),
            Dependencies::Done => {
                Ok(self.step(TaskEvent::Enqueued { reason: Some(EventReason::Unblocked) }, |task| task.enqueue(now)))
            }
            Dependencies::Broken(id, how) if self.on_dependency_failure == DependencyPolicy::Cancel => {
                let reason = Some(format!("task {id}, on which it depends, {how}"));
                Ok(self.step(TaskEvent::Cancelled { reason }, |task| {
                    task.status = Status::Cancelled;
                    task.finished_at = Some(now);
                }))
            }
            Dependencies::Broken(id, how) => {
                let error = format!("task {id}, on which it depends, {how}");
                Ok(self.step(TaskEvent::Failed { duration_ms: 0, error: error.clone() }, |task| {
                    task.status = Status::Failed;
                    task.finished_at = Some(now);
                    task.error = Some(error);
                }))
            }
        }
    }
}
