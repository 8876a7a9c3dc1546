//! Tasks that wait for what cannot come, and reported tasks of which nothing comes any more.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use super::Upkeep;
use crate::{
    command::reevaluate::Reevaluate,
    event::{Event, Kind},
    model::transition::Transition,
    store::{stuck, sweep},
};

/// Stuck tasks told of at once.
const MOST: usize = 50;
/// They are told again this often, for boards that were not there the last time.
const AGAIN: Duration = Duration::from_secs(10);
/// The search takes at most this part of the time.
const SHARE: u32 = 20;

/// What was told of stuck tasks last, and when the next search may begin.
#[derive(Debug, Clone, Default)]
pub struct StuckTold {
    told: Option<(Vec<crate::model::stuck::Stuck>, Instant)>,
    not_before: Option<Instant>,
}

impl Upkeep {
    pub(super) async fn stuck(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        if self.stuck_told.not_before.is_some_and(|at| begun < at) {
            return Ok(());
        }
        let now = self.clock.now();
        let found = stuck::find(self.store.pool(), now, MOST).await?;
        self.stuck_told.not_before = Some(begun + begun.elapsed() * SHARE);
        let told = self.stuck_told.told.as_ref();
        let is_news = told.map_or(!found.stuck.is_empty(), |(told, at)| {
            *told != found.stuck || !told.is_empty() && at.elapsed() >= AGAIN
        });
        if is_news {
            let mut event = Event::new(Kind::TasksStuck, now);
            event.data.matched = Some(found.total as u64);
            event.data.stuck = Some(found.stuck.clone());
            self.tell(vec![event]);
            self.stuck_told.told = Some((found.stuck, begun));
        }
        if !found.forgotten.is_empty() {
            // There is no row of theirs to remove, and rows are numbered from 1.
            let rows = found.forgotten.into_iter().map(|id| (0, id)).collect();
            self.writer.run(Reevaluate(rows)).await?;
        }
        Ok(())
    }

    /// Reported tasks that nobody reports any more.
    pub(super) async fn silent_reports(&mut self) -> anyhow::Result<()> {
        if self.observed_stale == TimeDelta::zero() {
            return Ok(());
        }
        let before = self.clock.now() - self.observed_stale;
        let silent = sweep::silent_tasks(self.store.pool(), before).await?;
        self.change(silent.into_iter().map(|id| (id, Transition::GiveUp(before))).collect(), None).await
    }
}
