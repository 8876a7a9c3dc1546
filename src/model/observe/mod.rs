//! Tasks that another system runs and reports. Reports may come twice, late and in any order; what a task is depends on
//! the set of its reports only, never on the order in which they came.
//!
//! Rules: the highest attempt counts; within an attempt its end wins over its start, and the latest end over earlier
//! ones, by the reporter's own time; of each descriptive field the latest word counts, and of two at the same time the
//! greater value.

mod silence;
mod steps;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Name, Priority, Status, Task,
    lease::Lease,
    report::{Json, Progress},
    task::{NewTask, Outcome},
};
use crate::clock::Time;

/// What a report says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It exists.
    Created,
    /// It may be taken.
    Enqueued,
    /// An attempt began.
    Started,
    /// An attempt went on.
    Progressed,
    /// An attempt failed and another follows.
    Retried,
    /// Someone stopped it.
    Cancelled,
    /// It was given up.
    Failed,
    /// It is done.
    Completed,
}

/// One report of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What happened.
    pub happened: Happened,
    /// When, by the reporter's clock.
    pub at: Time,
    /// Number of the attempt; without one, the first.
    pub attempt: Option<u32>,
    /// Its id in the reporting system, when that is no UUID.
    pub external_id: Option<String>,
    /// What it says of the task.
    pub facts: Facts,
    /// Who works on it, and where.
    pub worker: Option<(Uuid, Name)>,
    /// The connector it uses.
    pub connector_id: Option<Name>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// What came out.
    pub result: Option<Json>,
    /// Why the attempt failed.
    pub error: Option<String>,
    /// Time of the attempt, when the reporter knows it.
    pub duration_ms: Option<u64>,
}

/// What a report says of the task itself; what is absent is not said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The tenant.
    pub project_id: Option<Name>,
    /// What kind of work it is.
    pub task_type: Option<Name>,
    /// Its queue.
    pub queue: Option<Name>,
    /// The task that groups it.
    pub parent_task_id: Option<Uuid>,
    /// Its phase.
    pub phase: Option<Name>,
    /// One line for people.
    pub title: Option<String>,
    /// More for people.
    pub description: Option<String>,
    /// 0–9.
    pub priority: Option<Priority>,
    /// Marks for people and filters.
    pub labels: Option<BTreeMap<Name, String>>,
    /// Phases of its children.
    pub phases: Option<Vec<Name>>,
    /// Attempts allowed.
    pub max_attempts: Option<u32>,
    /// Longest time of one attempt, seconds.
    pub timeout_seconds: Option<u32>,
    /// Input for the worker.
    pub payload: Option<Json>,
    /// Not to start before.
    pub run_at: Option<Time>,
}

/// What the reports of a task said so far, and when: enough to take in any further one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The earliest report.
    first: Option<Time>,
    /// Each descriptive field with the time of its latest word.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    said: BTreeMap<String, Time>,
    /// The latest word that it may be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enqueued: Option<Time>,
    /// The latest word that it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancelled: Option<Time>,
    /// The latest attempt: its earliest start,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Time>,
    /// its latest word of going on,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progressed: Option<Time>,
    /// its latest end,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<(Time, Happened)>,
    /// and how long it took, when that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    /// Its latest progress, kept when it does not run,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    /// and its latest error, kept when it is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The project is its own word, not its parent's.
    #[serde(default)]
    own_project: bool,
    /// It was given up for its silence: the latest report before that, and when it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up: Option<(Time, Time)>,
}

impl Observed {
    /// The latest word counts; of two at the same time the greater value.
    fn hear<T: PartialEq + Serialize>(&mut self, field: &str, slot: &mut T, word: Option<T>, at: Time) -> bool {
        let Some(word) = word else { return false };
        let newer = match self.said.get(field) {
            None => true,
            Some(said) if *said == at => text(&word) > text(slot),
            Some(said) => at > *said,
        };
        if newer {
            self.said.insert(field.to_owned(), at);
            *slot = word;
        }
        newer
    }

    /// When the latest attempt ended, by the reporter's clock.
    #[must_use]
    pub fn ended_at(&self) -> Option<Time> {
        self.ended.map(|(at, _)| at)
    }

    /// The state that the reports add up to.
    fn status(&self, scheduled: bool) -> Status {
        let end = match self.ended {
            Some((_, Happened::Completed)) => Some(Status::Completed),
            Some((_, Happened::Failed)) => Some(Status::Failed),
            Some((at, _)) if self.enqueued.is_some_and(|enqueued| enqueued > at) => Some(Status::Pending),
            Some(_) => Some(Status::Retrying),
            None => None,
        };
        let latest = self.ended.map(|(at, _)| at).max(self.started).max(self.progressed);
        if self.cancelled.is_some() && self.cancelled >= latest {
            return Status::Cancelled;
        }
        match end {
            Some(status) => status,
            None if self.started.is_some() || self.progressed.is_some() => Status::Running,
            None if scheduled && self.enqueued.is_none() => Status::Scheduled,
            None => Status::Pending,
        }
    }
}

/// A value as text, to tell which of two is the greater.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Observation {
    /// The attempt it is about: the first when it names none, none when it is about the task itself.
    fn attempt(&self) -> u32 {
        match self.happened {
            Happened::Created | Happened::Enqueued | Happened::Cancelled => self.attempt.unwrap_or(0),
            Happened::Started | Happened::Progressed | Happened::Retried | Happened::Failed | Happened::Completed => {
                self.attempt.unwrap_or(1).max(1)
            }
        }
    }
}

impl Task {
    /// A task nobody has told anything of yet.
    #[must_use]
    pub fn placeholder(id: Uuid, inherited: Option<&Name>, now: Time) -> Self {
        let new = NewTask {
            project_id: inherited.cloned(),
            ..NewTask::plain(id, Name::literal("unknown"), Name::literal("default"))
        };
        Self { observed: Some(Box::default()), enqueued_at: None, ..new.into_task(None, false, now) }
    }

    /// Takes in a report.
    fn hear(&mut self, told: &Observation) {
        let mut seen = self.observed.take().unwrap_or_default();
        self.hear_facts(&mut seen, told);
        let attempt = told.attempt();
        if attempt > self.attempt {
            self.attempt = attempt;
            (seen.started, seen.progressed, seen.ended) = (None, None, None);
            (seen.duration_ms, seen.progress, seen.error) = (None, None, None);
            let of_attempt = ["worker_id", "connector_id", "result", "error", "progress"];
            seen.said.retain(|field, _| !of_attempt.contains(&field.as_str()));
            (self.worker_id, self.machine_id, self.connector_id) = (None, None, None);
            (self.result, self.lease) = (None, None);
        }
        if attempt == self.attempt {
            self.hear_attempt(&mut seen, told);
        }
        match told.happened {
            Happened::Cancelled => seen.cancelled = seen.cancelled.max(Some(told.at)),
            Happened::Enqueued => seen.enqueued = seen.enqueued.max(Some(told.at)),
            _ => {}
        }
        self.settle(&seen);
        self.observed = Some(seen);
    }

    fn hear_facts(&mut self, seen: &mut Observed, told: &Observation) {
        let (facts, at) = (told.facts.clone(), told.at);
        seen.first = Some(seen.first.map_or(at, |first| first.min(at)));
        seen.own_project |= facts.project_id.is_some();
        seen.hear("project_id", &mut self.project_id, facts.project_id, at);
        seen.hear("task_type", &mut self.task_type, facts.task_type, at);
        seen.hear("queue", &mut self.queue, facts.queue, at);
        seen.hear("parent_task_id", &mut self.parent_task_id, facts.parent_task_id.map(Some), at);
        seen.hear("phase", &mut self.phase, facts.phase.map(Some), at);
        seen.hear("title", &mut self.title, facts.title.map(Some), at);
        seen.hear("description", &mut self.description, facts.description.map(Some), at);
        seen.hear("priority", &mut self.priority, facts.priority, at);
        seen.hear("labels", &mut self.labels, facts.labels, at);
        seen.hear("phases", &mut self.phases, facts.phases, at);
        seen.hear("max_attempts", &mut self.max_attempts, facts.max_attempts, at);
        seen.hear("timeout_seconds", &mut self.timeout_seconds, facts.timeout_seconds.map(Some), at);
        seen.hear("payload", &mut self.payload, facts.payload.map(Some), at);
        seen.hear("run_at", &mut self.run_at, facts.run_at.map(Some), at);
        self.external_id = self.external_id.take().or_else(|| told.external_id.clone());
    }

    fn hear_attempt(&mut self, seen: &mut Observed, told: &Observation) {
        let at = told.at;
        if let Some((worker, machine)) = &told.worker {
            let mut on = (self.worker_id, self.machine_id.take());
            seen.hear("worker_id", &mut on, Some((Some(*worker), Some(machine.clone()))), at);
            (self.worker_id, self.machine_id) = on;
        }
        seen.hear("connector_id", &mut self.connector_id, told.connector_id.clone().map(Some), at);
        seen.hear("result", &mut self.result, told.result.clone().map(Some), at);
        let (mut error, mut progress) = (seen.error.take(), seen.progress.take());
        seen.hear("error", &mut error, told.error.clone().map(Some), at);
        seen.hear("progress", &mut progress, told.progress.clone().map(Some), at);
        (seen.error, seen.progress) = (error, progress);
        match told.happened {
            Happened::Started => seen.started = Some(seen.started.map_or(at, |started| started.min(at))),
            Happened::Progressed => seen.progressed = seen.progressed.max(Some(at)),
            Happened::Completed | Happened::Failed | Happened::Retried => {
                let end = Some((at, told.happened));
                if end > seen.ended {
                    seen.ended = end;
                    seen.duration_ms = told.duration_ms;
                } else if end == seen.ended {
                    seen.duration_ms = seen.duration_ms.max(told.duration_ms);
                }
            }
            Happened::Created | Happened::Enqueued | Happened::Cancelled => {}
        }
    }

    /// Everything that follows from what was heard.
    fn settle(&mut self, seen: &Observed) {
        let status = seen.status(self.run_at.is_some());
        self.status = status;
        self.created_at = seen.first.unwrap_or(self.created_at);
        self.enqueued_at = seen.enqueued;
        // A start that was reported for a time after the end is not believed.
        let ended = seen.ended.map(|(at, _)| at);
        let reported = seen.started.filter(|started| ended.is_none_or(|ended| *started <= ended));
        self.started_at = reported.or_else(|| {
            let duration = chrono::TimeDelta::milliseconds(i64::try_from(seen.duration_ms?).ok()?);
            ended?.checked_sub_signed(duration)
        });
        if self.started_at.is_none() && seen.started.is_some() {
            self.started_at = ended;
        }
        self.finished_at = match status {
            Status::Cancelled => seen.cancelled,
            Status::Completed | Status::Failed => seen.ended.map(|(at, _)| at),
            _ => None,
        };
        self.outcome = match seen.ended {
            _ if status == Status::Cancelled => Some(Outcome::Cancelled),
            Some((_, Happened::Completed)) => Some(Outcome::Completed),
            Some(_) => Some(Outcome::Failed),
            None => None,
        };
        self.error = seen.error.clone().filter(|_| status != Status::Completed);
        let again = seen.ended.is_some_and(|(_, end)| end == Happened::Retried);
        self.retry_count = self.attempt.saturating_sub(1) + u32::from(again);
        // Whoever reports is not lost.
        let lease = Lease { expires_at: None, progress: seen.progress.clone(), stalled: false };
        self.lease = (status == Status::Running).then_some(lease);
        if let Some(at) = seen.given_up().filter(|_| !status.is_finished()) {
            self.end_in_silence(at);
        }
    }
}
