//! Queues: how many tasks stand where, and what waits by priority.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::moved;
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{
        Name, Status,
        queue::{Band, Priority},
    },
};

/// Every queue that a task was ever in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Queues(pub BTreeMap<Name, Queue>);

/// One queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its tasks by state.
    pub tasks: BTreeMap<Status, u64>,
    /// What may be claimed, by priority 0–9.
    pub depth: [u64; 10],
    /// Since when the oldest of these waits; measured, not folded.
    #[serde(skip)]
    pub oldest_enqueued_at: Option<Time>,
}

impl Queue {
    /// How many tasks are in a state.
    #[must_use]
    pub fn count(&self, status: Status) -> u64 {
        self.tasks.get(&status).copied().unwrap_or_default()
    }

    /// What may be claimed, in a band of priorities.
    #[must_use]
    pub fn depth_of(&self, band: Band) -> u64 {
        let of_band =
            (0..=i64::from(Priority::MAX)).filter_map(Priority::new).filter(|priority| priority.band() == band);
        of_band.map(|priority| self.depth[usize::from(priority.get())]).sum()
    }

    /// What may be claimed.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.depth.iter().sum()
    }
}

impl Queues {
    pub(super) fn apply(&mut self, event: &Event) {
        let Some(name) = &event.queue else { return };
        if event.event_type == Kind::QueueDepthUpdate {
            if let Some(queue) = self.0.get_mut(name) {
                queue.oldest_enqueued_at = event.data.oldest_enqueued_at;
            }
            return;
        }
        let Some((from, to)) = moved(event) else { return };
        let queue = self.0.entry(name.clone()).or_default();
        let line = event.priority.map(|priority| &mut queue.depth[usize::from(priority.get())]);
        if let Some(line) = line {
            if from == Some(Status::Pending) {
                *line = line.saturating_sub(1);
            }
            if to == Some(Status::Pending) {
                *line += 1;
            }
        }
        if let Some(from) = from {
            let count = queue.tasks.entry(from).or_default();
            *count = count.saturating_sub(1);
        }
        if let Some(to) = to {
            *queue.tasks.entry(to).or_default() += 1;
        }
    }
}
