//! Changes of tasks that someone asked for, with what follows from them at once.

use uuid::Uuid;

use super::{Batch, Dependencies, Name, Task, WriteError, transition};

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
            C::Retry | C::Reopen => {
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

    /// The unique key of a task that is to live again; refused while another live task has it.
    pub(super) fn free_key(&self, id: Uuid) -> Result<Option<(String, Name)>, WriteError> {
        let Some(task) = self.task(id) else { return Ok(None) };
        let Some(key) = task.unique_key.clone().map(|key| (key, task.project_id.clone())) else { return Ok(None) };
        let lives = |other: &Uuid| *other != id && self.task(*other).is_some_and(|task| !task.status.is_finished());
        if self.keys.get(&key).is_some_and(lives) { Err(WriteError::KeyTaken) } else { Ok(Some(key)) }
    }
}
