//! Groups: parents that nobody claims, because they start and end with their children.

use super::{
    Status, Task,
    lease::Lease,
    phase::Counts,
    step::{Decision, Step, TaskEvent},
    task::Outcome,
};
use crate::clock::Time;

impl Task {
    /// A group starts with its first child and ends with its last; a child that runs again opens it again.
    pub(super) fn follow(&self, children: &Counts, now: Time) -> Decision {
        if !self.close_when_done || self.status == Status::Cancelled || children.total() == 0 {
            return Ok(self.unchanged());
        }
        let done = children.finished() == children.total();
        let (mut task, mut steps) = self.unchanged();
        if task.status.is_finished() && !done {
            let (after, then) = task.step(TaskEvent::Turned { reason: "reopened" }, |task| {
                task.status = Status::Blocked;
                task.finished_at = None;
                task.error = None;
            });
            (task, steps) = (after, then);
        }
        if task.status == Status::Blocked && children.running + children.finished() > 0 {
            let (after, then) = task.step(TaskEvent::Started { wait_ms: None }, |task| {
                task.status = Status::Running;
                task.attempt += 1;
                task.outcome = None;
                task.started_at = Some(now);
                task.lease = Some(Lease { expires_at: None, progress: None, stalled: false });
            });
            task = after;
            steps.extend(then);
        }
        if task.status == Status::Running && done {
            let (after, then) = task.close(children, now);
            task = after;
            steps.extend(then);
        }
        Ok((task, steps))
    }

    fn close(&self, children: &Counts, now: Time) -> (Self, Vec<Step>) {
        let duration_ms = self.attempt_ms(now);
        let end = |task: &mut Self, outcome, status, error| {
            task.end_attempt(outcome);
            task.status = status;
            task.finished_at = Some(now);
            task.error = error;
        };
        if children.failed > 0 {
            let error = format!("{} of {} children failed", children.failed, children.total());
            return self.step(TaskEvent::Failed { duration_ms, error: error.clone() }, |task| {
                end(task, Outcome::Failed, Status::Failed, Some(error));
            });
        }
        if children.completed == 0 {
            let reason = Some("all children were cancelled".to_owned());
            return self.step(TaskEvent::Cancelled { reason }, |task| {
                end(task, Outcome::Cancelled, Status::Cancelled, None);
            });
        }
        self.step(TaskEvent::Completed { duration_ms, result: None }, |task| {
            end(task, Outcome::Completed, Status::Completed, None);
        })
    }
}
