//! Filters of a task list.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Name, Priority, Status};
use crate::clock::Time;

/// Prefix of the label filters: `label.<key>=value`.
pub const LABEL_PREFIX: &str = "label.";

/// Filters whose column has an index, so that they find few tasks by themselves.
const SELECTIVE: [&str; 2] = ["parent_task_id", "fingerprint"];

/// The accepted values of one filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// One of these names.
    Names(BTreeSet<Name>),
    /// One of these IDs.
    Ids(BTreeSet<Uuid>),
    /// One of these statuses.
    Statuses(BTreeSet<Status>),
    /// A priority from the lowest to the highest, both included.
    Priorities(Priority, Priority),
    /// One of these texts.
    Texts(BTreeSet<String>),
}

/// Filters of a task list, and the part of it to read. All conditions must hold; without any, every task matches.
/// Stored as JSON with bulk actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskQuery {
    /// Conditions by the name of their filter.
    pub conditions: BTreeMap<String, Condition>,
    /// Substring of the title, the type or the first 300 characters of the error.
    pub text: Option<String>,
    /// Only tasks created since this time.
    #[serde(default)]
    pub since: Option<Time>,
    /// Only tasks older than this one (the last of the previous page).
    pub before: Option<(Time, Uuid)>,
    /// Maximum number of tasks.
    pub limit: i64,
}

impl TaskQuery {
    /// The same query with a condition.
    #[must_use]
    pub fn having(mut self, filter: &str, condition: Condition) -> Self {
        self.conditions.insert(filter.to_owned(), condition);
        self
    }

    /// The same query with a condition on the status.
    #[must_use]
    pub fn in_status(self, statuses: impl IntoIterator<Item = Status>) -> Self {
        self.having("status", Condition::Statuses(statuses.into_iter().collect()))
    }

    /// The accepted statuses; `None` if there is no condition on the status.
    #[must_use]
    pub fn statuses(&self) -> Option<&BTreeSet<Status>> {
        match self.conditions.get("status") {
            Some(Condition::Statuses(statuses)) => Some(statuses),
            _ => None,
        }
    }

    /// Whether the query may have to scan all tasks: no filter is selective.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        let finished = |status: &Status| matches!(status, Status::Completed | Status::Cancelled);
        let is_selective = SELECTIVE.iter().any(|filter| self.conditions.contains_key(*filter))
            || self.statuses().is_some_and(|statuses| !statuses.iter().any(finished));
        self.text.is_some() || !self.conditions.is_empty() && !is_selective
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_wide_unless_an_index_leads() {
        let all = TaskQuery::default;
        assert!(!all().is_wide(), "the newest tasks are read by their index");
        assert!(all().having("queue", Condition::Names([Name::literal("q")].into())).is_wide());
        assert!(all().in_status([Status::Completed]).is_wide());
        assert!(!all().in_status([Status::Failed, Status::Running]).is_wide());
        let below = all().having("parent_task_id", Condition::Ids([Uuid::nil()].into()));
        assert!(!below.clone().having("queue", Condition::Names([Name::literal("q")].into())).is_wide());
        assert!(TaskQuery { text: Some("disk".to_owned()), ..below }.is_wide());
    }
}
