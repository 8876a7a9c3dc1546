//! Tasks that another system runs and reports. Reports may come twice, late and in any order; what a task is depends on
//! the set of its reports only, never on the order in which they came.
//!
//! Rules: the highest attempt counts; within an attempt its end wins over its start, and the latest end over earlier
//! ones, by the reporter's own time; of each descriptive field the latest word counts, and of two at the same time the
//! greater value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Name, Priority, Status,
    report::{Json, Progress},
};
use crate::clock::Time;

/// What a report says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedKind {
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
    pub happened: ObservedKind,
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
    pub(super) first: Option<Time>,
    /// Each descriptive field with the time of its latest word.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) said: BTreeMap<String, Time>,
    /// The latest word that it may be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) enqueued: Option<Time>,
    /// The latest word that it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cancelled: Option<Time>,
    /// The latest attempt: its earliest start,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) started: Option<Time>,
    /// its latest word of going on,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progressed: Option<Time>,
    /// its latest end,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<(Time, ObservedKind)>,
    /// and how long it took, when that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) duration_ms: Option<u64>,
    /// Its latest progress, kept when it does not run,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<Progress>,
    /// and its latest error, kept when it is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// The project is its own word, not its parent's.
    #[serde(default)]
    pub(super) own_project: bool,
    /// It was given up for its silence: the latest report before that, and when it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) given_up: Option<(Time, Time)>,
}

impl Observed {
    /// The latest word counts; of two at the same time the greater value.
    pub(super) fn merge<T: PartialEq + Serialize>(
        &mut self,
        field: &str,
        slot: &mut T,
        word: Option<T>,
        at: Time,
    ) -> bool {
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
    pub(super) fn status(&self, scheduled: bool) -> Status {
        let end = match self.ended {
            Some((_, ObservedKind::Completed)) => Some(Status::Completed),
            Some((_, ObservedKind::Failed)) => Some(Status::Failed),
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
    pub(super) fn attempt(&self) -> u32 {
        match self.happened {
            ObservedKind::Created | ObservedKind::Enqueued | ObservedKind::Cancelled => self.attempt.unwrap_or(0),
            ObservedKind::Started
            | ObservedKind::Progressed
            | ObservedKind::Retried
            | ObservedKind::Failed
            | ObservedKind::Completed => self.attempt.unwrap_or(1).max(1),
        }
    }
}

impl Observed {
    /// When it was last heard of, by the reporter's clock.
    pub(super) fn last_sign(&self) -> Option<Time> {
        let ended = self.ended.map(|(at, _)| at);
        let told = [self.first, self.enqueued, self.cancelled, self.started, self.progressed, ended];
        self.said.values().copied().chain(told.into_iter().flatten()).max()
    }

    /// When it was given up, as long as nothing newer was reported.
    pub(super) fn given_up(&self) -> Option<Time> {
        let (sign, at) = self.given_up?;
        (self.last_sign() <= Some(sign)).then_some(at)
    }
}
