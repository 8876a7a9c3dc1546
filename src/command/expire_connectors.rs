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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        command::{
            heartbeat::Heartbeat,
            rows::{Rows, id},
        },
        model::{
            Name,
            worker::{ConnectorReport, ConnectorStatus},
        },
    };

    #[test]
    fn an_unreported_connector_is_unknown() {
        let mut rows = Rows::new();
        rows.register(100);
        let connector_id = Name::literal("c");
        let report =
            ConnectorReport { connector_id: connector_id.clone(), status: ConnectorStatus::Active, error: None };
        let connectors = Some(vec![report]);
        rows.run(&Heartbeat { worker_id: id(100), status: None, connectors, tasks: Vec::new() }).unwrap();
        rows.passes(60);
        rows.run(&ExpireConnectors(id(100))).unwrap();
        assert!(rows.events.is_empty());
        rows.passes(61);
        rows.run(&ExpireConnectors(id(100))).unwrap();
        assert_eq!(rows.workers[&id(100)].connectors[&connector_id].status, ConnectorStatus::Unknown);
        assert_eq!(rows.kinds(), ["connector_status_changed"]);
    }

    #[test]
    fn an_unknown_connector_expires_once_and_an_unknown_worker_never() {
        let mut rows = Rows::new();
        assert_eq!(rows.run(&ExpireConnectors(id(9))).unwrap_err(), Refusal::NoWorker(id(9)));
        rows.register(100);
        let report = ConnectorReport {
            connector_id: Name::literal("c"),
            status: ConnectorStatus::Error,
            error: Some("x".to_owned()),
        };
        let connectors = Some(vec![report]);
        rows.run(&Heartbeat { worker_id: id(100), status: None, connectors, tasks: Vec::new() }).unwrap();
        rows.passes(120);
        rows.run(&ExpireConnectors(id(100))).unwrap();
        assert_eq!(rows.kinds(), ["connector_status_changed"], "at its time, not after it");
        rows.passes(120);
        rows.run(&ExpireConnectors(id(100))).unwrap();
        assert!(rows.events.is_empty());
        assert_eq!(rows.workers[&id(100)].connectors["c"].error.as_deref(), Some("x"), "its last error is still known");
    }
}
