//! Tasks evaluated again, because something that they depend on changed.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace};
use crate::model::{phase::Counts, transition::Transition};

/// Evaluates tasks again, given with the numbers of their rows in `rechecks`. Each finds out itself what has changed.
#[derive(Debug, Clone)]
pub struct Reevaluate(pub Vec<(i64, Uuid)>);

impl Command for Reevaluate {
    type Answer = ();

    fn locks(&self, locks: &mut LockSet) {
        locks.graph = true;
        locks.tasks.extend(self.0.iter().map(|(_, id)| *id));
        locks.reevaluated.extend(self.0.iter().map(|(_, id)| *id));
    }

    fn weight(&self) -> usize {
        self.0.len()
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        for (number, id) in &self.0 {
            workspace.reevaluated.push(*number);
            workspace.reevaluate(*id);
        }
        Ok(())
    }
}

impl Workspace {
    fn reevaluate(&mut self, id: Uuid) {
        let Some(task) = self.task(id) else { return };
        let follows_children = task.auto_complete;
        // Nothing to change is fine: another server may have done it.
        let children = self.children.of(id);
        if !children.is_empty() {
            let _ = self.decide(id, Transition::BecomeParent { children }, None);
        }
        if follows_children {
            self.follow_children(id);
        } else {
            let _ = self.resolve_dependencies(id);
        }
        self.inherit(id);
    }

    /// A finished parent runs again with its children, unless another task has its unique key by now: then it stays as it
    /// is until they have finished.
    fn follow_children(&mut self, id: Uuid) {
        let sum = self.sum_of_children(id);
        let reopens = sum.finished() < sum.total() && self.task(id).is_some_and(|task| task.status.is_finished());
        match self.free_key(id) {
            Err(_) if reopens => {}
            key => {
                let _ = self.decide(id, Transition::Children(sum), None);
                self.keys.extend(key.ok().flatten().filter(|_| reopens).map(|key| (key, id)));
            }
        }
    }

    /// All children of a parent whose counts are loaded.
    pub(super) fn sum_of_children(&self, id: Uuid) -> Counts {
        let mut sum = Counts::default();
        self.children.of(id).values().for_each(|counts| sum.add_all(counts));
        sum
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        command::rows::{Rows, id, new_task},
        model::{Status, task::NewTask},
    };

    #[test]
    fn a_parent_follows_its_children() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([NewTask { auto_complete: true, ..new_task(1) }]);
        let child = |number| NewTask { parent_task_id: Some(id(1)), ..new_task(number) };
        rows.create([child(2), child(3)]);
        rows.reevaluate_all();
        assert_eq!(rows.status(1), Status::Blocked, "no child has started");
        for (number, expected) in [(2, Status::Running), (3, Status::Completed)] {
            rows.claim(100, 1);
            let fence = rows.fence(number);
            rows.change(number, Transition::Complete { fence, result: None }).unwrap();
            rows.reevaluate_all();
            assert_eq!(rows.status(1), expected);
        }
    }

    #[test]
    fn a_task_that_is_gone_is_no_matter() {
        let mut rows = Rows::new();
        rows.run(&Reevaluate(vec![(1, id(1))])).unwrap();
        assert!(rows.events.is_empty());
    }

    #[test]
    fn a_parent_whose_key_is_taken_does_not_reopen() {
        let keyed = |number| NewTask { unique_key: Some("k".to_owned()), ..new_task(number) };
        let child = |task: NewTask| NewTask { parent_task_id: Some(id(1)), ..task };
        let mut rows = Rows::new();
        rows.create([NewTask { auto_complete: true, ..keyed(1) }]);
        rows.create([child(new_task(2))]);
        rows.register(100);
        rows.claim(100, 1);
        let fence = rows.fence(2);
        rows.change(2, Transition::Complete { fence, result: None }).unwrap();
        rows.reevaluate_all();
        rows.create([child(keyed(3))]);
        rows.reevaluate_all();
        assert_eq!((rows.status(1), rows.status(3)), (Status::Completed, Status::Pending));
        rows.claim(100, 1);
        let fence = rows.fence(3);
        rows.change(3, Transition::Fail { fence, error: "e".to_owned(), retryable: false, jitter: 0.5 }).unwrap();
        rows.reevaluate_all();
        assert_eq!(rows.status(1), Status::Failed);
    }
}
