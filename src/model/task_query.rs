//! Filters of a task list.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Name, Status};
use crate::clock::Time;

/// Filters of a task list; all are optional, an empty list matches everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TaskQuery {
    /// Statuses.
    pub statuses: Vec<Status>,
    /// Projects.
    pub projects: Vec<Name>,
    /// Queues.
    pub queues: Vec<Name>,
    /// Task types.
    pub task_types: Vec<Name>,
    /// Phases.
    pub phases: Vec<Name>,
    /// Parents.
    pub parents: Vec<Uuid>,
    /// Workers of the latest attempt.
    pub workers: Vec<Uuid>,
    /// Machines of the latest attempt.
    #[serde(default)]
    pub machines: Vec<Name>,
    /// Connectors of the latest attempt.
    #[serde(default)]
    pub connectors: Vec<Name>,
    /// Error group fingerprints.
    #[serde(default)]
    pub fingerprints: Vec<Name>,
    /// Labels, each with its accepted values.
    #[serde(default)]
    pub labels: BTreeMap<Name, BTreeSet<String>>,
    /// Lowest priority.
    pub priority_min: Option<u8>,
    /// Highest priority.
    pub priority_max: Option<u8>,
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
    /// Whether the query may have to scan all tasks: no filter is selective.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        let finished = |status: &Status| matches!(status, Status::Completed | Status::Cancelled);
        let led = !self.parents.is_empty()
            || !self.fingerprints.is_empty()
            || !self.statuses.is_empty() && !self.statuses.iter().any(finished);
        let named = [&self.projects, &self.queues, &self.task_types, &self.phases, &self.machines, &self.connectors];
        let narrowed = named.iter().any(|names| !names.is_empty())
            || !self.statuses.is_empty()
            || !self.workers.is_empty()
            || !self.labels.is_empty()
            || self.priority_min.or(self.priority_max).is_some();
        self.text.is_some() || narrowed && !led
    }
}
