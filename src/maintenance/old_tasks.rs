//! Finished tasks, and workers that stopped, after their retention.

use chrono::TimeDelta;

use super::{Env, Job, Run};
use crate::{model::transition::Transition, store::retention};

/// Most batches of one run.
const MAX_BATCHES: usize = 20;

#[derive(Default)]
pub(super) struct OldTasks;

impl Job for OldTasks {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            if env.retention.tasks == TimeDelta::zero() {
                return Ok(());
            }
            let before = env.clock.now() - env.retention.tasks;
            retention::forget(env.store.pool(), before).await?;
            for _ in 0..MAX_BATCHES {
                let old = retention::old_tasks(env.store.pool(), before).await?;
                if old.is_empty() {
                    break;
                }
                let changes = old.into_iter().map(|id| (id, Transition::Expire(before))).collect();
                env.change(changes, Some("retention")).await?;
            }
            Ok(())
        })
    }
}
