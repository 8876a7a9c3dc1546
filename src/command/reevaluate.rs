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
        let follows_children = task.close_when_done;
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
