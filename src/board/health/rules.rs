//! The health rules: ONE table. Health of queues, workers, tasks and the system is derived from it, and so are the
//! alerts.
//!
//! To add a rule, add its row and its test.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Level, Reason};
use crate::{
    board::{queues::Queue, running::RunningTask, workers::LastSeen},
    clock::Time,
    model::{
        Name, Status,
        stuck::{Stuck, StuckReason},
        worker::{ConnectorStatus, WorkerStatus},
    },
};

/// Tasks may be pending for so long before a missing worker or a rate limit is a reason.
const PENDING_AFTER: TimeDelta = TimeDelta::seconds(10);
/// A queue with workers is stalled if for this long nothing was claimed and nothing runs.
const STANDSTILL_AFTER: TimeDelta = TimeDelta::seconds(60);
/// How long a lost worker is a reason.
const LOST_FOR: TimeDelta = TimeDelta::minutes(5);
/// A task is slow if it runs for longer than this multiple of the p95 of its type,
const SLOW_FACTOR: u64 = 3;
/// and for at least this long, milliseconds.
const SLOW_AT_LEAST_MS: u64 = 10_000;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Machine-readable code; stable across versions.
    pub code: &'static str,
    /// Severity.
    pub severity: Level,
    /// What it means.
    pub about: &'static str,
    pub(super) test: Test,
}

/// The condition of a rule; returns the human-readable text.
#[derive(Debug)]
pub(super) enum Test {
    /// On a queue with pending tasks; the first match counts.
    Queue(fn(&QueueScope<'_>) -> Option<String>),
    /// On a worker and its connectors.
    Worker(fn(&WorkerScope<'_>) -> Vec<String>),
    /// On a running task.
    RunningTask(fn(&TaskScope<'_>) -> Option<String>),
    /// On a task that cannot make progress without an operator; the text says what would help.
    StuckTask(fn(&Stuck) -> Option<String>),
}

/// A queue with pending tasks.
pub(super) struct QueueScope<'a> {
    pub(super) name: &'a Name,
    pub(super) queue: &'a Queue,
    /// Number of workers that claim from it.
    pub(super) workers: usize,
    pub(super) now: Time,
}

/// A worker.
pub(super) struct WorkerScope<'a> {
    pub(super) worker: &'a LastSeen,
    /// Time without a heartbeat after which it counts as quiet.
    pub(super) quiet: TimeDelta,
    pub(super) now: Time,
}

/// A running task.
pub(super) struct TaskScope<'a> {
    pub(super) id: Uuid,
    pub(super) task: &'a RunningTask,
    /// p95 of the run time of its type, milliseconds, if known.
    pub(super) p95_ms: Option<u64>,
    pub(super) now: Time,
}

/// The table.
pub const RULES: &[Rule] = &[
    Rule {
        code: "queue_paused",
        severity: Level::Degraded,
        about: "A queue with pending tasks is paused.",
        test: Test::Queue(|scope| {
            scope.queue.paused_at.map(|_| format!("queue {} is paused, {}", scope.name, scope.waits()))
        }),
    },
    Rule {
        code: "no_worker",
        severity: Level::Stalled,
        about: "No worker serves a queue with pending tasks.",
        test: Test::Queue(|scope| {
            let missing = scope.workers == 0 && scope.for_longer(scope.queue.untaken_since(), PENDING_AFTER);
            missing.then(|| format!("no worker serves queue {}, {}", scope.name, scope.waits()))
        }),
    },
    Rule {
        code: "concurrency_limited",
        severity: Level::Degraded,
        about: "A queue with pending tasks is at its concurrency limit.",
        test: Test::Queue(|scope| {
            let running = scope.queue.count(Status::Running);
            let limit = scope.queue.concurrency_limit.filter(|limit| running >= u64::from(*limit))?;
            let runs = if running == 1 { "1 task".to_owned() } else { format!("{running} tasks") };
            Some(format!("queue {} runs {runs}, its limit is {limit}; {}", scope.name, scope.waits()))
        }),
    },
    Rule {
        code: "rate_limited",
        severity: Level::Degraded,
        about: "A queue with pending tasks is held back by its rate limit.",
        test: Test::Queue(|scope| {
            let limit = scope.queue.rate_limit?;
            let period = scope.queue.rate_period_seconds.unwrap_or(1);
            scope
                .for_longer(scope.queue.waiting_since, PENDING_AFTER)
                .then(|| format!("queue {} starts at most {limit} in {period} s; {}", scope.name, scope.waits()))
        }),
    },
    Rule {
        code: "standstill",
        severity: Level::Stalled,
        about: "Workers serve a queue with pending tasks and claim nothing.",
        test: Test::Queue(|scope| {
            let idle = scope.queue.count(Status::Running) == 0
                && scope.for_longer(scope.queue.untaken_since(), STANDSTILL_AFTER);
            idle.then(|| format!("workers of queue {} take nothing, {}", scope.name, scope.waits()))
        }),
    },
    Rule {
        code: "worker_lost",
        severity: Level::Degraded,
        about: "A worker was lost within the last five minutes.",
        test: Test::Worker(|WorkerScope { worker, now, .. }| {
            let lost = worker.status == WorkerStatus::Lost && *now - worker.since <= LOST_FOR;
            let text = lost.then(|| format!("worker {} on {} was lost", worker.name, worker.machine_id));
            text.into_iter().collect()
        }),
    },
    Rule {
        code: "worker_quiet",
        severity: Level::Degraded,
        about: "A worker misses heartbeats and is not lost yet.",
        test: Test::Worker(|WorkerScope { worker, quiet, now }| {
            let silent = worker.last_seen_at.filter(|_| worker.status.is_online()).map(|seen| *now - seen);
            let silent = silent.filter(|silent| silent >= quiet).map(|silent| silent.num_seconds());
            let text = |seconds| format!("worker {} on {} is silent for {seconds} s", worker.name, worker.machine_id);
            silent.map(text).into_iter().collect()
        }),
    },
    Rule {
        code: "connector_error",
        severity: Level::Degraded,
        about: "A connector of an online worker reports an error.",
        test: Test::Worker(|scope| {
            let texts = scope.connectors(ConnectorStatus::Error).map(|(id, connector)| {
                let error = connector.error.as_deref().unwrap_or("no message");
                format!("connector {id} of worker {}: {error}", scope.worker.name)
            });
            texts.collect()
        }),
    },
    Rule {
        code: "connector_unknown",
        severity: Level::Degraded,
        about: "A connector of an online worker is not reported any more.",
        test: Test::Worker(|scope| {
            let texts = scope.connectors(ConnectorStatus::Unknown);
            texts.map(|(id, _)| format!("connector {id} of worker {} is not reported", scope.worker.name)).collect()
        }),
    },
    Rule {
        code: "task_slow",
        severity: Level::Degraded,
        about: "A task runs for three times the p95 of its type, and for 10 s at least.",
        test: Test::RunningTask(|TaskScope { id, task, p95_ms, now }| {
            let p95_ms = (*p95_ms)?;
            let elapsed_ms = u64::try_from((*now - task.started_at).num_milliseconds()).unwrap_or_default();
            (elapsed_ms > (p95_ms * SLOW_FACTOR).max(SLOW_AT_LEAST_MS)).then(|| {
                format!(
                    "{} {id} runs for {} s; 95 of 100 of its kind take less than {} s",
                    task.task_type,
                    elapsed_ms / 1_000,
                    p95_ms.div_ceil(1_000)
                )
            })
        }),
    },
    Rule {
        code: "task_stalled",
        severity: Level::Degraded,
        about: "A running task is stalled and only reported (stalled policy `report`).",
        test: Test::RunningTask(|TaskScope { id, task, .. }| {
            task.stalled.as_ref().map(|why| format!("{} {id}: {why}", task.task_type))
        }),
    },
    Rule {
        code: "blocked_forever",
        severity: Level::Stalled,
        about: "A task waits for itself, or for one that can never complete.",
        test: Test::StuckTask(|Stuck { task_id, task_type, reason, on }| {
            let on = on.map(|on| on.to_string()).unwrap_or_default();
            match reason {
                StuckReason::Ring => Some(format!(
                    "{task_type} {task_id} waits for itself, in a ring through {on}; change what one of them depends on, or cancel one"
                )),
                StuckReason::Waits => Some(format!(
                    "{task_type} {task_id} waits for {on}, which can never end; help that one, or change what this one depends on"
                )),
                StuckReason::NoChildren => None,
            }
        }),
    },
    Rule {
        code: "group_without_children",
        severity: Level::Degraded,
        about: "A parent task that follows its children has none.",
        test: Test::StuckTask(|Stuck { task_id, task_type, reason, .. }| {
            (*reason == StuckReason::NoChildren).then(|| {
                format!("{task_type} {task_id} waits for its first child; create one (parent_task_id), or cancel it")
            })
        }),
    },
];

/// Why a task cannot make progress without an operator.
pub(super) fn stuck_reason(stuck: &Stuck) -> Option<Reason> {
    RULES.iter().find_map(|rule| match rule.test {
        Test::StuckTask(test) => Some(Reason { task_id: Some(stuck.task_id), ..Reason::of(rule, test(stuck)?) }),
        _ => None,
    })
}

impl QueueScope<'_> {
    fn waits(&self) -> String {
        match self.queue.waiting() {
            1 => "1 task waits".to_owned(),
            waiting => format!("{waiting} tasks wait"),
        }
    }

    fn for_longer(&self, since: Option<Time>, span: TimeDelta) -> bool {
        since.is_some_and(|since| self.now - since >= span)
    }
}

impl<'a> WorkerScope<'a> {
    /// Connectors of an online worker that have a given status.
    fn connectors(
        &self,
        status: ConnectorStatus,
    ) -> impl Iterator<Item = (&'a Name, &'a crate::model::worker::Connector)> + use<'a> {
        let online = self.worker.status.is_online();
        self.worker.connectors.iter().filter(move |(_, connector)| online && connector.status == status)
    }
}
