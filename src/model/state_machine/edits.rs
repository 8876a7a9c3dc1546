//! Edits: changes by people that leave the status unchanged, with the old and new value of each field.

use uuid::Uuid;

use crate::model::{
    Status, Task,
    edit::{Changes, Edit, EditKind, change},
    step::{Decision, Step, TaskEvent},
    transition::TransitionError,
};

/// The edited task and the steps so far.
struct Chain {
    task: Task,
    steps: Vec<Step>,
}

impl Chain {
    /// Adds a step if something changed.
    fn step(&mut self, kind: EditKind, changes: Changes, change: impl FnOnce(&mut Task)) {
        if changes.is_empty() {
            return;
        }
        let (after, steps) = self.task.step(TaskEvent::Edited { kind, changes }, change);
        self.task = after;
        self.steps.extend(steps);
    }
}

impl Task {
    /// Applies an edit. A running task stays in its queue, and only a blocked task may get other dependencies.
    pub(super) fn edit(&self, edit: Edit) -> Decision {
        if edit.only_if.as_ref().is_some_and(|versions| !versions.contains(&self.version())) {
            return Err(TransitionError::Changed);
        }
        if edit.queue.as_ref().is_some_and(|queue| *queue != self.queue) && self.status == Status::Running {
            return Err(TransitionError::Illegal { status: self.status, wanted: "moved to another queue" });
        }
        if edit.depends_on.as_ref().is_some_and(|ids| *ids != self.depends_on) && self.status != Status::Blocked {
            return Err(TransitionError::Illegal { status: self.status, wanted: "made dependent on other tasks" });
        }
        if edit.depends_on.is_some() && self.auto_complete {
            return Err(TransitionError::Group { wanted: "made dependent on other tasks" });
        }
        let mut chain = Chain { task: self.clone(), steps: Vec::new() };
        let facts = [
            change("title", &self.title, edit.title.as_ref()),
            change("description", &self.description, edit.description.as_ref()),
            change("labels", &self.labels, edit.labels.as_ref()),
        ];
        let lines = change("queue", &self.queue, edit.queue.as_ref());
        let Edit { title, description, labels, queue, priority, assignee, collaborators, watchers, depends_on, .. } =
            edit;
        let priorities = change("priority", &self.priority, priority.as_ref());
        let assignees = change("assignee", &self.assignee, assignee.as_ref());
        let others = change("collaborators", &self.collaborators, collaborators.as_ref());
        let watching = change("watchers", &self.watchers, watchers.as_ref());
        // Fields used for counting are in a separate event from long texts, so that they are never truncated.
        chain.step(EditKind::Facts, lines.into_iter().collect(), |task| {
            task.queue = queue.unwrap_or_else(|| task.queue.clone());
        });
        chain.step(EditKind::Facts, facts.into_iter().flatten().collect(), |task| {
            task.title = title.unwrap_or_else(|| task.title.take());
            task.description = description.unwrap_or_else(|| task.description.take());
            task.labels = labels.unwrap_or_else(|| std::mem::take(&mut task.labels));
        });
        chain.step(EditKind::Priority, priorities.into_iter().collect(), |task| {
            task.priority = priority.unwrap_or(task.priority);
        });
        chain.step(EditKind::Assignee, assignees.into_iter().collect(), |task| {
            task.assignee = assignee.unwrap_or_default();
        });
        chain.step(EditKind::Collaborators, others.into_iter().collect(), |task| {
            task.collaborators = collaborators.unwrap_or_default();
        });
        chain.step(EditKind::Watchers, watching.into_iter().collect(), |task| {
            task.watchers = watchers.unwrap_or_default();
        });
        if let Some(depends_on) = depends_on {
            chain.depend_on(depends_on);
        }
        Ok((chain.task, chain.steps))
    }
}

impl Chain {
    /// Additions and removals are separate steps.
    fn depend_on(&mut self, wanted: Vec<Uuid>) {
        let old = self.task.depends_on.clone();
        let kept: Vec<_> = old.iter().filter(|id| wanted.contains(id)).copied().collect();
        let removed = change("depends_on", &old, Some(&kept));
        self.step(EditKind::DependencyRemoved, removed.into_iter().collect(), |task| task.depends_on.clone_from(&kept));
        let added =
            if wanted.iter().all(|id| kept.contains(id)) { None } else { change("depends_on", &kept, Some(&wanted)) };
        self.step(EditKind::DependencyAdded, added.into_iter().collect(), |task| task.depends_on = wanted);
    }
}
