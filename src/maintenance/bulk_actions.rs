//! The next step of each bulk action. The writer does it if no other server was faster.

use uuid::Uuid;

use super::{Env, Job, Run};
use crate::{
    command::run_bulk_step::RunBulkStep,
    model::{
        bulk::{Bulk, BulkAction, BulkStep},
        task_query::TaskQuery,
    },
    store::{bulk, families, search},
};

/// Tasks in one step.
const STEP_TASKS: i64 = 200;

#[derive(Default)]
pub(super) struct BulkActions;

impl Job for BulkActions {
    fn run<'a>(&'a mut self, env: &'a Env) -> Run<'a> {
        Box::pin(async {
            for bulk in bulk::due(env.store.pool(), env.clock.now()).await? {
                let step = next_step(env, &bulk).await?;
                // One that fails now must not hold up the others.
                if let Err(error) = env.writer.run(RunBulkStep(step)).await {
                    tracing::warn!(%error, bulk = %bulk.id, "bulk action step failed; will retry");
                }
            }
            Ok(())
        })
    }
}

/// Finds the tasks of the next step.
async fn next_step(env: &Env, bulk: &Bulk) -> anyhow::Result<BulkStep> {
    let limit = bulk.max_per_second.map_or(STEP_TASKS, |pace| i64::from(pace).min(STEP_TASKS));
    let query = TaskQuery { before: Some(bulk.before), limit, ..bulk.filter.clone() };
    let places = search::places(env.store.pool(), &query).await?;
    let more = i64::try_from(places.len())? == limit;
    let to = places.last().copied().filter(|_| more);
    let ids: Vec<_> = places.into_iter().map(|(_, id)| id).collect();
    let family = match &bulk.action {
        BulkAction::WithChildren { of } => family(env, &ids, of, &bulk.actor).await?,
        _ => None,
    };
    Ok(BulkStep { id: bulk.id, from: bulk.before, ids, retries: bulk.action.retries(), family, to })
}

/// The same action on the tasks below some others; `None` when there are none.
async fn family(env: &Env, ids: &[Uuid], action: &BulkAction, actor: &str) -> anyhow::Result<Option<Box<Bulk>>> {
    let mut parents = families::parents(env.store.pool(), ids).await?;
    parents.truncate(families::MOST_PARENTS);
    if families::children(env.store.pool(), &parents).await?.total() == 0 {
        return Ok(None);
    }
    let (id, now) = (Uuid::now_v7(), env.clock.now());
    Ok(Some(Box::new(Bulk::of_family(id, action, parents, actor.to_owned(), now))))
}
