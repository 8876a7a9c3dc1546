//! One step of a bulk action.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::model::bulk::{Bulk, BulkAction, BulkState, BulkStep};

/// Runs one step of a bulk action, unless another server did it before.
#[derive(Debug, Clone)]
pub struct RunBulkStep(pub BulkStep);

impl Command for RunBulkStep {
    type Answer = ();

    fn locks(&self, locks: &mut LockSet) {
        locks.bulks.insert(self.0.id);
        locks.tasks.extend(&self.0.ids);
        locks.retried.extend(self.0.ids.iter().filter(|_| self.0.retries));
    }

    fn weight(&self) -> usize {
        self.0.ids.len()
    }

    fn dependency_roots(&self, workspace: &Workspace) -> Vec<Uuid> {
        let retried = self.0.ids.iter().filter(|_| self.0.retries);
        retried.filter(|id| workspace.has_dependencies(**id)).copied().collect()
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        let step = &self.0;
        let Some(mut bulk) = workspace.bulks.get(&step.id).map(|entry| entry.row.clone()) else { return Ok(()) };
        if bulk.state != BulkState::Running || bulk.before != step.from {
            return Ok(());
        }
        if let Some(family) = &step.family {
            workspace.create_bulk(family);
        }
        for id in &step.ids {
            if workspace.run_bulk(&bulk, *id) {
                bulk.succeeded += 1;
            } else {
                bulk.failed += 1;
            }
        }
        let pause = bulk.pace_per_second.map_or(0, |pace| 1_000 * step.ids.len() as u64 / u64::from(pace));
        bulk.next_at = workspace.now + TimeDelta::milliseconds(i64::try_from(pause).unwrap_or_default());
        match step.to {
            Some(place) => {
                bulk.before = place;
                workspace.bulks.insert(bulk.id, Entry::changed(bulk));
            }
            None => {
                let actor = bulk.actor.clone();
                workspace.end_bulk(&mut bulk, BulkState::Done, &actor);
            }
        }
        Ok(())
    }
}

impl Workspace {
    /// Does to one task what the action does; whether that could be done. The task may have changed since it was found.
    fn run_bulk(&mut self, bulk: &Bulk, id: Uuid) -> bool {
        let reopened = self.task(id).is_some_and(|task| task.close_when_done && !task.status.is_finished());
        if reopened && bulk.action == BulkAction::RetryFamily {
            return true;
        }
        let statuses = &bulk.filter.statuses;
        if !statuses.is_empty() && self.task(id).is_none_or(|task| !statuses.contains(&task.status)) {
            return false;
        }
        self.change(id, bulk.action.transition(), Some(&bulk.actor)).is_ok()
    }
}
