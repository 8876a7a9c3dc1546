//! The board: everything that is shown, a projection of the event log, folded one event at a time (law 5). Pure.
//!
//! Its size depends on current activity (workers, running tasks, open parents, queues), never on the backlog.

pub mod counts;
pub mod durations;
pub mod ended;
pub mod failures;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod folds;
mod growth;
pub mod health;
pub mod history;
pub mod parents;
pub mod projects;
pub mod queues;
pub mod rates;
pub mod recent;
pub mod running;
#[cfg(test)]
mod samples;
pub mod tables;
pub mod workers;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Time,
    event::{
        Event, EventId, Kind,
        envelope::{Epoch, Stats},
    },
    model::{Name, Status, stuck::Stuck},
};
use counts::StatusCounts;
use durations::Kinds;
use failures::Failures;
use history::History;
use parents::Parents;
use projects::Projects;
use queues::Queues;
use rates::Rates;
use recent::Recent;
use running::Running;
use workers::Workers;

/// Version of the encoding; checkpoints of another version are ignored and rebuilt from the log.
pub const VERSION: i32 = 8;

/// The complete state at a position.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// Epoch of the log from which it was folded.
    #[serde(skip)]
    pub epoch: Epoch,
    /// The last event folded in; 0 before the first.
    pub position: i64,
    /// Timestamp of that event.
    pub ts: Option<Time>,
    /// Existing tasks by status.
    pub tasks: StatusCounts,
    /// Counts per queue, and the backlog by priority.
    pub queues: Queues,
    /// Workers, machines and connectors.
    pub workers: Workers,
    /// Running tasks.
    pub running: Running,
    /// Parent tasks in progress and the last finished ones.
    pub parents: Parents,
    /// The newest events, completions and failures.
    pub recent: Recent,
    /// Counts per five seconds over the last hour.
    pub rates: Rates,
    /// Time series of the last hour, day and week.
    pub history: History,
    /// Error groups.
    pub failures: Failures,
    /// What is usual for each task type.
    pub kinds: Kinds,
    /// Counters of each project.
    pub projects: Projects,
    /// Some of the tasks that cannot make progress without an operator; measured, not folded.
    #[serde(skip)]
    pub stuck: Vec<Stuck>,
    /// Total number of such tasks.
    #[serde(skip)]
    pub stuck_total: u64,
}

impl Board {
    /// Applies the next event. Stored events must arrive in order of position, each exactly once; ephemeral events
    /// (without a position) only refresh values that can be recomputed.
    ///
    /// # Errors
    /// [`OutOfOrder`] if a stored event is not the next one; the board is unchanged then.
    pub fn apply(&mut self, event: &Arc<Event>) -> Result<(), OutOfOrder> {
        if let Some(position) = event.position {
            if position != self.position + 1 {
                return Err(OutOfOrder { expected: self.position + 1, got: position });
            }
            self.position = position;
            self.ts = Some(event.ts);
        }
        if event.event_type == Kind::TasksStuck {
            self.stuck = event.data.stuck.clone().unwrap_or_default();
            self.stuck_total = event.data.matched.unwrap_or_default();
        }
        if self.projects.splits(event) {
            let whole = self.whole();
            self.projects.split(whole);
        }
        self.projects.apply(event);
        self.tasks.apply(event);
        self.queues.apply(event);
        self.workers.apply(event);
        self.running.apply(event);
        self.parents.apply(event);
        self.recent.apply(event);
        self.rates.apply(event);
        self.history.apply(event, self.count(Status::Pending));
        self.failures.apply(event);
        self.kinds.apply(event);
        Ok(())
    }

    /// ID of the last event folded in.
    #[must_use]
    pub const fn id(&self) -> EventId {
        EventId { epoch: self.epoch, position: self.position }
    }

    /// Number of tasks with a status.
    #[must_use]
    pub fn count(&self, status: Status) -> u64 {
        self.tasks.get(status)
    }

    /// Statistics for the overview.
    #[must_use]
    pub fn stats(&self, now: Time) -> Stats {
        let minute = self.rates.over(now, 60);
        let five = self.rates.over(now, 300);
        Stats {
            workers_online: self.workers.online() as u64,
            pending: self.count(Status::Pending),
            running: self.count(Status::Running),
            retrying: self.count(Status::Retrying),
            completed: self.count(Status::Completed),
            failed: self.count(Status::Failed),
            throughput_per_second: minute.completed as f64 / 60.0,
            error_rate_1m_percent: minute.error_percent(),
            error_rate_5m_percent: five.error_percent(),
        }
    }
}

/// The event is not the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the event at position {expected}, got the one at {got}")]
pub struct OutOfOrder {
    /// Expected position.
    pub expected: i64,
    /// Actual position.
    pub got: i64,
}

/// The status transition of an event: `None` before the task existed and after it was deleted. Returns `None` if the
/// event changes no status.
#[must_use]
pub fn moved(event: &Event) -> Option<(Option<Status>, Option<Status>)> {
    event.task_id?;
    match event.event_type {
        Kind::TaskDeleted => Some((event.old_status, None)),
        Kind::TaskCreated => Some((None, event.status)),
        _ if event.old_status == event.status => None,
        _ => Some((event.old_status, event.status)),
    }
}

/// The value that an edit replaced; `None` if it did not change the field, `Some(None)` if the field was empty before.
fn edited<T: serde::de::DeserializeOwned>(event: &Event, field: &str) -> Option<Option<T>> {
    let [old, _] = event.data.changes.as_ref()?.get(field)?;
    serde_json::from_value(old.clone()).ok()
}

/// The name, or "-" if the event has none.
fn name_or_dash(name: Option<&Name>) -> Name {
    name.cloned().unwrap_or_else(|| Name::literal("-"))
}
