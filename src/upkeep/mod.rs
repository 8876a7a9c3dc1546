//! Periodic work: ONE table. Each row looks for something and asks the writer (or tells the feed); it changes nothing by itself.
//!
//! To add a job, add its row.

mod liveness;
mod waiting;

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta};
use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::{
    board,
    clock::{Clock, Time},
    command::{
        change_tasks::ChangeTasks, reevaluate::Reevaluate, run_bulk_step::RunBulkStep, run_schedule::RunSchedule,
    },
    event::{Event, EventId, Kind},
    feed::{self, SharedBoard, Subscriptions},
    model::{
        Name,
        bulk::{Bulk, BulkAction, BulkStep},
        lease::StalledPolicy,
        task_query::TaskQuery,
        transition::Transition,
    },
    store::{
        EventLog, Store, WriteError, Writer, bulk, checkpoints, families, retention, schedules, search, sweep, waits,
        witness::Witness,
    },
};

pub use waiting::StuckTold;

/// What jobs work with.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// To read.
    pub store: Store,
    /// To read the ends of the log.
    pub event_log: EventLog,
    /// To ask for changes.
    pub writer: Writer,
    /// The time.
    pub clock: Clock,
    /// The feed, which knows the ends of the log.
    pub subscriptions: Subscriptions,
    /// The board to save.
    pub board: SharedBoard,
    /// How long a worker may be silent.
    pub worker_ttl: TimeDelta,
    /// How long a connector may go unreported.
    pub connector_stale: TimeDelta,
    /// What happens to stalled tasks.
    pub stalled_policy: StalledPolicy,
    /// How long finished tasks are kept; zero: for ever.
    pub retain_tasks: TimeDelta,
    /// How long events are kept; zero: for ever.
    pub retain_events: TimeDelta,
    /// How long nothing may be reported of a reported task; zero: for ever.
    pub observed_stale: TimeDelta,
    /// What was told of queues last.
    pub depths_told: HashMap<Name, Depth>,
    /// What was told of stuck tasks last.
    pub stuck_told: StuckTold,
    /// Where ephemeral events go.
    pub ephemeral: mpsc::Sender<Vec<Event>>,
    /// Since when workers could report: the start, or the end of an outage or a sleep. Leases and workers are not judged
    /// before they had time to do so.
    pub reachable_since: Time,
    /// When a sweep last went through, by the machine's own clock.
    pub swept_at: std::time::SystemTime,
    /// Workers' signs of life told so far.
    pub pulses_until: Time,
    /// The last event of the last checkpoint.
    pub saved: EventId,
    /// Where it is noted how far the log is.
    pub witness: Option<Witness>,
    /// When that was saved by this process, seconds since 1970; 0 before the first.
    pub checkpointed_at: Arc<AtomicI64>,
}

/// How long a queue is, and since when its oldest task waits.
type Depth = (u64, Option<Time>);

/// Tasks in one step of an action on many.
const BULK: i64 = 200;
/// Removals of old tasks in a row.
const ROUNDS: usize = 20;
/// Longest time of one job.
const JOB: Duration = Duration::from_secs(30);

type Done<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// Jobs of one lane run one after the other, so that slow ones do not hold up those that have to be on time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// On time.
    Prompt,
    /// May take a while.
    Slow,
}

/// One row.
pub struct Job {
    /// Its name in logs.
    pub name: &'static str,
    /// Who runs it.
    pub lane: Lane,
    /// How often it runs.
    pub every: Duration,
    run: for<'a> fn(&'a mut Upkeep) -> Done<'a>,
}

/// The table.
pub const JOBS: [Job; 14] = [
    // Retries and, later, scheduled tasks whose time has come.
    Job { name: "due", lane: Lane::Prompt, every: Duration::from_millis(250), run: |upkeep| Box::pin(upkeep.due()) },
    // Tasks whose dependencies, children or parent changed.
    Job {
        name: "rechecks",
        lane: Lane::Prompt,
        every: Duration::from_millis(100),
        run: |upkeep| Box::pin(upkeep.rechecks()),
    },
    // Connectors that nobody has reported for long.
    Job {
        name: "connectors",
        lane: Lane::Prompt,
        every: Duration::from_secs(1),
        run: |upkeep| Box::pin(upkeep.connectors()),
    },
    // Recurring tasks whose time has come.
    Job {
        name: "schedules",
        lane: Lane::Prompt,
        every: Duration::from_millis(500),
        run: |upkeep| Box::pin(upkeep.schedules()),
    },
    // The next step of actions on many tasks.
    Job { name: "bulk", lane: Lane::Slow, every: Duration::from_millis(100), run: |upkeep| Box::pin(upkeep.bulk()) },
    // Finished tasks, and workers that left, that are kept no longer.
    Job {
        name: "old_tasks",
        lane: Lane::Slow,
        every: Duration::from_secs(1),
        run: |upkeep| Box::pin(upkeep.old_tasks()),
    },
    // Events that are kept no longer.
    Job {
        name: "old_events",
        lane: Lane::Slow,
        every: Duration::from_secs(10),
        run: |upkeep| Box::pin(upkeep.old_events()),
    },
    // Workers silent for longer than their time to live, and running tasks whose lease or time limit has passed.
    Job {
        name: "liveness",
        lane: Lane::Prompt,
        every: Duration::from_secs(1),
        run: |upkeep| Box::pin(upkeep.liveness()),
    },
    // Tasks that wait for what cannot come, as an ephemeral event, on every server alike.
    Job { name: "stuck", lane: Lane::Slow, every: Duration::from_secs(2), run: |upkeep| Box::pin(upkeep.stuck()) },
    // Reported tasks of which nothing was reported for long.
    Job {
        name: "silent_reports",
        lane: Lane::Slow,
        every: Duration::from_secs(5),
        run: |upkeep| Box::pin(upkeep.silent_reports()),
    },
    // Workers' signs of life, as ephemeral events, on every server alike.
    Job {
        name: "heartbeats",
        lane: Lane::Prompt,
        every: Duration::from_secs(2),
        run: |upkeep| Box::pin(upkeep.heartbeats()),
    },
    // The oldest claimable task of each queue, and the figures, as ephemeral events.
    Job { name: "gauges", lane: Lane::Prompt, every: Duration::from_secs(5), run: |upkeep| Box::pin(upkeep.gauges()) },
    // The board, so that the next start is quick.
    Job {
        name: "checkpoint",
        lane: Lane::Slow,
        every: Duration::from_secs(30),
        run: |upkeep| Box::pin(upkeep.checkpoint()),
    },
    // Room for the log to grow.
    Job {
        name: "partitions",
        lane: Lane::Prompt,
        every: Duration::from_secs(5),
        run: |upkeep| Box::pin(upkeep.partitions()),
    },
];

impl Upkeep {
    /// Runs every job of a lane in its rhythm, for ever, one after the other; a failing one is logged and tried again.
    pub async fn run(mut self, lane: Lane) {
        let jobs: Vec<_> = JOBS.iter().filter(|job| job.lane == lane).collect();
        let mut due: Vec<_> = jobs.iter().map(|job| tokio::time::Instant::now() + job.every).collect();
        loop {
            let Some((index, at)) = due.iter().copied().enumerate().min_by_key(|(_, at)| *at) else { return };
            tokio::time::sleep_until(at).await;
            let job = jobs[index];
            let done = AssertUnwindSafe(tokio::time::timeout(JOB, (job.run)(&mut self))).catch_unwind().await;
            let done = done.unwrap_or_else(|_| Ok(Err(anyhow::anyhow!("it panicked"))));
            if let Err(error) = done.unwrap_or_else(|_| Err(anyhow::anyhow!("it took longer than {JOB:?}"))) {
                tracing::warn!(job = job.name, error = format!("{error:#}"), "periodic work failed; it is tried again");
            }
            due[index] = tokio::time::Instant::now() + job.every;
        }
    }

    async fn due(&mut self) -> anyhow::Result<()> {
        let due = sweep::due(self.store.pool(), self.clock.now()).await?;
        self.change(due.into_iter().map(|id| (id, Transition::Due)).collect(), None).await
    }

    async fn rechecks(&mut self) -> anyhow::Result<()> {
        let rows = waits::rechecks(self.store.pool()).await?;
        if !rows.is_empty() {
            self.writer.run(Reevaluate(rows)).await?;
        }
        Ok(())
    }

    async fn schedules(&mut self) -> anyhow::Result<()> {
        for schedule in schedules::due(self.store.pool(), self.clock.now()).await? {
            let Some(at) = schedule.next_run_at else { continue };
            let name = schedule.name.clone();
            let run = RunSchedule {
                name: schedule.name,
                at,
                task_id: uuid::Uuid::now_v7(),
                parent_task_id: schedule.task.parent_task_id,
                unique_key: schedule.task.unique_key,
            };
            if let Err(error) = self.writer.run(run).await {
                tracing::warn!(%error, schedule = %name, "a recurring task could not be created; it is tried again");
            }
        }
        Ok(())
    }

    /// Finds the tasks of the next step; the writer does it if no other server was faster.
    async fn bulk(&mut self) -> anyhow::Result<()> {
        for bulk in bulk::due(self.store.pool(), self.clock.now()).await? {
            let limit = bulk.pace_per_second.map_or(BULK, |pace| i64::from(pace).min(BULK));
            let query = TaskQuery { before: Some(bulk.before), limit, ..bulk.filter };
            let places = search::places(self.store.pool(), &query).await?;
            let more = i64::try_from(places.len())? == limit;
            let to = places.last().copied().filter(|_| more);
            let ids: Vec<_> = places.into_iter().map(|(_, id)| id).collect();
            let family = match &bulk.action {
                BulkAction::WithChildren { of } => self.family(&ids, of, &bulk.actor).await?,
                _ => None,
            };
            let retries = bulk.action.retries();
            let step = BulkStep { id: bulk.id, from: bulk.before, ids, retries, family, to };
            // One that cannot go on now must not hold up the others.
            if let Err(error) = self.writer.run(RunBulkStep(step)).await {
                tracing::warn!(%error, bulk = %bulk.id, "a step of a bulk action failed; it is tried again");
            }
        }
        Ok(())
    }

    /// What is to be done to the tasks below some others; nothing when there are none.
    async fn family(&self, ids: &[uuid::Uuid], action: &BulkAction, actor: &str) -> anyhow::Result<Option<Box<Bulk>>> {
        let mut parents = families::parents(self.store.pool(), ids).await?;
        parents.truncate(families::MOST_PARENTS);
        if families::children(self.store.pool(), &parents).await?.total() == 0 {
            return Ok(None);
        }
        let (id, now) = (uuid::Uuid::now_v7(), self.clock.now());
        Ok(Some(Box::new(Bulk::of_family(id, action, parents, actor.to_owned(), now))))
    }

    async fn old_tasks(&mut self) -> anyhow::Result<()> {
        if self.retain_tasks == TimeDelta::zero() {
            return Ok(());
        }
        let before = self.clock.now() - self.retain_tasks;
        retention::forget(self.store.pool(), before).await?;
        for _ in 0..ROUNDS {
            let old = retention::old_tasks(self.store.pool(), before).await?;
            if old.is_empty() {
                break;
            }
            let changes = old.into_iter().map(|id| (id, Transition::Expire(before))).collect();
            self.change(changes, Some("retention")).await?;
        }
        Ok(())
    }

    async fn old_events(&mut self) -> anyhow::Result<()> {
        if self.retain_events == TimeDelta::zero() {
            return Ok(());
        }
        let before = self.clock.now() - self.retain_events;
        if retention::events(&self.store, before, board::VERSION).await? {
            self.checkpoint().await?;
            retention::events(&self.store, before, board::VERSION).await?;
        }
        Ok(())
    }

    /// Changes tasks. One whose row cannot be read or written must not keep the others waiting.
    async fn change(&self, changes: Vec<(uuid::Uuid, Transition)>, actor: Option<&str>) -> anyhow::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let command = |changes| ChangeTasks { changes, actor: actor.map(str::to_owned), family: None };
        // Another server may have been faster: then the state machine refuses, which is as it should be.
        match self.writer.run(command(changes.clone())).await {
            Err(WriteError::Database(_) | WriteError::Internal) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
        for (id, change) in changes {
            if let Err(error) = self.writer.run(command(vec![(id, change)])).await {
                tracing::error!(task = %id, %error, "a task cannot be changed; taskwatch verify may say why");
            }
        }
        Ok(())
    }

    async fn heartbeats(&mut self) -> anyhow::Result<()> {
        let pulses = sweep::pulses(self.store.pool(), self.pulses_until).await?;
        let mut events = Vec::with_capacity(pulses.len());
        for pulse in pulses {
            self.pulses_until = self.pulses_until.max(pulse.last_seen_at);
            let mut event = Event::new(Kind::WorkerHeartbeat, pulse.last_seen_at);
            event.worker_id = Some(pulse.worker_id);
            event.machine_id =
                feed::read(&self.board).workers.0.get(&pulse.worker_id).map(|worker| worker.machine_id.clone());
            events.push(event);
        }
        self.tell(events);
        Ok(())
    }

    async fn gauges(&mut self) -> anyhow::Result<()> {
        let oldest: HashMap<_, _> = sweep::oldest(self.store.pool())
            .await?
            .into_iter()
            .map(|oldest| (oldest.queue, oldest.enqueued_at))
            .collect();
        let now = self.clock.now();
        let mut events = Vec::new();
        {
            let board = feed::read(&self.board);
            self.depths_told.retain(|name, _| board.queues.0.contains_key(name));
            for (name, queue) in &board.queues.0 {
                let depth = (queue.waiting(), oldest.get(name.as_str()).copied());
                // Whoever comes later finds it in the snapshot.
                if self.depths_told.insert(name.clone(), depth) == Some(depth) {
                    continue;
                }
                let mut event = Event::new(Kind::QueueDepthUpdate, now);
                event.queue = Some(name.clone());
                (event.data.depth, event.data.oldest_enqueued_at) = (Some(depth.0), depth.1);
                events.push(event);
            }
            let mut event = Event::new(Kind::StatsSnapshot, now);
            event.data.stats = Some(board.stats(now));
            events.push(event);
        }
        self.tell(events);
        Ok(())
    }

    /// Ephemeral events can be computed again, so a full channel only means that someone is told a little later.
    fn tell(&self, events: Vec<Event>) {
        if !events.is_empty() {
            let _ = self.ephemeral.try_send(events);
        }
    }

    async fn checkpoint(&mut self) -> anyhow::Result<()> {
        if feed::read(&self.board).id() == self.saved {
            return Ok(());
        }
        // A copy, so that nobody waits for the encoding.
        let board = feed::read(&self.board).clone();
        let checkpoint = checkpoints::Checkpoint { position: board.position, body: serde_json::to_string(&board)? };
        let mut conn = self.store.pool().acquire().await?;
        checkpoints::save(&mut conn, &checkpoint, board::VERSION, (board.epoch, self.clock.now())).await?;
        self.saved = board.id();
        self.checkpointed_at.store(self.clock.now().timestamp(), Ordering::Relaxed);
        Ok(())
    }

    async fn partitions(&mut self) -> anyhow::Result<()> {
        if let Some(witness) = &self.witness {
            witness.note(self.subscriptions.end())?;
        }
        self.subscriptions.set_oldest(self.event_log.ends().await?.oldest);
        let made = self.event_log.ensure_partitions().await?;
        if made > 0 {
            tracing::info!(made, "made room in the event log");
        }
        Ok(())
    }
}

/// Before anyone gave a sign of life.
pub const NEVER: Time = DateTime::UNIX_EPOCH;
