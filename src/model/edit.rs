//! Edits: changes to a task by people that leave its status unchanged, with the old and new value of each field.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Name, Priority};

/// Field name to `[old, new]`.
pub type Changes = BTreeMap<String, [Value; 2]>;

/// New values; absent fields stay unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edit {
    /// Title.
    pub title: Option<Option<String>>,
    /// Description.
    pub description: Option<Option<String>>,
    /// Priority, 0–9.
    pub priority: Option<Priority>,
    /// Queue name.
    pub queue: Option<Name>,
    /// The complete set of labels.
    pub labels: Option<BTreeMap<Name, String>>,
    /// Assignee.
    pub assignee: Option<Option<String>>,
    /// Collaborators.
    pub collaborators: Option<Vec<String>>,
    /// Watchers.
    pub watchers: Option<Vec<String>>,
    /// Tasks that must complete first.
    pub depends_on: Option<Vec<Uuid>>,
    /// Apply only if the task has one of these versions.
    pub only_if: Option<Vec<Uuid>>,
}

/// The event type of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditKind {
    /// Title, description, labels, queue, or details from a report.
    Facts,
    /// Priority.
    Priority,
    /// Assignee.
    Assignee,
    /// Collaborators.
    Collaborators,
    /// Watchers.
    Watchers,
    /// Dependencies were added.
    DependencyAdded,
    /// Dependencies were removed.
    DependencyRemoved,
}

/// The change of one field; `None` if it stays the same.
pub(super) fn change<T: PartialEq + serde::Serialize>(
    field: &str,
    old: &T,
    new: Option<&T>,
) -> Option<(String, [Value; 2])> {
    let new = new.filter(|new| *new != old)?;
    Some((field.to_owned(), [json!(old), json!(new)]))
}
