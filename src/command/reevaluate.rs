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
            let sum = self.sum_of_children(id);
            let _ = self.decide(id, Transition::Children(sum), None);
        } else {
            let _ = self.resolve_dependencies(id);
        }
        self.inherit(id);
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
}
