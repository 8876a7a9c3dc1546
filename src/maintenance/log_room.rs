//! Room for the log to grow, and how far it has grown.

use super::{Env, Job, Run};

#[derive(Default)]
pub(super) struct LogRoom;

impl Job for LogRoom {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            if let Some(witness) = &env.witness {
                witness.note(env.subscriptions.end())?;
            }
            let ends = env.event_log.ends().await?;
            env.subscriptions.set_oldest(ends.oldest);
            let made = env.event_log.ensure_partitions(ends.head).await?;
            if made > 0 {
                tracing::info!(made, "created event log partitions");
            }
            Ok(())
        })
    }
}
