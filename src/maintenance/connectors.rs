//! Connectors that have not been reported for too long.

use super::{Env, Job, Run};
use crate::{command::expire_connectors::ExpireConnectors, store::due};

#[derive(Default)]
pub(super) struct Connectors;

impl Job for Connectors {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            let now = env.clock.now();
            if now < env.reachable.get() + env.policy.connector_stale {
                return Ok(());
            }
            for id in due::unreported_connectors(env.store.pool(), now - env.policy.connector_stale).await? {
                env.writer.run(ExpireConnectors(id)).await?;
            }
            Ok(())
        })
    }
}
