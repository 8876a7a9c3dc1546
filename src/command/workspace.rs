//! The rows that a batch of commands decides over, and the events that it records: filled and written by the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use uuid::Uuid;

use super::{
    Refusal, WriterPolicy,
    children::ChildCounts,
    relations::{Nesting, Waiters},
};
use crate::{
    clock::Time,
    event::{Draft, Event, Kind, draft},
    model::{
        Name, Task,
        bulk::Bulk,
        operator::OperatorAction,
        queue::QueueState,
        schedule::Schedule,
        step::{self, Step},
        transition::Transition,
        worker::{Worker, WorkerEvent},
    },
};

/// A task before and after the batch.
#[derive(Debug)]
pub struct TaskEntry {
    /// As it is stored; `None` for a new task.
    pub before: Option<Task>,
    /// As it is to be stored; `None` once it is deleted.
    pub after: Option<Task>,
}

/// A row, and whether the batch changed it.
#[derive(Debug)]
pub struct Entry<T> {
    /// The row.
    pub row: T,
    /// It is to be written.
    pub changed: bool,
}

impl<T> Entry<T> {
    /// As it is stored.
    pub const fn stored(row: T) -> Self {
        Self { row, changed: false }
    }

    /// To be written.
    pub const fn changed(row: T) -> Self {
        Self { row, changed: true }
    }
}

/// Everything a batch of commands decides over. Time comes from outside; ids come with the commands.
#[derive(Debug)]
pub struct Workspace {
    pub(super) policy: WriterPolicy,
    pub(super) now: Time,
    pub(super) tasks: HashMap<Uuid, TaskEntry>,
    pub(super) workers: HashMap<Uuid, Entry<Worker>>,
    pub(super) queues: BTreeMap<Name, Entry<QueueState>>,
    /// Tasks that workers hold, of those workers that stop or may be lost.
    pub(super) held: HashMap<Uuid, Vec<Uuid>>,
    /// Tasks taken out of `ready`, per list of queues asked for.
    pub(super) taken: BTreeMap<Vec<Name>, VecDeque<Uuid>>,
    pub(super) unready: HashSet<Uuid>,
    /// Unfinished tasks by unique key and project.
    pub(super) keys: HashMap<(String, Name), Uuid>,
    pub(super) children: ChildCounts,
    /// `None` for a schedule that is deleted.
    pub(super) schedules: BTreeMap<Name, Entry<Option<Schedule>>>,
    pub(super) bulks: HashMap<Uuid, Entry<Bulk>>,
    pub(super) waiters: Waiters,
    pub(super) nesting: Nesting,
    /// Rows of `rechecks` that are done.
    pub(super) reevaluated: Vec<i64>,
    pub(super) drafts: Vec<Draft>,
}

/// Reading and filling: the store's side.
impl Workspace {
    /// An empty one.
    #[must_use]
    pub fn new(policy: WriterPolicy, now: Time) -> Self {
        Self {
            policy,
            now,
            tasks: HashMap::new(),
            workers: HashMap::new(),
            queues: BTreeMap::new(),
            held: HashMap::new(),
            taken: BTreeMap::new(),
            unready: HashSet::new(),
            keys: HashMap::new(),
            children: ChildCounts::default(),
            schedules: BTreeMap::new(),
            bulks: HashMap::new(),
            waiters: Waiters::default(),
            nesting: Nesting::default(),
            reevaluated: Vec::new(),
            drafts: Vec::new(),
        }
    }

    /// The time of the batch.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Takes in tasks as they are stored.
    pub fn load_tasks(&mut self, tasks: impl IntoIterator<Item = Task>) {
        for task in tasks {
            if let Some(key) = task.unique_key.clone().filter(|_| !task.status.is_finished()) {
                self.keys.insert((key, task.project_id.clone()), task.id);
            }
            self.tasks.insert(task.id, TaskEntry { before: Some(task.clone()), after: Some(task) });
        }
    }

    /// Takes in workers as they are stored.
    pub fn load_workers(&mut self, workers: impl IntoIterator<Item = Worker>) {
        self.workers.extend(workers.into_iter().map(|worker| (worker.id, Entry::stored(worker))));
    }

    /// Takes in queues as they are stored.
    pub fn load_queues(&mut self, queues: impl IntoIterator<Item = QueueState>) {
        self.queues.extend(queues.into_iter().map(|queue| (queue.name.clone(), Entry::stored(queue))));
    }

    /// Takes in schedules as they are stored.
    pub fn load_schedules(&mut self, schedules: impl IntoIterator<Item = Schedule>) {
        let entry = |schedule: Schedule| (schedule.name.clone(), Entry::stored(Some(schedule)));
        self.schedules.extend(schedules.into_iter().map(entry));
    }

    /// Takes in bulk actions as they are stored.
    pub fn load_bulks(&mut self, bulks: impl IntoIterator<Item = Bulk>) {
        self.bulks.extend(bulks.into_iter().map(|bulk| (bulk.id, Entry::stored(bulk))));
    }

    /// Takes in the tasks that workers hold: worker and task.
    pub fn load_held(&mut self, held: impl IntoIterator<Item = (Uuid, Uuid)>) {
        for (worker_id, task_id) in held {
            self.held.entry(worker_id).or_default().push(task_id);
        }
    }

    /// Tasks that some workers hold.
    pub fn held(&self) -> impl Iterator<Item = Uuid> {
        self.held.values().flatten().copied()
    }

    /// Every task, before and after the batch; whether a claim took its row out of `ready`.
    pub fn tasks(&self) -> impl Iterator<Item = (Uuid, &TaskEntry, bool)> {
        self.tasks.iter().map(|(id, entry)| (*id, entry, self.unready.contains(id)))
    }

    /// Every task that is there after the batch.
    pub fn living(&self) -> impl Iterator<Item = &Task> + Clone {
        self.tasks.values().filter_map(|entry| entry.after.as_ref())
    }

    /// A task is loaded, or was made by the batch.
    #[must_use]
    pub fn has_task(&self, id: Uuid) -> bool {
        self.tasks.contains_key(&id)
    }

    /// A queue is loaded.
    #[must_use]
    pub fn has_queue(&self, name: &Name) -> bool {
        self.queues.contains_key(name)
    }

    /// Queues to be written.
    pub fn changed_queues(&self) -> impl Iterator<Item = &QueueState> {
        self.queues.values().filter(|entry| entry.changed).map(|entry| &entry.row)
    }

    /// Workers to be written.
    pub fn changed_workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(|entry| entry.changed).map(|entry| &entry.row)
    }

    /// Schedules to be written, or deleted when they are `None`.
    pub fn changed_schedules(&self) -> impl Iterator<Item = (&Name, Option<&Schedule>)> {
        let changed = self.schedules.iter().filter(|(_, entry)| entry.changed);
        changed.map(|(name, entry)| (name, entry.row.as_ref()))
    }

    /// Bulk actions to be written.
    pub fn changed_bulks(&self) -> impl Iterator<Item = &Bulk> {
        self.bulks.values().filter(|entry| entry.changed).map(|entry| &entry.row)
    }

    /// Rows of `rechecks` that are done.
    #[must_use]
    pub fn reevaluated(&self) -> &[i64] {
        &self.reevaluated
    }

    /// The counts of children.
    pub const fn children(&mut self) -> &mut ChildCounts {
        &mut self.children
    }

    /// What waits for what.
    pub const fn waiters(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    /// What lies above and below the tasks.
    pub const fn nesting(&mut self) -> &mut Nesting {
        &mut self.nesting
    }

    /// The events to append, in order.
    #[must_use]
    pub fn into_drafts(self) -> Vec<Draft> {
        self.drafts
    }
}

/// Deciding.
impl Workspace {
    /// A task as it is now.
    #[must_use]
    pub fn task(&self, id: Uuid) -> Option<&Task> {
        self.tasks.get(&id).and_then(|entry| entry.after.as_ref())
    }

    /// Changes a task as `Task::decide` says, with everything that follows from it at once.
    pub(super) fn decide(&mut self, id: Uuid, transition: Transition, actor: Option<&str>) -> Result<Task, Refusal> {
        let task = self.task(id).ok_or(Refusal::NoTask(id))?;
        let removes = matches!(transition, Transition::Delete | Transition::Expire(_));
        let before = task.clone();
        let (after, steps) = task.decide(transition, self.now)?;
        self.record_steps(&steps, actor);
        let stays = (!removes).then_some(&after);
        self.children.record(Some(&before), stays);
        self.follow_connector(&before, stays);
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.after = stays.cloned();
        }
        Ok(after)
    }

    /// Adds a task that did not exist before.
    pub(super) fn add(&mut self, task: Task) {
        self.children.record(None, Some(&task));
        // It may have been deleted within the batch.
        let before = self.tasks.remove(&task.id).and_then(|entry| entry.before);
        self.tasks.insert(task.id, TaskEntry { before, after: Some(task) });
    }

    pub(super) fn record_steps(&mut self, steps: &[Step], actor: Option<&str>) {
        for step in steps {
            self.record(draft::task_event(step, actor, self.now));
        }
    }

    /// Records what made a task.
    pub(super) fn record_created(&mut self, task: &Task, schedule: Option<&Name>) {
        for step in step::create(task) {
            let mut event = draft::task_event(&step, None, self.now);
            if event.event_type == Kind::TaskCreated {
                event.data.schedule = schedule.map(ToString::to_string);
            }
            self.record(event);
        }
    }

    /// Records an event.
    pub fn record(&mut self, event: Event) {
        self.drafts.push(Draft::new(event, self.policy.max_event_bytes));
    }

    pub(super) fn record_worker(&mut self, worker_id: Uuid, events: &[WorkerEvent]) {
        let Some(entry) = self.workers.get(&worker_id) else { return };
        let events: Vec<_> = events.iter().map(|event| draft::worker_event(&entry.row, event, self.now)).collect();
        events.into_iter().for_each(|event| self.record(event));
    }

    /// What an operator did that is not about one task.
    pub(super) fn operator_event(&self, action: OperatorAction, actor: &str) -> Event {
        let mut event = Event::new(Kind::OperatorAction, self.now);
        event.actor = Some(actor.to_owned());
        event.data.action = Some(action.to_string());
        event
    }

    /// Queues of tasks that are new, or whose facts changed.
    #[must_use]
    pub fn queues_named(&self) -> BTreeSet<&Name> {
        let moved = self.tasks.values().filter(|entry| {
            entry.before.as_ref().map(|task| &task.queue) != entry.after.as_ref().map(|task| &task.queue)
        });
        moved.filter_map(|entry| Some(&entry.after.as_ref()?.queue)).collect()
    }
}
