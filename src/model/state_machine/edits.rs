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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::model::{
        Name, Priority,
        state_machine::tests::{at, finished, pending, running},
        transition::Transition,
    };

    fn ids(numbers: &[u128]) -> Vec<Uuid> {
        numbers.iter().copied().map(Uuid::from_u128).collect()
    }

    fn edit(task: &Task, edit: Edit) -> Result<(Task, Vec<(EditKind, Changes)>), TransitionError> {
        let (task, steps) = task.decide(Transition::Edit(Box::new(edit)), at(50))?;
        let edited = |step: Step| match step.event {
            TaskEvent::Edited { kind, changes } => (kind, changes),
            other => panic!("{other:?}"),
        };
        Ok((task, steps.into_iter().map(edited).collect()))
    }

    #[test]
    fn only_what_differs_is_told_with_the_old_and_the_new_value() {
        let known = Task { title: Some("old".to_owned()), assignee: Some("ann".to_owned()), ..pending() };
        let same = Edit { title: Some(known.title.clone()), priority: Some(known.priority), ..Edit::default() };
        assert_eq!(edit(&known, same).unwrap().1, []);
        let other = Edit { title: Some(Some("new".to_owned())), assignee: Some(None), ..Edit::default() };
        let (task, events) = edit(&known, other).unwrap();
        assert_eq!((task.title.as_deref(), task.assignee), (Some("new"), None));
        let change = |field: &str, old: Value, new: Value| Changes::from([(field.to_owned(), [old, new])]);
        assert_eq!(
            events,
            [
                (EditKind::Facts, change("title", json!("old"), json!("new"))),
                (EditKind::Assignee, change("assignee", json!("ann"), Value::Null)),
            ]
        );
    }

    #[test]
    fn the_queue_is_told_apart_from_texts_that_may_be_cut() {
        let move_it = Edit {
            queue: Some(Name::literal("slow")),
            description: Some(Some("long".repeat(2_000))),
            labels: Some([(Name::literal("team"), "a".to_owned())].into()),
            ..Edit::default()
        };
        let (task, events) = edit(&pending(), move_it).unwrap();
        assert_eq!(task.queue, Name::literal("slow"));
        let fields: Vec<Vec<_>> =
            events.iter().map(|(_, changes)| changes.keys().map(String::as_str).collect()).collect();
        assert_eq!(fields, [vec!["queue"], vec!["description", "labels"]]);
    }

    #[test]
    fn a_running_task_stays_in_its_queue() {
        let to = |queue| Edit { queue: Some(Name::literal(queue)), ..Edit::default() };
        let refused = edit(&running(), to("slow")).unwrap_err();
        assert_eq!(refused.to_string(), "a running task cannot be moved to another queue");
        assert_eq!(edit(&running(), to("q")).unwrap().1, [], "it is there already");
        assert!(edit(&finished(Status::Failed), to("slow")).is_ok());
    }

    #[test]
    fn only_a_blocked_task_may_wait_for_others() {
        let on = |numbers| Edit { depends_on: Some(ids(numbers)), ..Edit::default() };
        for status in Status::ALL {
            let task = Task { status, depends_on: ids(&[7]), ..pending() };
            assert_eq!(edit(&task, on(&[7, 8])).is_ok(), status == Status::Blocked, "{status}");
            assert_eq!(edit(&task, on(&[7])).unwrap().1, [], "{status}");
        }
        let parent = Task { auto_complete: true, status: Status::Blocked, ..pending() };
        assert!(matches!(edit(&parent, on(&[7])), Err(TransitionError::Group { .. })));
    }

    #[test]
    fn removed_and_added_dependencies_are_told_apart() {
        let task = Task { status: Status::Blocked, depends_on: ids(&[1, 2]), ..pending() };
        let to = |numbers| edit(&task, Edit { depends_on: Some(ids(numbers)), ..Edit::default() }).unwrap();
        let (after, events) = to(&[2, 3]);
        assert_eq!(after.depends_on, ids(&[2, 3]));
        let kinds: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [EditKind::DependencyRemoved, EditKind::DependencyAdded]);
        assert_eq!(events[0].1["depends_on"], [json!(ids(&[1, 2])), json!(ids(&[2]))]);
        assert_eq!(events[1].1["depends_on"], [json!(ids(&[2])), json!(ids(&[2, 3]))]);
        assert_eq!(to(&[]).1.len(), 1);
        assert_eq!(to(&[2, 1]).1, [], "another order is no change");
    }

    #[test]
    fn an_edit_of_another_version_is_refused() {
        let task = pending();
        let only_if = |versions| Edit { priority: Priority::new(9), only_if: Some(versions), ..Edit::default() };
        assert_eq!(edit(&task, only_if(vec![])).unwrap_err(), TransitionError::Changed);
        assert_eq!(edit(&task, only_if(vec![running().version()])).unwrap_err(), TransitionError::Changed);
        let (after, _) = edit(&task, only_if(vec![Uuid::nil(), task.version()])).unwrap();
        assert_eq!(after.priority.get(), 9);
        assert_eq!(edit(&after, only_if(vec![task.version()])).unwrap_err(), TransitionError::Changed);
    }

    proptest! {
        /// An edit that was made is no edit any more, and it changes nothing but what it names.
        #[test]
        fn an_edit_is_made_once(
            title in proptest::option::of(proptest::option::of("[ab]{0,2}")),
            priority in proptest::option::of(0_i64..10),
            collaborators in proptest::option::of(proptest::collection::vec("[ab]", 0..3)),
            watchers in proptest::option::of(proptest::collection::vec("[ab]", 0..3)),
        ) {
            let priority = priority.and_then(Priority::new);
            let wanted = Edit { title, priority, collaborators, watchers, ..Edit::default() };
            let before = Task { title: Some("a".to_owned()), watchers: vec!["b".to_owned()], ..pending() };
            let (after, _) = edit(&before, wanted.clone()).unwrap();
            prop_assert_eq!(edit(&after, wanted.clone()).unwrap().1, []);
            let right = Task {
                title: wanted.title.unwrap_or_else(|| before.title.clone()),
                priority: wanted.priority.unwrap_or(before.priority),
                collaborators: wanted.collaborators.unwrap_or_else(|| before.collaborators.clone()),
                watchers: wanted.watchers.unwrap_or_else(|| before.watchers.clone()),
                ..before
            };
            prop_assert_eq!(after, right);
        }
    }
}
