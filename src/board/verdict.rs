//! Why nothing moves: of a queue, of a task, and of everything together. In words for people, with codes for programs.

use std::collections::HashMap;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Board, queues::Queue};
use crate::{
    clock::Time,
    model::{
        Name, Status, Task,
        stuck::{Stuck, StuckReason},
        worker::{ConnectorStatus, WorkerStatus},
    },
};

/// A task may wait so long before someone asks for a worker.
const PATIENCE: TimeDelta = TimeDelta::seconds(10);
/// A queue with work and workers of which nothing was taken for so long, and nothing runs, does not move.
const STANDSTILL: TimeDelta = TimeDelta::seconds(60);
/// A worker that was lost is worth telling for so long.
const RECENT: TimeDelta = TimeDelta::minutes(5);
/// A task is slow when it takes so many times what 95 of 100 of its kind stay below.
const SLOW: u64 = 3;
/// And never sooner than this, milliseconds.
const SLOW_AT_LEAST_MS: u64 = 10_000;
/// Reasons told at once.
const MOST: usize = 50;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Work goes on, or there is none.
    Ok,
    /// Work goes on, not as it should.
    Degraded,
    /// Work waits and nothing moves.
    Stalled,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reason {
    /// For programs; does not change between versions.
    pub code: &'static str,
    /// How bad it is.
    pub level: Level,
    /// For people.
    pub sentence: String,
    /// The queue it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Name>,
    /// The task it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
    /// The worker it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Uuid>,
}

/// How something stands, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Verdict {
    /// The worst of the reasons.
    pub verdict: Level,
    /// Worst first.
    pub reasons: Vec<Reason>,
}

impl Reason {
    fn new(code: &'static str, level: Level, sentence: String) -> Self {
        Self { code, level, sentence, queue: None, task_id: None, worker_id: None }
    }
}

impl Verdict {
    fn of(mut reasons: Vec<Reason>) -> Self {
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
        reasons.truncate(MOST);
        Self { verdict: reasons.first().map_or(Level::Ok, |reason| reason.level), reasons }
    }
}

/// How many workers serve each queue, counted once for all queues.
#[derive(Debug)]
pub struct Serving<'a> {
    /// Those that said nothing and took nothing may serve any.
    any: usize,
    by_queue: HashMap<&'a Name, usize>,
}

impl<'a> Serving<'a> {
    /// Workers that take something new.
    #[must_use]
    pub fn taking(board: &'a Board) -> Self {
        Self::of(board, |status| status.is_online() && status != WorkerStatus::Draining)
    }

    /// Workers that are expected to report.
    #[must_use]
    pub fn online(board: &'a Board) -> Self {
        Self::of(board, WorkerStatus::is_online)
    }

    fn of(board: &'a Board, counts: impl Fn(WorkerStatus) -> bool) -> Self {
        let mut serving = Self { any: 0, by_queue: HashMap::new() };
        for worker in board.workers.0.values().filter(|worker| counts(worker.status)) {
            serving.any += usize::from(worker.serves_any());
            for queue in worker.serves() {
                *serving.by_queue.entry(queue).or_default() += 1;
            }
        }
        serving
    }

    /// Those that serve a queue.
    #[must_use]
    pub fn at(&self, queue: &Name) -> usize {
        self.any + self.by_queue.get(queue).copied().unwrap_or_default()
    }
}

/// Everything together. A worker silent for `quiet` is worth a word before it is lost.
#[must_use]
pub fn overall(board: &Board, quiet: TimeDelta, now: Time) -> Verdict {
    let serving = Serving::taking(board);
    let mut reasons: Vec<_> =
        board.queues.0.iter().flat_map(|(name, queue)| of_queue(&serving, name, queue, now).reasons).collect();
    reasons.extend(board.stuck.iter().map(stuck));
    if let Some(more) = board.stuck_total.checked_sub(board.stuck.len() as u64).filter(|more| *more > 0) {
        let sentence = format!("{more} more tasks wait for what can never end");
        reasons.push(Reason::new("blocked_forever", Level::Stalled, sentence));
    }
    workers(board, quiet, now, &mut reasons);
    for (id, task) in &board.running.0 {
        if let Some(reason) = slow(board, *id, &task.task_type, task.started_at, now) {
            reasons.push(reason);
        }
        if let Some(why) = &task.stalled {
            let sentence = format!("{} {id}: {why}", task.task_type);
            reasons.push(Reason { task_id: Some(*id), ..Reason::new("task_stalled", Level::Degraded, sentence) });
        }
    }
    Verdict::of(reasons)
}

/// Why the tasks of a queue wait.
#[must_use]
pub fn of_queue(serving: &Serving<'_>, name: &Name, queue: &Queue, now: Time) -> Verdict {
    let waiting = queue.waiting();
    if waiting == 0 {
        return Verdict::of(Vec::new());
    }
    let waits = if waiting == 1 { "1 task waits".to_owned() } else { format!("{waiting} tasks wait") };
    let tell = |code, level, sentence| {
        Verdict::of(vec![Reason { queue: Some(name.clone()), ..Reason::new(code, level, sentence) }])
    };
    let longer = |since: Option<Time>, span: TimeDelta| since.is_some_and(|since| now - since >= span);
    let untaken = queue.untaken_since();
    if queue.paused_at.is_some() {
        return tell("queue_paused", Level::Degraded, format!("queue {name} is paused, {waits}"));
    }
    if serving.at(name) == 0 && longer(untaken, PATIENCE) {
        return tell("no_worker", Level::Stalled, format!("no worker serves queue {name}, {waits}"));
    }
    let running = queue.count(Status::Running);
    if let Some(limit) = queue.concurrency_limit.filter(|limit| running >= u64::from(*limit)) {
        let runs = if running == 1 { "1 task".to_owned() } else { format!("{running} tasks") };
        let sentence = format!("queue {name} runs {runs}, its limit is {limit}; {waits}");
        return tell("concurrency_limited", Level::Degraded, sentence);
    }
    if let Some(limit) = queue.rate_limit.filter(|_| longer(queue.waiting_since, PATIENCE)) {
        let period = queue.rate_period_seconds.unwrap_or(1);
        let sentence = format!("queue {name} starts at most {limit} in {period} s; {waits}");
        return tell("rate_limited", Level::Degraded, sentence);
    }
    if running == 0 && longer(untaken, STANDSTILL) {
        return tell("standstill", Level::Stalled, format!("workers of queue {name} take nothing, {waits}"));
    }
    Verdict::of(Vec::new())
}

/// Workers that are quiet or lost, connectors in error.
fn workers(board: &Board, quiet: TimeDelta, now: Time, reasons: &mut Vec<Reason>) {
    for (id, worker) in &board.workers.0 {
        let mut tell = |code, sentence| {
            reasons.push(Reason { worker_id: Some(*id), ..Reason::new(code, Level::Degraded, sentence) });
        };
        if worker.status == WorkerStatus::Lost && now - worker.since <= RECENT {
            tell("worker_lost", format!("worker {} on {} was lost", worker.name, worker.machine_id));
        }
        if !worker.status.is_online() {
            continue;
        }
        if let Some(silent) = worker.last_seen_at.map(|seen| now - seen).filter(|silent| *silent >= quiet) {
            let sentence =
                format!("worker {} on {} is silent for {} s", worker.name, worker.machine_id, silent.num_seconds());
            tell("worker_quiet", sentence);
        }
        for (connector, badge) in &worker.connectors {
            match badge.status {
                ConnectorStatus::Error => {
                    let error = badge.error.as_deref().unwrap_or("no message");
                    tell("connector_error", format!("connector {connector} of worker {}: {error}", worker.name));
                }
                ConnectorStatus::Unknown => {
                    tell(
                        "connector_unknown",
                        format!("connector {connector} of worker {} is not reported", worker.name),
                    );
                }
                ConnectorStatus::Starting | ConnectorStatus::Idle | ConnectorStatus::Active => {}
            }
        }
    }
}

/// A task that cannot go on without help, and what would help.
fn stuck(found: &Stuck) -> Reason {
    let Stuck { task_id, task_type, reason, on } = found;
    let on = on.map(|on| on.to_string()).unwrap_or_default();
    let (code, level, sentence) = match reason {
        StuckReason::Ring => (
            "blocked_forever",
            Level::Stalled,
            format!(
                "{task_type} {task_id} waits for itself, in a ring through {on}; change what one of them depends on, or cancel one"
            ),
        ),
        StuckReason::Waits => (
            "blocked_forever",
            Level::Stalled,
            format!(
                "{task_type} {task_id} waits for {on}, which can never end; help that one, or change what this one depends on"
            ),
        ),
        StuckReason::NoChildren => (
            "group_without_children",
            Level::Degraded,
            format!("{task_type} {task_id} waits for its first child; create one (parent_task_id), or cancel it"),
        ),
    };
    Reason { task_id: Some(*task_id), ..Reason::new(code, level, sentence) }
}

fn slow(board: &Board, id: Uuid, kind: &Name, started_at: Time, now: Time) -> Option<Reason> {
    let usual = board.kinds.usual_ms(kind, now)?;
    let elapsed = u64::try_from((now - started_at).num_milliseconds()).unwrap_or_default();
    (elapsed > (usual * SLOW).max(SLOW_AT_LEAST_MS)).then(|| {
        let sentence = format!(
            "{kind} {id} runs for {} s; 95 of 100 of its kind take less than {} s",
            elapsed / 1_000,
            usual.div_ceil(1_000)
        );
        Reason { task_id: Some(id), ..Reason::new("task_slow", Level::Degraded, sentence) }
    })
}

/// Why one task does not move; `open` are the tasks it waits for that have not completed.
#[must_use]
pub fn of_task(board: &Board, task: &Task, open: &[Uuid], quiet: TimeDelta, now: Time) -> Verdict {
    let tell = |code, level, sentence| {
        Verdict::of(vec![Reason { task_id: Some(task.id), ..Reason::new(code, level, sentence) }])
    };
    if let Some(found) = board.stuck.iter().find(|stuck| stuck.task_id == task.id && !task.status.is_finished()) {
        return Verdict::of(vec![stuck(found)]);
    }
    match task.status {
        Status::Blocked if task.close_when_done => {
            tell("waits_for_children", Level::Ok, "it starts with its first child".to_owned())
        }
        Status::Blocked => {
            let ids: Vec<_> = open.iter().take(5).map(Uuid::to_string).collect();
            let more = open.len().saturating_sub(ids.len());
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            tell("blocked_by", Level::Ok, format!("it waits for {}{rest}", ids.join(", ")))
        }
        Status::Scheduled | Status::Retrying => {
            let at = task.run_at.map(crate::event::envelope::rfc3339).unwrap_or_default();
            let code = if task.status == Status::Scheduled { "waits_for_time" } else { "waits_to_retry" };
            tell(code, Level::Ok, format!("it may run at {at}"))
        }
        Status::Pending => {
            let mut verdict = match board.queues.0.get(&task.queue) {
                Some(queue) => of_queue(&Serving::taking(board), &task.queue, queue, now),
                None => Verdict::of(Vec::new()),
            };
            if verdict.reasons.is_empty() {
                verdict = tell("waits_in_line", Level::Ok, format!("it waits in queue {} to be claimed", task.queue));
            }
            verdict
        }
        Status::Running => {
            let mut reasons = Vec::new();
            workers(board, quiet, now, &mut reasons);
            reasons.retain(|reason| reason.worker_id.is_some() && reason.worker_id == task.worker_id);
            reasons.extend(task.started_at.and_then(|at| slow(board, task.id, &task.task_type, at, now)));
            if let Some(why) = board.running.0.get(&task.id).and_then(|task| task.stalled.clone()) {
                reasons.push(Reason { task_id: Some(task.id), ..Reason::new("task_stalled", Level::Degraded, why) });
            }
            Verdict::of(reasons)
        }
        Status::Completed | Status::Failed | Status::Cancelled => Verdict::of(Vec::new()),
    }
}
