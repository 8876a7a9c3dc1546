//! Cancelling a bulk action.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::model::bulk::{Bulk, BulkState};

/// Cancels a bulk action; what it did stays done.
#[derive(Debug, Clone)]
pub struct CancelBulk {
    /// The action.
    pub id: Uuid,
    /// Who asked.
    pub actor: String,
}

impl Command for CancelBulk {
    /// The action as it stands.
    type Answer = Bulk;

    fn locks(&self, locks: &mut LockSet) {
        locks.bulks.insert(self.id);
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<Bulk, Refusal> {
        let mut bulk = workspace.bulks.get(&self.id).map(|entry| entry.row.clone()).ok_or(Refusal::NoBulk(self.id))?;
        if bulk.state == BulkState::Running {
            workspace.end_bulk(&mut bulk, BulkState::Cancelled, &self.actor);
        }
        Ok(bulk)
    }
}

impl Workspace {
    pub(super) fn end_bulk(&mut self, bulk: &mut Bulk, state: BulkState, actor: &str) {
        (bulk.state, bulk.finished_at) = (state, Some(self.now));
        let mut event = self.operator_event(bulk.action.word(), actor);
        event.data.reason = Some(state.to_string());
        event.data.matched = Some(bulk.succeeded + bulk.failed);
        event.data.succeeded = Some(bulk.succeeded);
        event.data.failed = Some(bulk.failed);
        self.record(event);
        self.bulks.insert(bulk.id, Entry::changed(bulk.clone()));
    }
}
