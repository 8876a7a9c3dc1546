//! One transaction's worth of commands: load what they touch, decide in memory, write what changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use chrono::TimeDelta;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    command::{Answer, Command, WriteError},
    ready::Floor,
    rows::Rows,
    tasks,
    touched::Touched,
    workers,
};
use crate::{
    clock::Time,
    event::{Draft, draft},
    model::{
        Name, Task,
        lease::{Claimant, StallReason, StalledPolicy},
        report::{Fence, Progress},
        task::NewTask,
        transition::{self, Step},
        worker::{StopReason, Worker, WorkerEvent, WorkerStatus},
    },
};

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a claim holds without a sign of life.
    pub lease: TimeDelta,
    /// How long a worker may be silent.
    pub worker_ttl: TimeDelta,
    /// What happens to stalled tasks.
    pub stalled_policy: StalledPolicy,
    /// Largest stored event.
    pub max_event_bytes: usize,
}

/// A claim or report is a sign of life; it is written down at most this often.
const TOUCH_EVERY: TimeDelta = TimeDelta::seconds(5);

type Outcome = Result<Answer, WriteError>;

pub(super) struct TaskEntry {
    pub(super) before: Option<Task>,
    pub(super) after: Option<Task>,
}

struct WorkerEntry {
    worker: Worker,
    changed: bool,
}

pub(super) struct Batch<'a> {
    rules: &'a Rules,
    now: Time,
    tasks: HashMap<Uuid, TaskEntry>,
    workers: HashMap<Uuid, WorkerEntry>,
    held: HashMap<Uuid, Vec<Uuid>>,
    /// Tasks taken out of `ready`, per list of queues asked for.
    taken: BTreeMap<Vec<Name>, VecDeque<Uuid>>,
    unready: HashSet<Uuid>,
    drafts: Vec<Draft>,
}

impl<'a> Batch<'a> {
    /// Locks and loads everything the commands touch: tasks in id order, then workers in id order, then claims, which
    /// never wait.
    pub(super) async fn load(
        conn: &mut PgConnection,
        floor: &mut Floor,
        rules: &'a Rules,
        commands: &[&Command],
        now: Time,
    ) -> sqlx::Result<Self> {
        let mut batch = Self {
            rules,
            now,
            tasks: HashMap::new(),
            workers: HashMap::new(),
            held: HashMap::new(),
            taken: BTreeMap::new(),
            unready: HashSet::new(),
            drafts: Vec::new(),
        };
        let touched = Touched::by(commands);
        batch.load_held(conn, &touched).await?;
        let mut locked: Vec<_> = touched.tasks.iter().chain(batch.held.values().flatten()).copied().collect();
        if !touched.parents.is_empty() {
            let parents: Vec<_> = touched.parents.iter().copied().collect();
            locked.extend(tasks::not_yet_parents(conn, &parents).await?);
        }
        if !locked.is_empty() {
            tasks::lock(conn, &locked).await?;
        }
        batch.load_workers(conn, &touched).await?;
        let claimed = batch.take(conn, floor, commands).await?;
        let ids: BTreeSet<_> = locked.into_iter().chain(touched.parents).chain(claimed.iter().copied()).collect();
        if !ids.is_empty() {
            let ids: Vec<_> = ids.into_iter().collect();
            for task in tasks::load(conn, &ids, &claimed).await? {
                batch.tasks.insert(task.id, TaskEntry { before: Some(task.clone()), after: Some(task) });
            }
        }
        Ok(batch)
    }

    async fn load_held(&mut self, conn: &mut PgConnection, touched: &Touched) -> sqlx::Result<()> {
        if touched.holders.is_empty() {
            return Ok(());
        }
        for (worker_id, task_id) in workers::held(conn, &touched.holders).await? {
            self.held.entry(worker_id).or_default().push(task_id);
        }
        Ok(())
    }

    async fn load_workers(&mut self, conn: &mut PgConnection, touched: &Touched) -> sqlx::Result<()> {
        if touched.workers.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = touched.workers.iter().copied().collect();
        let mut loaded = workers::load(&mut *conn, &ids).await?;
        let to_change = |worker: &&Worker| touched.changed_workers.contains(&worker.id) || self.is_stale(worker);
        let changing: Vec<_> = loaded.iter().filter(to_change).map(|worker| worker.id).collect();
        if !changing.is_empty() {
            workers::lock(conn, &changing).await?;
            loaded.retain(|worker| !changing.contains(&worker.id));
            loaded.extend(workers::load(conn, &changing).await?);
        }
        for worker in loaded {
            self.workers.insert(worker.id, WorkerEntry { worker, changed: false });
        }
        Ok(())
    }

    fn is_stale(&self, worker: &Worker) -> bool {
        !worker.status.is_online() || worker.last_seen_at + TOUCH_EVERY <= self.now
    }

    /// Takes what all claims together may have, one statement for each list of queues.
    async fn take(
        &mut self,
        conn: &mut PgConnection,
        floor: &mut Floor,
        commands: &[&Command],
    ) -> sqlx::Result<Vec<Uuid>> {
        let mut wanted: BTreeMap<Vec<Name>, i64> = BTreeMap::new();
        for command in commands {
            if let Command::Claim { worker_id, queues, limit } = command
                && self.workers.get(worker_id).is_some_and(|entry| entry.worker.status != WorkerStatus::Stopped)
            {
                *wanted.entry(queues.clone()).or_default() += i64::from(*limit);
            }
        }
        let mut all = Vec::new();
        for (queues, limit) in wanted {
            let names: Vec<_> = queues.iter().map(Name::as_str).collect();
            let ids = floor.take(conn, &names, limit).await?;
            all.extend(&ids);
            self.taken.insert(queues, ids.into());
        }
        self.unready.extend(&all);
        Ok(all)
    }

    /// Decides one command.
    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Create(new) => self.create(new),
            Command::Claim { worker_id, queues, limit } => self.claim(*worker_id, queues, *limit),
            Command::Tasks { changes, actor } => {
                let outcomes = changes.iter().map(|(id, change)| {
                    if let Some(fence) = change.fence() {
                        self.touch(fence.worker_id);
                    }
                    self.decide(*id, change.clone(), actor.as_deref())
                });
                Ok(Answer::Outcomes(outcomes.collect()))
            }
            Command::Register(worker) => Ok(self.register(worker)),
            Command::Heartbeat { worker_id, status, connectors, tasks } => {
                let entry = self.workers.get_mut(worker_id).ok_or(WriteError::NoWorker(*worker_id))?;
                if entry.worker.status == WorkerStatus::Stopped {
                    return Err(WriteError::WorkerStopped(*worker_id));
                }
                let events = entry.worker.report(*status, connectors, self.now);
                entry.changed = true;
                self.record_worker(*worker_id, &events);
                self.beat(*worker_id, tasks.as_deref())
            }
            Command::Leave(worker_id) => self.leave(*worker_id),
            Command::Lose(worker_id) => self.lose(*worker_id),
        }
    }

    fn create(&mut self, new: &[NewTask]) -> Outcome {
        let mut seen = HashSet::new();
        for task in new {
            if let Some(parent) = task.parent_task_id
                && !seen.contains(&parent)
                && self.task(parent).is_none()
            {
                return Err(WriteError::NoParent(parent));
            }
            seen.insert(task.id);
        }
        let mut tasks = Vec::with_capacity(new.len());
        for task in new {
            if let Some(existing) = self.task(task.id) {
                tasks.push((existing.clone(), false));
                continue;
            }
            let inherited = task.parent_task_id.and_then(|id| self.task(id)).map(|parent| parent.project_id.clone());
            if let Some(parent) = task.parent_task_id
                && self.task(parent).is_some_and(|parent| !parent.is_parent)
            {
                // Before the child, so that whoever counts children knows their parent.
                self.decide(parent, transition::Command::BecomeParent, None)?;
            }
            let task = task.clone().into_task(inherited.as_ref(), self.now);
            self.tasks.insert(task.id, TaskEntry { before: None, after: Some(task.clone()) });
            self.record_steps(&transition::create(task.clone()), None);
            tasks.push((task, true));
        }
        Ok(Answer::Tasks(tasks))
    }

    fn claim(&mut self, worker_id: Uuid, queues: &[Name], limit: u32) -> Outcome {
        let entry = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        if entry.worker.status == WorkerStatus::Stopped {
            return Err(WriteError::WorkerStopped(worker_id));
        }
        let by = Claimant { worker_id, machine_id: entry.worker.machine_id.clone() };
        self.touch(worker_id);
        let lease_until = self.now + self.rules.lease;
        let mut claimed = Vec::new();
        while claimed.len() < limit as usize {
            let Some(id) = self.taken.get_mut(queues).and_then(VecDeque::pop_front) else { break };
            // Another command of this batch may have cancelled it.
            if let Ok(task) = self.decide(id, transition::Command::Claim { by: by.clone(), lease_until }, None) {
                claimed.push((task, true));
            }
        }
        Ok(Answer::Tasks(claimed))
    }

    fn register(&mut self, worker: &Worker) -> Answer {
        let mut worker = worker.clone();
        worker.started_at = self.now;
        worker.last_seen_at = self.now;
        let mut events = vec![WorkerEvent::Started];
        for (id, connector) in &mut worker.connectors {
            connector.since = self.now;
            let connector = connector.clone();
            events.push(WorkerEvent::ConnectorChanged { connector_id: id.clone(), old_status: None, connector });
        }
        self.workers.insert(worker.id, WorkerEntry { worker: worker.clone(), changed: true });
        self.record_worker(worker.id, &events);
        Answer::Worker(worker)
    }

    fn beat(&mut self, worker_id: Uuid, listed: Option<&[(Uuid, u32, Option<Progress>)]>) -> Outcome {
        let held: Vec<_> = match listed {
            Some(listed) => listed.to_vec(),
            None => self
                .held
                .get(&worker_id)
                .into_iter()
                .flatten()
                .filter_map(|id| self.task(*id).map(|task| (*id, task.attempt, None)))
                .collect(),
        };
        let lease_until = self.now + self.rules.lease;
        let mut cancelled = Vec::new();
        for (id, attempt, progress) in held {
            let fence = Fence { worker_id, attempt };
            let command = match progress {
                Some(progress) => transition::Command::Progress { fence, progress, lease_until },
                None => transition::Command::Extend { fence, lease_until },
            };
            if self.decide(id, command, None).is_err() {
                cancelled.push(id);
            }
        }
        let worker = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?.worker.clone();
        Ok(Answer::Beat { worker, cancelled })
    }

    /// Tasks it still has go back to their queues.
    fn leave(&mut self, worker_id: Uuid) -> Outcome {
        self.stop(worker_id, StopReason::Asked)?;
        for id in self.held.remove(&worker_id).unwrap_or_default() {
            let Some(attempt) = self.task(id).map(|task| task.attempt) else { continue };
            // A lease that has meanwhile gone to someone else stays there.
            let _ = self.decide(id, transition::Command::Release { fence: Fence { worker_id, attempt } }, None);
        }
        self.worker_answer(worker_id)
    }

    fn lose(&mut self, worker_id: Uuid) -> Outcome {
        let entry = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        if entry.worker.last_seen_at + self.rules.worker_ttl <= self.now {
            self.stop(worker_id, StopReason::Lost)?;
            for id in self.held.remove(&worker_id).unwrap_or_default() {
                if self.task(id).is_some_and(|task| task.worker_id == Some(worker_id)) {
                    let policy = self.rules.stalled_policy;
                    let _ =
                        self.decide(id, transition::Command::Stall { reason: StallReason::WorkerLost, policy }, None);
                }
            }
        }
        self.worker_answer(worker_id)
    }

    fn stop(&mut self, worker_id: Uuid, reason: StopReason) -> Result<(), WriteError> {
        let entry = self.workers.get_mut(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        if let Some(event) = entry.worker.stop(reason, self.now) {
            entry.changed = true;
            self.record_worker(worker_id, &[event]);
        }
        Ok(())
    }

    fn worker_answer(&self, worker_id: Uuid) -> Outcome {
        let entry = self.workers.get(&worker_id).ok_or(WriteError::NoWorker(worker_id))?;
        Ok(Answer::Worker(entry.worker.clone()))
    }

    /// A claim or report shows that the worker lives.
    fn touch(&mut self, worker_id: Uuid) {
        let now = self.now;
        let Some(stale) = self.workers.get(&worker_id).map(|entry| self.is_stale(&entry.worker)) else { return };
        if let Some(entry) = self.workers.get_mut(&worker_id)
            && stale
            && entry.worker.status != WorkerStatus::Stopped
        {
            let events = entry.worker.report(None, &[], now);
            entry.changed = true;
            self.record_worker(worker_id, &events);
        }
    }

    fn task(&self, id: Uuid) -> Option<&Task> {
        self.tasks.get(&id).and_then(|entry| entry.after.as_ref())
    }

    fn decide(&mut self, id: Uuid, command: transition::Command, actor: Option<&str>) -> Result<Task, WriteError> {
        let task = self.task(id).ok_or(WriteError::NoTask(id))?;
        let removes = command == transition::Command::Delete;
        let (after, steps) = task.decide(command, self.now)?;
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.after = (!removes).then(|| after.clone());
        }
        self.record_steps(&steps, actor);
        Ok(after)
    }

    fn record_steps(&mut self, steps: &[Step], actor: Option<&str>) {
        for step in steps {
            self.drafts.push(Draft::new(draft::task_event(step, actor, self.now), self.rules.max_event_bytes));
        }
    }

    fn record_worker(&mut self, worker_id: Uuid, events: &[WorkerEvent]) {
        let Some(entry) = self.workers.get(&worker_id) else { return };
        for event in events {
            let event = draft::worker_event(&entry.worker, event, self.now);
            self.drafts.push(Draft::new(event, self.rules.max_event_bytes));
        }
    }

    /// Writes every row that changed, and hands over the events to append.
    pub(super) async fn save(self, conn: &mut PgConnection) -> sqlx::Result<Vec<Draft>> {
        let mut rows = Rows::default();
        for (id, entry) in &self.tasks {
            rows.sort(*id, entry, self.unready.contains(id));
        }
        if !rows.inserted.is_empty() {
            tasks::insert(conn, &rows.inserted).await?;
        }
        if !rows.updated.is_empty() {
            tasks::update(conn, &rows.updated).await?;
        }
        if !rows.deleted.is_empty() {
            tasks::delete(conn, &rows.deleted).await?;
        }
        if !rows.unready.is_empty() {
            tasks::unready(conn, &rows.unready).await?;
        }
        if !rows.ready.is_empty() {
            // The line keeps the order of the commands.
            rows.ready.sort_unstable_by_key(|task| (task.enqueued_at, task.created_at, task.id));
            tasks::make_ready(conn, &rows.ready, self.now).await?;
        }
        if !rows.unleased.is_empty() {
            tasks::unlease(conn, &rows.unleased).await?;
        }
        if !rows.leased.is_empty() {
            tasks::lease(conn, &rows.leased).await?;
        }
        let changed: Vec<_> = self.workers.values().filter(|entry| entry.changed).map(|entry| &entry.worker).collect();
        if !changed.is_empty() {
            workers::save(conn, &changed).await?;
        }
        Ok(self.drafts)
    }
}
