//! Reports of other systems. Unknown tasks and workers are created by them.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::{
    clock::Time,
    model::{
        Name, Task,
        observation::Observation,
        report::Json,
        transition::Transition,
        worker::{ConnectorReport, StopReason, Worker, WorkerEvent, WorkerStatus},
    },
};

/// Applies reports of other systems, each with its own outcome: whether it changed anything.
#[derive(Debug, Clone)]
pub struct Ingest(pub Vec<IngestedReport>);

/// A report of another system.
#[derive(Debug, Clone)]
pub enum IngestedReport {
    /// About a task, maybe with its worker.
    Task(Uuid, Box<Observation>, Option<Box<WorkerReport>>),
    /// About a worker.
    Worker(Box<WorkerReport>),
}

/// What a report says about a worker; an unknown worker is created by it.
#[derive(Debug, Clone)]
pub struct WorkerReport {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Name,
    /// Its machine.
    pub machine_id: Option<Name>,
    /// When, by the reporter's clock.
    pub at: Time,
    /// It stopped.
    pub stops: bool,
    /// Its status.
    pub status: Option<WorkerStatus>,
    /// Its connectors.
    pub connectors: Vec<ConnectorReport>,
    /// Queues it serves.
    pub queues: Option<Vec<Name>>,
    /// Version of its program.
    pub version: Option<String>,
}

impl Command for Ingest {
    type Answer = Vec<Result<bool, Refusal>>;

    fn locks(&self, locks: &mut LockSet) {
        locks.graph = true;
        for report in &self.0 {
            let worker = match report {
                IngestedReport::Task(id, report, worker) => {
                    locks.tasks.insert(*id);
                    locks.observed.insert(*id);
                    locks.parents.extend(report.facts.parent_task_id);
                    worker.as_deref()
                }
                IngestedReport::Worker(worker) => Some(&**worker),
            };
            if let Some(worker) = worker {
                locks.worker(worker.id);
                locks.holders.extend(worker.stops.then_some(worker.id));
            }
        }
    }

    fn weight(&self) -> usize {
        let pages = |json: &Option<Json>| json.as_ref().map_or(0, Json::pages);
        let weight = |report: &IngestedReport| match report {
            IngestedReport::Task(_, report, _) => 1 + pages(&report.result) + pages(&report.facts.payload),
            IngestedReport::Worker(_) => 1,
        };
        self.0.iter().map(weight).sum()
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<Self::Answer, Refusal> {
        let outcomes = self.0.iter().map(|report| match report {
            IngestedReport::Worker(worker) => workspace.report_worker(worker),
            IngestedReport::Task(id, report, worker) => {
                if let Some(parent) = report.facts.parent_task_id {
                    workspace.check_moved(*id, parent)?;
                }
                // A worker that is registered here is only named: other systems cannot say how it is.
                if let Some(worker) = worker.as_ref().filter(|worker| !workspace.is_registered(worker.id)) {
                    workspace.report_worker(worker)?;
                }
                workspace.observe_task(*id, report)
            }
        });
        Ok(outcomes.collect())
    }
}

impl Workspace {
    fn observe_task(&mut self, id: Uuid, report: &Observation) -> Result<bool, Refusal> {
        let recorded = self.drafts.len();
        let place = |task: &Task| (task.parent_task_id, task.phase.clone());
        let was_in = self.task(id).map(place);
        let facts = &report.facts;
        let goes_to =
            was_in.clone().map(|(parent, phase)| (facts.parent_task_id.or(parent), facts.phase.clone().or(phase)));
        let full =
            goes_to.is_some() && goes_to != was_in && goes_to.as_ref().is_some_and(|goes_to| self.is_full(goes_to));
        if self.task(id).is_some() {
            self.decide(id, Transition::Observe(Box::new(report.clone())), None)?;
        } else {
            let inherited =
                report.facts.parent_task_id.and_then(|id| self.task(id)).map(|parent| parent.project_id.clone());
            let blank = Task::placeholder(id, inherited.as_ref(), self.now);
            let (mut task, mut steps) = blank.first_observed(report, self.now);
            if self.is_full(&place(&task)) {
                task.phase = None;
                steps.iter_mut().for_each(|step| step.after.phase = None);
            }
            self.adopt(task.parent_task_id);
            self.add(task.clone());
            self.record_steps(&steps, None);
            self.follow_connector(&Task { lease: None, ..task.clone() }, Some(&task));
            let children = self.children.of(id);
            if !children.is_empty() {
                self.decide(id, Transition::BecomeParent { children }, None)?;
            }
        }
        if full && self.task(id).map(place) == goes_to {
            self.decide(id, Transition::LeavePhase, None)?;
        }
        self.adopt(self.task(id).and_then(|task| task.parent_task_id));
        self.inherit(id);
        Ok(self.drafts.len() > recorded)
    }

    /// An observed task without a project takes its parent's.
    pub(super) fn inherit(&mut self, id: Uuid) {
        let parent = self.task(id).filter(|task| task.inherits()).and_then(|task| task.parent_task_id);
        if let Some(project) = parent.and_then(|id| self.task(id)).map(|parent| parent.project_id.clone()) {
            // Nothing to change is fine.
            let _ = self.decide(id, Transition::Inherit(project), None);
        }
    }

    /// Makes a known task a parent when it gets its first child.
    pub(super) fn adopt(&mut self, parent: Option<Uuid>) {
        if let Some(parent) = parent
            && self.task(parent).is_some_and(|task| !task.is_parent)
        {
            let children = self.children.of(parent);
            // It was loaded under its lock, so this cannot be refused.
            let _ = self.decide(parent, Transition::BecomeParent { children }, None);
        }
    }

    /// The worker is registered here, not known by reports of other systems.
    fn is_registered(&self, worker_id: Uuid) -> bool {
        self.workers.get(&worker_id).is_some_and(|entry| !entry.row.observed)
    }

    /// Applies a report about a worker; whether it changed anything.
    fn report_worker(&mut self, report: &WorkerReport) -> Result<bool, Refusal> {
        let recorded = self.drafts.len();
        if self.is_registered(report.id) {
            return Err(Refusal::WorkerManaged(report.id));
        }
        let known = self.workers.get(&report.id).map(|entry| &entry.row);
        if known.is_some_and(|known| !known.has_room_for(report.connectors.iter().map(|report| &report.connector_id))) {
            return Err(Refusal::ManyConnectors(report.id));
        }
        if !self.workers.contains_key(&report.id) {
            if report.stops {
                return Ok(false);
            }
            let machine_id = report.machine_id.clone().unwrap_or_else(|| Name::literal("-"));
            let worker = Worker {
                queues: report.queues.clone().unwrap_or_default(),
                version: report.version.clone(),
                status: report.status.unwrap_or(WorkerStatus::Idle),
                started_at: report.at,
                observed: true,
                ..Worker::new(report.id, report.name.clone(), machine_id, self.now)
            };
            self.workers.insert(report.id, Entry::changed(worker));
            self.record_worker(report.id, &[WorkerEvent::Started]);
        }
        let now = self.now;
        let Some(entry) = self.workers.get_mut(&report.id) else { return Ok(false) };
        // Reports from before it stopped, or before it started, change nothing.
        if entry.row.stopped_at.is_some_and(|stopped_at| report.at <= stopped_at) {
            return Ok(false);
        }
        entry.changed = true;
        let events = if report.stops {
            if report.at < entry.row.started_at {
                return Ok(false);
            }
            let stopped = entry.row.stop(StopReason::Asked, report.at);
            stopped.into_iter().collect()
        } else {
            entry.row.report(report.status, Some(&report.connectors), now)
        };
        self.record_worker(report.id, &events);
        if report.stops {
            self.release_held(report.id);
        }
        Ok(self.drafts.len() > recorded)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::worker::ConnectorStatus;
    use crate::{
        command::rows::{Rows, id},
        model::{
            Status,
            observation::{Facts, ObservedKind},
        },
    };

    fn observation(rows: &Rows, happened: ObservedKind, attempt: u32) -> Observation {
        Observation { attempt: Some(attempt), ..Observation::new(happened, rows.now) }
    }

    fn report(rows: &mut Rows, happened: ObservedKind, attempt: u32) -> bool {
        let report = observation(rows, happened, attempt);
        rows.run(&Ingest(vec![IngestedReport::Task(id(1), Box::new(report), None)])).unwrap().remove(0).unwrap()
    }

    fn worker(rows: &Rows, number: u128, stops: bool) -> IngestedReport {
        IngestedReport::Worker(Box::new(WorkerReport {
            id: id(number),
            name: Name::literal("w"),
            machine_id: None,
            at: rows.now,
            stops,
            status: None,
            connectors: Vec::new(),
            queues: None,
            version: None,
        }))
    }

    #[test]
    fn unknown_tasks_are_created_by_reports_and_repeated_reports_change_nothing() {
        let mut rows = Rows::new();
        assert!(report(&mut rows, ObservedKind::Started, 1));
        assert_eq!(rows.status(1), Status::Running);
        assert!(!report(&mut rows, ObservedKind::Started, 1));
        assert!(report(&mut rows, ObservedKind::Completed, 1));
        assert_eq!(rows.status(1), Status::Completed);
        assert!(!report(&mut rows, ObservedKind::Started, 1), "late");
    }

    #[test]
    fn a_task_that_taskwatch_dispatches_cannot_be_reported() {
        let mut rows = Rows::new();
        rows.create([crate::command::rows::new_task(1)]);
        let told = observation(&rows, ObservedKind::Completed, 1);
        let outcome = rows.run(&Ingest(vec![IngestedReport::Task(id(1), Box::new(told), None)])).unwrap().remove(0);
        assert!(matches!(outcome, Err(Refusal::Transition(_))), "{outcome:?}");
        assert_eq!(rows.status(1), Status::Pending);
    }

    #[test]
    fn a_registered_worker_cannot_be_reported() {
        let mut rows = Rows::new();
        rows.register(100);
        let outcomes = rows.run(&Ingest(vec![worker(&rows, 100, true), worker(&rows, 101, false)])).unwrap();
        assert_eq!(outcomes, [Err(Refusal::WorkerManaged(id(100))), Ok(true)]);
        assert!(rows.workers[&id(101)].observed);
        assert_eq!(rows.workers[&id(100)].status, WorkerStatus::Idle);
    }

    #[test]
    fn reports_from_before_its_stop_do_not_revive_a_worker() {
        let mut rows = Rows::new();
        rows.run(&Ingest(vec![worker(&rows, 101, false)])).unwrap();
        let early = worker(&rows, 101, false);
        rows.passes(10);
        rows.run(&Ingest(vec![worker(&rows, 101, true)])).unwrap();
        assert_eq!(rows.workers[&id(101)].status, WorkerStatus::Stopped);
        assert_eq!(rows.run(&Ingest(vec![early])).unwrap(), [Ok(false)]);
        rows.passes(10);
        assert_eq!(rows.run(&Ingest(vec![worker(&rows, 101, false)])).unwrap(), [Ok(true)]);
    }

    #[test]
    fn a_task_cannot_be_its_own_ancestor() {
        let mut rows = Rows::new();
        let below = |rows: &Rows, number: u128, parent: u128| {
            let facts = Facts { parent_task_id: Some(id(parent)), ..Facts::default() };
            let report = Observation { facts, ..observation(rows, ObservedKind::Created, 1) };
            IngestedReport::Task(id(number), Box::new(report), None)
        };
        let reports = vec![below(&rows, 2, 1), below(&rows, 1, 2)];
        let outcomes = rows.run(&Ingest(reports)).unwrap();
        assert_eq!(outcomes, [Ok(true), Err(Refusal::OwnAncestor(id(1)))]);
    }

    fn below(rows: &Rows, number: u128, parent: u128, phase: Option<&str>) -> IngestedReport {
        let phase = phase.map(|phase| Name::new(phase).unwrap());
        let facts = Facts { parent_task_id: Some(id(parent)), phase, ..Facts::default() };
        let report = Observation { facts, ..observation(rows, ObservedKind::Created, 1) };
        IngestedReport::Task(id(number), Box::new(report), None)
    }

    fn worker_report(rows: &Rows, number: u128) -> WorkerReport {
        let IngestedReport::Worker(report) = worker(rows, number, false) else { panic!("it is about a worker") };
        *report
    }

    #[test]
    fn a_report_of_a_task_brings_its_worker_along() {
        let mut rows = Rows::new();
        let started =
            Observation { worker: Some((id(101), Name::literal("m"))), ..observation(&rows, ObservedKind::Started, 1) };
        let note = Some(Box::new(worker_report(&rows, 101)));
        let outcomes = rows.run(&Ingest(vec![IngestedReport::Task(id(1), Box::new(started), note)])).unwrap();
        assert_eq!(outcomes, [Ok(true)]);
        assert_eq!(rows.kinds(), ["worker_started", "task_created", "task_started"]);
        assert_eq!((rows.workers[&id(101)].observed, rows.tasks[&id(1)].worker_id), (true, Some(id(101))));
    }

    #[test]
    fn a_registered_worker_is_only_named_by_reports_of_tasks() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.passes(30);
        let before = rows.workers[&id(100)].clone();
        let started = Observation {
            worker: Some((id(100), Name::literal("m"))),
            connector_id: Some(Name::literal("smtp")),
            ..observation(&rows, ObservedKind::Started, 1)
        };
        let note = Some(Box::new(worker_report(&rows, 100)));
        rows.run(&Ingest(vec![IngestedReport::Task(id(1), Box::new(started), note)])).unwrap();
        assert_eq!(rows.workers[&id(100)], before);
        assert_eq!(rows.tasks[&id(1)].worker_id, Some(id(100)));
    }

    #[test]
    fn an_unknown_worker_that_stopped_is_not_created() {
        let mut rows = Rows::new();
        assert_eq!(rows.run(&Ingest(vec![worker(&rows, 101, true)])).unwrap(), [Ok(false)]);
        assert!(rows.workers.is_empty());
    }

    #[test]
    fn a_worker_does_not_stop_before_it_started() {
        let mut rows = Rows::new();
        let early = worker(&rows, 101, true);
        rows.passes(10);
        rows.run(&Ingest(vec![worker(&rows, 101, false)])).unwrap();
        assert_eq!(rows.run(&Ingest(vec![early])).unwrap(), [Ok(false)]);
        assert_eq!(rows.workers[&id(101)].status, WorkerStatus::Idle);
        assert_eq!(rows.run(&Ingest(vec![worker(&rows, 101, true)])).unwrap(), [Ok(true)]);
        assert_eq!(rows.run(&Ingest(vec![worker(&rows, 101, true)])).unwrap(), [Ok(false)], "it has stopped");
    }

    #[test]
    fn a_worker_of_another_system_has_a_bound_of_connectors_too() {
        let mut rows = Rows::new();
        let with = |rows: &Rows, number: usize| {
            let connector_id = Name::new(&format!("c{number}")).unwrap();
            let connectors = vec![ConnectorReport { connector_id, status: ConnectorStatus::Idle, error: None }];
            IngestedReport::Worker(Box::new(WorkerReport { connectors, ..worker_report(rows, 101) }))
        };
        let reports = (0..=64).map(|number| with(&rows, number)).collect();
        let mut outcomes = rows.run(&Ingest(reports)).unwrap();
        assert_eq!(outcomes.pop(), Some(Err(Refusal::ManyConnectors(id(101)))));
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(true)));
        assert_eq!(rows.workers[&id(101)].connectors.len(), 64);
    }

    #[test]
    fn a_child_may_be_known_before_its_parent() {
        let mut rows = Rows::new();
        rows.run(&Ingest(vec![below(&rows, 2, 1, Some("load"))])).unwrap();
        assert_eq!(rows.tasks[&id(2)].parent_task_id, Some(id(1)));
        assert!(report(&mut rows, ObservedKind::Created, 1));
        assert!(rows.tasks[&id(1)].is_parent);
        let parent = rows.events.iter().find(|event| event.data.children.is_some()).unwrap();
        assert_eq!(parent.task_id, Some(id(1)));
    }

    #[test]
    fn a_child_makes_a_known_task_a_parent_and_takes_its_project() {
        let mut rows = Rows::new();
        let facts = Facts { project_id: Some(Name::literal("shop")), ..Facts::default() };
        let parent = Observation { facts, ..observation(&rows, ObservedKind::Created, 1) };
        let parent = IngestedReport::Task(id(1), Box::new(parent), None);
        rows.run(&Ingest(vec![parent, below(&rows, 2, 1, None)])).unwrap();
        assert!(rows.tasks[&id(1)].is_parent);
        assert_eq!(rows.tasks[&id(2)].project_id.as_str(), "shop");
    }

    #[test]
    fn a_moved_child_counts_where_it_is_now() {
        let mut rows = Rows::new();
        let reports = vec![below(&rows, 3, 1, None), below(&rows, 4, 1, Some("load"))];
        rows.run(&Ingest(reports)).unwrap();
        rows.passes(1);
        rows.run(&Ingest(vec![below(&rows, 4, 2, None)])).unwrap();
        let places: Vec<_> = rows
            .counts()
            .into_iter()
            .map(|(parent, phase, counts)| (parent, phase.to_string(), counts.total()))
            .collect();
        assert_eq!(places, [(id(1), "-".to_owned(), 1), (id(2), "load".to_owned(), 1)]);
    }

    #[test]
    fn a_parent_with_all_its_phases_takes_further_children_without_one() {
        let mut rows = Rows::new();
        let reports = (2..=201).map(|number| below(&rows, number, 1, Some(&format!("phase-{number}")))).collect();
        rows.run(&Ingest(reports)).unwrap();
        rows.run(&Ingest(vec![below(&rows, 300, 1, Some("new")), below(&rows, 301, 1, Some("phase-7"))])).unwrap();
        assert_eq!(rows.tasks[&id(300)].phase, None);
        assert_eq!(rows.tasks[&id(301)].phase, Some(Name::literal("phase-7")));
        rows.passes(1);
        rows.run(&Ingest(vec![below(&rows, 301, 1, Some("newer"))])).unwrap();
        assert_eq!(rows.tasks[&id(301)].phase, None, "it cannot move to one more phase either");
    }

    #[test]
    fn reports_weigh_by_what_they_carry() {
        let rows = Rows::new();
        let json = |length: usize| serde_json::from_str(&format!("\"{}\"", "x".repeat(length))).ok();
        let facts = Facts { payload: json(4_094), ..Facts::default() };
        let heavy = Observation { result: json(9_000), facts, ..observation(&rows, ObservedKind::Completed, 1) };
        let reports = vec![IngestedReport::Task(id(1), Box::new(heavy), None), worker(&rows, 101, false)];
        assert_eq!(Ingest(reports).weight(), 1 + 2 + 1 + 1);
        assert_eq!(Ingest(Vec::new()).weight(), 0);
    }
}
