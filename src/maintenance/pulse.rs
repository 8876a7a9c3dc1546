//! How many jobs' runs passed, in the log at debug level.

use super::{Env, Job, Run};

#[derive(Default)]
pub(super) struct Pulse(u64);

impl Job for Pulse {
    fn run<'a>(&'a mut self, _: &'a Env) -> Run<'a> {
        self.0 += 1;
        tracing::debug!(runs = self.0, "maintenance is running");
        Box::pin(std::future::ready(Ok(())))
    }
}
