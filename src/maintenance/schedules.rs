//! Schedules whose time has come.

use uuid::Uuid;

use super::{Env, Job, Run};
use crate::{command::run_schedule::RunSchedule, store::schedules};

#[derive(Default)]
pub(super) struct Schedules;

impl Job for Schedules {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            for schedule in schedules::due(env.store.pool(), env.clock.now()).await? {
                let Some(at) = schedule.next_run_at else { continue };
                let name = schedule.name.clone();
                let run = RunSchedule {
                    name: schedule.name,
                    at,
                    task_id: Uuid::now_v7(),
                    parent_task_id: schedule.task.parent_task_id,
                    unique_key: schedule.task.unique_key,
                };
                if let Err(error) = env.writer.run(run).await {
                    tracing::warn!(%error, schedule = %name, "schedule could not create its task; will retry");
                }
            }
            Ok(())
        })
    }
}
