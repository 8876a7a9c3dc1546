//! What other systems report: unknown tasks and workers come into being by it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Answer, Batch, WorkerEntry, WriteError, transition};
use crate::{
    model::{
        Name, Task,
        observe::Observation,
        worker::{StopReason, Worker, WorkerEvent, WorkerStatus},
    },
    store::command::{Report, WorkerNote},
};

impl Batch<'_> {
    pub(super) fn observe(&mut self, reports: &[Report]) -> Answer {
        let heard = reports.iter().map(|report| match report {
            Report::Worker(note) => self.note(note),
            Report::Task(id, told, note) => {
                if let Some(parent) = told.facts.parent_task_id {
                    self.check_moved(*id, parent)?;
                }
                // A worker that taskwatch knows by itself is named, no more: others cannot say how it is.
                if let Some(note) = note.as_ref().filter(|note| !self.is_managed(note.id)) {
                    self.note(note)?;
                }
                self.observe_task(*id, told)
            }
        });
        Answer::Heard(heard.collect())
    }

    fn observe_task(&mut self, id: Uuid, told: &Observation) -> Result<bool, WriteError> {
        let recorded = self.drafts.len();
        let place = |task: &Task| (task.parent_task_id, task.phase.clone());
        let was_in = self.task(id).map(place);
        let facts = &told.facts;
        let goes_to =
            was_in.clone().map(|(parent, phase)| (facts.parent_task_id.or(parent), facts.phase.clone().or(phase)));
        let full =
            goes_to.is_some() && goes_to != was_in && goes_to.as_ref().is_some_and(|goes_to| self.is_full(goes_to));
        if self.task(id).is_some() {
            self.decide(id, transition::Command::Observe(Box::new(told.clone())), None)?;
        } else {
            let inherited =
                told.facts.parent_task_id.and_then(|id| self.task(id)).map(|parent| parent.project_id.clone());
            let blank = Task::unheard_of(id, inherited.as_ref(), self.now);
            let (mut task, mut steps) = blank.first_observed(told, self.now);
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
                self.decide(id, transition::Command::BecomeParent { children }, None)?;
            }
        }
        if full && self.task(id).map(place) == goes_to {
            self.decide(id, transition::Command::LeavePhase, None)?;
        }
        self.adopt(self.task(id).and_then(|task| task.parent_task_id));
        self.inherit(id);
        Ok(self.drafts.len() > recorded)
    }

    /// A reported task without a project of its own has its parent's.
    pub(super) fn inherit(&mut self, id: Uuid) {
        let parent = self.task(id).filter(|task| task.inherits()).and_then(|task| task.parent_task_id);
        if let Some(project) = parent.and_then(|id| self.task(id)).map(|parent| parent.project_id.clone()) {
            // Nothing to change is fine.
            let _ = self.decide(id, transition::Command::Inherit(project), None);
        }
    }

    /// A known task gets its first child.
    pub(super) fn adopt(&mut self, parent: Option<Uuid>) {
        if let Some(parent) = parent
            && self.task(parent).is_some_and(|task| !task.is_parent)
        {
            let children = self.children.of(parent);
            // It was looked at under its lock, so this cannot be refused.
            let _ = self.decide(parent, transition::Command::BecomeParent { children }, None);
        }
    }

    /// taskwatch knows this worker by itself, not by the reports of others.
    fn is_managed(&self, worker_id: Uuid) -> bool {
        self.workers.get(&worker_id).is_some_and(|entry| !entry.worker.observed)
    }

    /// Takes in what a report says of a worker; whether that changed anything.
    fn note(&mut self, note: &WorkerNote) -> Result<bool, WriteError> {
        let recorded = self.drafts.len();
        if self.is_managed(note.id) {
            return Err(WriteError::WorkerManaged(note.id));
        }
        let known = self.workers.get(&note.id).map(|entry| &entry.worker);
        if known.is_some_and(|known| !known.has_room_for(note.connectors.iter().map(|report| &report.connector_id))) {
            return Err(WriteError::ManyConnectors(note.id));
        }
        if !self.workers.contains_key(&note.id) {
            if note.stops {
                return Ok(false);
            }
            let worker = Worker {
                id: note.id,
                name: note.name.clone(),
                machine_id: note.machine_id.clone().unwrap_or_else(|| Name::literal("-")),
                queues: note.queues.clone().unwrap_or_default(),
                capabilities: Vec::new(),
                version: note.version.clone(),
                status: note.status.unwrap_or(WorkerStatus::Idle),
                connectors: BTreeMap::new(),
                started_at: note.at,
                last_seen_at: self.now,
                stopped_at: None,
                observed: true,
            };
            self.workers.insert(note.id, WorkerEntry { worker, changed: true });
            self.record_worker(note.id, &[WorkerEvent::Started]);
        }
        let now = self.now;
        let Some(entry) = self.workers.get_mut(&note.id) else { return Ok(false) };
        // What it said before it left, or before it came, tells nothing new.
        if entry.worker.stopped_at.is_some_and(|stopped_at| note.at <= stopped_at) {
            return Ok(false);
        }
        entry.changed = true;
        let events = if note.stops {
            if note.at < entry.worker.started_at {
                return Ok(false);
            }
            let stopped = entry.worker.stop(StopReason::Asked, note.at);
            stopped.into_iter().collect()
        } else {
            entry.worker.report(note.status, Some(&note.connectors), now)
        };
        self.record_worker(note.id, &events);
        if note.stops {
            self.give_back(note.id);
        }
        Ok(self.drafts.len() > recorded)
    }
}
