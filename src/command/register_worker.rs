//! Registering a worker.

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::model::worker::{Worker, WorkerEvent};

/// Registers a new worker.
#[derive(Debug, Clone)]
pub struct RegisterWorker(pub Worker);

impl Command for RegisterWorker {
    type Answer = Worker;

    fn locks(&self, _locks: &mut LockSet) {}

    fn apply(&self, workspace: &mut Workspace) -> Result<Worker, Refusal> {
        let mut worker = self.0.clone();
        worker.started_at = workspace.now;
        worker.last_seen_at = workspace.now;
        let mut events = vec![WorkerEvent::Started];
        for (id, connector) in &mut worker.connectors {
            connector.since = workspace.now;
            connector.reported_at = Some(workspace.now);
            let connector = connector.clone();
            events.push(WorkerEvent::ConnectorChanged { connector_id: id.clone(), old_status: None, connector });
        }
        workspace.workers.insert(worker.id, Entry::changed(worker.clone()));
        workspace.record_worker(worker.id, &events);
        Ok(worker)
    }
}
