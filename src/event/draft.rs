//! Events without a position yet, built from the steps of the model.

use uuid::Uuid;

use super::{Event, Kind};
use crate::{
    clock::Time,
    model::{
        Name,
        edit::{Changes, EditKind},
        operator::OperatorAction,
        phase::Counts,
        step::{Step, TaskEvent},
        worker::{Worker, WorkerEvent},
    },
};

/// An event without a position, and its partial JSON. Event ID and position are prepended once the log assigns them.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The event.
    pub event: Event,
    /// Its JSON object, without `event_id` and `position`.
    pub json: String,
}

impl Draft {
    /// Encodes an event within `max_bytes`; a larger one loses its largest fields first.
    #[must_use]
    pub fn new(event: Event, max_bytes: usize) -> Self {
        let (event, json) = super::truncate::fit(event, max_bytes);
        Self { event, json }
    }

    /// The event and its JSON at a position.
    #[must_use]
    pub fn at(self, id: super::EventId) -> (Event, String) {
        let mut event = self.event;
        event.event_id = Some(id.to_string());
        event.position = Some(id.position);
        let json = format!("{{\"event_id\":\"{id}\",\"position\":{},{}", id.position, &self.json[1..]);
        (event, json)
    }
}

/// The event of one step of a task.
#[must_use]
pub fn task_event(step: &Step, actor: Option<&str>, now: Time) -> Event {
    let task = &step.after;
    let mut event = Event::new(task_kind(&step.event), now);
    event.project_id = Some(task.project_id.clone());
    event.parent_task_id = task.parent_task_id;
    event.task_id = Some(task.id);
    event.task_type = Some(task.task_type.clone());
    event.phase = task.phase.clone();
    event.queue = Some(task.queue.clone());
    event.priority = Some(task.priority);
    event.worker_id = task.worker_id;
    event.machine_id = task.machine_id.clone();
    event.connector_id = task.connector_id.clone();
    event.attempt = (task.attempt > 0).then_some(task.attempt);
    event.retry_count = (task.retry_count > 0).then_some(task.retry_count);
    event.old_status = step.old_status;
    event.status = Some(task.status);
    event.labels = (!task.labels.is_empty()).then(|| task.labels.clone());
    event.actor = actor.map(str::to_owned);
    event.data.fingerprint.clone_from(&step.fingerprints.current);
    event.data.old_fingerprint.clone_from(&step.fingerprints.previous);
    describe(&mut event, step);
    if task.observed.is_some() {
        event.data.reported_at = reported_at(step);
    }
    event
}

/// Sets the fields that belong to what happened.
fn describe(event: &mut Event, step: &Step) {
    let task = &step.after;
    let title = || task.title.clone();
    let phases = || (!task.phases.is_empty()).then(|| task.phases.clone());
    match &step.event {
        TaskEvent::Created => {
            event.data.title = title();
            event.data.phases = phases();
            event.data.max_attempts = Some(task.max_attempts);
            event.data.depends_on = (!task.depends_on.is_empty()).then(|| bounded(&task.depends_on));
            event.data.run_at = task.run_at;
            event.data.external_id.clone_from(&task.external_id);
        }
        TaskEvent::Enqueued { reason } => event.data.reason = reason.map(|reason| reason.to_string()),
        TaskEvent::Started { wait_ms } => {
            event.data.title = title();
            event.data.phases = phases();
            event.data.wait_ms = *wait_ms;
        }
        TaskEvent::Progressed(progress) => {
            event.message.clone_from(&progress.message);
            event.counts = progress.counts;
            event.data.percent = progress.percent;
        }
        TaskEvent::Completed { duration_ms, result } => {
            event.duration_ms = Some(*duration_ms);
            event.data.result.clone_from(result);
            event.data.title = title();
        }
        TaskEvent::RetryScheduled { duration_ms, error, next_run_at } => {
            event.duration_ms = Some(*duration_ms);
            event.error = Some(error.clone());
            event.data.next_run_at = Some(*next_run_at);
            event.data.title = title();
        }
        TaskEvent::Failed { duration_ms, error } => {
            event.duration_ms = Some(*duration_ms);
            event.error = Some(error.clone());
            event.data.title = title();
        }
        TaskEvent::Stalled(reason) => {
            event.message = Some(reason.sentence().to_owned());
            event.data.reason = Some(reason.as_str().to_owned());
        }
        TaskEvent::Cancelled { reason } => event.data.reason.clone_from(reason),
        TaskEvent::Deleted => {}
        TaskEvent::BecameParent { children } => {
            event.data.title = title();
            event.data.phases = phases();
            event.data.changes = Some([("is_parent".to_owned(), [false.into(), true.into()])].into());
            event.data.children = (!children.is_empty()).then(|| children.clone());
        }
        TaskEvent::Edited { changes, .. } => {
            event.error = task.error.clone().filter(|_| step.fingerprints.previous.is_some());
            event.data.title = title();
            event.data.changes = Some(changes.clone());
        }
        TaskEvent::StatusChanged { reason } => event.data.reason = Some(reason.to_string()),
    }
}

/// When it happened, by the clock of the system that reported it.
fn reported_at(step: &Step) -> Option<Time> {
    let task = &step.after;
    match &step.event {
        TaskEvent::Created => Some(task.created_at),
        TaskEvent::Enqueued { .. } => task.enqueued_at,
        TaskEvent::Started { .. } => task.started_at,
        TaskEvent::Completed { .. } | TaskEvent::Failed { .. } | TaskEvent::Cancelled { .. } => task.finished_at,
        TaskEvent::RetryScheduled { .. } => task.observed.as_ref().and_then(|observed| observed.ended_at()),
        _ => None,
    }
}

/// Maximum number of dependencies listed in an event; the task record has all.
const MAX_DEPENDENCIES: usize = 32;

fn bounded(ids: &[Uuid]) -> Vec<Uuid> {
    ids.iter().take(MAX_DEPENDENCIES).copied().collect()
}

/// The event of a phase that started or completed.
#[must_use]
pub fn phase_event(
    kind: Kind,
    (parent_task_id, phase, project_id): (Uuid, &Name, Option<&Name>),
    counts: Counts,
    started_at: Option<Time>,
    now: Time,
) -> Event {
    let mut event = Event::new(kind, now);
    event.project_id = project_id.cloned();
    event.parent_task_id = Some(parent_task_id);
    event.phase = Some(phase.clone());
    event.data.children = Some([(phase.clone(), counts)].into());
    if kind == Kind::PhaseCompleted {
        event.duration_ms = started_at.map(|at| u64::try_from((now - at).num_milliseconds()).unwrap_or_default());
    }
    event
}

/// The event of an operator's change to a queue.
#[must_use]
pub fn queue_event(queue: &Name, kind: Kind, changes: Changes, actor: &str, now: Time) -> Event {
    let mut event = Event::new(kind, now);
    event.queue = Some(queue.clone());
    event.actor = Some(actor.to_owned());
    event.data.action = (kind == Kind::OperatorAction).then(|| OperatorAction::LimitQueue.to_string());
    event.data.changes = Some(changes);
    event
}

const fn task_kind(event: &TaskEvent) -> Kind {
    match event {
        TaskEvent::Created => Kind::TaskCreated,
        TaskEvent::Enqueued { .. } => Kind::TaskEnqueued,
        TaskEvent::Started { .. } => Kind::TaskStarted,
        TaskEvent::Progressed(_) => Kind::TaskProgress,
        TaskEvent::Completed { .. } => Kind::TaskCompleted,
        TaskEvent::RetryScheduled { .. } => Kind::TaskRetry,
        TaskEvent::Failed { .. } => Kind::TaskFailed,
        TaskEvent::Stalled(_) => Kind::TaskStalled,
        TaskEvent::Cancelled { .. } => Kind::TaskCancelled,
        TaskEvent::Deleted => Kind::TaskDeleted,
        TaskEvent::BecameParent { .. } | TaskEvent::StatusChanged { .. } => Kind::TaskUpdated,
        TaskEvent::Edited { kind, .. } => match kind {
            EditKind::Facts => Kind::TaskUpdated,
            EditKind::Priority => Kind::TaskPriorityChanged,
            EditKind::Assignee => Kind::TaskAssigned,
            EditKind::Collaborators => Kind::TaskCollaboratorsUpdated,
            EditKind::Watchers => Kind::TaskWatchersUpdated,
            EditKind::DependencyAdded => Kind::TaskDependencyAdded,
            EditKind::DependencyRemoved => Kind::TaskDependencyRemoved,
        },
    }
}

/// The event of a worker.
#[must_use]
pub fn worker_event(worker: &Worker, what: &WorkerEvent, now: Time) -> Event {
    let kind = match what {
        WorkerEvent::Started => Kind::WorkerStarted,
        WorkerEvent::StatusChanged { .. } => Kind::WorkerStatusChanged,
        WorkerEvent::Stopped { .. } => Kind::WorkerStopped,
        WorkerEvent::ConnectorChanged { .. } => Kind::ConnectorStatusChanged,
    };
    let mut event = Event::new(kind, now);
    event.worker_id = Some(worker.id);
    event.machine_id = Some(worker.machine_id.clone());
    let data = &mut event.data;
    match what {
        WorkerEvent::Started => {
            data.name = Some(worker.name.clone());
            data.queues = Some(worker.queues.clone());
            data.version.clone_from(&worker.version);
            data.status = Some(Name::literal(worker.status.as_str()));
        }
        WorkerEvent::StatusChanged { old_status } => {
            data.name = Some(worker.name.clone());
            data.old_status = Some(Name::literal(old_status.as_str()));
            data.status = Some(Name::literal(worker.status.as_str()));
        }
        WorkerEvent::Stopped { reason, old_status } => {
            data.name = Some(worker.name.clone());
            data.old_status = Some(Name::literal(old_status.as_str()));
            data.status = Some(Name::literal(worker.status.as_str()));
            data.reason = Some(reason.as_str().to_owned());
        }
        WorkerEvent::ConnectorChanged { connector_id, old_status, connector } => {
            data.old_status = old_status.map(|status| Name::literal(status.as_str()));
            data.status = Some(Name::literal(connector.status.as_str()));
            event.connector_id = Some(connector_id.clone());
            event.error.clone_from(&connector.error);
            let unknown = connector.status == crate::model::worker::ConnectorStatus::Unknown;
            data.unreported_since = connector.reported_at.filter(|_| unknown);
        }
    }
    event
}
