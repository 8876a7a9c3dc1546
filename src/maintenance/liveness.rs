//! Lost workers, expired leases, and attempts that timed out.

use std::time::{Duration, SystemTime};

use chrono::DateTime;

use super::{Env, Job, Run};
use crate::{
    clock::{Time, machine_time},
    command::expire_worker::ExpireWorker,
    model::{lease::StallReason, transition::Transition},
    store::due,
};

/// A longer time between two runs means a sleep or an outage.
const MAX_GAP: Duration = Duration::from_secs(12);
/// Before any heartbeat.
const NEVER: Time = DateTime::UNIX_EPOCH;

/// When the last run went through, by the machine's own clock.
pub(super) struct Liveness(SystemTime);

impl Default for Liveness {
    fn default() -> Self {
        Self(machine_time())
    }
}

impl Liveness {
    /// While taskwatch or its database was away, workers could not report; each gets its time to live from then on.
    fn is_grace(&mut self, env: &Env) -> bool {
        if self.0.elapsed().is_ok_and(|elapsed| elapsed > MAX_GAP) {
            env.reachable.set(env.clock.now());
            self.0 = machine_time();
        }
        env.clock.now() < env.reachable.get() + env.policy.worker_ttl
    }

    /// Workers before leases, so that the event of a task whose worker is lost says so. Attempts time out also when
    /// taskwatch was away: that is neither the worker's fault nor the task's.
    async fn check(&mut self, env: &Env) -> anyhow::Result<()> {
        let grace = self.is_grace(env);
        let now = env.clock.now();
        let since = if grace { NEVER } else { now - env.policy.worker_ttl };
        // The database must answer for the time to count.
        let silent = due::silent_workers(env.store.pool(), since, now).await?;
        self.0 = machine_time();
        for id in silent {
            env.writer.run(ExpireWorker(id)).await?;
        }
        let mut stalled = due::stalled(env.store.pool(), now).await?;
        stalled.retain(|(_, reason)| !grace || *reason == StallReason::TimeLimit);
        let policy = env.policy.stalled_policy;
        let stall = |(id, reason)| (id, Transition::Stall { reason, policy });
        env.change(stalled.into_iter().map(stall).collect(), None).await
    }
}

impl Job for Liveness {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(self.check(env))
    }
}
