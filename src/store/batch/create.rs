//! Creating tasks, and what they depend on.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Answer, Batch, Dependencies, Outcome, Task, TaskEntry, WriteError, transition};
use crate::model::{Status, dependency::DependencyPolicy, task::NewTask};

impl Batch<'_> {
    /// Creates tasks, all or none. One that exists already, by its id or its unique key, is answered as it is.
    pub(super) fn create(&mut self, new: &[NewTask]) -> Outcome {
        self.check_ids(new)?;
        self.check_relations(new)?;
        let mut tasks = Vec::with_capacity(new.len());
        for task in new {
            let inherited = task.parent_task_id.and_then(|id| self.task(id)).map(|parent| parent.project_id.clone());
            let key = task.unique_key.clone().map(|key| (key, task.project(inherited.as_ref())));
            let same_key = key.as_ref().and_then(|key| self.keys.get(key)).copied();
            let live = |task: &&Task| !task.status.is_finished();
            if let Some(existing) = self.task(task.id).or_else(|| self.task(same_key?).filter(live)) {
                tasks.push((existing.clone(), false));
                continue;
            }
            // Before the child, so that whoever counts children knows their parent.
            self.adopt(task.parent_task_id);
            // What comes later in the same request is still to be done.
            let sum = self.dependencies(task.on_dependency_failure, &task.depends_on, Some(Status::Pending));
            let mut created = task.clone().into_task(inherited.as_ref(), sum != Dependencies::Done, self.now);
            self.fit_phase(&mut created);
            self.begins_to_wait(task.id, &task.depends_on);
            self.add(created.clone());
            self.record_steps(&transition::create(&created), None);
            self.keys.extend(key.map(|key| (key, task.id)));
            tasks.push((created, true));
        }
        for (task, new) in &mut tasks {
            if *new && !task.depends_on.is_empty() {
                *task = self.settle_dependencies(task.id)?;
            }
        }
        Ok(Answer::Tasks(tasks))
    }

    /// A task that did not exist before.
    pub(super) fn add(&mut self, task: Task) {
        self.children.moves(None, Some(&task));
        // It may have been deleted within the batch.
        let before = self.tasks.remove(&task.id).and_then(|entry| entry.before);
        self.tasks.insert(task.id, TaskEntry { before, after: Some(task) });
    }

    /// An id that exists already belongs to the same request.
    fn check_ids(&self, new: &[NewTask]) -> Result<(), WriteError> {
        let mut together = HashMap::new();
        for task in new {
            let parent = task.parent_task_id.and_then(|id| self.task(id)).map(|parent| &parent.project_id);
            let another = self.task(task.id).is_some_and(|existing| !task.has_made(existing, parent));
            if another || together.insert(task.id, task).is_some_and(|earlier| earlier != task) {
                return Err(WriteError::IdTaken(task.id));
            }
        }
        Ok(())
    }

    /// Parents and dependencies exist, before or within the request, and nothing waits in a ring.
    fn check_relations(&self, new: &[NewTask]) -> Result<(), WriteError> {
        let mut seen = HashSet::new();
        let together: HashSet<_> = new.iter().map(|task| task.id).collect();
        for task in new {
            if let Some(parent) = task.parent_task_id
                && !seen.contains(&parent)
                && self.task(parent).is_none()
            {
                return Err(WriteError::NoParent(parent));
            }
            seen.insert(task.id);
            let missing = |id: &&Uuid| !together.contains(*id) && self.task(**id).is_none();
            if let Some(id) = task.depends_on.iter().find(missing) {
                return Err(WriteError::NoDependency(*id));
            }
        }
        self.check_levels(new)?;
        self.check_new_rings(new)
    }

    /// Where dependencies stand; `absent` is how one counts that is not there.
    fn dependencies(&self, policy: DependencyPolicy, ids: &[Uuid], absent: Option<Status>) -> Dependencies {
        let status = |id: Uuid| match self.tasks.get(&id) {
            None => absent,
            Some(entry) => entry.after.as_ref().map(|task| task.status),
        };
        Dependencies::sum(policy, ids.iter().map(|id| (*id, status(*id))))
    }

    /// Lets a blocked task go on, end, or wait, by where its dependencies stand now.
    pub(super) fn settle_dependencies(&mut self, id: Uuid) -> Result<Task, WriteError> {
        let task = self.task(id).ok_or(WriteError::NoTask(id))?.clone();
        if task.status != Status::Blocked {
            return Ok(task);
        }
        let sum = self.dependencies(task.on_dependency_failure, &task.depends_on, None);
        let task = self.decide(id, transition::Command::Depend(sum), None)?;
        if task.status == Status::Blocked {
            for awaited in &task.depends_on {
                if self.task(*awaited).is_some_and(|task| !task.has_dependents) {
                    self.decide(*awaited, transition::Command::GainDependent, None)?;
                }
            }
        }
        Ok(task)
    }

    /// New dependencies of a task exist and do not wait for it.
    pub(super) fn check_dependencies(&self, id: Uuid, depends_on: &[Uuid]) -> Result<(), WriteError> {
        if depends_on.contains(&id) {
            return Err(WriteError::Cycle(vec![id, id]));
        }
        if let Some(missing) = depends_on.iter().find(|id| self.task(**id).is_none()) {
            return Err(WriteError::NoDependency(*missing));
        }
        self.check_rewired(id, depends_on)
    }

    /// Where the dependencies of a task stand that is to run again.
    pub(super) fn check_retry(&self, id: Uuid) -> Result<Dependencies, WriteError> {
        let Some(task) = self.task(id).filter(|task| task.status.is_finished()) else { return Ok(Dependencies::Done) };
        let sum = self.dependencies(task.on_dependency_failure, &task.depends_on, None);
        if sum != Dependencies::Done {
            self.check_rewired(id, &task.depends_on)?;
        }
        Ok(sum)
    }
}
