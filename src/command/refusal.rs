//! Why a command was refused.

use uuid::Uuid;

use crate::model::{Name, transition::TransitionError};

/// Why a command was refused; nothing was changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such task.
    #[error("task {0} not found")]
    NoTask(Uuid),
    /// There is no such worker.
    #[error("worker {0} not found; register it with POST /api/v1/workers")]
    NoWorker(Uuid),
    /// The worker has left.
    #[error("worker {0} has stopped; register it again with POST /api/v1/workers")]
    WorkerStopped(Uuid),
    /// There is no such recurring task.
    #[error("schedule {0} not found")]
    NoSchedule(Name),
    /// There is no such action on many tasks.
    #[error("bulk action {0} not found")]
    NoBulk(Uuid),
    /// There is no such task to depend on.
    #[error("dependency {0} not found")]
    NoDependency(Uuid),
    /// The dependencies form a cycle.
    #[error("dependency cycle: {}", .0.iter().map(Uuid::to_string).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<Uuid>),
    /// Too many relations to look for a ring among them.
    #[error(
        "more than 10000 dependencies around task {0}, too many to check for a cycle; depend on fewer tasks, or on their parent task (auto_complete)"
    )]
    TooDeep(Uuid),
    /// Parents within parents, too many.
    #[error("parent task {0}: parent tasks would be nested deeper than 32 levels")]
    TooNested(Uuid),
    /// A task would be among its own parents.
    #[error("task {0} would be its own ancestor")]
    OwnAncestor(Uuid),
    /// Others cannot say how a worker is that taskwatch knows by itself.
    #[error(
        "worker {0} is managed: use POST /api/v1/workers/{0}/heartbeat or DELETE /api/v1/workers/{0} instead of events"
    )]
    WorkerManaged(Uuid),
    /// A worker would have too many connectors.
    #[error("worker {0} would have more than 64 connectors, including those reported before")]
    ManyConnectors(Uuid),
    /// The id belongs to a task that another request made.
    #[error("task {0} already exists with other fields; use a new id")]
    IdTaken(Uuid),
    /// The id belonged to a task that was deleted and left children.
    #[error("children of a deleted task {0} still exist; use a new id, or create it without parent_task_id")]
    HasChildren(Uuid),
    /// Another live task has the unique key.
    #[error("unique_key is already used by an unfinished task")]
    KeyTaken,
    /// There is no such parent task.
    #[error("parent task {0} not found")]
    NoParent(Uuid),
    /// The state machine says no.
    #[error(transparent)]
    Transition(#[from] TransitionError),
}
