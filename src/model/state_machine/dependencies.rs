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
                let reason = Some(format!("dependency {id} {how}"));
                Ok(self.step(TaskEvent::Cancelled { reason }, |task| {
                    task.status = Status::Cancelled;
                    task.finished_at = Some(now);
                }))
            }
            Dependencies::Broken(id, how) => {
                let error = format!("dependency {id} {how}");
                Ok(self.step(TaskEvent::Failed { duration_ms: 0, error: error.clone() }, |task| {
                    task.status = Status::Failed;
                    task.finished_at = Some(now);
                    task.error = Some(error);
                }))
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::{
        state_machine::tests::{at, new_task, pending, running},
        task::NewTask,
        transition::Transition,
    };
    use uuid::Uuid;

    fn blocked() -> Task {
        NewTask { depends_on: vec![Uuid::from_u128(7)], ..new_task() }.into_task(None, true, at(0))
    }

    fn depend(task: &Task, on: Dependencies) -> (Task, Vec<TaskEvent>) {
        let (task, steps) = task.decide(Transition::Depend(on), at(50)).unwrap();
        (task, steps.into_iter().map(|step| step.event).collect())
    }

    const BROKEN: Dependencies = Dependencies::Broken(Uuid::from_u128(7), "was deleted");

    #[test]
    fn a_blocked_task_is_enqueued_when_its_dependencies_are_done() {
        assert_eq!(depend(&blocked(), Dependencies::Open).1, []);
        let (task, events) = depend(&blocked(), Dependencies::Done);
        assert_eq!((task.status, task.enqueued_at), (Status::Pending, Some(at(50))));
        assert_eq!(events, [TaskEvent::Enqueued { reason: Some(EventReason::Unblocked) }]);
    }

    #[test]
    fn a_task_whose_time_has_not_come_is_scheduled_instead() {
        let scheduled = |seconds| Task { run_at: Some(at(seconds)), ..blocked() };
        let (task, events) = depend(&scheduled(51), Dependencies::Done);
        assert_eq!((task.status, task.run_at, task.enqueued_at), (Status::Scheduled, Some(at(51)), None));
        assert_eq!(events, [TaskEvent::StatusChanged { reason: EventReason::Unblocked }]);
        assert_eq!(depend(&scheduled(50), Dependencies::Done).0.status, Status::Pending);
    }

    #[test]
    fn a_broken_dependency_ends_the_task_and_is_named() {
        let (failed, events) = depend(&blocked(), BROKEN);
        let error = format!("dependency {} was deleted", Uuid::from_u128(7));
        assert_eq!((failed.status, failed.error.as_deref(), failed.attempt), (Status::Failed, Some(&*error), 0));
        assert_eq!(events, [TaskEvent::Failed { duration_ms: 0, error: error.clone() }]);
        let (cancelled, events) =
            depend(&Task { on_dependency_failure: DependencyPolicy::Cancel, ..blocked() }, BROKEN);
        assert_eq!((cancelled.status, cancelled.error, cancelled.finished_at), (Status::Cancelled, None, Some(at(50))));
        assert_eq!(events, [TaskEvent::Cancelled { reason: Some(error) }]);
    }

    #[test]
    fn only_blocked_tasks_that_do_not_follow_children_look_at_their_dependencies() {
        for on in [Dependencies::Open, Dependencies::Done, BROKEN] {
            for task in [pending(), running(), Task { auto_complete: true, ..blocked() }] {
                assert_eq!(depend(&task, on).1, [], "{on:?}");
            }
        }
    }
}
