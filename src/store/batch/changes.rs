//! Changes of tasks that someone asked for, with what follows from them at once.

use uuid::Uuid;

use super::{Batch, Dependencies, Name, Task, WriteError, transition};
use crate::model::transition::Refusal;

impl Batch<'_> {
    pub(super) fn change_each(
        &mut self,
        changes: &[(Uuid, transition::Command)],
        actor: Option<&str>,
    ) -> Vec<Result<Task, WriteError>> {
        let outcomes = changes.iter().map(|(id, change)| {
            if let Some(fence) = change.fence() {
                self.touch(fence.worker_id);
            }
            self.change(*id, change.clone(), actor)
        });
        outcomes.collect()
    }

    /// A change of a task that someone asked for; edits of dependencies, and running again, have consequences at once.
    pub(super) fn change(
        &mut self,
        id: Uuid,
        command: transition::Command,
        actor: Option<&str>,
    ) -> Result<Task, WriteError> {
        use transition::Command as C;
        let is_group = self.task(id).is_some_and(|task| task.close_when_done);
        match command {
            C::Edit(edit) if edit.depends_on.is_some() => {
                let depends_on = edit.depends_on.clone().unwrap_or_default();
                self.check_dependencies(id, &depends_on)?;
                self.decide(id, C::Edit(edit), actor)?;
                self.begins_to_wait(id, &depends_on);
                self.settle_dependencies(id)
            }
            C::Reopen if is_group => self.reopen(id, actor),
            C::Reopen => {
                let task = self.change(id, C::Retry, actor)?;
                if !task.status.is_finished() {
                    self.reopen_above(&task, actor);
                }
                Ok(task)
            }
            C::Retry => {
                let key = self.free_key(id)?;
                let waits = self.check_retry(id)? != Dependencies::Done;
                let task = self.decide(id, if waits { C::RetryBlocked } else { C::Retry }, actor)?;
                self.keys.extend(key.map(|key| (key, id)));
                if !waits {
                    return Ok(task);
                }
                self.begins_to_wait(id, &task.depends_on);
                self.settle_dependencies(id)
            }
            other => self.decide(id, other, actor),
        }
    }

    /// A group runs again with its children: with the first of them that does, see [`Self::reopen_above`]. With none that
    /// may there is nothing to do.
    fn reopen(&mut self, id: Uuid, actor: Option<&str>) -> Result<Task, WriteError> {
        let task = self.task(id).ok_or(WriteError::NoTask(id))?.clone();
        let sum = self.sum_of_children(id);
        let open = sum.total() - sum.finished();
        if task.status.is_finished() && sum.failed + sum.cancelled + open == 0 {
            let wanted = "run again: none of its children failed or was cancelled";
            return Err(Refusal::Illegal { status: task.status, wanted }.into());
        }
        if open == 0 || !task.status.is_finished() {
            return Ok(task);
        }
        let task = self.reopen_with(id, actor)?;
        self.reopen_above(&task, actor);
        Ok(task)
    }

    /// A child runs again, so the groups above it wait for it again.
    fn reopen_above(&mut self, child: &Task, actor: Option<&str>) {
        let mut above = child.parent_task_id;
        while let Some(group) = above.and_then(|id| self.task(id)).filter(|task| task.close_when_done) {
            let (id, is_over) = (group.id, group.status.is_finished());
            above = group.parent_task_id;
            // One whose unique key was taken meanwhile stays as it is.
            if is_over && self.reopen_with(id, actor).is_err() {
                return;
            }
        }
    }

    fn reopen_with(&mut self, id: Uuid, actor: Option<&str>) -> Result<Task, WriteError> {
        let key = self.free_key(id)?;
        self.decide(id, transition::Command::Reopen, actor)?;
        self.keys.extend(key.map(|key| (key, id)));
        let sum = self.sum_of_children(id);
        self.decide(id, transition::Command::Children(sum), None)
    }

    /// The unique key of a task that is to live again; refused while another live task has it.
    pub(super) fn free_key(&self, id: Uuid) -> Result<Option<(String, Name)>, WriteError> {
        let Some(task) = self.task(id) else { return Ok(None) };
        let Some(key) = task.unique_key.clone().map(|key| (key, task.project_id.clone())) else { return Ok(None) };
        let lives = |other: &Uuid| *other != id && self.task(*other).is_some_and(|task| !task.status.is_finished());
        if self.keys.get(&key).is_some_and(lives) { Err(WriteError::KeyTaken) } else { Ok(Some(key)) }
    }
}
