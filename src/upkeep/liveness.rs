//! Leases, time limits, workers and connectors that nobody has reported for too long.

use std::time::Duration;

use super::{NEVER, Upkeep};
use crate::{
    command::{expire_connectors::ExpireConnectors, expire_worker::ExpireWorker},
    model::{lease::StallReason, transition::Transition},
    store::sweep,
};

/// A gap between sweeps that tells of a sleep or an outage.
const LONGEST_GAP: Duration = Duration::from_secs(12);

impl Upkeep {
    pub(super) async fn connectors(&mut self) -> anyhow::Result<()> {
        if self.clock.now() < self.reachable_since + self.connector_stale {
            return Ok(());
        }
        for id in sweep::unreported_connectors(self.store.pool(), self.clock.now() - self.connector_stale).await? {
            self.writer.run(ExpireConnectors(id)).await?;
        }
        Ok(())
    }

    /// Workers before leases, so that a task whose worker has gone is told to be lost with it. Time limits that passed
    /// are none of the workers' fault when taskwatch was away, and none of the tasks': they hold at once.
    pub(super) async fn liveness(&mut self) -> anyhow::Result<()> {
        let grace = self.within_grace();
        let now = self.clock.now();
        let since = if grace { NEVER } else { now - self.worker_ttl };
        // The database must be there for the time to count.
        let silent = sweep::silent_workers(self.store.pool(), since, now).await?;
        self.swept_at = std::time::SystemTime::now();
        for id in silent {
            self.writer.run(ExpireWorker(id)).await?;
        }
        let mut stalled = sweep::stalled(self.store.pool(), now).await?;
        stalled.retain(|(_, reason)| !grace || *reason == StallReason::TimeLimit);
        let policy = self.stalled_policy;
        let stall = |(id, reason)| (id, Transition::Stall { reason, policy });
        self.change(stalled.into_iter().map(stall).collect(), None).await
    }

    /// While taskwatch or its database was away nobody could report; everyone gets one time to live from then.
    fn within_grace(&mut self) -> bool {
        let asleep = self.swept_at.elapsed().is_ok_and(|elapsed| elapsed > LONGEST_GAP);
        if asleep {
            self.reachable_since = self.clock.now();
            self.swept_at = std::time::SystemTime::now();
        }
        self.clock.now() < self.reachable_since + self.worker_ttl
    }
}
