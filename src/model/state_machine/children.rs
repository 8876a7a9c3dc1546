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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::model::{
        state_machine::tests::{at, finished, pending, running},
        transition::{Transition, TransitionError},
    };

    /// Follows its children, of which it has none yet.
    fn parent() -> Task {
        Task { auto_complete: true, status: Status::Blocked, enqueued_at: None, ..pending() }
    }

    fn counts(pending: u64, running: u64, completed: u64, failed: u64, cancelled: u64) -> Counts {
        Counts { pending, running, completed, failed, cancelled }
    }

    fn followed(task: &Task, children: Counts) -> (Task, Vec<TaskEvent>) {
        let (task, steps) = task.decide(Transition::Children(children), at(50)).unwrap();
        (task, steps.into_iter().map(|step| step.event).collect())
    }

    #[test]
    fn a_parent_starts_when_its_first_child_begins() {
        assert_eq!(followed(&parent(), counts(7, 0, 0, 0, 0)).1, []);
        for begun in [counts(7, 1, 0, 0, 0), counts(7, 0, 1, 0, 0), counts(7, 0, 0, 1, 0), counts(7, 0, 0, 0, 1)] {
            let (task, events) = followed(&parent(), begun);
            assert_eq!(events, [TaskEvent::Started { wait_ms: None }], "{begun:?}");
            assert_eq!((task.status, task.attempt, task.started_at), (Status::Running, 1, Some(at(50))));
            assert_eq!(task.lease.unwrap().expires_at, None, "it is never claimed, so its lease never expires");
            assert_eq!(task.worker_id, None);
        }
    }

    #[test]
    fn a_parent_ends_with_its_last_child_and_as_the_children_did() {
        for (children, status, error) in [
            (counts(0, 0, 3, 0, 0), Status::Completed, None),
            (counts(0, 0, 1, 0, 2), Status::Completed, None),
            (counts(0, 0, 2, 1, 0), Status::Failed, Some("1 of 3 children failed")),
            (counts(0, 0, 0, 1, 4), Status::Failed, Some("1 of 5 children failed")),
            (counts(0, 0, 0, 0, 2), Status::Cancelled, None),
        ] {
            let (task, events) = followed(&parent(), children);
            assert_eq!(
                (task.status, task.error.as_deref(), task.finished_at),
                (status, error, Some(at(50))),
                "{children:?}"
            );
            assert_eq!((events.len(), task.lease), (2, None), "it starts and ends");
        }
        for open in [counts(1, 0, 9, 0, 0), counts(0, 1, 9, 3, 0)] {
            assert_eq!(followed(&parent(), open).0.status, Status::Running, "{open:?}");
        }
    }

    #[test]
    fn a_retried_child_reopens_its_parent() {
        let (completed, _) = followed(&parent(), counts(0, 0, 2, 0, 0));
        let (task, events) = followed(&completed, counts(1, 0, 1, 0, 0));
        let reopened = TaskEvent::StatusChanged { reason: EventReason::Reopened };
        assert_eq!(events, [reopened.clone(), TaskEvent::Started { wait_ms: None }]);
        assert_eq!((task.status, task.attempt, task.finished_at), (Status::Running, 2, None));
        let (task, events) = followed(&completed, counts(2, 0, 0, 0, 0));
        assert_eq!((task.status, events), (Status::Blocked, vec![reopened]));
    }

    #[test]
    fn a_child_that_ended_otherwise_meanwhile_changes_the_end_of_its_parent() {
        let (failed, _) = followed(&parent(), counts(0, 0, 1, 1, 0));
        let (task, events) = followed(&failed, counts(0, 0, 2, 0, 0));
        assert_eq!((task.status, task.error.clone(), events.len()), (Status::Completed, None, 3));
        let (task, _) = followed(&task, counts(0, 0, 1, 1, 0));
        assert_eq!((task.status, task.attempt), (Status::Failed, 3));
        assert_eq!(followed(&task, counts(0, 0, 3, 1, 0)).1, [], "it failed before, and still has");
    }

    #[test]
    fn a_cancelled_parent_no_longer_follows_and_others_never_do() {
        let cancelled = parent().decide(Transition::Cancel { reason: None }, at(1)).unwrap().0;
        for task in [cancelled, pending(), running()] {
            assert_eq!(followed(&task, counts(0, 1, 1, 1, 1)), (task, vec![]));
        }
    }

    #[test]
    fn a_parent_whose_last_child_was_removed_has_nothing_to_wait_for() {
        assert_eq!(followed(&parent(), Counts::default()).1, [], "its first child is still to come");
        let had_one = Task { is_parent: true, ..parent() };
        let (task, events) = followed(&had_one, Counts::default());
        assert_eq!((task.status, task.outcome), (Status::Cancelled, None));
        assert_eq!(events, [TaskEvent::Cancelled { reason: Some("its last child was removed".to_owned()) }]);
        let (started, _) = followed(&had_one, counts(1, 1, 0, 0, 0));
        assert_eq!(followed(&started, Counts::default()).0.outcome, Some(Outcome::Cancelled));
        let (done, _) = followed(&had_one, counts(0, 0, 1, 0, 0));
        assert_eq!(followed(&done, Counts::default()).1, []);
    }

    #[test]
    fn the_children_of_a_new_parent_are_told_in_events_of_bounded_size() {
        let long = |number: usize| Name::new(&format!("{number:03}{}", "ä".repeat(60))).unwrap();
        let children: BTreeMap<_, _> =
            (0..100).map(|number| (long(number), counts(number as u64, 1, 0, 0, 0))).collect();
        let (task, steps) = pending().decide(Transition::BecomeParent { children: children.clone() }, at(1)).unwrap();
        assert!(task.is_parent && steps.len() > 1);
        let mut told = BTreeMap::new();
        for step in steps {
            let TaskEvent::BecameParent { children: piece } = step.event else { panic!("{:?}", step.event) };
            assert!(serde_json::to_string(&piece).unwrap().len() <= MAX_CHILDREN_BYTES);
            told.extend(piece);
        }
        assert_eq!(told, children);
    }

    #[test]
    fn a_task_becomes_a_parent_once() {
        let become_parent = || Transition::BecomeParent { children: BTreeMap::new() };
        let (task, steps) = pending().decide(become_parent(), at(1)).unwrap();
        assert_eq!(steps[0].event, TaskEvent::BecameParent { children: BTreeMap::new() });
        assert_eq!(task.decide(become_parent(), at(2)).unwrap().1.len(), 0);
    }

    #[test]
    fn leaving_a_phase_is_an_edit_of_the_phase() {
        assert_eq!(pending().leave_phase().1.len(), 0);
        let (task, steps) = Task { phase: Some(Name::literal("load")), ..pending() }.leave_phase();
        let changes = [("phase".to_owned(), [json!("load"), Value::Null])].into();
        assert_eq!(steps[0].event, TaskEvent::Edited { kind: EditKind::Facts, changes });
        assert_eq!(task.phase, None);
    }

    #[test]
    fn reopening_waits_for_the_children_again() {
        let (failed, _) = followed(&parent(), counts(0, 0, 0, 1, 0));
        let (task, steps) = failed.decide(Transition::Reopen, at(60)).unwrap();
        assert_eq!((task.status, task.error, task.finished_at), (Status::Blocked, None, None));
        assert_eq!(steps[0].event, TaskEvent::StatusChanged { reason: EventReason::Retried });
        let open = parent().decide(Transition::Reopen, at(60)).unwrap_err();
        assert_eq!(open, TransitionError::Illegal { status: Status::Blocked, wanted: "retried" });
        let (plain, _) = finished(Status::Failed).decide(Transition::Reopen, at(60)).unwrap();
        assert_eq!(plain.status, Status::Pending, "any other task is simply retried");
    }

    proptest! {
        /// The children alone decide where an open parent stands, and following them twice is following them once.
        #[test]
        fn the_children_alone_decide(
            before in proptest::array::uniform5(0_u64..3),
            after in proptest::array::uniform5(0_u64..3),
        ) {
            let start = Task { is_parent: true, ..parent() };
            let (between, _) = followed(&start, Counts::from_numbers(before));
            let after = Counts::from_numbers(after);
            let (task, _) = followed(&between, after);
            prop_assert_eq!(followed(&task, after).1, []);
            if between.status != Status::Cancelled && after.total() > 0 {
                let right = match (after.finished() == after.total(), after.failed, after.completed) {
                    (true, 1.., _) => Status::Failed,
                    (true, 0, 1..) => Status::Completed,
                    (true, 0, 0) => Status::Cancelled,
                    _ if after.running + after.finished() > 0 || between.status == Status::Running => Status::Running,
                    _ => Status::Blocked,
                };
                // One that completed is not cancelled because its completed children are no longer there.
                prop_assert!(task.status == right || between.status == Status::Completed && right == Status::Cancelled);
            }
        }
    }
}
