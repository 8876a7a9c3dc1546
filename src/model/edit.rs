//! Edits: what people change about a task without changing its state, with a diff of each field.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Name, Priority};

/// Field to `[old, new]`.
pub type Changes = BTreeMap<String, [Value; 2]>;

/// New values; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edit {
    /// One line for people.
    pub title: Option<Option<String>>,
    /// More for people.
    pub description: Option<Option<String>>,
    /// 0–9.
    pub priority: Option<Priority>,
    /// The line it stands in.
    pub queue: Option<Name>,
    /// Marks for people and filters, all of them.
    pub labels: Option<BTreeMap<Name, String>>,
    /// Who is responsible for it.
    pub assignee: Option<Option<String>>,
    /// Who else works on it.
    pub collaborators: Option<Vec<String>>,
    /// Who wants to know how it goes.
    pub watchers: Option<Vec<String>>,
    /// Tasks that must complete first.
    pub depends_on: Option<Vec<Uuid>>,
    /// Only when the task has one of these versions.
    pub only_if: Option<Vec<Uuid>>,
}

/// Which event tells of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditKind {
    /// Title, description, labels, queue, or what a report told.
    Facts,
    /// The priority.
    Priority,
    /// The assignee.
    Assignee,
    /// The collaborators.
    Collaborators,
    /// The watchers.
    Watchers,
    /// It waits for more tasks.
    DependencyAdded,
    /// It waits for fewer tasks.
    DependencyRemoved,
}

/// A change of one field; nothing when it stays as it is.
pub(super) fn change<T: PartialEq + serde::Serialize>(
    field: &str,
    old: &T,
    new: Option<&T>,
) -> Option<(String, [Value; 2])> {
    let new = new.filter(|new| *new != old)?;
    Some((field.to_owned(), [json!(old), json!(new)]))
}
