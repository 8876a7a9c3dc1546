//! Backlogs that changed, and the statistics, as ephemeral events.

use std::collections::HashMap;

use super::{Env, Job, Run};
use crate::{
    clock::Time,
    event::{Event, Kind},
    feed,
    model::Name,
    store::due,
};

/// A backlog: its length, and since when its oldest task is pending.
type Backlog = (u64, Option<Time>);

/// What was published last of each queue.
#[derive(Default)]
pub(super) struct Gauges(HashMap<Name, Backlog>);

impl Job for Gauges {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            let oldest = due::oldest_pending(env.store.pool()).await?;
            let oldest: HashMap<_, _> = oldest.into_iter().map(|oldest| (oldest.queue, oldest.enqueued_at)).collect();
            let now = env.clock.now();
            let mut events = Vec::new();
            {
                let board = feed::read(&env.board);
                self.0.retain(|name, _| board.queues.0.contains_key(name));
                for (name, queue) in &board.queues.0 {
                    let backlog = (queue.waiting(), oldest.get(name.as_str()).copied());
                    // A client that comes later finds it in the snapshot.
                    if self.0.insert(name.clone(), backlog) == Some(backlog) {
                        continue;
                    }
                    let mut event = Event::new(Kind::QueueDepthUpdate, now);
                    event.queue = Some(name.clone());
                    (event.data.depth, event.data.oldest_enqueued_at) = (Some(backlog.0), backlog.1);
                    events.push(event);
                }
                let mut event = Event::new(Kind::StatsSnapshot, now);
                event.data.stats = Some(board.stats(now));
                events.push(event);
            }
            env.publish(events);
            Ok(())
        })
    }
}
