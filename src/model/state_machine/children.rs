//! Parents with `auto_complete`: not claimed, they start and finish with their children.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::clock::Time;
use crate::model::{
    Name, Status, Task,
    edit::EditKind,
    lease::Lease,
    phase::Counts,
    step::{Decision, EventReason, Step, TaskEvent},
    task::Outcome,
};

/// Maximum size of the counts of a new parent's children in one event, bytes; the rest is split into further events.
const MAX_CHILDREN_BYTES: usize = 4_096;

impl Task {
    /// Starts with the first child and finishes with the last; a retried child reopens it.
    pub(super) fn follow(&self, children: &Counts, now: Time) -> Decision {
        if !self.auto_complete || self.status == Status::Cancelled {
            return Ok(self.unchanged());
        }
        if children.total() == 0 {
            // Without any child so far it waits for the first one; if the last child was removed there is nothing to
            // wait for.
            let emptied = self.is_parent && !self.status.is_finished();
            return Ok(if emptied { self.empty(now) } else { self.unchanged() });
        }
        let done = children.finished() == children.total();
        // A child may have been retried and finished since the last evaluation.
        let disagrees = (self.status == Status::Failed) != (children.failed > 0);
        let (mut task, mut steps) = self.unchanged();
        if task.status.is_finished() && (!done || disagrees) {
            let (after, then) = task.step(TaskEvent::StatusChanged { reason: EventReason::Reopened }, |task| {
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

    fn empty(&self, now: Time) -> (Self, Vec<Step>) {
        let reason = Some("its last child was removed".to_owned());
        self.step(TaskEvent::Cancelled { reason }, |task| {
            if task.status == Status::Running {
                task.end_attempt(Outcome::Cancelled);
            }
            task.status = Status::Cancelled;
            task.finished_at = Some(now);
        })
    }

    /// Its children are retried, so it waits for them again.
    pub(super) fn reopen(&self, now: Time) -> Decision {
        if !self.auto_complete || !self.status.is_finished() {
            return self.retry(false, now);
        }
        Ok(self.step(TaskEvent::StatusChanged { reason: EventReason::Retried }, |task| {
            task.status = Status::Blocked;
            task.finished_at = None;
            task.error = None;
        }))
    }

    /// Becomes a parent. The counts of its existing children are split into as many events as necessary.
    pub(super) fn become_parent(&self, children: BTreeMap<Name, Counts>) -> (Self, Vec<Step>) {
        let mut pieces = vec![BTreeMap::new()];
        let mut size = 0;
        for (name, counts) in children {
            // In JSON a name may take twice its length, and the counts about a hundred bytes.
            let bytes = 2 * name.as_str().len() + 120;
            if size + bytes > MAX_CHILDREN_BYTES && size > 0 {
                pieces.push(BTreeMap::new());
                size = 0;
            }
            size += bytes;
            if let Some(piece) = pieces.last_mut() {
                piece.insert(name, counts);
            }
        }
        let (mut task, mut steps) = self.unchanged();
        for children in pieces {
            let (after, then) = task.step(TaskEvent::BecameParent { children }, |task| task.is_parent = true);
            task = after;
            steps.extend(then);
        }
        (task, steps)
    }

    /// Moves to the children without a phase.
    pub(super) fn leave_phase(&self) -> (Self, Vec<Step>) {
        if self.phase.is_none() {
            return self.unchanged();
        }
        let changes = [("phase".to_owned(), [json!(self.phase), Value::Null])].into();
        self.step(TaskEvent::Edited { kind: EditKind::Facts, changes }, |task| task.phase = None)
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
