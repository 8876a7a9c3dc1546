//! Bounds of families: levels of parents and children, and phases of a parent.

use std::collections::{BTreeSet, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Batch, Task, Touched, WriteError};
use crate::{
    model::{Name, task::NewTask},
    store::tasks::{self, MOST_LEVELS},
};

/// What lies above and below the tasks of a batch.
#[derive(Default)]
pub(super) struct Families {
    /// Task to its parent, of tasks that the batch does not hold.
    parents: HashMap<Uuid, Uuid>,
    /// Levels of tasks from one down, itself counted, of reported tasks that may get another parent.
    levels_below: HashMap<Uuid, i32>,
}

impl Batch<'_> {
    /// Reads what lies above the parents that are named, and below the tasks that are reported with one.
    pub(super) async fn load_families(&mut self, conn: &mut PgConnection, touched: &Touched) -> sqlx::Result<()> {
        let known = self.tasks.values().filter_map(|entry| entry.after.as_ref()?.parent_task_id);
        let above: BTreeSet<_> = known.filter(|id| !self.tasks.contains_key(id)).collect();
        if !touched.parents.is_empty() && !above.is_empty() {
            self.families.parents = tasks::ancestors(conn, &above.into_iter().collect::<Vec<_>>()).await?;
        }
        let groups = |id: &&Uuid| !self.children.of(**id).is_empty();
        let below: Vec<_> = touched.observed.iter().filter(groups).copied().collect();
        if !below.is_empty() && !touched.parents.is_empty() {
            self.families.levels_below = tasks::levels_below(conn, &below).await?;
        }
        Ok(())
    }

    fn parent_of(&self, id: Uuid) -> Option<Uuid> {
        match self.tasks.get(&id) {
            Some(entry) => entry.after.as_ref()?.parent_task_id,
            None => self.families.parents.get(&id).copied(),
        }
    }

    /// New tasks are not nested too deep.
    pub(super) fn check_levels(&self, new: &[NewTask]) -> Result<(), WriteError> {
        let mut levels: HashMap<Uuid, i32> = HashMap::new();
        for task in new {
            let Some(parent) = task.parent_task_id else { continue };
            let above = match levels.get(&parent) {
                Some(level) => *level,
                None => self.levels_above(parent, task.id)?,
            };
            if above >= MOST_LEVELS {
                return Err(WriteError::TooNested(parent));
            }
            levels.insert(task.id, above + 1);
        }
        Ok(())
    }

    /// Levels from a parent up, itself counted; refused when `child` is among them.
    fn levels_above(&self, parent: Uuid, child: Uuid) -> Result<i32, WriteError> {
        let (mut next, mut levels) = (Some(parent), 0);
        while let Some(id) = next.filter(|_| levels <= MOST_LEVELS) {
            if id == child {
                return Err(WriteError::OwnAncestor(child));
            }
            levels += 1;
            next = self.parent_of(id);
        }
        Ok(levels)
    }

    /// A report may put a task under this parent.
    pub(super) fn check_moved(&mut self, id: Uuid, parent: Uuid) -> Result<(), WriteError> {
        if self.parent_of(id) == Some(parent) {
            return Ok(());
        }
        let own = self.families.levels_below.get(&id).copied().unwrap_or(1);
        if self.levels_above(parent, id)? + own > MOST_LEVELS {
            return Err(WriteError::TooNested(parent));
        }
        // What is told later in the batch of those above counts from here.
        let (mut above, mut levels) = (Some(parent), own + 1);
        while let Some(id) = above.filter(|_| levels <= MOST_LEVELS) {
            let known = self.families.levels_below.entry(id).or_insert(1);
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
