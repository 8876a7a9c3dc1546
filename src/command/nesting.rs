//! Bounds of families: levels of parents and children, and phases of a parent.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Refusal, Workspace};
use crate::model::{Name, Task, task::NewTask};

/// Most levels of parents and children.
pub const MAX_LEVELS: i32 = 32;

impl Workspace {
    fn parent_of(&self, id: Uuid) -> Option<Uuid> {
        match self.tasks.get(&id) {
            Some(entry) => entry.after.as_ref()?.parent_task_id,
            None => self.nesting.parents.get(&id).copied(),
        }
    }

    /// New tasks are not nested too deep.
    pub(super) fn check_levels(&self, new: &[NewTask]) -> Result<(), Refusal> {
        let mut levels: HashMap<Uuid, i32> = HashMap::new();
        for task in new {
            let Some(parent) = task.parent_task_id else { continue };
            let above = match levels.get(&parent) {
                Some(level) => *level,
                None => self.levels_above(parent, task.id)?,
            };
            if above >= MAX_LEVELS {
                return Err(Refusal::TooNested(parent));
            }
            levels.insert(task.id, above + 1);
        }
        Ok(())
    }

    /// Levels from a parent up, itself counted; refused when `child` is among them.
    fn levels_above(&self, parent: Uuid, child: Uuid) -> Result<i32, Refusal> {
        let (mut next, mut levels) = (Some(parent), 0);
        while let Some(id) = next.filter(|_| levels <= MAX_LEVELS) {
            if id == child {
                return Err(Refusal::OwnAncestor(child));
            }
            levels += 1;
            next = self.parent_of(id);
        }
        Ok(levels)
    }

    /// A report may put a task under this parent.
    pub(super) fn check_moved(&mut self, id: Uuid, parent: Uuid) -> Result<(), Refusal> {
        if self.parent_of(id) == Some(parent) {
            return Ok(());
        }
        let own = self.nesting.levels_below.get(&id).copied().unwrap_or(1);
        if self.levels_above(parent, id)? + own > MAX_LEVELS {
            return Err(Refusal::TooNested(parent));
        }
        // Later reports of the batch about those above count from here.
        let (mut above, mut levels) = (Some(parent), own + 1);
        while let Some(id) = above.filter(|_| levels <= MAX_LEVELS) {
            let known = self.nesting.levels_below.entry(id).or_insert(1);
            *known = levels.max(*known);
            levels += 1;
            above = self.parent_of(id);
        }
        Ok(())
    }

    /// A new child beyond the phases that its parent may have counts among those without one.
    pub(super) fn fit_phase(&self, task: &mut Task) {
        if let (Some(parent), Some(phase)) = (task.parent_task_id, &task.phase)
            && !self.children.has_room_for(parent, phase)
        {
            task.phase = None;
        }
    }

    /// A parent cannot have this phase as well. Asked before a child is put there.
    pub(super) fn is_full(&self, (parent, phase): &(Option<Uuid>, Option<Name>)) -> bool {
        match (parent, phase) {
            (Some(parent), Some(phase)) => !self.children.has_room_for(*parent, phase),
            _ => false,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::command::{
        create_tasks::CreateTasks,
        rows::{Rows, id, new_task},
    };

    fn below(number: u128, parent: u128) -> NewTask {
        NewTask { parent_task_id: Some(id(parent)), ..new_task(number) }
    }

    #[test]
    fn parents_and_children_have_a_bound() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        rows.create((2..=32).map(|number| below(number, number - 1)));
        let refused = rows.run(&CreateTasks(vec![below(33, 32)])).unwrap_err();
        assert_eq!(refused, Refusal::TooNested(id(32)));
    }

    #[test]
    fn a_parent_has_a_bound_of_phases_and_the_rest_counts_without_one() {
        let phase =
            |number: u128| NewTask { phase: Some(Name::new(&format!("phase-{number}")).unwrap()), ..below(number, 1) };
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        rows.create((2..=201).map(phase));
        rows.create([phase(300)]);
        assert_eq!(rows.tasks[&id(201)].phase.as_ref().unwrap().as_str(), "phase-201");
        assert_eq!(rows.tasks[&id(300)].phase, None);
    }
}
