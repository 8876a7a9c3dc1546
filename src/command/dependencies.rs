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
