//! The board: everything shown, folded from the log one event at a time (law 5). Pure.
//!
//! Its size depends on what is going on (workers, running tasks, open parents, queues), never on the backlog.

pub mod durations;
pub mod failures;
pub mod health;
pub mod history;
pub mod parents;
pub mod queues;
pub mod rates;
pub mod recent;
pub mod running;
pub mod tables;

pub mod workers;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Time,
    event::{
        Event, EventId, Kind,
        envelope::{Epoch, Stats},
    },
    model::{Name, Status, stuck::Stuck},
};
use durations::Kinds;
use failures::Failures;
use history::History;
use parents::Parents;
use queues::Queues;
use rates::Rates;
use recent::Recent;
use running::Running;
use workers::Workers;

/// Version of the encoding; a checkpoint of another one is folded again from the log.
pub const VERSION: i32 = 5;

/// The state of everything at a position.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// The epoch of the log that it was folded from.
    #[serde(skip)]
    pub epoch: Epoch,
    /// The last event folded in; 0 before the first.
    pub position: i64,
    /// When that event happened.
    pub ts: Option<Time>,
    /// Tasks that exist, by state.
    pub tasks: BTreeMap<Status, u64>,
    /// The same per queue, and what waits by priority.
    pub queues: Queues,
    /// Workers, machines, connectors.
    pub workers: Workers,
    /// Tasks that workers have.
    pub running: Running,
    /// Parent tasks in progress and the last that ended.
    pub parents: Parents,
    /// The newest events, completions and failures.
    pub recent: Recent,
    /// What happened per second over the last hour.
    pub rates: Rates,
    /// What happened over the last hour, day and week.
    pub history: History,
    /// Failures that are alike.
    pub failures: Failures,
    /// How long each kind of work usually takes.
    pub kinds: Kinds,
    /// Tasks that cannot go on without help, some of them; measured, not folded.
    #[serde(skip)]
    pub stuck: Vec<Stuck>,
    /// How many these are in all.
    #[serde(skip)]
    pub stuck_total: u64,
}

impl Board {
    /// Takes in the next event. Stored events must come in the order of their positions, each once; ephemeral ones
    /// (without a position) only refresh what can be computed again.
    ///
    /// # Errors
    /// [`OutOfOrder`] when a stored event is not the next one; the board is unchanged then.
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
        self.count_task(event);
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

    fn count_task(&mut self, event: &Event) {
        if let Some((from, to)) = moved(event) {
            if let Some(from) = from {
                let count = self.tasks.entry(from).or_default();
                *count = count.saturating_sub(1);
            }
            if let Some(to) = to {
                *self.tasks.entry(to).or_default() += 1;
            }
        }
    }

    /// The last event folded in.
    #[must_use]
    pub const fn id(&self) -> EventId {
        EventId { epoch: self.epoch, position: self.position }
    }

    /// How many tasks are in a state.
    #[must_use]
    pub fn count(&self, status: Status) -> u64 {
        self.tasks.get(&status).copied().unwrap_or_default()
    }

    /// The figures of the overview at a moment.
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

/// An event that is not the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the event at position {expected}, got the one at {got}")]
pub struct OutOfOrder {
    /// The next position.
    pub expected: i64,
    /// The position that came.
    pub got: i64,
}

/// From which state to which an event moves a task: `None` before it existed and after it was deleted. Nothing when
/// the event moves no task.
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

/// The value that an edit replaced; nothing when it left the field alone, `Some(None)` when it was empty before.
fn edited<T: serde::de::DeserializeOwned>(event: &Event, field: &str) -> Option<Option<T>> {
    let [old, _] = event.data.changes.as_ref()?.get(field)?;
    serde_json::from_value(old.clone()).ok()
}

/// The name of the default queue, project and machine group when an event has none.
fn name_or_dash(name: Option<&Name>) -> Name {
    name.cloned().unwrap_or_else(|| Name::literal("-"))
}
