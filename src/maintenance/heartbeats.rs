//! Heartbeats of workers, as ephemeral events.

use chrono::DateTime;

use super::{Env, Job, Run};
use crate::{
    clock::Time,
    event::{Event, Kind},
    feed,
    store::due,
};

/// Up to which heartbeat they have been published.
pub(super) struct Heartbeats(Time);

impl Default for Heartbeats {
    fn default() -> Self {
        Self(DateTime::UNIX_EPOCH)
    }
}

impl Job for Heartbeats {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            let seen = due::heartbeats(env.store.pool(), self.0).await?;
            let mut events = Vec::with_capacity(seen.len());
            for worker in seen {
                self.0 = self.0.max(worker.last_seen_at);
                let mut event = Event::new(Kind::WorkerHeartbeat, worker.last_seen_at);
                event.worker_id = Some(worker.worker_id);
                event.machine_id =
                    feed::read(&env.board).workers.0.get(&worker.worker_id).map(|worker| worker.machine_id.clone());
                events.push(event);
            }
            env.publish(events);
            Ok(())
        })
    }
}
