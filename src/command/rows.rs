//! Rows in memory, for tests: each command decides over all of them, and what it changes is kept.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use uuid::Uuid;

use super::{
    Command, LockSet, Refusal, Workspace, WriterPolicy,
    claim_tasks::{Allowance, ClaimTasks, Claimed},
    create_tasks::CreateTasks,
    lock_set::ClaimRequest,
    reevaluate::Reevaluate,
    register_worker::RegisterWorker,
};
use crate::{
    clock::Time,
    event::Event,
    model::{
        Name, NewTask, Status, Task, bulk::Bulk, lease::StalledPolicy, phase::Counts, queue::QueueState, report::Fence,
        schedule::Schedule, transition::Transition, worker::Worker,
    },
};

/// The settings of tests: leases and workers live for 60 s.
pub(super) const POLICY: WriterPolicy = WriterPolicy {
    lease: TimeDelta::seconds(60),
    worker_ttl: TimeDelta::seconds(60),
    connector_stale: TimeDelta::seconds(120),
    stalled_policy: StalledPolicy::Retry,
    max_event_bytes: 8_192,
};

/// An id that reads well in failures.
pub(super) const fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A new task in queue `q`.
pub(super) fn new_task(number: u128) -> NewTask {
    NewTask::plain(id(number), Name::literal("t"), Name::literal("q"))
}

/// A new task that depends on others.
pub(super) fn after(number: u128, depends_on: &[u128]) -> NewTask {
    NewTask { depends_on: depends_on.iter().copied().map(id).collect(), ..new_task(number) }
}

/// Every row there is, and the time.
pub(super) struct Rows {
    pub(super) now: Time,
    pub(super) tasks: BTreeMap<Uuid, Task>,
    pub(super) workers: BTreeMap<Uuid, Worker>,
    pub(super) queues: BTreeMap<Name, QueueState>,
    pub(super) schedules: BTreeMap<Name, Schedule>,
    pub(super) bulks: BTreeMap<Uuid, Bulk>,
    /// The events of the last command.
    pub(super) events: Vec<Event>,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            now: Time::from_timestamp(1_800_000_000, 0).unwrap(),
            tasks: BTreeMap::new(),
            workers: BTreeMap::new(),
            queues: BTreeMap::from([(Name::literal("q"), QueueState::new(Name::literal("q")))]),
            schedules: BTreeMap::new(),
            bulks: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn passes(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }

    /// Runs a command and keeps what it changed, which must be among what it named, or follow from that.
    pub(super) fn run<C: Command>(&mut self, command: &C) -> Result<C::Answer, Refusal> {
        let mut locks = LockSet::default();
        command.locks(&mut locks);
        let mut workspace = self.load(&locks);
        let roots = command.dependency_roots(&workspace);
        assert!(roots.is_empty() || locks.graph || !locks.retried.is_empty(), "{command:?} reads the graph unlocked");
        let answer = command.apply(&mut workspace);
        self.keep(workspace, answer.is_ok());
        answer
    }

    fn load(&self, locks: &LockSet) -> Workspace {
        let mut workspace = Workspace::new(POLICY, self.now);
        workspace.load_tasks(self.tasks.values().cloned());
        workspace.load_workers(self.workers.values().cloned());
        workspace.load_queues(self.queues.values().cloned());
        workspace.load_schedules(self.schedules.values().cloned());
        workspace.load_bulks(self.bulks.values().cloned());
        let holds = |task: &Task| Some((task.worker_id.filter(|_| task.lease.is_some())?, task.id));
        let held = self.tasks.values().filter_map(holds);
        workspace.load_held(held.filter(|(worker, _)| locks.holders.contains(worker)));
        for (parent, phase, counts) in self.counts() {
            workspace.children().load(parent, phase, counts);
        }
        let blocked = self.tasks.values().filter(|task| task.status == Status::Blocked);
        let mut waiters: std::collections::HashMap<_, Vec<_>> = std::collections::HashMap::new();
        for (task, awaited) in blocked.flat_map(|task| task.depends_on.iter().map(move |awaited| (task, awaited))) {
            waiters.entry(*awaited).or_default().push(task.id);
        }
        workspace.waiters().load(waiters);
        for claim in locks.claims.iter().filter(|claim| workspace.may_claim(claim)).cloned().collect::<Vec<_>>() {
            let taken = self.take(&mut workspace, &claim);
            workspace.load_taken(&claim.queues, taken);
        }
        workspace
    }

    /// The first pending tasks that a claim may have.
    fn take(&self, workspace: &mut Workspace, claim: &ClaimRequest) -> Vec<Uuid> {
        let mut rooms: BTreeMap<_, _> = match workspace.allowance(&claim.queues) {
            Allowance::Nothing => BTreeMap::new(),
            Allowance::Unlimited(names) => names.into_iter().map(|name| (name, u32::MAX)).collect(),
            Allowance::Limited(rooms) => rooms.into_iter().collect(),
        };
        let mut pending: Vec<_> =
            self.tasks.values().filter(|task| task.status == Status::Pending && task.observed.is_none()).collect();
        pending.sort_by_key(|task| (std::cmp::Reverse(task.priority), task.enqueued_at, task.id));
        let mut taken = Vec::new();
        for task in pending {
            let Some(room) = rooms.get_mut(&task.queue).filter(|room| **room > 0) else { continue };
            if taken.len() < claim.limit as usize {
                *room -= 1;
                workspace.count_start(task.queue.as_str());
                taken.push(task.id);
            }
        }
        taken
    }

    /// The children of all parents, as the table of phases has them.
    pub(super) fn counts(&self) -> Vec<(Uuid, Name, Counts)> {
        let mut counts: BTreeMap<(Uuid, Name), Counts> = BTreeMap::new();
        for task in self.tasks.values() {
            let Some(parent) = task.parent_task_id else { continue };
            let phase = task.phase.clone().unwrap_or_else(|| Name::literal(crate::model::phase::NO_PHASE));
            counts.entry((parent, phase)).or_default().add(task.status);
        }
        counts.into_iter().map(|((parent, phase), counts)| (parent, phase, counts)).collect()
    }

    fn keep(&mut self, mut workspace: Workspace, was_done: bool) {
        let before = self.counts();
        for (id, entry, _) in workspace.tasks() {
            assert!(was_done || entry.before == entry.after, "a refused command changed task {id}");
            match &entry.after {
                Some(task) => drop(self.tasks.insert(id, task.clone())),
                None => drop(self.tasks.remove(&id)),
            }
        }
        self.check_counts(before, &mut workspace);
        for worker in workspace.changed_workers() {
            self.workers.insert(worker.id, worker.clone());
        }
        for queue in workspace.changed_queues() {
            self.queues.insert(queue.name.clone(), queue.clone());
        }
        for (name, schedule) in workspace.changed_schedules() {
            match schedule {
                Some(schedule) => drop(self.schedules.insert(name.clone(), schedule.clone())),
                None => drop(self.schedules.remove(name)),
            }
        }
        for bulk in workspace.changed_bulks() {
            self.bulks.insert(bulk.id, bulk.clone());
        }
        self.events = workspace.into_drafts().into_iter().map(|draft| draft.event).collect();
        assert!(was_done || self.events.is_empty(), "a refused command recorded {:?}", self.kinds());
    }

    /// What the workspace counted is what the tasks say.
    fn check_counts(&self, before: Vec<(Uuid, Name, Counts)>, workspace: &mut Workspace) {
        let table = |counts: Vec<(Uuid, Name, Counts)>| -> BTreeMap<(Uuid, Name), [i64; 5]> {
            counts
                .into_iter()
                .map(|(parent, phase, counts)| ((parent, phase), counts.numbers().map(u64::cast_signed)))
                .collect()
        };
        let mut counted = table(before);
        for (parent, phase, delta) in workspace.children().deltas() {
            let counts = counted.entry((*parent, phase.clone())).or_default();
            counts.iter_mut().zip(delta.by_status()).for_each(|(count, by)| *count += by);
        }
        counted.retain(|_, counts| counts.iter().any(|count| *count != 0));
        assert_eq!(counted, table(self.counts()));
    }

    /// Evaluates blocked tasks and parents that follow their children until nothing changes any more.
    pub(super) fn reevaluate_all(&mut self) {
        loop {
            let waiting = self.tasks.values().filter(|task| task.status == Status::Blocked || task.auto_complete);
            let rows: Vec<_> = waiting.enumerate().map(|(row, task)| (i64::try_from(row).unwrap(), task.id)).collect();
            self.run(&Reevaluate(rows)).unwrap();
            if self.events.is_empty() {
                return;
            }
        }
    }

    /// The kinds of the last command's events.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.event_type.name()).collect()
    }

    pub(super) fn status(&self, number: u128) -> Status {
        self.tasks[&id(number)].status
    }

    /// Creates tasks, which must be accepted.
    pub(super) fn create(&mut self, new: impl IntoIterator<Item = NewTask>) {
        self.run(&CreateTasks(new.into_iter().collect())).unwrap();
    }

    /// Registers a worker for queue `q`.
    pub(super) fn register(&mut self, number: u128) {
        let worker = Worker::new(id(number), Name::literal("w"), Name::literal("m"), self.now);
        self.run(&RegisterWorker(Worker { queues: vec![Name::literal("q")], ..worker })).unwrap();
    }

    /// Claims up to `limit` tasks of queue `q`.
    pub(super) fn claim(&mut self, worker: u128, limit: u32) -> Claimed {
        let queues = vec![Name::literal("q")];
        let request = ClaimRequest { worker_id: id(worker), connector_id: None, queues, limit };
        self.run(&ClaimTasks(request)).unwrap()
    }

    /// Changes one task.
    pub(super) fn change(&mut self, number: u128, transition: Transition) -> Result<Task, Refusal> {
        let command = super::change_tasks::ChangeTasks::new(vec![(id(number), transition)]);
        self.run(&command).unwrap().remove(0)
    }

    /// The fence of the worker that holds a task.
    pub(super) fn fence(&self, number: u128) -> Fence {
        let task = &self.tasks[&id(number)];
        Fence { worker_id: task.worker_id.unwrap(), attempt: task.attempt }
    }
}
