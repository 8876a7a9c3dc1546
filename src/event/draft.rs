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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        event::{EventId, envelope::Epoch},
        model::{
            NewTask, Status, Task,
            lease::StallReason,
            report::Progress,
            step::{EventReason, FingerprintChange},
            worker::{Connector, ConnectorStatus, StopReason, WorkerStatus},
        },
    };

    fn now() -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn later(seconds: i64) -> Time {
        now() + TimeDelta::seconds(seconds)
    }

    fn task() -> Task {
        NewTask::plain(Uuid::from_u128(1), Name::literal("mail"), Name::literal("mails")).into_task(None, false, now())
    }

    fn of(task: Task, event: TaskEvent) -> Event {
        let step =
            Step { old_status: Some(Status::Running), after: task, fingerprints: FingerprintChange::default(), event };
        task_event(&step, Some("ops"), now())
    }

    /// One of each event that a task can have.
    fn all_events() -> Vec<TaskEvent> {
        let changes = || Changes::from([("title".to_owned(), ["a".into(), "b".into()])]);
        let edits = [
            EditKind::Facts,
            EditKind::Priority,
            EditKind::Assignee,
            EditKind::Collaborators,
            EditKind::Watchers,
            EditKind::DependencyAdded,
            EditKind::DependencyRemoved,
        ];
        let mut events = vec![
            TaskEvent::Created,
            TaskEvent::Enqueued { reason: Some(EventReason::Retried) },
            TaskEvent::Started { wait_ms: Some(7) },
            TaskEvent::Progressed(Progress { percent: Some(50.0), ..Progress::default() }),
            TaskEvent::Completed { duration_ms: 9, result: None },
            TaskEvent::RetryScheduled { duration_ms: 9, error: "e".to_owned(), next_run_at: later(60) },
            TaskEvent::Failed { duration_ms: 9, error: "e".to_owned() },
            TaskEvent::Stalled(StallReason::LeaseExpired),
            TaskEvent::Cancelled { reason: Some("wrong".to_owned()) },
            TaskEvent::Deleted,
            TaskEvent::BecameParent { children: [(Name::literal("load"), Counts::default())].into() },
            TaskEvent::StatusChanged { reason: EventReason::Reopened },
        ];
        events.extend(edits.map(|kind| TaskEvent::Edited { kind, changes: changes() }));
        events
    }

    /// A task of which everything is known.
    fn whole() -> Task {
        Task {
            title: Some("t".to_owned()),
            phases: vec![Name::literal("load")],
            depends_on: vec![Uuid::from_u128(2)],
            run_at: Some(later(5)),
            external_id: Some("x-1".to_owned()),
            labels: [(Name::literal("k"), "v".to_owned())].into(),
            attempt: 2,
            retry_count: 1,
            error: Some("e".to_owned()),
            ..task()
        }
    }

    #[test]
    fn an_event_has_only_the_fields_of_its_type() {
        for event in all_events() {
            let told = format!("{event:?}");
            let event = of(whole(), event);
            let known = event.event_type.row().data;
            assert!(event.data.set_fields().iter().all(|field| known.contains(field)), "{told}: {:?}", event.data);
        }
    }

    #[test]
    fn every_type_of_event_that_a_task_can_have_is_made() {
        let mut made: Vec<_> = all_events().into_iter().map(|event| of(task(), event).event_type).collect();
        made.sort_unstable();
        made.dedup();
        let of_tasks = Kind::ALL.iter().copied().filter(|kind| kind.name().starts_with("task_"));
        assert_eq!(made, of_tasks.collect::<Vec<_>>());
    }

    #[test]
    fn every_event_of_a_task_can_be_found_by_what_filters_compare() {
        for event in all_events() {
            let event = of(whole(), event);
            assert_eq!((event.task_id, event.status), (Some(Uuid::from_u128(1)), Some(Status::Pending)));
            assert_eq!(event.queue.as_ref().map(Name::as_str), Some("mails"));
            assert_eq!(event.task_type.as_ref().map(Name::as_str), Some("mail"));
            assert_eq!(event.project_id.as_ref().map(Name::as_str), Some("default"));
            assert!(event.priority.is_some() && event.labels.is_some());
            assert_eq!((event.old_status, event.actor.as_deref()), (Some(Status::Running), Some("ops")));
        }
    }

    #[test]
    fn a_task_before_its_first_attempt_has_no_number() {
        let event = of(task(), TaskEvent::Created);
        assert_eq!((event.attempt, event.retry_count, event.labels), (None, None, None));
        let event = of(whole(), TaskEvent::Started { wait_ms: None });
        assert_eq!((event.attempt, event.retry_count), (Some(2), Some(1)));
    }

    #[test]
    fn thirty_two_dependencies_are_listed() {
        for (given, listed) in [(0, None), (1, Some(1)), (32, Some(32)), (33, Some(32)), (1_000, Some(32))] {
            let depends_on: Vec<_> = (0..given).map(Uuid::from_u128).collect();
            let event = of(Task { depends_on, ..task() }, TaskEvent::Created);
            assert_eq!(event.data.depends_on.map(|ids| ids.len()), listed, "{given}");
        }
    }

    #[test]
    fn an_error_goes_with_an_edit_only_if_it_moves_the_task_to_another_group() {
        let edited = || TaskEvent::Edited { kind: EditKind::Facts, changes: Changes::default() };
        assert_eq!(of(whole(), edited()).error, None);
        let fingerprints = FingerprintChange { current: None, previous: Some(Name::literal("f")) };
        let step = Step { old_status: None, after: whole(), fingerprints, event: edited() };
        let event = task_event(&step, None, now());
        assert_eq!((event.error.as_deref(), event.actor), (Some("e"), None));
        assert_eq!(event.data.old_fingerprint.as_ref().map(Name::as_str), Some("f"));
    }

    #[test]
    fn a_stall_has_a_word_for_machines_and_a_sentence_for_people() {
        let event = of(task(), TaskEvent::Stalled(StallReason::WorkerLost));
        assert_eq!(event.data.reason.as_deref(), Some("worker_lost"));
        assert_eq!(event.message.as_deref(), Some("worker lost"));
    }

    #[test]
    fn a_new_parent_without_children_lists_none() {
        let event = of(task(), TaskEvent::BecameParent { children: Default::default() });
        assert_eq!(event.data.children, None);
        assert_eq!(event.data.changes.unwrap()["is_parent"], [false, true]);
    }

    #[test]
    fn only_an_observed_task_has_a_time_of_its_reporter() {
        let ended = Task { finished_at: Some(later(9)), ..task() };
        let completed = || TaskEvent::Completed { duration_ms: 1, result: None };
        assert_eq!(of(ended.clone(), completed()).data.reported_at, None);
        let observed = Task { observed: Some(Box::default()), ..ended };
        assert_eq!(of(observed.clone(), completed()).data.reported_at, Some(later(9)));
        assert_eq!(of(observed.clone(), TaskEvent::Created).data.reported_at, Some(now()));
        assert_eq!(of(observed, TaskEvent::Deleted).data.reported_at, None);
    }

    #[test]
    fn a_phase_lasts_from_its_first_child_to_its_end() {
        let phase = |kind, started_at| {
            let (phase, project) = (Name::literal("load"), Name::literal("p"));
            phase_event(kind, (Uuid::from_u128(1), &phase, Some(&project)), Counts::default(), started_at, later(3))
        };
        assert_eq!(phase(Kind::PhaseCompleted, Some(now())).duration_ms, Some(3_000));
        assert_eq!(phase(Kind::PhaseCompleted, Some(later(9))).duration_ms, Some(0), "a clock that was ahead");
        assert_eq!(phase(Kind::PhaseCompleted, None).duration_ms, None);
        assert_eq!(phase(Kind::PhaseStarted, Some(now())).duration_ms, None);
        assert_eq!(phase(Kind::PhaseStarted, None).data.children.unwrap().len(), 1);
    }

    #[test]
    fn only_a_limit_of_a_queue_is_called_an_action() {
        for kind in [Kind::QueuePaused, Kind::QueueResumed, Kind::OperatorAction] {
            let event = queue_event(&Name::literal("mails"), kind, Changes::default(), "ops", now());
            assert_eq!(event.data.action.is_some(), kind == Kind::OperatorAction);
            let known = event.event_type.row().data;
            assert!(event.data.set_fields().iter().all(|field| known.contains(field)), "{kind}");
        }
    }

    fn worker(status: WorkerStatus) -> Worker {
        Worker {
            id: Uuid::from_u128(7),
            name: Name::literal("w"),
            machine_id: Name::literal("m"),
            queues: Vec::new(),
            capabilities: Vec::new(),
            version: None,
            status,
            connectors: Default::default(),
            started_at: now(),
            last_seen_at: now(),
            stopped_at: None,
            observed: false,
        }
    }

    #[test]
    fn every_event_of_a_worker_names_it_and_has_only_the_fields_of_its_type() {
        let connector = Connector {
            status: ConnectorStatus::Unknown,
            error: None,
            since: now(),
            reported_at: Some(now()),
            tasks: 0,
        };
        let all = [
            (WorkerEvent::Started, Kind::WorkerStarted),
            (WorkerEvent::StatusChanged { old_status: WorkerStatus::Idle }, Kind::WorkerStatusChanged),
            (WorkerEvent::Stopped { reason: StopReason::Lost, old_status: WorkerStatus::Active }, Kind::WorkerStopped),
            (
                WorkerEvent::ConnectorChanged { connector_id: Name::literal("c"), old_status: None, connector },
                Kind::ConnectorStatusChanged,
            ),
        ];
        for (what, kind) in all {
            let event = worker_event(&worker(WorkerStatus::Lost), &what, now());
            assert_eq!((event.event_type, event.worker_id), (kind, Some(Uuid::from_u128(7))));
            assert!(event.machine_id.is_some() && event.data.status.is_some());
            assert!(event.data.set_fields().iter().all(|field| kind.row().data.contains(field)), "{:?}", event.data);
        }
    }

    #[test]
    fn only_an_unknown_connector_says_since_when() {
        for status in ConnectorStatus::ALL.iter().copied() {
            let connector = Connector { status, error: None, since: now(), reported_at: Some(later(-60)), tasks: 0 };
            let what = WorkerEvent::ConnectorChanged { connector_id: Name::literal("c"), old_status: None, connector };
            let event = worker_event(&worker(WorkerStatus::Idle), &what, now());
            let expected = (status == ConnectorStatus::Unknown).then(|| later(-60));
            assert_eq!(event.data.unreported_since, expected, "{status}");
        }
    }

    #[test]
    fn a_draft_gets_its_place_in_front_of_the_same_bytes() {
        let draft = Draft::new(of(whole(), TaskEvent::Created), 8_192);
        let rest = draft.json[1..].to_owned();
        let id = EventId { epoch: Epoch(0x5c1f_09ae), position: i64::MAX };
        let (event, json) = draft.at(id);
        assert_eq!(json, format!("{{\"event_id\":\"{id}\",\"position\":{},{rest}", i64::MAX));
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        assert_eq!((event.event_id, event.position), (Some(id.to_string()), Some(i64::MAX)));
    }
}
