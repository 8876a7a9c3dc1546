//! Cycles: tasks that would wait for each other forever. A task waits for its dependencies; a parent that follows its
//! children waits for them, also when it has finished: a child that runs again reopens it.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Refusal, Workspace};
use crate::model::{Status, dependency, task::NewTask};

/// Edges that a command is about to add, and the task whose dependencies they replace.
#[derive(Default)]
struct Added<'a> {
    waiters: HashMap<Uuid, Vec<Uuid>>,
    parents: HashMap<Uuid, &'a NewTask>,
    groups: HashSet<Uuid>,
    instead_of: Option<Uuid>,
}

impl Workspace {
    /// New tasks do not close a cycle.
    pub(super) fn check_new_cycles(&self, new: &[NewTask]) -> Result<(), Refusal> {
        let starts: Vec<_> = new.iter().filter(|task| !task.depends_on.is_empty()).map(|task| task.id).collect();
        if starts.is_empty() {
            return Ok(());
        }
        let mut added = Added {
            groups: new.iter().filter(|task| task.auto_complete).map(|task| task.id).collect(),
            parents: new.iter().map(|task| (task.id, task)).collect(),
            ..Added::default()
        };
        for task in new {
            for awaited in &task.depends_on {
                added.waiters.entry(*awaited).or_default().push(task.id);
            }
        }
        let parents = new.iter().filter_map(|task| task.parent_task_id);
        self.check_cycle(&starts, parents.chain(starts.iter().copied()), &added)
    }

    /// A task may wait for these instead of what it waited for.
    pub(super) fn check_rewired(&self, id: Uuid, depends_on: &[Uuid]) -> Result<(), Refusal> {
        let waiters = depends_on.iter().map(|awaited| (*awaited, vec![id])).collect();
        let added = Added { waiters, instead_of: Some(id), ..Added::default() };
        self.check_cycle(&[id], [id].into_iter(), &added)
    }

    fn check_cycle(
        &self,
        starts: &[Uuid],
        mut seeds: impl Iterator<Item = Uuid> + Clone,
        added: &Added<'_>,
    ) -> Result<(), Refusal> {
        if let Some(mut cycle) = dependency::cycle(starts, |id| self.waiters_of(id, added)) {
            // It was walked from the dependency to its dependents; people read it the other way.
            cycle.reverse();
            return Err(Refusal::Cycle(cycle));
        }
        match seeds.find(|id| self.waiters.endless.contains(id)) {
            Some(id) => Err(Refusal::TooDeep(id)),
            None => Ok(()),
        }
    }

    /// The tasks that wait for a task now.
    fn waiters_of(&self, id: Uuid, added: &Added<'_>) -> Vec<Uuid> {
        let stored = self.waiters.stored.get(&id).into_iter().chain(self.waiters.fresh.get(&id)).flatten();
        let known = stored.filter(|waiter| added.instead_of != Some(**waiter) && self.still_waits(**waiter, id));
        let parent = match added.parents.get(&id) {
            Some(new) => new.parent_task_id,
            None => self.task(id).and_then(|task| task.parent_task_id),
        };
        let is_group = |parent: &Uuid| {
            added.groups.contains(parent)
                || self.task(*parent).is_some_and(|task| task.auto_complete && task.status != Status::Cancelled)
        };
        known.chain(added.waiters.get(&id).into_iter().flatten()).copied().chain(parent.filter(is_group)).collect()
    }

    /// A task still waits for another.
    fn still_waits(&self, waiter: Uuid, awaited: Uuid) -> bool {
        let Some(entry) = self.tasks.get(&waiter) else { return true };
        entry.after.as_ref().is_some_and(|task| match task.auto_complete {
            true => task.status != Status::Cancelled,
            false => task.status == Status::Blocked && task.depends_on.contains(&awaited),
        })
    }

    /// Records that a task waits for these from now on.
    pub(super) fn begins_to_wait(&mut self, id: Uuid, depends_on: &[Uuid]) {
        for awaited in depends_on {
            self.waiters.fresh.entry(*awaited).or_default().push(id);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        command::{
            create_tasks::CreateTasks,
            rows::{Rows, after, id, new_task},
        },
        model::{edit::Edit, transition::Transition},
    };
    use proptest::prelude::*;

    fn depend(rows: &mut Rows, number: u128, depends_on: &[u128]) -> Result<crate::model::Task, Refusal> {
        let depends_on = Some(depends_on.iter().copied().map(id).collect());
        rows.change(number, Transition::Edit(Box::new(Edit { depends_on, ..Edit::default() })))
    }

    #[test]
    fn new_tasks_may_not_depend_on_each_other() {
        let mut rows = Rows::new();
        let refused = rows.run(&CreateTasks(vec![after(1, &[2]), after(2, &[3]), after(3, &[1])])).unwrap_err();
        let Refusal::Cycle(cycle) = refused else { panic!("{refused:?}") };
        assert_eq!((cycle.first(), cycle.len()), (cycle.last(), 4));
    }

    #[test]
    fn an_edit_may_not_close_a_cycle() {
        let mut rows = Rows::new();
        rows.create([new_task(1), new_task(2), after(3, &[2]), after(4, &[3])]);
        depend(&mut rows, 3, &[2, 1]).unwrap();
        rows.create([after(5, &[4])]);
        let refused = depend(&mut rows, 3, &[5]).unwrap_err();
        assert_eq!(refused, Refusal::Cycle(vec![id(3), id(5), id(4), id(3)]));
        // Instead of what it waited for, it may wait for anything that does not wait for it.
        depend(&mut rows, 3, &[1]).unwrap();
    }

    #[test]
    fn a_parent_waits_for_its_children() {
        let parent = NewTask { auto_complete: true, ..new_task(1) };
        let child = NewTask { parent_task_id: Some(id(1)), depends_on: vec![id(1)], ..new_task(2) };
        let mut rows = Rows::new();
        let refused = rows.run(&CreateTasks(vec![parent.clone(), child.clone()])).unwrap_err();
        assert!(matches!(refused, Refusal::Cycle(_)), "{refused:?}");
        rows.create([parent]);
        let refused = rows.run(&CreateTasks(vec![child])).unwrap_err();
        assert!(matches!(refused, Refusal::Cycle(_)), "{refused:?}");
    }

    #[test]
    fn too_many_waiters_are_refused_and_not_followed() {
        let mut waiters = crate::command::relations::Waiters::default();
        waiters.load_endless(&[id(1)]);
        let mut workspace = Workspace::new(crate::command::rows::POLICY, Rows::new().now);
        workspace.waiters = waiters;
        assert_eq!(workspace.check_rewired(id(1), &[id(2)]).unwrap_err(), Refusal::TooDeep(id(1)));
        workspace.check_rewired(id(3), &[id(2)]).unwrap();
    }

    fn reaches(graph: &HashMap<u128, Vec<u128>>, from: u128, to: u128) -> bool {
        from == to || graph.get(&from).into_iter().flatten().any(|next| reaches(graph, *next, to))
    }

    #[test]
    fn a_cycle_through_two_parents_is_found() {
        let parent = |number: u128| NewTask { auto_complete: true, ..new_task(number) };
        let below = |number: u128, parent: u128, depends_on: &[u128]| NewTask {
            parent_task_id: Some(id(parent)),
            ..after(number, depends_on)
        };
        let mut rows = Rows::new();
        rows.create([parent(1), parent(2), below(3, 1, &[2])]);
        let refused = rows.run(&CreateTasks(vec![below(4, 2, &[1])])).unwrap_err();
        assert!(matches!(refused, Refusal::Cycle(_)), "{refused:?}");
        rows.create([below(4, 2, &[])]);
    }

    #[test]
    fn a_finished_task_waits_for_nothing() {
        let mut rows = Rows::new();
        let ignores = crate::model::dependency::DependencyPolicy::Ignore;
        let second = NewTask { on_dependency_failure: ignores, ..after(2, &[1]) };
        rows.create([new_task(1), second, after(3, &[1])]);
        depend(&mut rows, 3, &[1, 2]).unwrap();
        let wait = Edit { depends_on: Some(vec![id(1), id(3)]), ..Edit::default() };
        let both = vec![(id(3), Transition::Cancel { reason: None }), (id(2), Transition::Edit(Box::new(wait)))];
        let outcomes = rows.run(&crate::command::change_tasks::ChangeTasks::new(both)).unwrap();
        assert!(outcomes.iter().all(Result::is_ok), "also within one request: {outcomes:?}");
        let refused = rows.change(3, Transition::Retry);
        assert_eq!(rows.status(2), Status::Blocked);
        assert!(
            matches!(refused, Err(Refusal::Cycle(_))),
            "it would wait for 2 again, which waits for it: {refused:?}"
        );
    }

    #[test]
    fn a_cycle_that_exists_may_be_broken() {
        let mut rows = Rows::new();
        rows.create([new_task(1), after(2, &[1]), after(3, &[2])]);
        rows.tasks.get_mut(&id(2)).unwrap().depends_on = vec![id(3)];
        assert!(matches!(depend(&mut rows, 2, &[1, 3]), Err(Refusal::Cycle(_))));
        depend(&mut rows, 2, &[1]).unwrap();
    }

    #[test]
    fn a_cycle_is_said_in_the_order_in_which_tasks_wait() {
        let text = Refusal::Cycle(vec![id(3), id(5), id(3)]).to_string();
        assert_eq!(text, format!("dependency cycle: {} -> {} -> {}", id(3), id(5), id(3)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// Whatever is rewired: it is refused if and only if a task would wait for itself.
        #[test]
        fn dependencies_stay_without_cycles(
            edits in proptest::collection::vec((1_u128..7, proptest::collection::btree_set(1_u128..7, 0..4)), 1..20),
        ) {
            let mut rows = Rows::new();
            // All wait for task 100, so that they stay blocked.
            rows.create([new_task(100)]);
            rows.create((1..7).map(|number| after(number, &[100])));
            let mut graph: HashMap<u128, Vec<u128>> = HashMap::new();
            for (number, on) in edits {
                let on: Vec<_> = on.into_iter().collect();
                let closes = on.iter().any(|awaited| reaches(&graph, *awaited, number));
                let done = depend(&mut rows, number, &[&[100], &on[..]].concat());
                prop_assert_eq!(matches!(done, Err(Refusal::Cycle(_))), closes, "{:?}", done);
                if done.is_ok() {
                    graph.insert(number, on);
                }
            }
        }
    }
}
