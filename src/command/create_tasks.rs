//! Creating tasks.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace};
use crate::model::{Name, Status, Task, dependency::Dependencies, report::Json, task::NewTask, transition::Transition};

/// Creates tasks, all or none.
#[derive(Debug, Clone)]
pub struct CreateTasks(pub Vec<NewTask>);

/// A task that a request asked for.
#[derive(Debug, Clone)]
pub struct Created {
    /// The task.
    pub task: Task,
    /// False when it existed already, by its id or its unique key.
    pub is_new: bool,
}

impl Command for CreateTasks {
    type Answer = Vec<Created>;

    fn locks(&self, locks: &mut LockSet) {
        locks.graph |= may_close_a_cycle(&self.0);
        let chosen = self.0.iter().filter(|task| task.id_is_chosen).map(|task| task.id);
        locks.created.extend(chosen.clone());
        locks.tasks.extend(chosen);
        locks.tasks.extend(self.0.iter().flat_map(|task| &task.depends_on));
        locks.parents.extend(self.0.iter().filter_map(|task| task.parent_task_id));
        locks.keys.extend(self.0.iter().filter_map(|task| task.unique_key.clone()));
    }

    fn weight(&self) -> usize {
        self.0.iter().map(|task| 1 + task.payload.as_ref().map_or(0, Json::pages) + task.depends_on.len() / 4).sum()
    }

    fn dependency_roots(&self, _workspace: &Workspace) -> Vec<Uuid> {
        if !may_close_a_cycle(&self.0) {
            return Vec::new();
        }
        let chosen = self.0.iter().filter(|task| task.id_is_chosen && !task.depends_on.is_empty());
        self.0.iter().filter_map(|task| task.parent_task_id).chain(chosen.map(|task| task.id)).collect()
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<Vec<Created>, Refusal> {
        workspace.create(&self.0, None)
    }
}

/// Something that exists may wait for a new task among these: through its parent.
fn may_close_a_cycle(new: &[NewTask]) -> bool {
    new.iter().any(|task| !task.depends_on.is_empty()) && new.iter().any(|task| task.parent_task_id.is_some())
}

impl Workspace {
    /// Creates tasks, all or none; `schedule` is the one that they come from. One that exists already, by its id or its
    /// unique key, is answered as it is.
    pub(super) fn create(&mut self, new: &[NewTask], schedule: Option<&Name>) -> Result<Vec<Created>, Refusal> {
        self.check_ids(new)?;
        self.check_relations(new)?;
        let mut tasks = Vec::with_capacity(new.len());
        for task in new {
            let inherited = task.parent_task_id.and_then(|id| self.task(id)).map(|parent| parent.project_id.clone());
            let key = task.unique_key.clone().map(|key| (key, task.project(inherited.as_ref())));
            let same_key = key.as_ref().and_then(|key| self.keys.get(key)).copied();
            let unfinished = |task: &&Task| !task.status.is_finished();
            if let Some(existing) = self.task(task.id).or_else(|| self.task(same_key?).filter(unfinished)) {
                tasks.push(Created { task: existing.clone(), is_new: false });
                continue;
            }
            // Before the child: readers of the events count children of known parents.
            self.adopt(task.parent_task_id);
            // Dependencies that come later in the same request are not there yet.
            let sum = self.dependencies(task.on_dependency_failure, &task.depends_on, Some(Status::Pending));
            let mut created = task.clone().into_task(inherited.as_ref(), sum != Dependencies::Done, self.now);
            self.fit_phase(&mut created);
            self.begins_to_wait(task.id, &task.depends_on);
            self.add(created.clone());
            self.record_created(&created, schedule);
            self.keys.extend(key.map(|key| (key, task.id)));
            tasks.push(Created { task: created, is_new: true });
        }
        for (new, Created { task, .. }) in new.iter().zip(&mut tasks).filter(|(_, created)| created.is_new) {
            if !task.depends_on.is_empty() {
                *task = self.resolve_dependencies(task.id)?;
            }
            // It becomes the parent of the children that a deleted task of the same ID left.
            if self.has_children(new) {
                self.adopt(Some(task.id));
                *task = self.decide(task.id, Transition::Children(self.sum_of_children(task.id)), None)?;
            }
        }
        Ok(tasks)
    }

    /// Tasks name this one as their parent. Only an ID that was chosen can be known to others before.
    fn has_children(&self, task: &NewTask) -> bool {
        task.id_is_chosen && !self.children.of(task.id).is_empty()
    }

    /// An id that exists already belongs to the same request.
    fn check_ids(&self, new: &[NewTask]) -> Result<(), Refusal> {
        let mut together = HashMap::new();
        for task in new {
            let parent = task.parent_task_id.and_then(|id| self.task(id)).map(|parent| &parent.project_id);
            let another = self.task(task.id).is_some_and(|existing| !task.has_made(existing, parent));
            if task.parent_task_id.is_some() && self.task(task.id).is_none() && self.has_children(task) {
                return Err(Refusal::HasChildren(task.id));
            }
            if another || together.insert(task.id, task).is_some_and(|earlier| earlier != task) {
                return Err(Refusal::IdTaken(task.id));
            }
        }
        Ok(())
    }

    /// Parents and dependencies exist, before or within the request, and nothing waits in a cycle.
    fn check_relations(&self, new: &[NewTask]) -> Result<(), Refusal> {
        let mut seen = HashSet::new();
        let together: HashSet<_> = new.iter().map(|task| task.id).collect();
        for task in new {
            if let Some(parent) = task.parent_task_id
                && !seen.contains(&parent)
                && self.task(parent).is_none()
            {
                return Err(Refusal::NoParent(parent));
            }
            seen.insert(task.id);
            let missing = |id: &&Uuid| !together.contains(*id) && self.task(**id).is_none();
            if let Some(id) = task.depends_on.iter().find(missing) {
                return Err(Refusal::NoDependency(*id));
            }
        }
        self.check_levels(new)?;
        self.check_new_cycles(new)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::command::rows::{Rows, id, new_task};

    #[test]
    fn a_plain_task_is_created_and_enqueued() {
        let mut rows = Rows::new();
        let created = rows.run(&CreateTasks(vec![new_task(1)])).unwrap();
        assert!(created[0].is_new);
        assert_eq!((rows.status(1), rows.kinds()), (Status::Pending, vec!["task_created", "task_enqueued"]));
    }

    #[test]
    fn the_same_request_again_creates_nothing() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let again = rows.run(&CreateTasks(vec![new_task(1)])).unwrap();
        assert!(!again[0].is_new && rows.events.is_empty());
        let other = NewTask { task_type: Name::literal("other"), ..new_task(1) };
        assert_eq!(rows.run(&CreateTasks(vec![other])).unwrap_err(), Refusal::IdTaken(id(1)));
    }

    #[test]
    fn a_unique_key_belongs_to_one_unfinished_task_of_a_project() {
        let keyed = |number, project: &'static str| NewTask {
            unique_key: Some("k".to_owned()),
            project_id: Some(Name::literal(project)),
            ..new_task(number)
        };
        let mut rows = Rows::new();
        let created = rows.run(&CreateTasks(vec![keyed(1, "a"), keyed(2, "a"), keyed(3, "b")])).unwrap();
        assert_eq!(created.iter().map(|created| created.is_new).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(created[1].task.id, id(1));
        rows.change(1, Transition::Cancel { reason: None }).unwrap();
        assert!(rows.run(&CreateTasks(vec![keyed(2, "a")])).unwrap()[0].is_new);
    }

    #[test]
    fn all_or_none_are_created() {
        let orphan = NewTask { parent_task_id: Some(id(9)), ..new_task(2) };
        let mut rows = Rows::new();
        assert_eq!(rows.run(&CreateTasks(vec![new_task(1), orphan])).unwrap_err(), Refusal::NoParent(id(9)));
        let dangling = NewTask { depends_on: vec![id(9)], ..new_task(2) };
        assert_eq!(rows.run(&CreateTasks(vec![new_task(1), dangling])).unwrap_err(), Refusal::NoDependency(id(9)));
        assert!(rows.tasks.is_empty());
    }

    #[test]
    fn a_child_takes_the_project_of_its_parent_and_makes_it_one() {
        let parent = NewTask { project_id: Some(Name::literal("p")), ..new_task(1) };
        let child = NewTask { parent_task_id: Some(id(1)), phase: Some(Name::literal("load")), ..new_task(2) };
        let mut rows = Rows::new();
        rows.create([parent]);
        rows.create([child]);
        assert_eq!(rows.tasks[&id(2)].project_id.as_str(), "p");
        assert!(rows.tasks[&id(1)].is_parent);
        assert_eq!(rows.kinds(), ["task_updated", "task_created", "task_enqueued"]);
    }

    #[test]
    fn the_id_of_a_deleted_parent_comes_with_its_children() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        rows.create([NewTask { parent_task_id: Some(id(1)), ..new_task(2) }]);
        rows.change(1, Transition::Delete).unwrap();
        // Its children may have grandchildren and dependencies that were not compared with this parent.
        rows.create([new_task(3)]);
        let nested = NewTask { parent_task_id: Some(id(3)), ..new_task(1) };
        assert_eq!(rows.run(&CreateTasks(vec![nested])).unwrap_err(), Refusal::HasChildren(id(1)));
        let created = rows.run(&CreateTasks(vec![NewTask { auto_complete: true, ..new_task(1) }])).unwrap();
        assert!(created[0].is_new && created[0].task.is_parent && rows.tasks[&id(1)].is_parent);
        assert_eq!(rows.status(1), Status::Blocked);
        for number in [2, 3] {
            rows.change(number, Transition::Cancel { reason: None }).unwrap();
        }
        rows.reevaluate_all();
        assert_eq!(rows.status(1), Status::Cancelled, "it follows its child");
    }

    #[test]
    fn long_requests_weigh_more() {
        assert_eq!(CreateTasks(vec![new_task(1), new_task(2)]).weight(), 2);
        let text = format!("\"{}\"", "x".repeat(40_960));
        let payload = Some(Json::new(serde_json::value::RawValue::from_string(text).unwrap()));
        assert_eq!(CreateTasks(vec![NewTask { payload, ..new_task(1) }]).weight(), 11);
    }
}
