//! What tasks depend on.

use uuid::Uuid;

use super::{Refusal, Workspace};
use crate::model::{
    Status, Task,
    dependency::{Dependencies, DependencyPolicy},
    transition::Transition,
};

impl Workspace {
    /// Where dependencies stand; `absent` is how one counts that is not there.
    pub(super) fn dependencies(&self, policy: DependencyPolicy, ids: &[Uuid], absent: Option<Status>) -> Dependencies {
        let status = |id: Uuid| match self.tasks.get(&id) {
            None => absent,
            Some(entry) => entry.after.as_ref().map(|task| task.status),
        };
        Dependencies::sum(policy, ids.iter().map(|id| (*id, status(*id))))
    }

    /// Enqueues, ends or keeps a blocked task, by where its dependencies stand now.
    pub(super) fn resolve_dependencies(&mut self, id: Uuid) -> Result<Task, Refusal> {
        let task = self.task(id).ok_or(Refusal::NoTask(id))?.clone();
        if task.status != Status::Blocked {
            return Ok(task);
        }
        let sum = self.dependencies(task.on_dependency_failure, &task.depends_on, None);
        let task = self.decide(id, Transition::Depend(sum), None)?;
        if task.status == Status::Blocked {
            for awaited in &task.depends_on {
                if self.task(*awaited).is_some_and(|task| !task.has_dependents) {
                    self.decide(*awaited, Transition::GainDependent, None)?;
                }
            }
        }
        Ok(task)
    }

    /// New dependencies of a task exist and do not wait for it.
    pub(super) fn check_dependencies(&self, id: Uuid, depends_on: &[Uuid]) -> Result<(), Refusal> {
        if depends_on.contains(&id) {
            return Err(Refusal::Cycle(vec![id, id]));
        }
        if let Some(missing) = depends_on.iter().find(|id| self.task(**id).is_none()) {
            return Err(Refusal::NoDependency(*missing));
        }
        self.check_rewired(id, depends_on)
    }

    /// Where the dependencies of a task stand that is to run again.
    pub(super) fn check_retry(&self, id: Uuid) -> Result<Dependencies, Refusal> {
        let Some(task) = self.task(id).filter(|task| task.status.is_finished()) else { return Ok(Dependencies::Done) };
        let sum = self.dependencies(task.on_dependency_failure, &task.depends_on, None);
        if sum != Dependencies::Done {
            self.check_rewired(id, &task.depends_on)?;
        }
        Ok(sum)
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
        model::{edit::Edit, task::NewTask},
    };

    fn complete(rows: &mut Rows, number: u128) {
        assert_eq!(rows.claim(100, 1).tasks[0].id, id(number));
        let fence = rows.fence(number);
        rows.change(number, Transition::Complete { fence, result: None }).unwrap();
    }

    #[test]
    fn a_task_is_blocked_until_all_dependencies_completed() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1), new_task(2), after(3, &[1, 2])]);
        assert_eq!(rows.status(3), Status::Blocked);
        assert!(rows.tasks[&id(1)].has_dependents);
        complete(&mut rows, 1);
        rows.reevaluate_all();
        assert_eq!(rows.status(3), Status::Blocked);
        complete(&mut rows, 2);
        rows.reevaluate_all();
        assert_eq!(rows.status(3), Status::Pending);
    }

    #[test]
    fn what_becomes_of_it_when_a_dependency_does_not_complete() {
        for (policy, status) in [
            (DependencyPolicy::Cancel, Status::Cancelled),
            (DependencyPolicy::Fail, Status::Failed),
            (DependencyPolicy::Ignore, Status::Pending),
        ] {
            let mut rows = Rows::new();
            rows.create([new_task(1), NewTask { on_dependency_failure: policy, ..after(2, &[1]) }]);
            rows.change(1, Transition::Cancel { reason: None }).unwrap();
            rows.reevaluate_all();
            assert_eq!(rows.status(2), status, "{policy:?}");
        }
    }

    #[test]
    fn a_retry_waits_for_its_dependencies_again() {
        let mut rows = Rows::new();
        rows.create([new_task(1), after(2, &[1])]);
        for number in [2, 1] {
            rows.change(number, Transition::Cancel { reason: None }).unwrap();
        }
        rows.change(1, Transition::Retry).unwrap();
        rows.change(2, Transition::Retry).unwrap();
        assert_eq!((rows.status(1), rows.status(2)), (Status::Pending, Status::Blocked));
    }

    #[test]
    fn an_edit_that_depends_on_nothing_enqueues() {
        let mut rows = Rows::new();
        rows.create([new_task(1), after(2, &[1])]);
        let edit = Edit { depends_on: Some(Vec::new()), ..Edit::default() };
        rows.change(2, Transition::Edit(Box::new(edit))).unwrap();
        assert_eq!(rows.status(2), Status::Pending);
    }

    #[test]
    fn a_task_cannot_depend_on_itself() {
        let mut rows = Rows::new();
        let refused = rows.run(&CreateTasks(vec![after(1, &[1])])).unwrap_err();
        assert!(matches!(refused, Refusal::Cycle(_)), "{refused:?}");
    }

    #[test]
    fn a_dependency_that_is_not_there_is_named() {
        let mut rows = Rows::new();
        let refused = rows.run(&CreateTasks(vec![after(2, &[9])])).unwrap_err();
        assert_eq!(refused, Refusal::NoDependency(id(9)));
        rows.create([new_task(1), after(2, &[1])]);
        let edit = |depends_on: &[u128]| {
            let depends_on = Some(depends_on.iter().copied().map(id).collect());
            Transition::Edit(Box::new(Edit { depends_on, ..Edit::default() }))
        };
        assert_eq!(rows.change(2, edit(&[1, 9])).unwrap_err(), Refusal::NoDependency(id(9)));
        assert_eq!(rows.change(2, edit(&[1, 2])).unwrap_err(), Refusal::Cycle(vec![id(2), id(2)]));
        assert_eq!(rows.tasks[&id(2)].depends_on, [id(1)], "nothing was changed");
    }

    #[test]
    fn a_task_that_depends_on_finished_tasks_only_does_not_wait() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        complete(&mut rows, 1);
        rows.create([after(2, &[1])]);
        assert_eq!(rows.status(2), Status::Pending);
        assert!(!rows.tasks[&id(1)].has_dependents, "nothing has to be told when it changes");
    }

    #[test]
    fn a_task_that_depends_on_a_failure_fails_at_once() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        rows.change(1, Transition::Cancel { reason: None }).unwrap();
        rows.create([after(2, &[1])]);
        let task = &rows.tasks[&id(2)];
        assert_eq!((task.status, task.attempt), (Status::Failed, 0));
        assert!(task.error.as_ref().unwrap().contains("was cancelled"));
    }

    #[test]
    fn a_failure_passes_through_a_chain() {
        let mut rows = Rows::new();
        rows.create([new_task(1), after(2, &[1]), after(3, &[2]), after(4, &[3])]);
        rows.change(1, Transition::Cancel { reason: None }).unwrap();
        rows.reevaluate_all();
        assert_eq!([2, 3, 4].map(|number| rows.status(number)), [Status::Failed; 3]);
    }

    #[test]
    fn a_deleted_dependency_breaks_those_that_wait_for_it() {
        let mut rows = Rows::new();
        rows.create([new_task(1), after(2, &[1])]);
        rows.change(1, Transition::Delete).unwrap();
        rows.reevaluate_all();
        assert_eq!(rows.status(2), Status::Failed);
        assert!(rows.tasks[&id(2)].error.as_ref().unwrap().ends_with("was deleted"));
    }
}
