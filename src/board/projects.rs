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
    Board,
    counts::StatusCounts,
    durations::Kinds,
    edited,
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
    pub tasks: StatusCounts,
    /// Its share of the queues.
    pub queues: Queues,
    /// Counts per five seconds over the last hour.
    pub(super) rates: Rates,
    /// Time series.
    pub(super) history: History,
    /// Error groups.
    pub failures: Failures,
    /// What is usual for each of its task types.
    #[serde(default)]
    pub(super) kinds: Kinds,
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
            // Reports may tell the project of a task later than the task itself.
            let left = edited::<Name>(event, "project_id").flatten();
            if let Some(project) = left.as_ref().and_then(|left| self.by_name.get_mut(left)) {
                Arc::make_mut(project).migrate(event, false);
            }
            if self.by_name.is_empty() {
                self.only.get_or_insert_with(|| name.clone());
            } else if let Some(project) = self.project(name) {
                if left.is_some() { project.migrate(event, true) } else { project.apply(event) }
            }
        }
        if event.position.is_some_and(|position| position % AGE_EVERY == 0) {
            self.age(event.ts);
        }
    }

    /// The counters of a project, new if it is not known; `None` if there are too many projects.
    fn project(&mut self, name: &Name) -> Option<&mut Project> {
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= MAX_PROJECTS {
                self.overflowed = true;
                return None;
            }
            self.by_name.insert(name.clone(), Arc::default());
        }
        self.by_name.get_mut(name).map(Arc::make_mut)
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
        self.tasks.apply(event);
        self.queues.apply(event);
        self.rates.apply(event);
        self.history.apply(event, self.tasks.get(Status::Pending));
        self.failures.apply(event);
        self.kinds.apply(event);
    }

    /// The task of an event comes from another project, or goes to one.
    fn migrate(&mut self, event: &Event, comes: bool) {
        let Some(status) = event.status else { return };
        if comes {
            self.tasks.add(status, 1);
        } else {
            self.tasks.remove_one(status);
        }
        self.queues.migrate(event, comes);
        self.failures.migrate(event, comes);
    }

    fn age(&mut self, now: Time) {
        self.rates.forget(now);
        self.history.forget(now);
        self.queues.forget(now);
        self.failures.forget_closed(now);
        self.kinds.forget(now);
    }

    fn is_gone(&self, now: Time) -> bool {
        self.tasks.is_zero() && self.failures.groups.is_empty() && self.history.is_over(now)
    }

    fn merge(&mut self, other: &Self) {
        self.tasks.merge(&other.tasks);
        self.queues.merge(&other.queues);
        self.rates.merge(&other.rates);
        self.history.merge(other.history.clone());
        self.failures.merge(&other.failures);
        self.kinds.merge(&other.kinds);
    }

    /// Takes over what only events contain.
    fn remember(&mut self, folded: &Self) {
        (self.rates, self.history, self.kinds) = (folded.rates.clone(), folded.history.clone(), folded.kinds.clone());
        for (name, queue) in &folded.queues.0 {
            if let Some(own) = self.queues.0.get_mut(name) {
                (own.waits, own.runs, own.ended) = (queue.waits.clone(), queue.runs.clone(), queue.ended);
                own.usual_waits = queue.usual_waits.clone();
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
            tasks: self.tasks,
            queues,
            rates: self.rates.clone(),
            history: self.history.clone(),
            failures: self.failures.clone(),
            kinds: self.kinds.clone(),
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
            kinds: sum.kinds,
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        board::{
            history::Range,
            samples::{at, folded},
        },
        event::Kind,
        model::{Priority, worker::WorkerStatus},
    };

    const PROJECTS: [&str; 3] = ["atlas", "borealis", "cobalt"];
    const QUEUES: [&str; 2] = ["mail", "media"];

    fn some(names: &[&'static str]) -> BTreeSet<Name> {
        names.iter().map(|name| Name::literal(name)).collect()
    }

    /// A task of the random history.
    #[derive(Clone, Copy)]
    struct Known {
        status: Status,
        queue: usize,
        project: usize,
    }

    /// What happens next to a task, and how many seconds later.
    fn steps() -> impl Strategy<Value = Vec<(usize, usize, i64)>> {
        prop::collection::vec((0_usize..9, 0_usize..7, prop_oneof![0_i64..5, 0_i64..400, 0_i64..8_000]), 1..60)
    }

    /// The events of a history; the task with number n begins in project n modulo 3.
    fn events(steps: &[(usize, usize, i64)], moves: bool) -> Vec<Event> {
        let mut tasks: BTreeMap<usize, Known> = BTreeMap::new();
        let mut now = 0;
        let mut events = Vec::new();
        for (number, what, seconds) in steps {
            now += seconds.max(&1);
            let known = tasks.get(number).copied();
            let (kind, to) = match (known.map(|task| task.status), what) {
                (None, _) => (Kind::TaskCreated, Some(Status::Pending)),
                (Some(Status::Pending), 0..=2) => (Kind::TaskStarted, Some(Status::Running)),
                (Some(Status::Running), 0) => (Kind::TaskFailed, Some(Status::Failed)),
                (Some(Status::Running), 1) => (Kind::TaskRetry, Some(Status::Retrying)),
                (Some(Status::Running), 2..=3) => (Kind::TaskCompleted, Some(Status::Completed)),
                (Some(status), 4) => (Kind::TaskUpdated, Some(status)),
                (Some(_), 5) => (Kind::TaskDeleted, None),
                (Some(status), 6) => (Kind::TaskUpdated, Some(status)),
                (Some(_), _) => (Kind::TaskEnqueued, Some(Status::Pending)),
            };
            let mut event = Event::new(kind, at(now));
            event.task_id = Some(Uuid::from_u128(*number as u128));
            let mut project = known.map_or(number % 3, |task| task.project);
            event.task_type = Some(Name::literal("send"));
            event.priority = Priority::new(i64::try_from(number % 10).unwrap());
            event.worker_id = Some(Uuid::from_u128(what.wrapping_mul(7) as u128));
            (event.old_status, event.status) = (known.map(|task| task.status), to.or(known.map(|task| task.status)));
            (event.duration_ms, event.data.wait_ms) = (Some(*number as u64 * 97), Some(*what as u64 * 31));
            event.error = matches!(kind, Kind::TaskFailed | Kind::TaskRetry)
                .then(|| if number % 2 == 0 { "disk full" } else { "no route" }.to_owned());
            let mut queue = known.map_or(number % 2, |task| task.queue);
            let mut changes = BTreeMap::new();
            if *what == 4 && kind == Kind::TaskUpdated || *what == 6 && moves {
                changes.insert("queue".to_owned(), [queue, 1 - queue].map(|queue| QUEUES[queue].into()));
                queue = 1 - queue;
            }
            if *what == 6 && moves && kind == Kind::TaskUpdated {
                let next = (project + 1) % 3;
                changes.insert("project_id".to_owned(), [project, next].map(|project| PROJECTS[project].into()));
                project = next;
            }
            event.data.changes = (kind == Kind::TaskUpdated).then_some(changes);
            event.project_id = Some(Name::literal(PROJECTS[project]));
            event.queue = Some(Name::literal(QUEUES[queue]));
            match to {
                Some(status) => tasks.insert(*number, Known { status, queue, project }),
                None => tasks.remove(number),
            };
            events.push(event);
        }
        events
    }

    /// Compares what a narrowed board shows with a board of these projects alone.
    fn equal(shown: &Board, alone: &Board, now: Time, several: bool) -> Result<(), TestCaseError> {
        for status in Status::ALL {
            prop_assert_eq!(shown.count(status), alone.count(status), "{}", status);
        }
        prop_assert_eq!(shown.queues.0.keys().collect::<Vec<_>>(), alone.queues.0.keys().collect::<Vec<_>>());
        for (name, queue) in &shown.queues.0 {
            let other = &alone.queues.0[name];
            prop_assert_eq!(&queue.depth, &other.depth, "{}", name);
            // Of several projects, since when one of them has had a backlog without a pause.
            let same = queue.waiting_since == other.waiting_since;
            prop_assert!(same || several && queue.waiting_since > other.waiting_since, "{}", name);
            // A project forgets the times of a queue in which it has no task any more.
            prop_assert!(several || queue.rates(now) == other.rates(now), "{}", name);
        }
        for range in Range::ALL {
            let [shown, alone] = [shown, alone].map(|board| board.history.over(range, now));
            for (mut shown, alone) in shown.into_iter().zip(alone) {
                // Of several projects, the sum of what each had at most.
                prop_assert!(shown.max_pending >= alone.max_pending);
                shown.max_pending = if several { alone.max_pending } else { shown.max_pending };
                prop_assert_eq!(shown, alone, "{}", range.words());
            }
        }
        for seconds in [60, 300, 3_600] {
            prop_assert_eq!(shown.rates.over(now, seconds), alone.rates.over(now, seconds));
        }
        prop_assert_eq!(&shown.failures, &alone.failures);
        prop_assert_eq!(&shown.running, &alone.running);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// The board of any projects equals the board of a server that never had any other.
        #[test]
        fn a_narrowed_board_shows_what_a_server_of_these_projects_would(steps in steps()) {
            let events = events(&steps, false);
            let now = events.iter().map(|event| event.ts).max().unwrap();
            let board = folded(events.clone());
            for names in [&PROJECTS[..1], &PROJECTS[1..2], &PROJECTS[..2], &PROJECTS[1..], &PROJECTS[..]] {
                let chosen = some(names);
                let own = |event: &Event| event.project_id.as_ref().is_some_and(|name| chosen.contains(name));
                let alone = folded(events.iter().filter(|event| own(event)).cloned());
                equal(&board.narrowed(&chosen), &alone, now, names.len() > 1)?;
            }
        }

        /// Whatever project a task turns out to belong to: the counts of all projects are those of the tasks.
        #[test]
        fn a_task_that_changes_its_project_is_counted_once(steps in steps()) {
            let events = events(&steps, true);
            let mut tasks = BTreeMap::new();
            for event in &events {
                let of = (event.project_id.clone().unwrap(), event.queue.clone().unwrap());
                match event.event_type {
                    Kind::TaskDeleted => tasks.remove(&event.task_id),
                    _ => tasks.insert(event.task_id, (of, event.status.unwrap())),
                };
            }
            let board = folded(events);
            for project in PROJECTS {
                let shown = board.narrowed(&some(&[project]));
                let own = |status: Status| {
                    tasks.values().filter(|((name, _), of)| name.as_str() == project && *of == status).count() as u64
                };
                for status in Status::ALL {
                    prop_assert_eq!(shown.count(status), own(status), "{} {}", project, status);
                    let queues: u64 = shown.queues.0.values().map(|queue| queue.count(status)).sum();
                    prop_assert_eq!(queues, own(status), "queues of {} {}", project, status);
                }
                prop_assert_eq!(shown.running.0.len() as u64, own(Status::Running));
                let waiting: u64 = shown.queues.0.values().map(|queue| queue.waiting()).sum();
                prop_assert_eq!(waiting, own(Status::Pending));
            }
        }

        /// Old counters leave when their project's turn comes, whether or not anything happens to it; nothing that is
        /// shown changes by that.
        #[test]
        fn an_idle_project_shows_the_same_and_shrinks(steps in steps(), days in 0_i64..9) {
            let mut board = folded(events(&steps, false));
            board.projects.split(board.whole());
            let now = board.ts.unwrap() + chrono::TimeDelta::days(days);
            let before: Vec<_> = PROJECTS.iter().map(|name| board.narrowed(&some(&[*name]))).collect();
            for _ in 0..2 * PROJECTS.len() {
                board.projects.age(now);
            }
            for (name, mut before) in PROJECTS.iter().zip(before) {
                let after = board.narrowed(&some(&[*name]));
                before.failures.forget_closed(now);
                equal(&after, &before, now, false)?;
            }
            let weight = |board: &Board| serde_json::to_string(&board.projects).unwrap().len();
            prop_assert!(days < 8 || board.projects.names().all(|name| {
                let project = board.projects.get(name).unwrap();
                serde_json::to_string(&project.history).unwrap().len() < 600
            }), "{}", weight(&board));
        }
    }

    #[test]
    fn times_of_a_queue_in_several_projects_are_counted_together() {
        let times = |number: usize, project: &'static str, seconds| {
            let (old_status, status) = (Some(Status::Running), Some(Status::Completed));
            let duration_ms = Some(number as u64 * 100);
            let of = created(number as u128, project);
            Event { event_type: Kind::TaskCompleted, ts: at(seconds), old_status, status, duration_ms, ..of }
        };
        // In the window before, in both windows, in the present one.
        let mut events: Vec<_> = (1..=40).map(|number| times(number, PROJECTS[number % 2], 10)).collect();
        events.extend((41..=60).map(|number| times(number, "atlas", 310)));
        let alone =
            folded(events.iter().map(|event| Event { project_id: Some(Name::literal("atlas")), ..event.clone() }));
        let shown = folded(events).narrowed(&some(&PROJECTS));
        for seconds in [310, 330, 599, 601, 899, 901] {
            assert_eq!(
                shown.queues.0["mail"].rates(at(seconds)),
                alone.queues.0["mail"].rates(at(seconds)),
                "{seconds}"
            );
        }
    }

    fn created(number: u128, project: &'static str) -> Event {
        let mut event = Event::new(Kind::TaskCreated, at(0));
        (event.task_id, event.status) = (Some(Uuid::from_u128(number)), Some(Status::Pending));
        (event.project_id, event.queue) = (Some(Name::literal(project)), Some(Name::literal("mail")));
        event.priority = Priority::new(5);
        event
    }

    #[test]
    fn one_project_is_kept_once() {
        let board = folded((0..9).map(|number| created(number, "atlas")));
        assert_eq!((board.projects.count(), board.projects.by_name.len()), (1, 0));
        assert_eq!(board.narrowed(&some(&["atlas"])).count(Status::Pending), 9);
        let none = board.narrowed(&some(&["borealis"]));
        assert_eq!((none.count(Status::Pending), none.queues.0.len(), none.position), (0, 0, 9));
    }

    #[test]
    fn settings_of_a_queue_are_those_of_the_whole_queue() {
        let limit = |value: serde_json::Value| {
            let mut event = Event::new(Kind::OperatorAction, at(0));
            event.queue = Some(Name::literal("mail"));
            event.data.changes = Some([("concurrency_limit".to_owned(), [serde_json::Value::Null, value])].into());
            event
        };
        let started = |number, project| {
            let (old_status, status) = (Some(Status::Pending), Some(Status::Running));
            Event { event_type: Kind::TaskStarted, old_status, status, ..created(number, project) }
        };
        let board = folded([
            limit(2.into()),
            created(1, "atlas"),
            created(2, "borealis"),
            created(3, "borealis"),
            started(1, "atlas"),
            started(2, "borealis"),
        ]);
        let shown = board.narrowed(&some(&["borealis"]));
        let queue = &shown.queues.0["mail"];
        assert_eq!((queue.concurrency_limit, queue.count(Status::Running), queue.occupied()), (Some(2), 1, 2));
        let alone = board.narrowed(&some(&["atlas"]));
        assert_eq!(alone.queues.0["mail"].waiting(), 0);
    }

    #[test]
    fn workers_of_a_project_are_those_that_may_run_its_tasks() {
        let worker = |number: u128, queue: &'static str| {
            let mut event = Event::new(Kind::WorkerStarted, at(0));
            event.worker_id = Some(Uuid::from_u128(number));
            event.data.status = Some(Name::literal(WorkerStatus::Idle.as_str()));
            event.data.queues = Some(vec![Name::literal(queue)]);
            event
        };
        let board = folded([worker(1, "mail"), worker(2, "media"), created(1, "atlas"), created(2, "borealis")]);
        let ids = board.narrowed(&some(&["atlas"])).workers.0.into_keys().collect::<Vec<_>>();
        assert_eq!(ids, [Uuid::from_u128(1)]);
    }

    #[test]
    fn a_project_without_tasks_and_history_is_gone() {
        let mut deleted = created(1, "atlas");
        (deleted.event_type, deleted.old_status) = (Kind::TaskDeleted, Some(Status::Pending));
        let mut board = folded([created(1, "atlas"), created(2, "borealis"), deleted]);
        let count = |board: &mut Board, days: i64| {
            (0..3).for_each(|_| board.projects.age(at(days * 86_400)));
            board.projects.count()
        };
        assert_eq!((count(&mut board, 0), count(&mut board, 6), count(&mut board, 8)), (2, 2, 1));
        assert!(board.projects.get(&Name::literal("borealis")).is_some(), "it has a task");
    }
}
