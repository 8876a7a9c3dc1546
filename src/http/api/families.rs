//! What is done to a parent, and to its children with it when that is asked for.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    command::{Refusal, change_tasks::ChangeTasks},
    http::{caller::Caller, problem::Problem, site::Site},
    model::{
        Task,
        bulk::{Bulk, BulkAction},
        dependency::Dependencies,
        phase::Counts,
        transition::{Transition, TransitionError},
    },
    store::{WriteError, families, search},
};

/// What is done to the tasks below those that something is done to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ChildrenTold {
    /// Tasks below that the same is done to, in the background; 0 unless `children` was asked for.
    pub(in crate::http) concerned: u64,
    /// Tasks below that stay open: they are left alone.
    pub(in crate::http) open: u64,
    /// The action in the background; read how it goes at /api/v1/bulk/{id}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) bulk_id: Option<Uuid>,
}

/// Whether children are meant too.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct WithChildren {
    /// Do the same to all tasks below it, in the background. Left out: its children stay as they are.
    #[serde(default)]
    pub(in crate::http) children: bool,
}

impl WithChildren {
    /// The same as a parameter of an address.
    ///
    /// # Errors
    /// 400 for another parameter or another value.
    pub(in crate::http) fn of_query(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let bad = |field: &str, detail| Problem::field(StatusCode::BAD_REQUEST, "invalid_parameter", field, detail);
        let mut wish = Self::default();
        for (name, value) in pairs {
            wish.children = match (name.as_str(), value.as_str()) {
                ("children", "true" | "1") => true,
                ("children", "false" | "0" | "") => false,
                ("children", _) => return Err(bad("children", "must be true or false")),
                (other, _) => return Err(bad(other, "is not known; this call takes children")),
            };
        }
        Ok(wish)
    }
}

/// The tasks below some others.
struct Family {
    parents: Vec<Uuid>,
    counts: Counts,
}

impl Family {
    async fn of(site: &Site, roots: &[Uuid]) -> Result<Self, Problem> {
        let mut parents = families::parents(site.store.pool(), roots).await?;
        if parents.len() > families::MOST_PARENTS {
            // Rare: one level at a time then, which the answer shows.
            parents.truncate(families::MOST_PARENTS);
        }
        let counts = families::children(site.store.pool(), &parents).await?;
        Ok(Self { parents, counts })
    }

    /// What an action does to it, or leaves alone.
    fn told(&self, action: &BulkAction, wanted: bool) -> ChildrenTold {
        let open = self.counts.total() - self.counts.finished();
        let (concerned, left) = match action {
            BulkAction::Cancel { .. } => (open, 0),
            BulkAction::Retry | BulkAction::RetryFamily => (self.counts.failed + self.counts.cancelled, open),
            _ => (self.counts.total(), 0),
        };
        match wanted {
            true => ChildrenTold { concerned, open: left, bulk_id: (concerned > 0).then(Uuid::now_v7) },
            false => ChildrenTold { concerned: 0, open, bulk_id: None },
        }
    }
}

/// Does something to each of some tasks, and to those below them when `children` is set. What is told of children is
/// nothing when there are none.
pub(in crate::http) async fn steer(
    site: &Site,
    caller: &Caller,
    changes: Vec<(Uuid, Transition)>,
    action: &BulkAction,
    children: bool,
) -> Result<(Vec<Result<Task, Refusal>>, Option<ChildrenTold>), Problem> {
    let roots: Vec<_> = changes.iter().map(|(id, _)| *id).collect();
    let family = Family::of(site, &roots).await?;
    let told = (family.counts.total() > 0).then(|| family.told(action, children));
    let actor = caller.actor().to_owned();
    let below = told
        .and_then(|told| told.bulk_id)
        .map(|id| Box::new(Bulk::of_family(id, action, family.parents, actor.clone(), site.clock.now())));
    let outcomes = site.writer.run(ChangeTasks { changes, actor: Some(actor), family: below }).await?;
    let begun = outcomes.iter().any(Result::is_ok);
    Ok((outcomes, told.filter(|_| begun)))
}

/// The same of one task.
pub(in crate::http) async fn steer_one(
    site: &Site,
    caller: &Caller,
    id: Uuid,
    action: &BulkAction,
    children: bool,
) -> Result<(Task, Option<ChildrenTold>), Problem> {
    let mut command = action.transition();
    if children && *action == BulkAction::Retry {
        command = Transition::Reopen;
        let task = search::task(site.store.pool(), id).await?.ok_or(Refusal::NoTask(id))?;
        if !task.status.is_finished() {
            // It goes on; only its children have something to do again.
            let nothing = Transition::Depend(Dependencies::Open);
            let (outcomes, told) = steer(site, caller, vec![(id, nothing)], action, true).await?;
            return match outcomes.into_iter().next() {
                Some(outcome) if told.is_some_and(|told| told.concerned > 0) => Ok((outcome?, told)),
                _ => Err(Refusal::Transition(TransitionError::Illegal {
                    status: task.status,
                    wanted: "run again, and none of its children failed or was cancelled",
                })
                .into()),
            };
        }
    }
    let (outcomes, told) = steer(site, caller, vec![(id, command)], action, children).await?;
    let task = outcomes.into_iter().next().ok_or(WriteError::Unavailable)??;
    Ok((task, told))
}
