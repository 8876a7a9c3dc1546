//! One transaction's worth of commands: load what they touch, decide in memory, write what changed.

mod changes;
mod claim;
mod create;
mod families;
mod observe;
mod operators;
mod recheck;
mod rings;
mod rows;
mod touched;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use chrono::TimeDelta;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    children::{self, Children},
    command::{Answer, Command, WriteError},
    queues::{self, QueueState},
    ready::Floor,
    tasks, waits,
};
use crate::{
    clock::Time,
    event::{Draft, Event, Kind, draft},
    model::{
        Name, Task,
        dependency::Dependencies,
        lease::StalledPolicy,
        transition::{self, Step},
        worker::{Worker, WorkerEvent},
    },
};
use families::Families;
use operators::Operators;
use rings::Waiters;
use rows::Rows;
use touched::Touched;

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a claim holds without a sign of life.
    pub lease: TimeDelta,
    /// How long a worker may be silent.
    pub worker_ttl: TimeDelta,
    /// How long a connector may go unreported.
    pub connector_stale: TimeDelta,
    /// What happens to stalled tasks.
    pub stalled_policy: StalledPolicy,
    /// Largest stored event.
    pub max_event_bytes: usize,
}

type Outcome = Result<Answer, WriteError>;

/// A task before and after the batch.
pub(super) struct TaskEntry {
    pub(super) before: Option<Task>,
    pub(super) after: Option<Task>,
}

struct WorkerEntry {
    worker: Worker,
    changed: bool,
}

struct QueueEntry {
    state: QueueState,
    changed: bool,
}

/// What a writer remembers from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) floor: Floor,
    /// Queues that have a row.
    pub(super) queues: HashSet<Name>,
}

/// What a batch leaves to its writer.
pub(super) struct Saved {
    /// Events to append.
    pub(super) drafts: Vec<Draft>,
    /// Queues that have a row, once this is committed.
    pub(super) queues: Vec<Name>,
}

pub(super) struct Batch<'a> {
    rules: &'a Rules,
    now: Time,
    tasks: HashMap<Uuid, TaskEntry>,
    workers: HashMap<Uuid, WorkerEntry>,
    queues: BTreeMap<Name, QueueEntry>,
    held: HashMap<Uuid, Vec<Uuid>>,
    /// Tasks taken out of `ready`, per list of queues asked for.
    taken: BTreeMap<Vec<Name>, VecDeque<Uuid>>,
    unready: HashSet<Uuid>,
    /// Live tasks by unique key and project.
    keys: HashMap<(String, Name), Uuid>,
    children: Children,
    operators: Operators,
    waiters: Waiters,
    families: Families,
    /// Rows of `rechecks` that are worked off.
    rechecked: Vec<i64>,
    drafts: Vec<Draft>,
}

impl<'a> Batch<'a> {
    /// Locks and loads everything the commands touch: tasks in id order, then workers in id order, then queues in the
    /// order of their names, then claims, which never wait.
    pub(super) async fn load(
        conn: &mut PgConnection,
        memory: &mut Memory,
        rules: &'a Rules,
        commands: &[&Command],
        now: Time,
    ) -> sqlx::Result<Self> {
        let mut batch = Self {
            rules,
            now,
            tasks: HashMap::new(),
            workers: HashMap::new(),
            queues: BTreeMap::new(),
            held: HashMap::new(),
            taken: BTreeMap::new(),
            unready: HashSet::new(),
            keys: HashMap::new(),
            children: Children::default(),
            operators: Operators::default(),
            waiters: Waiters::default(),
            families: Families::default(),
            rechecked: Vec::new(),
            drafts: Vec::new(),
        };
        let mut touched = Touched::by(commands);
        if !touched.retried.is_empty() {
            // Groups above them may run again with them.
            touched.tasks.extend(tasks::ancestors(conn, &touched.retried).await?.into_values());
        }
        if !touched.graph && !touched.retried.is_empty() {
            touched.graph = !tasks::dependencies(conn, &touched.retried).await?.is_empty();
        }
        if touched.graph {
            waits::lock_graph(conn).await?;
            touched.tasks.extend(tasks::dependencies(conn, &touched.retried).await?);
        }
        batch.load_held(conn, &touched).await?;
        batch.load_tasks(conn, &touched).await?;
        batch.load_families(conn, &touched).await?;
        batch.load_waiters(conn, commands).await?;
        batch.load_workers(conn, &touched).await?;
        batch.operators.load(conn, commands).await?;
        batch.load_queues(conn, &touched, commands).await?;
        let claimed = batch.take(conn, &mut memory.floor, commands).await?;
        if !claimed.is_empty() {
            batch.keep(tasks::load(conn, &claimed, &claimed).await?);
        }
        Ok(batch)
    }

    async fn load_tasks(&mut self, conn: &mut PgConnection, touched: &Touched) -> sqlx::Result<()> {
        let mut locked: BTreeSet<_> = touched.tasks.iter().chain(self.held.values().flatten()).copied().collect();
        if !touched.keys.is_empty() {
            locked.extend(tasks::with_keys(conn, &touched.keys).await?);
        }
        if !touched.rechecked.is_empty() {
            locked.extend(tasks::waited_for(conn, &touched.rechecked).await?);
        }
        if !touched.parents.is_empty() {
            let parents: Vec<_> = touched.parents.iter().copied().collect();
            locked.extend(tasks::not_yet_parents(conn, &parents).await?);
        }
        let locked: Vec<_> = locked.into_iter().collect();
        if !locked.is_empty() {
            tasks::lock(conn, &locked).await?;
        }
        let whole: Vec<_> = touched.observed.iter().copied().collect();
        // With what a repeated request is compared with.
        let with_payload: Vec<_> = touched.observed.union(&touched.created).copied().collect();
        let mut ids: BTreeSet<_> = locked.into_iter().chain(touched.parents.iter().copied()).collect();
        if !ids.is_empty() {
            self.keep(tasks::load(conn, &ids.iter().copied().collect::<Vec<_>>(), &with_payload).await?);
        }
        // A finished task that is to run again may find its unique key taken.
        let over = |task: &Task| task.unique_key.clone().filter(|_| task.status.is_finished());
        let keys: Vec<_> = self.tasks.values().filter_map(|entry| over(entry.after.as_ref()?)).collect();
        if !keys.is_empty() {
            let mut holders = tasks::with_keys(conn, &keys).await?;
            holders.retain(|id| !self.tasks.contains_key(id));
            self.keep(tasks::load(conn, &holders, &[]).await?);
        }
        // Reported tasks inherit from parents that they named earlier.
        let known = |task: &Task| task.parent_task_id.filter(|_| task.inherits());
        let further: BTreeSet<_> = self.tasks.values().filter_map(|entry| known(entry.after.as_ref()?)).collect();
        ids = further.into_iter().filter(|id| !ids.contains(id)).collect();
        if !ids.is_empty() {
            self.keep(tasks::load(conn, &ids.into_iter().collect::<Vec<_>>(), &[]).await?);
        }
        // Groups follow their counts; what is made a parent now may have children already, enqueued or reported before.
        let known = self.tasks.values().filter_map(|entry| entry.after.as_ref());
        let counts = |task: &&Task| task.close_when_done;
        let elsewhere =
            known.clone().filter(|task| touched.observed.contains(&task.id)).filter_map(|t| t.parent_task_id);
        let counted = known.filter(counts).map(|task| task.id).chain(elsewhere).chain(whole);
        let counted: BTreeSet<_> = counted.chain(touched.parents.iter().copied()).collect();
        let counted: Vec<_> = counted.into_iter().chain(touched.rechecked.iter().copied()).collect();
        if !counted.is_empty() {
            self.children.load(conn, &counted).await?;
        }
        Ok(())
    }

    fn keep(&mut self, loaded: Vec<Task>) {
        for task in loaded {
            if let Some(key) = task.unique_key.clone().filter(|_| !task.status.is_finished()) {
                self.keys.insert((key, task.project_id.clone()), task.id);
            }
            self.tasks.insert(task.id, TaskEntry { before: Some(task.clone()), after: Some(task) });
        }
    }

    async fn load_queues(
        &mut self,
        conn: &mut PgConnection,
        touched: &Touched,
        commands: &[&Command],
    ) -> sqlx::Result<()> {
        if !touched.queues.is_empty() {
            let names: Vec<_> = touched.queues.iter().map(Name::as_str).collect();
            for state in queues::lock(conn, &names).await? {
                self.queues.insert(state.name.clone(), QueueEntry { state, changed: false });
            }
        }
        let asked = commands.iter().filter_map(|command| match command {
            Command::Claim { queues, .. } => Some(queues),
            _ => None,
        });
        let asked: BTreeSet<_> = asked.flatten().filter(|name| !self.queues.contains_key(*name)).cloned().collect();
        if asked.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = asked.iter().map(Name::as_str).collect();
        for state in queues::claimed_from(conn, &names).await? {
            self.queues.insert(state.name.clone(), QueueEntry { state, changed: false });
        }
        Ok(())
    }

    /// Decides one command.
    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Create(new) => self.create(new),
            Command::Claim { worker_id, queues, limit, connector_id } => {
                self.claim(*worker_id, queues, *limit, connector_id.as_ref())
            }
            Command::Tasks { changes, actor } => Ok(Answer::Outcomes(self.change_each(changes, actor.as_deref()))),
            Command::Steer { changes, actor, family } => Ok(self.steer(changes, actor, family)),
            Command::Register(worker) => Ok(self.register(worker)),
            Command::Heartbeat { worker_id, status, connectors, tasks } => {
                self.heartbeat(*worker_id, *status, connectors.as_deref(), tasks.as_deref())
            }
            Command::Leave(worker_id) => self.leave(*worker_id),
            Command::Lose(worker_id) => self.lose(*worker_id),
            Command::Doubt(worker_id) => self.doubt(*worker_id),
            Command::Observe(reports) => Ok(self.observe(reports)),
            Command::Recheck(rows) => Ok(self.recheck(rows)),
            Command::Queue { name, change, actor } => Ok(self.decide_queue(name, change, actor)),
            Command::Schedule { name, change, actor } => self.decide_schedule(name, change, actor),
            Command::Fire { name, at, .. } => self.fire(name, *at),
            Command::BeginBulk(bulk) => Ok(self.begin_bulk(bulk)),
            Command::StepBulk(step) => Ok(self.step_bulk(step)),
            Command::CancelBulk { id, actor } => self.cancel_bulk(*id, actor),
        }
    }

    fn task(&self, id: Uuid) -> Option<&Task> {
        self.tasks.get(&id).and_then(|entry| entry.after.as_ref())
    }

    fn decide(&mut self, id: Uuid, command: transition::Command, actor: Option<&str>) -> Result<Task, WriteError> {
        let task = self.task(id).ok_or(WriteError::NoTask(id))?;
        let removes = matches!(command, transition::Command::Delete | transition::Command::Expire(_));
        let before = task.clone();
        let (after, steps) = task.decide(command, self.now)?;
        self.put(&before, (!removes).then(|| after.clone()), &steps, actor);
        Ok(after)
    }

    /// Takes over what was decided about a task, with everything that follows from it at once.
    fn put(&mut self, before: &Task, after: Option<Task>, steps: &[Step], actor: Option<&str>) {
        self.record_steps(steps, actor);
        self.children.moves(Some(before), after.as_ref());
        self.follow_connector(before, after.as_ref());
        if let Some(entry) = self.tasks.get_mut(&before.id) {
            entry.after = after;
        }
    }

    fn record_steps(&mut self, steps: &[Step], actor: Option<&str>) {
        for step in steps {
            self.record(draft::task_event(step, actor, self.now));
        }
    }

    fn record(&mut self, event: Event) {
        self.drafts.push(Draft::new(event, self.rules.max_event_bytes));
    }

    fn record_worker(&mut self, worker_id: Uuid, events: &[WorkerEvent]) {
        let Some(entry) = self.workers.get(&worker_id) else { return };
        let events: Vec<_> = events.iter().map(|event| draft::worker_event(&entry.worker, event, self.now)).collect();
        events.into_iter().for_each(|event| self.record(event));
    }

    /// Writes every row that changed, and hands over the events to append.
    pub(super) async fn save(mut self, conn: &mut PgConnection, memory: &Memory) -> sqlx::Result<Saved> {
        let turns = std::mem::take(&mut self.children).save(conn, self.now).await?;
        for turn in &turns {
            let told = [(turn.starts, Kind::PhaseStarted), (turn.completes, Kind::PhaseCompleted)];
            for (_, kind) in told.into_iter().filter(|(is_so, _)| *is_so) {
                self.record(draft::phase_event(
                    kind,
                    (turn.parent_task_id, &turn.name, turn.project_id.as_ref()),
                    turn.counts,
                    turn.started_at,
                    self.now,
                ));
            }
        }
        children::recheck_groups(conn, &turns).await?;
        let mut rows = Rows::default();
        for (id, entry) in &self.tasks {
            rows.sort(*id, entry, self.unready.contains(id));
        }
        let moved = rows.inserted.iter().chain(&rows.described).map(|task| &task.queue);
        let queues: BTreeSet<_> = moved.filter(|name| !memory.queues.contains(*name)).cloned().collect();
        if !queues.is_empty() {
            queues::add(conn, &queues.iter().map(Name::as_str).collect::<Vec<_>>()).await?;
        }
        rows.write(conn, self.now).await?;
        let changed: Vec<_> = self.queues.values().filter(|entry| entry.changed).map(|entry| &entry.state).collect();
        queues::save(conn, &changed).await?;
        let changed: Vec<_> = self.workers.values().filter(|entry| entry.changed).map(|entry| &entry.worker).collect();
        if !changed.is_empty() {
            super::workers::save(conn, &changed).await?;
        }
        self.operators.save(conn).await?;
        if !self.rechecked.is_empty() {
            waits::rechecked(conn, &self.rechecked).await?;
        }
        Ok(Saved { drafts: self.drafts, queues: queues.into_iter().collect() })
    }
}
