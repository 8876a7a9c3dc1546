//! What jobs work with.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::saved_boards::Checkpoints;
use crate::{
    clock::{Clock, Time},
    command::{WriterPolicy, change_tasks::ChangeTasks},
    event::Event,
    feed::{SharedBoard, Subscriptions},
    model::transition::Transition,
    store::{EventLog, Store, WriteError, Writer, witness::Witness},
};

/// What jobs work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Env {
    /// To read.
    pub store: Store,
    /// To read the ends of the log.
    pub event_log: EventLog,
    /// To ask for changes.
    pub writer: Writer,
    /// The time.
    pub clock: Clock,
    /// The feed, which knows the ends of the log.
    pub subscriptions: Subscriptions,
    /// The board.
    pub board: SharedBoard,
    /// How long workers, leases and connectors live, and what happens to stalled tasks.
    pub policy: WriterPolicy,
    /// How long things are kept.
    pub retention: Retention,
    /// Where ephemeral events go.
    pub ephemeral: mpsc::Sender<Vec<Event>>,
    /// Since when workers could report.
    pub reachable: Reachable,
    /// Saved boards.
    pub checkpoints: Arc<Checkpoints>,
    /// Where the end of the log is noted, beside a database of our own.
    pub witness: Option<Arc<Witness>>,
}

/// How long things are kept; zero: forever.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Finished tasks.
    pub tasks: TimeDelta,
    /// Events.
    pub events: TimeDelta,
    /// Unfinished observed tasks without a report.
    pub observed: TimeDelta,
}

/// Since when workers could report: the start, or the end of an outage or a sleep. Leases and workers are not judged
/// before they had time to report. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reachable(Arc<Mutex<Time>>);

impl Reachable {
    /// Reachable since a time.
    #[must_use]
    pub fn since(time: Time) -> Self {
        Self(Arc::new(Mutex::new(time)))
    }

    pub(super) fn get(&self) -> Time {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, time: Time) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }
}

impl Env {
    /// Publishes ephemeral events. They can be computed again, so a full channel only delays them.
    pub(super) fn publish(&self, events: Vec<Event>) {
        if !events.is_empty() {
            let _ = self.ephemeral.try_send(events);
        }
    }

    /// Changes tasks. One whose row cannot be read or written must not keep the others waiting.
    pub(super) async fn change(&self, changes: Vec<(Uuid, Transition)>, actor: Option<&str>) -> anyhow::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let command = |changes| ChangeTasks { changes, actor: actor.map(str::to_owned), family: None };
        // Another server may have been faster: then the state machine refuses, which is as it should be.
        match self.writer.run(command(changes.clone())).await {
            Err(WriteError::Database(_) | WriteError::Internal) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
        for (id, change) in changes {
            if let Err(error) = self.writer.run(command(vec![(id, change)])).await {
                tracing::error!(task = %id, %error, "task cannot be changed; run taskwatch verify");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_learns_since_when_workers_can_report() {
        let reachable = Reachable::since(Time::UNIX_EPOCH);
        let copy = reachable.clone();
        let later = Time::UNIX_EPOCH + TimeDelta::hours(1);
        copy.set(later);
        assert_eq!((reachable.get(), copy.get()), (later, later));
    }
}
