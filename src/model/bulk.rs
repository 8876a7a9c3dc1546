//! What operators do to many tasks at once.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Name, Priority, Status, edit::Edit, task_query::TaskQuery, transition::Transition};
use crate::clock::Time;

/// One thing done to each task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum BulkAction {
    /// Stop what has not finished.
    Cancel {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Run finished tasks again.
    Retry,
    /// Run what failed or was cancelled below a parent again, and open groups among it again.
    RetryFamily,
    /// Do that, and the same to all tasks below.
    WithChildren {
        /// What.
        of: Box<Self>,
    },
    /// Remove them.
    Delete,
    /// Change what they say.
    Edit {
        /// 0–9.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        priority: Option<Priority>,
        /// The line they stand in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<Name>,
        /// Who is responsible for them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        assignee: Option<String>,
    },
}

impl BulkAction {
    /// The word in events.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "bulk_cancel",
            Self::Retry | Self::RetryFamily => "bulk_retry",
            Self::WithChildren { of } => of.word(),
            Self::Delete => "bulk_delete",
            Self::Edit { .. } => "bulk_edit",
        }
    }

    /// Tasks run again by it.
    #[must_use]
    pub fn retries(&self) -> bool {
        match self {
            Self::Retry | Self::RetryFamily => true,
            Self::WithChildren { of } => of.retries(),
            Self::Cancel { .. } | Self::Delete | Self::Edit { .. } => false,
        }
    }

    /// The same for the tasks below.
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

/// How an action on many tasks stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkState {
    /// Worked on.
    Running,
    /// Over.
    Done,
    /// Stopped by someone; what was done stays done.
    Cancelled,
}

impl BulkState {
    /// Every state with its word.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Running, "running"), (Self::Done, "done"), (Self::Cancelled, "cancelled")];

    /// The word in the API and in the table.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

/// A place in a list of tasks, newest first: tasks created before it are left.
pub type PageCursor = (Time, Uuid);

/// An action on all tasks that a filter finds.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// Identity.
    pub id: Uuid,
    /// What is done to each.
    pub action: BulkAction,
    /// To which.
    pub filter: TaskQuery,
    /// Who asked.
    pub actor: String,
    /// How it stands.
    pub state: BulkState,
    /// Tasks per second at the most.
    pub pace_per_second: Option<u32>,
    /// Tasks that it was done to.
    pub succeeded: u64,
    /// Tasks that it could not be done to.
    pub failed: u64,
    /// Where the next step begins.
    pub before: PageCursor,
    /// When the next step may be done.
    pub next_at: Time,
    /// When it was asked for.
    pub created_at: Time,
    /// When it was over.
    pub finished_at: Option<Time>,
}

impl Bulk {
    /// An action that begins now.
    #[must_use]
    pub fn new(id: Uuid, action: BulkAction, filter: TaskQuery, actor: String, now: Time) -> Self {
        Self {
            id,
            action,
            filter,
            actor,
            state: BulkState::Running,
            pace_per_second: None,
            succeeded: 0,
            failed: 0,
            before: (now, Uuid::max()),
            next_at: now,
            created_at: now,
            finished_at: None,
        }
    }

    /// The same done to the tasks below some parents.
    #[must_use]
    pub fn of_family(id: Uuid, action: &BulkAction, parents: Vec<Uuid>, actor: String, now: Time) -> Self {
        let action = action.for_family();
        let statuses = match action {
            BulkAction::Cancel { .. } => Status::ALL.into_iter().filter(|status| !status.is_finished()).collect(),
            BulkAction::RetryFamily => vec![Status::Failed, Status::Cancelled],
            _ => Vec::new(),
        };
        Self::new(id, action, TaskQuery { parents, statuses, ..TaskQuery::default() }, actor, now)
    }
}

/// One step of an action, found by any server; done only if the action is still at the place it begins with.
#[derive(Debug, Clone)]
pub struct BulkStep {
    /// Of which action.
    pub id: Uuid,
    /// Where it begins.
    pub from: PageCursor,
    /// The tasks found.
    pub ids: Vec<Uuid>,
    /// They are to run again, and may have to wait for others first.
    pub retries: bool,
    /// What is done to the tasks below them, when that was asked for.
    pub family: Option<Box<Bulk>>,
    /// Where the next begins; nothing when this is the last.
    pub to: Option<PageCursor>,
}
