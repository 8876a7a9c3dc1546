//! Counters of each project, so that every page and every snapshot can be of some projects only.
//!
//! Nothing is kept twice while only one project is known: its counters are those of the whole board. What has a project
//! of its own on the board (running tasks, parents, recent events) is picked out when a board is narrowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Board, count_moved,
    failures::{Failures, Group},
    history::History,
    queues::Queues,
    rates::Rates,
};
use crate::{
    clock::Time,
    event::Event,
    model::{Name, Status},
};

/// Maximum number of projects whose counters are kept.
pub const MAX_PROJECTS: usize = 20_000;
/// One project is relieved of what has become too old each time so many events were applied.
const AGE_EVERY: i64 = 16;

/// All projects with tasks, or with tasks within the last week.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Projects {
    /// The only project so far; its counters are those of the board.
    only: Option<Name>,
    /// By name, once there are several. Shared with copies of the board until they change.
    by_name: BTreeMap<Name, Arc<Project>>,
    /// The project that was relieved of old counters last.
    aged: Option<Name>,
    /// There were more projects than are kept.
    overflowed: bool,
}

/// The counters of one project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Existing tasks by status.
    pub tasks: BTreeMap<Status, u64>,
    /// Its share of the queues.
    pub queues: Queues,
    /// Counts per five seconds over the last hour.
    pub(super) rates: Rates,
    /// Time series.
    pub(super) history: History,
    /// Error groups.
    pub failures: Failures,
}

impl Projects {
    /// Whether an event is of a second project: from then on counters are kept apart.
    pub(super) fn splits(&self, event: &Event) -> bool {
        match (&self.only, project_of(event)) {
            (Some(only), Some(name)) => only != name,
            _ => false,
        }
    }

    /// Gives the only project counters of its own.
    pub(super) fn split(&mut self, whole: Project) {
        if let Some(only) = self.only.take() {
            self.by_name.insert(only, Arc::new(whole));
        }
    }

    pub(super) fn apply(&mut self, event: &Event) {
        if let Some(name) = project_of(event) {
            if let Some(project) = self.by_name.get_mut(name) {
                Arc::make_mut(project).apply(event);
            } else if self.by_name.is_empty() {
                self.only.get_or_insert_with(|| name.clone());
            } else if self.by_name.len() < MAX_PROJECTS {
                let mut project = Project::default();
                project.apply(event);
                self.by_name.insert(name.clone(), Arc::new(project));
            } else {
                self.overflowed = true;
            }
        }
        if event.position.is_some_and(|position| position % AGE_EVERY == 0) {
            self.age(event.ts);
        }
    }

    /// Removes old counters of the next project in turn, and the project itself if nothing is left of it.
    fn age(&mut self, now: Time) {
        let after = self.aged.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.aged = self.by_name.range::<Name, _>((after, Bound::Unbounded)).next().map(|(name, _)| name.clone());
        let Some(name) = &self.aged else { return };
        let Some(project) = self.by_name.get_mut(name) else { return };
        let project = Arc::make_mut(project);
        project.age(now);
        if project.is_gone(now) {
            self.by_name.remove(name);
        }
    }

    /// Names of all projects.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.only.iter().chain(self.by_name.keys())
    }

    /// Number of projects.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_name.len() + usize::from(self.only.is_some())
    }

    /// Whether counters of some projects are missing because there are too many projects.
    #[must_use]
    pub const fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// The counters of a project, if they are kept apart from those of the board.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&Project> {
        self.by_name.get(name).map(|project| &**project)
    }

    /// Whether it is the only project.
    #[must_use]
    pub fn is_only(&self, name: &Name) -> bool {
        self.only.as_ref() == Some(name)
    }

    /// Replaces the counters of tasks by those of the tables. `whole` is what was folded of all projects.
    pub(super) fn replace(&mut self, counted: BTreeMap<Name, Project>, whole: &Project) {
        let mut known = std::mem::take(self);
        if known.by_name.is_empty() && counted.keys().all(|name| known.only.as_ref().is_none_or(|only| only == name)) {
            self.only = known.only.or_else(|| counted.into_keys().next());
            return;
        }
        if let Some(only) = known.only {
            known.by_name.insert(only, Arc::new(whole.clone()));
        }
        self.overflowed = counted.len() > MAX_PROJECTS;
        for (name, mut project) in counted.into_iter().take(MAX_PROJECTS) {
            if let Some(folded) = known.by_name.get(&name) {
                project.remember(folded);
            }
            self.by_name.insert(name, Arc::new(project));
        }
    }
}

/// The project of a task event.
fn project_of(event: &Event) -> Option<&Name> {
    event.project_id.as_ref().filter(|_| event.task_id.is_some())
}

impl Project {
    fn apply(&mut self, event: &Event) {
        count_moved(&mut self.tasks, event);
        self.queues.apply(event);
        self.rates.apply(event);
        self.history.apply(event, self.tasks.get(&Status::Pending).copied().unwrap_or_default());
        self.failures.apply(event);
    }

    fn age(&mut self, now: Time) {
        self.rates.forget(now);
        self.history.forget(now);
        self.queues.forget(now);
        self.failures.forget_closed(now);
    }

    fn is_gone(&self, now: Time) -> bool {
        self.tasks.values().all(|count| *count == 0) && self.failures.groups.is_empty() && self.history.is_over(now)
    }

    fn merge(&mut self, other: &Self) {
        for (status, count) in &other.tasks {
            *self.tasks.entry(*status).or_default() += count;
        }
        self.queues.merge(&other.queues);
        self.rates.merge(&other.rates);
        self.history.merge(&other.history);
        self.failures.merge(&other.failures);
    }

    /// Takes over what only events contain.
    fn remember(&mut self, folded: &Self) {
        (self.rates, self.history) = (folded.rates.clone(), folded.history.clone());
        for (name, queue) in &folded.queues.0 {
            if let Some(own) = self.queues.0.get_mut(name) {
                (own.waits, own.runs, own.ended) = (queue.waits.clone(), queue.runs.clone(), queue.ended);
            }
        }
        for (fingerprint, group) in &folded.failures.groups {
            let open = self.failures.groups.get(fingerprint).map_or(0, |own| own.open);
            self.failures.groups.insert(fingerprint.clone(), Group { open, ..group.clone() });
        }
    }
}

impl Board {
    /// The counters of all projects together.
    pub(super) fn whole(&self) -> Project {
        let mut queues = self.queues.clone();
        queues.forget_settings();
        Project {
            tasks: self.tasks.clone(),
            queues,
            rates: self.rates.clone(),
            history: self.history.clone(),
            failures: self.failures.clone(),
        }
    }

    /// The board of some projects: their tasks, counters and lists; of queues their share, with the settings of the
    /// whole queue; of workers those that run one of their tasks or serve one of their queues. All projects if none is
    /// named.
    #[must_use]
    pub fn narrowed(&self, projects: &BTreeSet<Name>) -> Self {
        if projects.is_empty() {
            return self.clone();
        }
        let mut sum = Project::default();
        let apart = projects.iter().filter_map(|name| self.projects.get(name));
        apart.for_each(|project| sum.merge(project));
        if projects.iter().any(|name| self.projects.is_only(name)) {
            sum = self.whole();
        }
        let has = |project: &Name| projects.contains(project);
        let is_of = |event: &&Arc<Event>| event.project_id.as_ref().is_some_and(has);
        let picked = |events: &std::collections::VecDeque<Arc<Event>>| events.iter().filter(is_of).cloned().collect();
        let mut board = Self {
            epoch: self.epoch,
            position: self.position,
            ts: self.ts,
            tasks: sum.tasks,
            queues: sum.queues,
            rates: sum.rates,
            history: sum.history,
            failures: sum.failures,
            kinds: self.kinds.clone(),
            stuck: self.stuck.iter().filter(|stuck| stuck.project_id.as_ref().is_some_and(has)).cloned().collect(),
            ..Self::default()
        };
        board.stuck_total = board.stuck.len() as u64;
        for (name, queue) in &mut board.queues.0 {
            if let Some(whole) = self.queues.0.get(name) {
                queue.share(whole);
            }
        }
        board.running.0 = self
            .running
            .0
            .iter()
            .filter(|(_, task)| has(&task.project_id))
            .map(|(id, task)| (*id, task.clone()))
            .collect();
        let parents = self.parents.open.iter().filter(|(_, parent)| has(&parent.project_id));
        board.parents.open = parents.map(|(id, parent)| (*id, parent.clone())).collect();
        board.parents.ended =
            self.parents.ended.iter().filter(|(_, parent)| has(&parent.project_id)).cloned().collect();
        board.recent.events = picked(&self.recent.events);
        board.recent.completed = picked(&self.recent.completed);
        board.recent.failed = picked(&self.recent.failed);
        let busy: BTreeSet<_> = board.running.0.values().filter_map(|task| task.worker_id).collect();
        let workers = self.workers.0.iter().filter(|(id, worker)| {
            busy.contains(id) || worker.serves_any() || worker.serves().any(|queue| board.queues.0.contains_key(queue))
        });
        board.workers.0 = workers.map(|(id, worker)| (*id, worker.clone())).collect();
        board
    }
}
