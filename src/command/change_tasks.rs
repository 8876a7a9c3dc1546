//! Changes of tasks, one by one: reports of workers, edits, cancel, retry, delete, and what time does to tasks.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace};
use crate::model::{
    Name, Task,
    bulk::Bulk,
    dependency::Dependencies,
    transition::{Transition, TransitionError},
};

/// Changes tasks one by one; each has its own outcome, in order.
#[derive(Debug, Clone)]
pub struct ChangeTasks {
    /// The tasks, and how each is changed.
    pub changes: Vec<(Uuid, Transition)>,
    /// Who asked; `None` for workers and for taskwatch itself.
    pub actor: Option<String>,
    /// Created with it if any of the changes was made: the same action on the tasks below, in the background.
    pub family: Option<Box<Bulk>>,
}

impl ChangeTasks {
    /// Changes without an actor.
    #[must_use]
    pub const fn new(changes: Vec<(Uuid, Transition)>) -> Self {
        Self { changes, actor: None, family: None }
    }
}

impl Command for ChangeTasks {
    type Answer = Vec<Result<Task, Refusal>>;

    fn locks(&self, locks: &mut LockSet) {
        self.changes.iter().for_each(|(id, transition)| locks.transition(*id, transition));
    }

    fn weight(&self) -> usize {
        self.changes.iter().map(|(_, transition)| 1 + transition.pages()).sum()
    }

    fn dependency_roots(&self, workspace: &Workspace) -> Vec<Uuid> {
        let rewired = self.changes.iter().filter(|(id, transition)| match transition {
            Transition::Edit(edit) => edit.depends_on.is_some(),
            Transition::Retry | Transition::Reopen => workspace.has_dependencies(*id),
            _ => false,
        });
        rewired.map(|(id, _)| *id).collect()
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<Self::Answer, Refusal> {
        let changes = self.changes.iter().map(|(id, transition)| {
            if let Some(fence) = transition.fence() {
                workspace.touch(fence.worker_id);
            }
            workspace.change(*id, transition.clone(), self.actor.as_deref())
        });
        let outcomes: Vec<_> = changes.collect();
        if let Some(family) = &self.family
            && outcomes.iter().any(Result::is_ok)
        {
            workspace.create_bulk(family);
        }
        Ok(outcomes)
    }
}

impl Workspace {
    /// A task depends on others.
    pub(super) fn has_dependencies(&self, id: Uuid) -> bool {
        self.task(id).is_some_and(|task| !task.depends_on.is_empty())
    }

    /// A change of a task that someone asked for; edits of dependencies, and running again, have consequences at once.
    pub(super) fn change(&mut self, id: Uuid, transition: Transition, actor: Option<&str>) -> Result<Task, Refusal> {
        use Transition as T;
        let is_group = self.task(id).is_some_and(|task| task.auto_complete);
        match transition {
            T::Edit(edit) if edit.depends_on.is_some() => {
                let depends_on = edit.depends_on.clone().unwrap_or_default();
                self.check_dependencies(id, &depends_on)?;
                self.decide(id, T::Edit(edit), actor)?;
                self.begins_to_wait(id, &depends_on);
                self.resolve_dependencies(id)
            }
            T::Reopen if is_group => self.reopen(id, actor),
            T::Reopen => {
                let task = self.change(id, T::Retry, actor)?;
                if !task.status.is_finished() {
                    self.reopen_above(&task, actor);
                }
                Ok(task)
            }
            T::Retry => {
                let key = self.free_key(id)?;
                let waits = self.check_retry(id)? != Dependencies::Done;
                let task = self.decide(id, if waits { T::RetryBlocked } else { T::Retry }, actor)?;
                self.keys.extend(key.map(|key| (key, id)));
                if !waits {
                    return Ok(task);
                }
                self.begins_to_wait(id, &task.depends_on);
                self.resolve_dependencies(id)
            }
            other => self.decide(id, other, actor),
        }
    }

    /// A parent that follows its children runs again with the first child that does, see [`Self::reopen_above`]. When no
    /// child may run again there is nothing to do.
    fn reopen(&mut self, id: Uuid, actor: Option<&str>) -> Result<Task, Refusal> {
        let task = self.task(id).ok_or(Refusal::NoTask(id))?.clone();
        let sum = self.sum_of_children(id);
        let open = sum.total() - sum.finished();
        if task.status.is_finished() && sum.failed + sum.cancelled + open == 0 {
            let wanted = "run again: none of its children failed or was cancelled";
            return Err(TransitionError::Illegal { status: task.status, wanted }.into());
        }
        if open == 0 || !task.status.is_finished() {
            return Ok(task);
        }
        let task = self.reopen_with(id, actor)?;
        self.reopen_above(&task, actor);
        Ok(task)
    }

    /// A child runs again, so the parents above it that follow their children are open again.
    fn reopen_above(&mut self, child: &Task, actor: Option<&str>) {
        let mut above = child.parent_task_id;
        while let Some(group) = above.and_then(|id| self.task(id)).filter(|task| task.auto_complete) {
            let (id, is_over) = (group.id, group.status.is_finished());
            above = group.parent_task_id;
            // One whose unique key was taken meanwhile stays as it is.
            if is_over && self.reopen_with(id, actor).is_err() {
                return;
            }
        }
    }

    fn reopen_with(&mut self, id: Uuid, actor: Option<&str>) -> Result<Task, Refusal> {
        let key = self.free_key(id)?;
        self.decide(id, Transition::Reopen, actor)?;
        self.keys.extend(key.map(|key| (key, id)));
        let sum = self.sum_of_children(id);
        self.decide(id, Transition::Children(sum), None)
    }

    /// The unique key of a finished task that is to run again; refused while another unfinished task has it.
    pub(super) fn free_key(&self, id: Uuid) -> Result<Option<(String, Name)>, Refusal> {
        let Some(task) = self.task(id) else { return Ok(None) };
        let Some(key) = task.unique_key.clone().map(|key| (key, task.project_id.clone())) else { return Ok(None) };
        let unfinished =
            |other: &Uuid| *other != id && self.task(*other).is_some_and(|task| !task.status.is_finished());
        if self.keys.get(&key).is_some_and(unfinished) { Err(Refusal::KeyTaken) } else { Ok(Some(key)) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{command::rows::after, model::edit::Edit};
    use crate::{
        command::rows::{Rows, id, new_task},
        model::{Status, task::NewTask},
    };

    fn parent(number: u128) -> NewTask {
        NewTask { auto_complete: true, ..new_task(number) }
    }

    fn below(number: u128, parent: u128) -> NewTask {
        NewTask { parent_task_id: Some(id(parent)), ..new_task(number) }
    }

    const CANCEL: Transition = Transition::Cancel { reason: None };

    #[test]
    fn each_change_has_its_own_outcome() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let changes = vec![(id(9), CANCEL), (id(1), CANCEL), (id(1), CANCEL)];
        let outcomes = rows.run(&ChangeTasks::new(changes)).unwrap();
        assert_eq!(outcomes[0].clone().unwrap_err(), Refusal::NoTask(id(9)));
        assert_eq!(outcomes[1].as_ref().unwrap().status, Status::Cancelled);
        assert!(matches!(outcomes[2], Ok(_) | Err(Refusal::Transition(_))));
        assert_eq!(rows.kinds(), ["task_cancelled"]);
    }

    #[test]
    fn a_report_of_a_lost_attempt_is_fenced_off() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([NewTask { max_attempts: 2, ..new_task(1) }]);
        rows.claim(100, 1);
        let fence = rows.fence(1);
        rows.change(1, Transition::Release { fence }).unwrap();
        rows.claim(100, 1);
        let refused = rows.change(1, Transition::Complete { fence, result: None }).unwrap_err();
        assert!(matches!(refused, Refusal::Transition(TransitionError::Fenced { .. })), "{refused:?}");
        assert_eq!(rows.status(1), Status::Running);
    }

    #[test]
    fn a_repeated_report_changes_nothing() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.claim(100, 1);
        let fence = rows.fence(1);
        rows.change(1, Transition::Complete { fence, result: None }).unwrap();
        rows.change(1, Transition::Complete { fence, result: None }).unwrap();
        assert!(rows.events.is_empty());
    }

    #[test]
    fn a_report_shows_that_the_worker_is_alive() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([new_task(1)]);
        rows.claim(100, 1);
        rows.passes(20);
        let fence = rows.fence(1);
        rows.change(1, Transition::Complete { fence, result: None }).unwrap();
        assert_eq!(rows.workers[&id(100)].last_seen_at, rows.now);
    }

    #[test]
    fn a_retry_needs_its_unique_key_to_be_free() {
        let keyed = |number| NewTask { unique_key: Some("k".to_owned()), ..new_task(number) };
        let mut rows = Rows::new();
        rows.create([keyed(1)]);
        rows.change(1, CANCEL).unwrap();
        rows.create([keyed(2)]);
        assert_eq!(rows.change(1, Transition::Retry).unwrap_err(), Refusal::KeyTaken);
        rows.change(2, CANCEL).unwrap();
        rows.change(1, Transition::Retry).unwrap();
        assert_eq!(rows.status(1), Status::Pending);
    }

    #[test]
    fn a_child_that_runs_again_reopens_the_parents_above_it() {
        let mut rows = Rows::new();
        rows.create([parent(1)]);
        rows.create([NewTask { auto_complete: true, ..below(2, 1) }]);
        rows.create([below(3, 2)]);
        rows.change(3, CANCEL).unwrap();
        rows.reevaluate_all();
        assert!(rows.status(1).is_finished() && rows.status(2).is_finished());
        rows.change(3, Transition::Reopen).unwrap();
        assert_eq!([1, 2, 3].map(|number| rows.status(number).is_finished()), [false; 3]);
    }

    #[test]
    fn a_parent_without_failed_children_has_nothing_to_run_again() {
        let mut rows = Rows::new();
        rows.register(100);
        rows.create([parent(1)]);
        rows.create([below(2, 1)]);
        rows.claim(100, 1);
        let fence = rows.fence(2);
        rows.change(2, Transition::Complete { fence, result: None }).unwrap();
        rows.reevaluate_all();
        assert_eq!(rows.status(1), Status::Completed);
        let refused = rows.change(1, Transition::Reopen).unwrap_err();
        assert!(matches!(refused, Refusal::Transition(TransitionError::Illegal { .. })), "{refused:?}");
    }

    #[test]
    fn the_family_is_created_only_if_something_was_changed() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let family = |now| {
            let action = crate::model::bulk::BulkAction::Cancel { reason: None };
            Some(Box::new(Bulk::of_family(id(50), &action, vec![id(1)], "ops".to_owned(), now)))
        };
        let change = |number, now| ChangeTasks {
            changes: vec![(id(number), CANCEL)],
            actor: Some("ops".to_owned()),
            family: family(now),
        };
        rows.run(&change(9, rows.now)).unwrap();
        assert!(rows.bulks.is_empty());
        rows.run(&change(1, rows.now)).unwrap();
        assert_eq!(rows.kinds(), ["task_cancelled", "operator_action"]);
        assert!(rows.bulks.contains_key(&id(50)));
    }

    #[test]
    fn reports_weigh_by_their_results() {
        let fence = crate::model::report::Fence { worker_id: id(100), attempt: 1 };
        let result = serde_json::from_str(&format!("\"{}\"", "x".repeat(5_000))).ok();
        let changes = vec![(id(1), Transition::Complete { fence, result }), (id(2), Transition::Release { fence })];
        assert_eq!(ChangeTasks::new(changes).weight(), 3);
    }

    #[test]
    fn a_deleted_task_cannot_be_changed_any_more() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        rows.change(1, Transition::Delete).unwrap();
        assert_eq!(rows.kinds(), ["task_deleted"]);
        for transition in [CANCEL, Transition::Retry, Transition::Delete, Transition::Reopen, Transition::Due] {
            assert_eq!(rows.change(1, transition).unwrap_err(), Refusal::NoTask(id(1)));
        }
    }

    #[test]
    fn changes_of_one_request_see_each_other() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let changes = vec![(id(1), CANCEL), (id(1), Transition::Retry), (id(1), Transition::Delete), (id(1), CANCEL)];
        let outcomes = rows.run(&ChangeTasks::new(changes)).unwrap();
        let statuses: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().ok().map(|task| task.status)).collect();
        assert_eq!(statuses, [Some(Status::Cancelled), Some(Status::Pending), Some(Status::Pending), None]);
        assert_eq!(rows.kinds(), ["task_cancelled", "task_enqueued", "task_deleted"]);
    }

    #[test]
    fn two_tasks_of_one_key_cannot_be_retried_together() {
        let keyed = |number| NewTask { unique_key: Some("k".to_owned()), ..new_task(number) };
        let mut rows = Rows::new();
        for number in [1, 2] {
            rows.create([keyed(number)]);
            rows.change(number, CANCEL).unwrap();
        }
        let both = ChangeTasks::new(vec![(id(1), Transition::Retry), (id(2), Transition::Retry)]);
        let outcomes = rows.run(&both).unwrap();
        assert!(outcomes[0].is_ok());
        assert_eq!(outcomes[1].clone().unwrap_err(), Refusal::KeyTaken);
    }

    #[test]
    fn a_parent_whose_key_was_taken_stays_closed_while_its_child_runs_again() {
        let mut rows = Rows::new();
        let keyed = |task: NewTask| NewTask { unique_key: Some("k".to_owned()), ..task };
        rows.create([keyed(parent(1))]);
        rows.create([below(2, 1)]);
        rows.change(2, CANCEL).unwrap();
        rows.reevaluate_all();
        rows.create([keyed(new_task(3))]);
        rows.change(2, Transition::Reopen).unwrap();
        assert_eq!((rows.status(1), rows.status(2)), (Status::Cancelled, Status::Pending));
        rows.reevaluate_all();
        assert_eq!(rows.status(1), Status::Cancelled);
    }

    #[test]
    fn who_asked_is_named_in_the_event() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let command = ChangeTasks { actor: Some("ann".to_owned()), ..ChangeTasks::new(vec![(id(1), CANCEL)]) };
        rows.run(&command).unwrap();
        assert_eq!(rows.events[0].actor.as_deref(), Some("ann"));
        rows.change(1, Transition::Retry).unwrap();
        assert_eq!(rows.events[0].actor, None);
    }

    #[test]
    fn only_what_may_depend_on_others_looks_for_cycles() {
        let mut rows = Rows::new();
        rows.create([new_task(1), after(2, &[1])]);
        rows.change(2, CANCEL).unwrap();
        let mut workspace = Workspace::new(crate::command::rows::POLICY, rows.now);
        workspace.load_tasks(rows.tasks.values().cloned());
        let roots = |transition: Transition| {
            let both = vec![(id(1), transition.clone()), (id(2), transition)];
            ChangeTasks::new(both).dependency_roots(&workspace)
        };
        assert_eq!(roots(Transition::Retry), [id(2)]);
        assert_eq!(roots(CANCEL), Vec::<Uuid>::new());
        assert_eq!(roots(Transition::Edit(Box::default())), Vec::<Uuid>::new());
        let rewired = Edit { depends_on: Some(Vec::new()), ..Edit::default() };
        assert_eq!(roots(Transition::Edit(Box::new(rewired))), [id(1), id(2)]);
    }
}
