//! Removing the limits of a queue.

use super::{Command, LockSet, Refusal, Workspace};
use crate::{
    event::{Kind, draft},
    model::{
        Name,
        queue::{QueueChange, QueueState},
    },
};

/// An operator removes all limits of a queue.
#[derive(Debug, Clone)]
pub struct ResetLimits {
    /// The queue.
    pub name: Name,
    /// Who asked.
    pub actor: String,
}

impl Command for ResetLimits {
    /// The queue as it is now.
    type Answer = QueueState;

    fn locks(&self, locks: &mut LockSet) {
        locks.queues.insert(self.name.clone());
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<QueueState, Refusal> {
        let now = workspace.now;
        let Some(entry) = workspace.queues.get_mut(&self.name) else { return Ok(QueueState::new(self.name.clone())) };
        let changes = entry.row.change(&QueueChange::Limit { concurrency: Some(None), rate: Some(None) }, now);
        entry.changed |= !changes.is_empty();
        let state = entry.row.clone();
        if !changes.is_empty() {
            workspace.record(draft::queue_event(&state.name, Kind::OperatorAction, changes, &self.actor, now));
        }
        Ok(state)
    }
}
