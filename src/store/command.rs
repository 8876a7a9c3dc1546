//! What the writer can be asked for, and what it answers.

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::model::{
    Name, Task,
    report::{Fence, Progress},
    task::NewTask,
    transition::{self, Refusal},
    worker::{ConnectorReport, Worker, WorkerStatus},
};

/// One caller's wish; carried out whole or not at all.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create tasks, all or none. Answers [`Answer::Tasks`].
    Create(Vec<NewTask>),
    /// Take tasks for a worker. Answers [`Answer::Tasks`], maybe none.
    Claim {
        /// For whom.
        worker_id: Uuid,
        /// From which queues.
        queues: Vec<Name>,
        /// At most how many.
        limit: u32,
    },
    /// Change tasks one by one; each has its own outcome. Answers [`Answer::Outcomes`].
    Tasks {
        /// Which, and how.
        changes: Vec<(Uuid, transition::Command)>,
        /// Who asked.
        actor: Option<String>,
    },
    /// A worker is there. Answers [`Answer::Worker`].
    Register(Worker),
    /// A worker is alive. Answers [`Answer::Beat`].
    Heartbeat {
        /// Which worker.
        worker_id: Uuid,
        /// What it does.
        status: Option<WorkerStatus>,
        /// Its connectors.
        connectors: Vec<ConnectorReport>,
        /// The tasks it has; `None` stands for all it holds.
        tasks: Option<Vec<(Uuid, u32, Option<Progress>)>>,
    },
    /// A worker leaves. Answers [`Answer::Worker`].
    Leave(Uuid),
    /// A worker has been silent for too long; decided again under the lock. Answers [`Answer::Worker`].
    Lose(Uuid),
}

/// What became of a command.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Created or claimed tasks. The flag of each tells whether it is new.
    Tasks(Vec<(Task, bool)>),
    /// One outcome per change, in order.
    Outcomes(Vec<Result<Task, WriteError>>),
    /// A worker.
    Worker(Worker),
    /// Tasks that the worker must stop working on.
    Beat {
        /// The worker.
        worker: Worker,
        /// No longer its own.
        cancelled: Vec<Uuid>,
    },
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// There is no such task.
    #[error("there is no task {0}")]
    NoTask(Uuid),
    /// There is no such worker.
    #[error("there is no worker {0}; register it with POST /api/v1/workers")]
    NoWorker(Uuid),
    /// The worker has left.
    #[error("worker {0} has left; register it again with POST /api/v1/workers")]
    WorkerStopped(Uuid),
    /// There is no such parent task.
    #[error("there is no task {0} to be the parent")]
    NoParent(Uuid),
    /// The state machine says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// More waits than can be taken on.
    #[error("the server has more to write than it can take on; try again in a second")]
    Busy,
    /// The database is away, so nobody knows yet.
    #[error(
        "the database did not answer in time, so nobody knows whether this was stored; reports and tasks with an id of your own can be repeated safely"
    )]
    Unavailable,
    /// The database refused this command.
    #[error("the database refused to store this: {0}")]
    Database(String),
}

/// A command on its way, and where its answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Answer, WriteError>>,
}

impl Command {
    /// About how many rows it touches; batches are cut by this.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Create(tasks) => tasks.len(),
            Self::Claim { limit, .. } => *limit as usize,
            Self::Tasks { changes, .. } => changes.len(),
            Self::Heartbeat { tasks, .. } => 1 + tasks.as_ref().map_or(0, Vec::len),
            Self::Register(_) | Self::Leave(_) | Self::Lose(_) => 1,
        }
    }
}

impl transition::Command {
    /// The fence of a worker's report.
    pub(super) const fn fence(&self) -> Option<Fence> {
        match self {
            Self::Progress { fence, .. }
            | Self::Extend { fence, .. }
            | Self::Complete { fence, .. }
            | Self::Fail { fence, .. }
            | Self::Release { fence } => Some(*fence),
            Self::Claim { .. }
            | Self::Due
            | Self::Stall { .. }
            | Self::Cancel { .. }
            | Self::Retry
            | Self::Delete
            | Self::BecomeParent => None,
        }
    }
}
