//! Pausing, resuming and limiting a queue.

use super::{Command, LockSet, Refusal, Workspace};
use crate::{
    event::{Kind, draft},
    model::{
        Name,
        queue::{QueueChange, QueueState},
    },
};

/// An operator pauses, resumes or limits a queue.
#[derive(Debug, Clone)]
pub struct ChangeQueue {
    /// The queue.
    pub name: Name,
    /// How it is changed.
    pub change: QueueChange,
    /// Who asked.
    pub actor: String,
}

impl Command for ChangeQueue {
    /// The queue as it is now.
    type Answer = QueueState;

    fn locks(&self, locks: &mut LockSet) {
        locks.queues.insert(self.name.clone());
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<QueueState, Refusal> {
        let now = workspace.now;
        let Some(entry) = workspace.queues.get_mut(&self.name) else { return Ok(QueueState::new(self.name.clone())) };
        let changes = entry.row.change(&self.change, now);
        entry.changed |= !changes.is_empty();
        let state = entry.row.clone();
        if !changes.is_empty() {
            workspace.record(draft::queue_event(&state.name, kind(&self.change), changes, &self.actor, now));
        }
        Ok(state)
    }
}

const fn kind(change: &QueueChange) -> Kind {
    match change {
        QueueChange::Pause => Kind::QueuePaused,
        QueueChange::Resume => Kind::QueueResumed,
        QueueChange::Limit { .. } => Kind::OperatorAction,
    }
}
