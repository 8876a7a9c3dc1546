//! The board, saved so that the next start is fast.

use super::{Env, Job, Run};

#[derive(Default)]
pub(super) struct Checkpoint;

impl Job for Checkpoint {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(env.checkpoints.save())
    }
}
