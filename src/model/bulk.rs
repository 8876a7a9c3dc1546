//! Bulk actions: one action on many tasks.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Name, Priority, Status,
    edit::Edit,
    operator::OperatorAction,
    task_query::{Condition, TaskQuery},
    transition::Transition,
    words::words,
};
use crate::clock::Time;

/// The action applied to each task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum BulkAction {
    /// Cancel unfinished tasks.
    Cancel {
        /// Reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Retry finished tasks.
    Retry,
    /// Retry failed and cancelled descendants of a parent, and reopen its `auto_complete` parents among them.
    RetryFamily,
    /// Apply an action to the tasks and all their descendants.
    WithChildren {
        /// The action.
        of: Box<Self>,
    },
    /// Delete tasks.
    Delete,
    /// Edit tasks.
    Edit {
        /// Priority, 0–9.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        priority: Option<Priority>,
        /// Queue name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<Name>,
        /// Assignee.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        assignee: Option<String>,
    },
}

impl BulkAction {
    /// The action's name in events.
    #[must_use]
    pub fn word(&self) -> OperatorAction {
        match self {
            Self::Cancel { .. } => OperatorAction::BulkCancel,
            Self::Retry | Self::RetryFamily => OperatorAction::BulkRetry,
            Self::WithChildren { of } => of.word(),
            Self::Delete => OperatorAction::BulkDelete,
            Self::Edit { .. } => OperatorAction::BulkEdit,
        }
    }

    /// Whether the action retries tasks.
    #[must_use]
    pub fn retries(&self) -> bool {
        match self {
            Self::Retry | Self::RetryFamily => true,
            Self::WithChildren { of } => of.retries(),
            Self::Cancel { .. } | Self::Delete | Self::Edit { .. } => false,
        }
    }

    /// The corresponding action for descendants.
    #[must_use]
    pub fn for_family(&self) -> Self {
        match self {
            Self::Retry | Self::RetryFamily => Self::RetryFamily,
            Self::WithChildren { of } => of.for_family(),
            Self::Cancel { .. } | Self::Delete | Self::Edit { .. } => self.clone(),
        }
    }

    /// The transition of one task.
    #[must_use]
    pub fn transition(&self) -> Transition {
        match self {
            Self::Cancel { reason } => Transition::Cancel { reason: reason.clone() },
            Self::Retry => Transition::Retry,
            Self::RetryFamily => Transition::Reopen,
            Self::WithChildren { of } => of.transition(),
            Self::Delete => Transition::Delete,
            Self::Edit { priority, queue, assignee } => Transition::Edit(Box::new(Edit {
                priority: *priority,
                queue: queue.clone(),
                assignee: assignee.clone().map(Some),
                ..Edit::default()
            })),
        }
    }
}

words! {
    /// Status of a bulk action.
    BulkState {
        /// In progress.
        Running = "running",
        /// Completed.
        Done = "done",
        /// Cancelled; tasks already processed stay changed.
        Cancelled = "cancelled",
    }
}

/// Cursor in a list of tasks, newest first: tasks created before it remain.
pub type PageCursor = (Time, Uuid);

/// A bulk action on all tasks that match a filter.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// Identity.
    pub id: Uuid,
    /// Action for each task.
    pub action: BulkAction,
    /// Which tasks.
    pub filter: TaskQuery,
    /// Who requested it.
    pub actor: String,
    /// Its status.
    pub state: BulkState,
    /// Rate limit, tasks per second.
    pub max_per_second: Option<u32>,
    /// Tasks processed successfully.
    pub succeeded: u64,
    /// Tasks that could not be processed.
    pub failed: u64,
    /// Cursor of the next step.
    pub before: PageCursor,
    /// When the next step is due.
    pub next_at: Time,
    /// Time of creation.
    pub created_at: Time,
    /// Time of finishing.
    pub finished_at: Option<Time>,
}

impl Bulk {
    /// A new bulk action.
    #[must_use]
    pub fn new(id: Uuid, action: BulkAction, filter: TaskQuery, actor: String, now: Time) -> Self {
        Self {
            id,
            action,
            filter,
            actor,
            state: BulkState::Running,
            max_per_second: None,
            succeeded: 0,
            failed: 0,
            before: (now, Uuid::max()),
            next_at: now,
            created_at: now,
            finished_at: None,
        }
    }

    /// The corresponding bulk action on the children of some parents.
    #[must_use]
    pub fn of_family(id: Uuid, action: &BulkAction, parents: Vec<Uuid>, actor: String, now: Time) -> Self {
        let action = action.for_family();
        let children = TaskQuery::default().having("parent_task_id", Condition::Ids(parents.into_iter().collect()));
        let filter = match action {
            BulkAction::Cancel { .. } => {
                children.in_status(Status::ALL.into_iter().filter(|status| !status.is_finished()))
            }
            BulkAction::RetryFamily => children.in_status([Status::Failed, Status::Cancelled]),
            _ => children,
        };
        Self::new(id, action, filter, actor, now)
    }
}

/// One step of a bulk action, prepared by any server; applied only if the cursor of the action is still `from`.
#[derive(Debug, Clone)]
pub struct BulkStep {
    /// ID of the bulk action.
    pub id: Uuid,
    /// Cursor at the start.
    pub from: PageCursor,
    /// The tasks found.
    pub ids: Vec<Uuid>,
    /// The tasks are retried, and may become blocked first.
    pub retries: bool,
    /// Bulk action to create for their descendants, if requested.
    pub family: Option<Box<Bulk>>,
    /// Cursor of the next step; `None` after the last one.
    pub to: Option<PageCursor>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn each() -> [BulkAction; 5] {
        let edit = BulkAction::Edit { priority: Priority::new(9), queue: None, assignee: Some("ann".to_owned()) };
        [BulkAction::Cancel { reason: None }, BulkAction::Retry, BulkAction::RetryFamily, BulkAction::Delete, edit]
    }

    #[test]
    fn an_action_with_children_is_the_action_itself() {
        for action in each() {
            let with_children = BulkAction::WithChildren { of: Box::new(action.clone()) };
            assert_eq!(with_children.word(), action.word());
            assert_eq!(with_children.retries(), action.retries());
            assert_eq!(with_children.transition(), action.transition());
            assert_eq!(with_children.for_family(), action.for_family());
        }
    }

    #[test]
    fn retries_below_a_parent_reopen_the_parents_among_them() {
        assert_eq!(BulkAction::Retry.transition(), Transition::Retry);
        assert_eq!(BulkAction::Retry.for_family().transition(), Transition::Reopen);
        let retrying: Vec<_> = each().iter().map(BulkAction::retries).collect();
        assert_eq!(retrying, [false, true, true, false, false]);
    }

    #[test]
    fn what_an_edit_does_not_name_stays() {
        let [.., edit] = each();
        let Transition::Edit(edit) = edit.transition() else { panic!("{edit:?}") };
        let right = Edit { priority: Priority::new(9), assignee: Some(Some("ann".to_owned())), ..Edit::default() };
        assert_eq!(*edit, right);
    }

    #[test]
    fn the_action_on_a_family_takes_only_those_that_it_can_change() {
        let parent = Uuid::from_u128(7);
        let statuses = |action: BulkAction| {
            let bulk = Bulk::of_family(Uuid::nil(), &action, vec![parent], "ops".to_owned(), Time::UNIX_EPOCH);
            assert_eq!(bulk.filter.conditions["parent_task_id"], Condition::Ids([parent].into()));
            bulk.filter.statuses().map(|statuses| statuses.iter().copied().collect::<Vec<_>>())
        };
        let unfinished = [Status::Scheduled, Status::Blocked, Status::Pending, Status::Running, Status::Retrying];
        assert_eq!(statuses(BulkAction::Cancel { reason: None }), Some(unfinished.to_vec()));
        assert_eq!(statuses(BulkAction::Retry), Some(vec![Status::Failed, Status::Cancelled]));
        assert_eq!(statuses(BulkAction::Delete), None);
    }

    #[test]
    fn a_new_action_begins_with_the_newest_task_there_is() {
        let query = TaskQuery::default();
        let bulk = Bulk::new(Uuid::nil(), BulkAction::Retry, query, "ops".to_owned(), Time::UNIX_EPOCH);
        assert_eq!((bulk.before, bulk.next_at), ((Time::UNIX_EPOCH, Uuid::max()), Time::UNIX_EPOCH));
        assert_eq!((bulk.state, bulk.succeeded, bulk.failed), (BulkState::Running, 0, 0));
    }

    #[test]
    fn actions_are_stored_and_read_again() {
        for action in each() {
            for action in [action.clone(), BulkAction::WithChildren { of: Box::new(action) }] {
                let text = serde_json::to_string(&action).unwrap();
                assert_eq!(serde_json::from_str::<BulkAction>(&text).unwrap(), action, "{text}");
            }
        }
        assert_eq!(serde_json::to_string(&BulkAction::Cancel { reason: None }).unwrap(), r#"{"action":"cancel"}"#);
        assert!(serde_json::from_str::<BulkAction>(r#"{"action":"edit","priority":10}"#).is_err());
    }
}
