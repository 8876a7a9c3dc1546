//! Why a command was refused.

use uuid::Uuid;

use crate::model::{Name, transition::TransitionError};

/// Why a command was refused; nothing was changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such task.
    #[error("there is no task {0}")]
    NoTask(Uuid),
    /// There is no such worker.
    #[error("there is no worker {0}; register it with POST /api/v1/workers")]
    NoWorker(Uuid),
    /// The worker has left.
    #[error("worker {0} has left; register it again with POST /api/v1/workers")]
    WorkerStopped(Uuid),
    /// There is no such recurring task.
    #[error("there is no schedule {0}")]
    NoSchedule(Name),
    /// There is no such action on many tasks.
    #[error("there is no bulk action {0}")]
    NoBulk(Uuid),
    /// There is no such task to depend on.
    #[error("there is no task {0} to depend on")]
    NoDependency(Uuid),
    /// Tasks would wait for each other for ever.
    #[error("the tasks would wait for each other in a ring: {}", .0.iter().map(Uuid::to_string).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<Uuid>),
    /// Too many relations to look for a ring among them.
    #[error(
        "more than 10000 relations lie around task {0}, too many to make sure that nothing waits in a ring; depend on fewer tasks, or on a group (close_when_done) of them"
    )]
    TooDeep(Uuid),
    /// Parents within parents, too many.
    #[error("task {0} cannot get this child: parents and children would be nested in more than 32 levels")]
    TooNested(Uuid),
    /// A task would be among its own parents.
    #[error("task {0} would be among its own parents")]
    OwnAncestor(Uuid),
    /// Others cannot say how a worker is that taskwatch knows by itself.
    #[error(
        "worker {0} is registered here, so only its own calls tell how it is: POST /api/v1/workers/{0}/heartbeat, or DELETE /api/v1/workers/{0}"
    )]
    WorkerManaged(Uuid),
    /// A worker would have too many connectors.
    #[error("worker {0} would have more than 64 connectors, counting those it reported before")]
    ManyConnectors(Uuid),
    /// The id belongs to a task that another request made.
    #[error("task {0} exists and was created by a request with other fields; use a new id")]
    IdTaken(Uuid),
    /// Another live task has the unique key.
    #[error("another live task has the same unique_key")]
    KeyTaken,
    /// There is no such parent task.
    #[error("there is no task {0} to be the parent")]
    NoParent(Uuid),
    /// The state machine says no.
    #[error(transparent)]
    Transition(#[from] TransitionError),
}
