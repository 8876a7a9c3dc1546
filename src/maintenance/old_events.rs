//! Events after their retention.

use chrono::TimeDelta;

use super::{Env, Job, Run};
use crate::{board, store::retention};

#[derive(Default)]
pub(super) struct OldEvents;

impl Job for OldEvents {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            if env.retention.events == TimeDelta::zero() {
                return Ok(());
            }
            let before = env.clock.now() - env.retention.events;
            // Events go only where a saved board covers them.
            if retention::events(&env.store, before, board::VERSION).await? {
                env.checkpoints.save().await?;
                retention::events(&env.store, before, board::VERSION).await?;
            }
            Ok(())
        })
    }
}
