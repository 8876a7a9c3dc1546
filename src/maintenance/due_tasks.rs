//! Scheduled and retrying tasks whose time has come.

use super::{Env, Job, Run};
use crate::{model::transition::Transition, store::due};

#[derive(Default)]
pub(super) struct DueTasks;

impl Job for DueTasks {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            let due = due::tasks(env.store.pool(), env.clock.now()).await?;
            env.change(due.into_iter().map(|id| (id, Transition::Due)).collect(), None).await
        })
    }
}
