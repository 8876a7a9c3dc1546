//! Tasks whose dependencies, children or parent changed.

use super::{Env, Job, Run};
use crate::{command::reevaluate::Reevaluate, store::dependencies};

#[derive(Default)]
pub(super) struct Reevaluation;

impl Job for Reevaluation {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            let rows = dependencies::rechecks(env.store.pool()).await?;
            if !rows.is_empty() {
                env.writer.run(Reevaluate(rows)).await?;
            }
            Ok(())
        })
    }
}
