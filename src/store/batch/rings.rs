//! Rings: tasks that would wait for each other for ever. A task waits for what it depends on, a group for its children,
//! also when it has finished: a child that runs again opens it again.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Batch, Command, WriteError, transition};
use crate::{
    model::{Status, dependency, task::NewTask},
    store::waits,
};

/// Who waits for whom, as far as the batch may close a ring: task to those that wait for it.
#[derive(Default)]
pub(super) struct Waiters {
    stored: HashMap<Uuid, Vec<Uuid>>,
    /// Tasks whose waiters are too many to be followed.
    endless: HashSet<Uuid>,
    /// Tasks that began to wait within the batch.
    fresh: HashMap<Uuid, Vec<Uuid>>,
}

/// Edges that a command is about to add, and the task whose dependencies they replace.
#[derive(Default)]
struct Added<'a> {
    waiters: HashMap<Uuid, Vec<Uuid>>,
    parents: HashMap<Uuid, &'a NewTask>,
    groups: HashSet<Uuid>,
    instead_of: Option<Uuid>,
}

/// A new task among these may be waited for by what exists: through its parent.
pub(super) fn may_close_a_ring(new: &[NewTask]) -> bool {
    new.iter().any(|task| !task.depends_on.is_empty()) && new.iter().any(|task| task.parent_task_id.is_some())
}

impl Batch<'_> {
    /// Reads who waits for the tasks that are about to wait for others; nobody else changes that meanwhile.
    pub(super) async fn load_waiters(&mut self, conn: &mut PgConnection, commands: &[&Command]) -> sqlx::Result<()> {
        let seeds: Vec<Vec<Uuid>> = commands.iter().map(|command| self.seeds(command)).collect();
        let all: HashSet<_> = seeds.iter().flatten().copied().collect();
        if all.is_empty() {
            return Ok(());
        }
        if let Some(stored) = waits::waiters(conn, &all.into_iter().collect::<Vec<_>>()).await? {
            self.waiters.stored = stored;
            return Ok(());
        }
        // One of them asks for too much; the others shall not suffer from that.
        for seeds in seeds.iter().filter(|seeds| !seeds.is_empty()) {
            match waits::waiters(conn, seeds).await? {
                Some(stored) => self.waiters.stored.extend(stored),
                None => self.waiters.endless.extend(seeds),
            }
        }
        Ok(())
    }

    fn seeds(&self, command: &Command) -> Vec<Uuid> {
        let waits = |id: &Uuid| self.task(*id).is_some_and(|task| !task.depends_on.is_empty());
        match command {
            Command::Create(new) if may_close_a_ring(new) => {
                let chosen = new.iter().filter(|task| task.id_is_chosen && !task.depends_on.is_empty());
                new.iter().filter_map(|task| task.parent_task_id).chain(chosen.map(|task| task.id)).collect()
            }
            Command::Tasks { changes, .. } | Command::Steer { changes, .. } => {
                let wired = changes.iter().filter(|(id, change)| match change {
                    transition::Command::Edit(edit) => edit.depends_on.is_some(),
                    transition::Command::Retry | transition::Command::Reopen => waits(id),
                    _ => false,
                });
                wired.map(|(id, _)| *id).collect()
            }
            Command::StepBulk(step) if step.retries => step.ids.iter().filter(|id| waits(id)).copied().collect(),
            _ => Vec::new(),
        }
    }

    /// New tasks do not close a ring.
    pub(super) fn check_new_rings(&self, new: &[NewTask]) -> Result<(), WriteError> {
        let starts: Vec<_> = new.iter().filter(|task| !task.depends_on.is_empty()).map(|task| task.id).collect();
        if starts.is_empty() {
            return Ok(());
        }
        let mut added = Added {
            groups: new.iter().filter(|task| task.close_when_done).map(|task| task.id).collect(),
            parents: new.iter().map(|task| (task.id, task)).collect(),
            ..Added::default()
        };
        for task in new {
            for awaited in &task.depends_on {
                added.waiters.entry(*awaited).or_default().push(task.id);
            }
        }
        let parents = new.iter().filter_map(|task| task.parent_task_id);
        self.check_ring(&starts, parents.chain(starts.iter().copied()), &added)
    }

    /// A task may wait for these instead of what it waited for.
    pub(super) fn check_rewired(&self, id: Uuid, depends_on: &[Uuid]) -> Result<(), WriteError> {
        let waiters = depends_on.iter().map(|awaited| (*awaited, vec![id])).collect();
        let added = Added { waiters, instead_of: Some(id), ..Added::default() };
        self.check_ring(&[id], [id].into_iter(), &added)
    }

    fn check_ring(
        &self,
        starts: &[Uuid],
        mut seeds: impl Iterator<Item = Uuid> + Clone,
        added: &Added<'_>,
    ) -> Result<(), WriteError> {
        if let Some(mut ring) = dependency::cycle(starts, |id| self.waiters_of(id, added)) {
            // It was walked from what is waited for to who waits; people read it the other way.
            ring.reverse();
            return Err(WriteError::Cycle(ring));
        }
        match seeds.find(|id| self.waiters.endless.contains(id)) {
            Some(id) => Err(WriteError::TooDeep(id)),
            None => Ok(()),
        }
    }

    /// Who waits for a task now.
    fn waiters_of(&self, id: Uuid, added: &Added<'_>) -> Vec<Uuid> {
        let stored = self.waiters.stored.get(&id).into_iter().chain(self.waiters.fresh.get(&id)).flatten();
        let known = stored.filter(|waiter| added.instead_of != Some(**waiter) && self.still_waits(**waiter, id));
        let parent = match added.parents.get(&id) {
            Some(new) => new.parent_task_id,
            None => self.task(id).and_then(|task| task.parent_task_id),
        };
        let is_group = |parent: &Uuid| {
            added.groups.contains(parent)
                || self.task(*parent).is_some_and(|task| task.close_when_done && task.status != Status::Cancelled)
        };
        known.chain(added.waiters.get(&id).into_iter().flatten()).copied().chain(parent.filter(is_group)).collect()
    }

    /// What was stored, or began within the batch, is still so.
    fn still_waits(&self, waiter: Uuid, awaited: Uuid) -> bool {
        let Some(entry) = self.tasks.get(&waiter) else { return true };
        entry.after.as_ref().is_some_and(|task| match task.close_when_done {
            true => task.status != Status::Cancelled,
            false => task.status == Status::Blocked && task.depends_on.contains(&awaited),
        })
    }

    /// A task waits for these from now on.
    pub(super) fn begins_to_wait(&mut self, id: Uuid, depends_on: &[Uuid]) {
        for awaited in depends_on {
            self.waiters.fresh.entry(*awaited).or_default().push(id);
        }
    }
}
