//! What the writer can be asked for, and what it answers.

use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    bulk::{Bulk, BulkStep},
    queues::{QueueChange, QueueState},
    schedules::{Schedule, ScheduleChange},
};
use crate::clock::Time;
use crate::model::{
    Name, Task,
    observe::Observation,
    report::{Fence, Json, Progress},
    task::NewTask,
    transition::{self, Refusal},
    worker::{ConnectorReport, Worker, WorkerStatus},
};

/// One caller's wish; carried out whole or not at all.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create tasks, all or none. Answers [`Answer::Tasks`].
    Create(Vec<NewTask>),
    /// Take tasks for a worker. Answers [`Answer::Claimed`], maybe none.
    Claim {
        /// For whom.
        worker_id: Uuid,
        /// From which queues.
        queues: Vec<Name>,
        /// At most how many.
        limit: u32,
        /// The connector that will do the work.
        connector_id: Option<Name>,
    },
    /// Change tasks one by one; each has its own outcome. Answers [`Answer::Outcomes`].
    Tasks {
        /// Which, and how.
        changes: Vec<(Uuid, transition::Command)>,
        /// Who asked.
        actor: Option<String>,
    },
    /// The same, and something done to the tasks below them in the background, if any of it was done.
    /// Answers [`Answer::Outcomes`].
    Steer {
        /// Which, and how.
        changes: Vec<(Uuid, transition::Command)>,
        /// Who asked.
        actor: String,
        /// What is done below.
        family: Box<Bulk>,
    },
    /// A worker is there. Answers [`Answer::Worker`].
    Register(Worker),
    /// A worker is alive. Answers [`Answer::Beat`].
    Heartbeat {
        /// Which worker.
        worker_id: Uuid,
        /// What it does.
        status: Option<WorkerStatus>,
        /// Its connectors that are reported; without a list all are as they were.
        connectors: Option<Vec<ConnectorReport>>,
        /// The tasks it has; `None` stands for all it holds.
        tasks: Option<Vec<(Uuid, u32, Option<Progress>)>>,
    },
    /// A worker leaves. Answers [`Answer::Worker`].
    Leave(Uuid),
    /// A worker has been silent for too long; decided again under the lock. Answers [`Answer::Worker`].
    Lose(Uuid),
    /// Connectors of a worker have not been reported for too long; decided again under the lock. Answers
    /// [`Answer::Worker`].
    Doubt(Uuid),
    /// What other systems report. Answers [`Answer::Heard`].
    Observe(Vec<Report>),
    /// Tasks to look at again, with the numbers of their rows. Answers [`Answer::Done`].
    Recheck(Vec<(i64, Uuid)>),
    /// An operator decides about a queue. Answers [`Answer::Queue`].
    Queue {
        /// Which.
        name: Name,
        /// What.
        change: QueueChange,
        /// Who.
        actor: String,
    },
    /// An operator decides about a recurring task. Answers [`Answer::Schedule`].
    Schedule {
        /// Which.
        name: Name,
        /// What.
        change: ScheduleChange,
        /// Who.
        actor: String,
    },
    /// A recurring task's time has come; decided again under the lock. Answers [`Answer::Done`].
    Fire {
        /// Which.
        name: Name,
        /// For which time.
        at: Time,
        /// The parent and the unique key of the task to create.
        relations: (Option<Uuid>, Option<String>),
    },
    /// Begin an action on many tasks. Answers [`Answer::Bulk`].
    BeginBulk(Box<Bulk>),
    /// Do a step of one. Answers [`Answer::Done`].
    StepBulk(BulkStep),
    /// Stop one. Answers [`Answer::Bulk`].
    CancelBulk {
        /// Which.
        id: Uuid,
        /// Who.
        actor: String,
    },
}

/// A report of another system.
#[derive(Debug, Clone)]
pub enum Report {
    /// About a task.
    Task(Uuid, Box<Observation>, Option<Box<WorkerNote>>),
    /// About a worker.
    Worker(Box<WorkerNote>),
}

/// What a report says of a worker. Unknown ones are made known by it.
#[derive(Debug, Clone)]
pub struct WorkerNote {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: Name,
    /// Where it lives.
    pub machine_id: Option<Name>,
    /// When, by the reporter's clock.
    pub at: Time,
    /// It leaves.
    pub stops: bool,
    /// What it does.
    pub status: Option<WorkerStatus>,
    /// Its connectors.
    pub connectors: Vec<ConnectorReport>,
    /// Queues it serves.
    pub queues: Option<Vec<Name>>,
    /// Version of its program.
    pub version: Option<String>,
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
    /// What a worker got.
    Claimed {
        /// Its tasks.
        tasks: Vec<Task>,
        /// Queues whose limits hold something back.
        limited: Vec<Name>,
        /// When the rate allows more.
        again_after: Option<Duration>,
    },
    /// Per report: whether it changed anything.
    Heard(Vec<Result<bool, WriteError>>),
    /// A queue as it is now.
    Queue(QueueState),
    /// A recurring task as it is now, if it is still there.
    Schedule(Option<Box<Schedule>>),
    /// An action on many tasks as it stands.
    Bulk(Box<Bulk>),
    /// Nothing to say.
    Done,
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
    Refused(#[from] Refusal),
    /// More waits than can be taken on.
    #[error("the server has more to write than it can take on; try again in a second")]
    Busy,
    /// The database is away, so nobody knows yet.
    #[error(
        "the database did not answer in time, so nobody knows whether this was stored; reports and tasks with an id of your own can be repeated safely"
    )]
    Unavailable,
    /// The database takes no writes at the moment, which is known.
    #[error("nothing can be stored at the moment: {0}; try again in a second")]
    NotWriting(String),
    /// The database needed too long for this command alone.
    #[error("the database needed more than 30 s for this, so nothing was stored; ask for less at once")]
    TooSlow,
    /// The program failed on this command.
    #[error("the server made a mistake with this; nothing was stored, and its log says more")]
    Internal,
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
    /// About how many rows it touches, with one more for each 4 KiB of JSON; batches are cut by this, and what is long
    /// waits for what is short.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Create(tasks) => {
                tasks.iter().map(|task| 1 + pages(task.payload.as_ref()) + task.depends_on.len() / 4).sum()
            }
            Self::Claim { limit, .. } => *limit as usize,
            Self::Tasks { changes, .. } | Self::Steer { changes, .. } => {
                changes.iter().map(|(_, change)| 1 + change.pages()).sum()
            }
            Self::Heartbeat { tasks, .. } => 1 + tasks.as_ref().map_or(0, Vec::len),
            Self::Observe(reports) => reports.iter().map(Report::weight).sum(),
            Self::Recheck(rows) => rows.len(),
            Self::StepBulk(step) => step.ids.len(),
            Self::Register(_)
            | Self::Leave(_)
            | Self::Lose(_)
            | Self::Doubt(_)
            | Self::Queue { .. }
            | Self::Schedule { .. }
            | Self::Fire { .. }
            | Self::BeginBulk(_)
            | Self::CancelBulk { .. } => 1,
        }
    }
}

impl Report {
    fn weight(&self) -> usize {
        match self {
            Self::Task(_, told, _) => 1 + pages(told.result.as_ref()) + pages(told.facts.payload.as_ref()),
            Self::Worker(_) => 1,
        }
    }
}

/// How many pages of 4 KiB some JSON takes.
fn pages(json: Option<&Json>) -> usize {
    json.map_or(0, |json| json.as_str().len() / 4_096)
}

impl transition::Command {
    fn pages(&self) -> usize {
        if let Self::Complete { result, .. } = self { pages(result.as_ref()) } else { 0 }
    }

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
            | Self::RetryBlocked
            | Self::Reopen
            | Self::LeavePhase
            | Self::GiveUp(_)
            | Self::Delete
            | Self::Expire(_)
            | Self::BecomeParent { .. }
            | Self::GainDependent
            | Self::Depend(_)
            | Self::Children(_)
            | Self::Edit(_)
            | Self::Observe(_)
            | Self::Inherit(_) => None,
        }
    }
}
