//! Actions on a parent task, optionally including its descendants.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    command::{Refusal, change_tasks::ChangeTasks},
    http::{caller::Caller, problem::Problem, state::AppState},
    model::{
        Task,
        bulk::{Bulk, BulkAction},
        dependency::Dependencies,
        phase::Counts,
        transition::{Transition, TransitionError},
    },
    store::{WriteError, families, search},
};

/// What happens to the descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ChildrenOutcome {
    /// Number of descendants to be processed in the background; 0 unless `children` is set.
    pub(in crate::http) concerned: u64,
    /// Number of unfinished descendants that stay unchanged.
    pub(in crate::http) open: u64,
    /// ID of the bulk action; see /api/v1/bulk/{id} for its progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) bulk_id: Option<Uuid>,
}

/// Whether to include descendants.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct WithChildren {
    /// Also apply to all descendants, in the background. By default children are unchanged.
    #[serde(default)]
    pub(in crate::http) children: bool,
}

impl WithChildren {
    /// The same from query parameters.
    ///
    /// # Errors
    /// 400 for any other parameter or value.
    pub(in crate::http) fn of_query(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut options = Self::default();
        for (at, (name, value)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(before, _)| before == name) {
                return Err(Problem::invalid_parameter(name, "given more than once"));
            }
            options.children = match (name.as_str(), value.as_str()) {
                ("children", "true" | "1") => true,
                ("children", "false" | "0" | "") => false,
                ("children", _) => return Err(Problem::invalid_parameter("children", "must be true or false")),
                (other, _) => return Err(Problem::invalid_parameter(other, "unknown parameter; supported: children")),
            };
        }
        Ok(options)
    }
}

/// The descendants of some tasks.
struct Family {
    parents: Vec<Uuid>,
    counts: Counts,
}

impl Family {
    async fn of(state: &AppState, roots: &[Uuid]) -> Result<Self, Problem> {
        let mut parents = families::parents(state.store.pool(), roots).await?;
        if parents.len() > families::MOST_PARENTS {
            // Rare: then only one level at a time is processed, as the response shows.
            parents.truncate(families::MOST_PARENTS);
        }
        let counts = families::children(state.store.pool(), &parents).await?;
        Ok(Self { parents, counts })
    }

    /// How many descendants an action processes, and how many it leaves unchanged.
    fn outcome(&self, action: &BulkAction, wanted: bool) -> ChildrenOutcome {
        let open = self.counts.total() - self.counts.finished();
        let (concerned, left) = match action {
            BulkAction::Cancel { .. } => (open, 0),
            BulkAction::Retry | BulkAction::RetryFamily => (self.counts.failed + self.counts.cancelled, open),
            _ => (self.counts.total(), 0),
        };
        match wanted {
            true => ChildrenOutcome { concerned, open: left, bulk_id: (concerned > 0).then(Uuid::now_v7) },
            false => ChildrenOutcome { concerned: 0, open, bulk_id: None },
        }
    }
}

/// Applies a change to each of some tasks, and to their descendants if `children` is set. The second result is `None`
/// if there are no descendants.
pub(in crate::http) async fn steer(
    state: &AppState,
    caller: &Caller,
    changes: Vec<(Uuid, Transition)>,
    action: &BulkAction,
    children: bool,
) -> Result<(Vec<Result<Task, Refusal>>, Option<ChildrenOutcome>), Problem> {
    let roots: Vec<_> = changes.iter().map(|(id, _)| *id).collect();
    let family = Family::of(state, &roots).await?;
    let below = (family.counts.total() > 0).then(|| family.outcome(action, children));
    let actor = caller.actor().to_owned();
    let bulk = below
        .and_then(|below| below.bulk_id)
        .map(|id| Box::new(Bulk::of_family(id, action, family.parents, actor.clone(), state.clock.now())));
    let outcomes = state.writer.run(ChangeTasks { changes, actor: Some(actor), family: bulk }).await?;
    let begun = outcomes.iter().any(Result::is_ok);
    Ok((outcomes, below.filter(|_| begun)))
}

/// The same for one task.
pub(in crate::http) async fn steer_one(
    state: &AppState,
    caller: &Caller,
    id: Uuid,
    action: &BulkAction,
    children: bool,
) -> Result<(Task, Option<ChildrenOutcome>), Problem> {
    let mut command = action.transition();
    if children && *action == BulkAction::Retry {
        command = Transition::Reopen;
        let task = search::task(state.store.pool(), id).await?.ok_or(Refusal::NoTask(id))?;
        if !task.status.is_finished() {
            // The parent itself is unfinished; only its children are retried.
            let nothing = Transition::Depend(Dependencies::Open);
            let (outcomes, children) = steer(state, caller, vec![(id, nothing)], action, true).await?;
            return match outcomes.into_iter().next() {
                Some(outcome) if children.is_some_and(|children| children.concerned > 0) => Ok((outcome?, children)),
                _ => Err(Refusal::Transition(TransitionError::Illegal {
                    status: task.status,
                    wanted: "run again, and none of its children failed or was cancelled",
                })
                .into()),
            };
        }
    }
    let (outcomes, outcome) = steer(state, caller, vec![(id, command)], action, children).await?;
    let task = outcomes.into_iter().next().ok_or(WriteError::Unavailable)??;
    Ok((task, outcome))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn children_are_left_alone_unless_they_are_asked_for() {
        let read = |given: &[(&str, &str)]| WithChildren::of_query(&pairs(given)).map(|options| options.children);
        assert!(!read(&[]).unwrap());
        for (value, right) in [("true", true), ("1", true), ("false", false), ("0", false), ("", false)] {
            assert_eq!(read(&[("children", value)]).unwrap(), right, "{value}");
        }
        assert_eq!(read(&[("children", "true"), ("children", "false")]).unwrap_err().errors[0].field, "children");
        assert_eq!(read(&[("children", "yes")]).unwrap_err().errors[0].field, "children");
        let problem = read(&[("chidlren", "true")]).unwrap_err();
        assert!(problem.errors[0].field == "chidlren" && problem.detail.ends_with("supported: children"));
    }

    #[test]
    fn an_action_concerns_only_the_descendants_that_it_can_change() {
        let counts = Counts { pending: 1, running: 2, completed: 4, failed: 8, cancelled: 16 };
        let family = Family { parents: Vec::new(), counts };
        for (action, concerned, open) in [
            (BulkAction::Cancel { reason: None }, 3, 0),
            (BulkAction::Retry, 24, 3),
            (BulkAction::RetryFamily, 24, 3),
            (BulkAction::Delete, 31, 0),
        ] {
            let wanted = family.outcome(&action, true);
            assert_eq!(
                (wanted.concerned, wanted.open, wanted.bulk_id.is_some()),
                (concerned, open, true),
                "{action:?}"
            );
            let left_alone = ChildrenOutcome { concerned: 0, open: 3, bulk_id: None };
            assert_eq!(family.outcome(&action, false), left_alone);
        }
        let done = Family { parents: Vec::new(), counts: Counts { completed: 4, ..Counts::default() } };
        assert_eq!(done.outcome(&BulkAction::Cancel { reason: None }, true), ChildrenOutcome::default());
    }
}
