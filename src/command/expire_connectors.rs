//! Connectors that have not been reported for too long: their status is unknown.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace};

/// The status of a worker's unreported connectors becomes unknown; decided under its lock, for they may have been
/// reported since.
#[derive(Debug, Clone)]
pub struct ExpireConnectors(pub Uuid);

impl Command for ExpireConnectors {
    type Answer = ();

    fn locks(&self, locks: &mut LockSet) {
        locks.worker(self.0);
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        let (now, stale) = (workspace.now, workspace.policy.connector_stale);
        let entry = workspace.workers.get_mut(&self.0).ok_or(Refusal::NoWorker(self.0))?;
        let events = entry.row.expire_connectors(now - stale, now);
        entry.changed |= !events.is_empty();
        workspace.record_worker(self.0, &events);
        Ok(())
    }
}
