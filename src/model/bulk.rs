//! What operators do to many tasks at once.

use serde::{Deserialize, Serialize};

use super::{Name, Priority, edit::Edit, transition::Command};

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

    /// The command for one task.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::Cancel { reason } => Command::Cancel { reason: reason.clone() },
            Self::Retry => Command::Retry,
            Self::RetryFamily => Command::Reopen,
            Self::WithChildren { of } => of.command(),
            Self::Delete => Command::Delete,
            Self::Edit { priority, queue, assignee } => Command::Edit(Box::new(Edit {
                priority: *priority,
                queue: queue.clone(),
                assignee: assignee.clone().map(Some),
                ..Edit::default()
            })),
        }
    }
}
