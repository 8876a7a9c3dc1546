//! Tasks that wait for what cannot come.

use std::time::Duration;

use tokio::time::Instant;

use super::{Env, Job, Run};
use crate::{
    command::reevaluate::Reevaluate,
    event::{Event, Kind},
    model::stuck::Stuck,
    store::stuck,
};

/// Most stuck tasks in one event.
const MAX_NAMED: usize = 50;
/// They are published again this often, for boards that were not there the last time.
const REPEAT_EVERY: Duration = Duration::from_secs(10);
/// The search takes at most one part of so many of the time.
const SEARCH_SHARE: u32 = 20;

/// What was published last and when, and when the next search may begin.
#[derive(Default)]
pub(super) struct StuckTasks {
    published: Option<(Vec<Stuck>, Instant)>,
    not_before: Option<Instant>,
}

impl StuckTasks {
    async fn search(&mut self, env: &Env) -> anyhow::Result<()> {
        let begun = Instant::now();
        if self.not_before.is_some_and(|at| begun < at) {
            return Ok(());
        }
        let now = env.clock.now();
        let found = stuck::find(env.store.pool(), now, MAX_NAMED).await?;
        self.not_before = Some(begun + begun.elapsed() * SEARCH_SHARE);
        let is_news = self.published.as_ref().map_or(!found.stuck.is_empty(), |(published, at)| {
            *published != found.stuck || !published.is_empty() && at.elapsed() >= REPEAT_EVERY
        });
        if is_news {
            let mut event = Event::new(Kind::TasksStuck, now);
            event.data.matched = Some(found.total as u64);
            event.data.stuck = Some(found.stuck.clone());
            env.publish(vec![event]);
            self.published = Some((found.stuck, begun));
        }
        if !found.forgotten.is_empty() {
            // They have no row to remove, and rows are numbered from 1.
            let rows = found.forgotten.into_iter().map(|id| (0, id)).collect();
            env.writer.run(Reevaluate(rows)).await?;
        }
        Ok(())
    }
}

impl Job for StuckTasks {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(self.search(env))
    }
}
