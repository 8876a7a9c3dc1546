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
