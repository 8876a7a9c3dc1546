//! Commands: what can be asked of the writer, one file for each, with its input, its answer, what it locks and how it
//! decides. Pure: a command decides over a [`Workspace`] that the store has filled, and the store writes what changed.
//!
//! To add a command, add its file here, and the handler that runs it.

pub mod cancel_bulk;
pub mod change_queue;
pub mod change_schedule;
pub mod change_tasks;
pub mod children;
pub mod claim_tasks;
mod connectors;
pub mod create_bulk;
pub mod create_tasks;
mod cycles;
mod dependencies;
pub mod deregister_worker;
pub mod expire_connectors;
pub mod expire_worker;
pub mod heartbeat;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod histories;
pub mod ingest;
pub mod lock_set;
pub mod nesting;
pub mod policy;
pub mod reevaluate;
pub mod refusal;
pub mod register_worker;
pub mod relations;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod rows;
pub mod run_bulk_step;
pub mod run_schedule;
pub mod workspace;

use std::fmt::Debug;

use uuid::Uuid;

pub use lock_set::LockSet;
pub use policy::WriterPolicy;
pub use refusal::Refusal;
pub use workspace::Workspace;

use change_tasks::ChangeTasks;

/// One change that is made whole or not at all.
pub trait Command: Debug + Send + Sync + 'static {
    /// What the caller learns.
    type Answer: Debug + Send + Sync + 'static;

    /// Names the rows that the decision needs, before anything is read.
    fn locks(&self, locks: &mut LockSet);

    /// About how many rows it touches, with one more for each 4 KiB of JSON. Batches are cut by this, and long commands
    /// wait for short ones.
    fn weight(&self) -> usize {
        1
    }

    /// Tasks that are about to depend on others: what waits for them is loaded to find cycles. The tasks of
    /// [`Command::locks`] are loaded already.
    fn dependency_roots(&self, _workspace: &Workspace) -> Vec<Uuid> {
        Vec::new()
    }

    /// Decides. It may run more than once: after a lost connection, or when its batch is cut in halves.
    ///
    /// # Errors
    /// [`Refusal`]; the workspace is unchanged then.
    fn apply(&self, workspace: &mut Workspace) -> Result<Self::Answer, Refusal>;

    /// What undoes it when its caller has gone away before the answer came.
    fn compensation(_answer: &Self::Answer) -> Option<ChangeTasks> {
        None
    }
}
