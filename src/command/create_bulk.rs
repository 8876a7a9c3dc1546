//! Beginning a bulk action.

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::model::bulk::Bulk;

/// Begins an action on many tasks; maintenance carries it out step by step.
#[derive(Debug, Clone)]
pub struct CreateBulk(pub Box<Bulk>);

impl Command for CreateBulk {
    type Answer = ();

    fn locks(&self, _locks: &mut LockSet) {}

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        workspace.create_bulk(&self.0);
        Ok(())
    }
}

impl Workspace {
    pub(super) fn create_bulk(&mut self, bulk: &Bulk) {
        self.record(self.operator_event(bulk.action.word(), &bulk.actor));
        self.bulks.insert(bulk.id, Entry::changed(bulk.clone()));
    }
}
