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
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "bulk_cancel",
            Self::Retry => "bulk_retry",
            Self::Delete => "bulk_delete",
            Self::Edit { .. } => "bulk_edit",
        }
    }

    /// The command for one task.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::Cancel { reason } => Command::Cancel { reason: reason.clone() },
            Self::Retry => Command::Retry,
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
