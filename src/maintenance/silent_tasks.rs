//! Observed tasks without further reports.

use chrono::TimeDelta;

use super::{Env, Job, Run};
use crate::{model::transition::Transition, store::due};

#[derive(Default)]
pub(super) struct SilentTasks;

impl Job for SilentTasks {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            if env.retention.observed == TimeDelta::zero() {
                return Ok(());
            }
            let before = env.clock.now() - env.retention.observed;
            let silent = due::silent_tasks(env.store.pool(), before).await?;
            env.change(silent.into_iter().map(|id| (id, Transition::GiveUp(before))).collect(), None).await
        })
    }
}
