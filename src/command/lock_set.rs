//! The rows that commands name, known before anything is read.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::model::{Name, transition::Transition};

/// A claim: who asks, from which queues, for how many tasks.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The worker.
    pub worker_id: Uuid,
    /// The connector that will do the work.
    pub connector_id: Option<Name>,
    /// The queues, highest priority over all of them first.
    pub queues: Vec<Name>,
    /// Most tasks.
    pub limit: u32,
}

/// The rows that the commands of a batch name.
#[derive(Debug, Default)]
pub struct LockSet {
    /// Tasks that may change.
    pub tasks: BTreeSet<Uuid>,
    /// Parents that tasks are created or moved under.
    pub parents: BTreeSet<Uuid>,
    /// Workers that are looked at.
    pub workers: BTreeSet<Uuid>,
    /// Those of them that may change.
    pub changed_workers: BTreeSet<Uuid>,
    /// Workers all of whose tasks are concerned.
    pub holders: Vec<Uuid>,
    /// Unique keys of tasks to create.
    pub keys: Vec<String>,
    /// Queues that operators change.
    pub queues: BTreeSet<Name>,
    /// Schedules that may change.
    pub schedules: BTreeSet<Name>,
    /// Bulk actions that may change.
    pub bulks: BTreeSet<Uuid>,
    /// Claims, in the order of their commands.
    pub claims: Vec<ClaimRequest>,
    /// Tasks to evaluate again.
    pub reevaluated: Vec<Uuid>,
    /// Tasks that other systems report.
    pub observed: BTreeSet<Uuid>,
    /// Tasks that may run again, and may have to wait for their dependencies first.
    pub retried: Vec<Uuid>,
    /// Tasks to create under ids of their clients, which may exist already.
    pub created: BTreeSet<Uuid>,
    /// Dependencies may change, or tasks appear whose relations are not known.
    pub graph: bool,
}

impl LockSet {
    /// A worker that is looked at and may change.
    pub fn worker(&mut self, worker_id: Uuid) {
        self.workers.insert(worker_id);
        self.changed_workers.insert(worker_id);
    }

    /// A change of a task, with the rows that follow from it.
    pub fn transition(&mut self, id: Uuid, transition: &Transition) {
        self.tasks.insert(id);
        self.workers.extend(transition.fence().map(|fence| fence.worker_id));
        match transition {
            Transition::Retry | Transition::Reopen => self.retried.push(id),
            Transition::Edit(edit) => {
                if let Some(depends_on) = &edit.depends_on {
                    self.graph = true;
                    self.tasks.extend(depends_on);
                }
            }
            _ => {}
        }
    }
}
