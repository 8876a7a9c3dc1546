//! Health of a queue, of a task, and of the whole system, with the reasons. One table of rules, [`rules::RULES`],
//! defines the reasons.

pub mod rules;
mod serving;
mod task;

use std::cmp::Reverse;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Board, queues::Queue};
use crate::{clock::Time, model::Name};

use rules::{Found, QueueScope, RULES, Rule, TaskScope, Test, TypeScope, WorkerScope};
pub use serving::Serving;
pub use task::of_task;

/// Maximum number of reasons in one answer.
const MAX_REASONS: usize = 50;

/// Severity of a reason, and the status derived from the most severe reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Tasks are processed, or there are none.
    Ok,
    /// Tasks are processed, with problems.
    Degraded,
    /// Tasks are pending and none is processed.
    Stalled,
}

/// A reason for a health status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reason {
    /// Machine-readable code; stable across versions.
    pub code: &'static str,
    /// Severity.
    pub severity: Level,
    /// Human-readable description.
    pub text: String,
    /// Since when, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Time>,
    /// Queue concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Name>,
    /// Task concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
    /// Worker concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Uuid>,
    /// Task type concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_type: Option<Name>,
}

/// A health status and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Health {
    /// Severity of the most severe reason.
    pub status: Level,
    /// Most severe first.
    pub reasons: Vec<Reason>,
}

impl Reason {
    /// A reason from its rule.
    fn of(rule: &Rule, found: Found) -> Self {
        Self { since: found.since, ..Self::new(rule.code, rule.severity, found.text) }
    }

    const fn new(code: &'static str, severity: Level, text: String) -> Self {
        Self { code, severity, text, since: None, queue: None, task_id: None, worker_id: None, task_type: None }
    }
}

impl Health {
    fn of(mut reasons: Vec<Reason>) -> Self {
        reasons.sort_by_key(|reason| Reverse(reason.severity));
        reasons.truncate(MAX_REASONS);
        Self { status: reasons.first().map_or(Level::Ok, |reason| reason.severity), reasons }
    }
}

/// Health of the whole system. A worker without a heartbeat for `quiet` is a reason before it is lost.
#[must_use]
pub fn overall(board: &Board, quiet: TimeDelta, now: Time) -> Health {
    let serving = Serving::taking(board);
    let mut reasons: Vec<_> =
        board.queues.0.iter().filter_map(|(name, queue)| queue_reason(&serving, name, queue, now)).collect();
    reasons.extend(stuck(board));
    for id in board.workers.0.keys() {
        reasons.extend(worker_reasons(board, *id, quiet, now));
    }
    for id in board.running.0.keys() {
        reasons.extend(running_reasons(board, *id, now));
    }
    for (name, usual) in board.kinds.iter() {
        reasons.extend(type_reasons(&TypeScope { name, outcomes: &usual.outcomes, now }));
    }
    Health::of(reasons)
}

/// Health of a queue.
#[must_use]
pub fn of_queue(serving: &Serving<'_>, name: &Name, queue: &Queue, now: Time) -> Health {
    Health::of(queue_reason(serving, name, queue, now).into_iter().collect())
}

/// Why tasks of a queue are pending: the first rule that matches.
fn queue_reason(serving: &Serving<'_>, name: &Name, queue: &Queue, now: Time) -> Option<Reason> {
    if queue.waiting() == 0 {
        return None;
    }
    let scope = QueueScope { name, queue, workers: serving.at(name), now };
    RULES.iter().find_map(|rule| match rule.test {
        Test::Queue(test) => {
            let found = test(&scope)?;
            Some(Reason { queue: Some(name.clone()), ..Reason::of(rule, found) })
        }
        _ => None,
    })
}

/// Problems of a worker and its connectors.
fn worker_reasons(board: &Board, id: Uuid, quiet: TimeDelta, now: Time) -> Vec<Reason> {
    let Some(worker) = board.workers.0.get(&id) else { return Vec::new() };
    let scope = WorkerScope { id, worker, running: &board.running, quiet, now };
    let mut reasons = Vec::new();
    for rule in RULES {
        if let Test::Worker(test) = rule.test {
            let found = test(&scope).into_iter();
            reasons.extend(found.map(|found| Reason { worker_id: Some(id), ..Reason::of(rule, found) }));
        }
    }
    reasons
}

/// Problems of a running task.
fn running_reasons(board: &Board, id: Uuid, now: Time) -> Vec<Reason> {
    let Some(task) = board.running.0.get(&id) else { return Vec::new() };
    let scope = TaskScope { id, task, p95_ms: board.kinds.usual_ms(&task.task_type, now), now };
    let tests = RULES.iter().filter_map(|rule| match rule.test {
        Test::RunningTask(test) => Some((rule, test(&scope)?)),
        _ => None,
    });
    tests.map(|(rule, found)| Reason { task_id: Some(id), ..Reason::of(rule, found) }).collect()
}

/// Problems of a task type.
fn type_reasons(scope: &TypeScope<'_>) -> Vec<Reason> {
    let tests = RULES.iter().filter_map(|rule| match rule.test {
        Test::TaskType(test) => Some((rule, test(scope)?)),
        _ => None,
    });
    tests.map(|(rule, found)| Reason { task_type: Some(scope.name.clone()), ..Reason::of(rule, found) }).collect()
}

/// Tasks that can never make progress; the board lists some of them.
fn stuck(board: &Board) -> Vec<Reason> {
    let mut reasons: Vec<_> = board.stuck.iter().filter_map(rules::stuck_reason).collect();
    if let Some(more) = board.stuck_total.checked_sub(board.stuck.len() as u64).filter(|more| *more > 0) {
        let text = format!("{more} more tasks wait for tasks that can never complete");
        reasons.push(Reason::new("blocked_forever", Level::Stalled, text));
    }
    reasons
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Kind, draft},
        model::{
            NewTask, step,
            stuck::{Stuck, StuckReason},
        },
    };

    const QUIET: TimeDelta = TimeDelta::seconds(25);

    fn start() -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap()
    }

    /// A board after some events, each with its offset in seconds from the start.
    fn board(events: impl IntoIterator<Item = (i64, Event)>) -> Board {
        let mut board = Board::default();
        for (index, (seconds, mut event)) in events.into_iter().enumerate() {
            event.position = Some(i64::try_from(index).unwrap() + 1);
            event.ts = start() + TimeDelta::seconds(seconds);
            board.apply(&std::sync::Arc::new(event)).unwrap();
        }
        board
    }

    /// The events of a new task in queue `mails`.
    fn created(number: u128) -> Vec<(i64, Event)> {
        let new = NewTask::plain(Uuid::from_u128(number), Name::literal("mail"), Name::literal("mails"));
        let task = new.into_task(None, false, start());
        step::create(&task).iter().map(|step| (0, draft::task_event(step, None, start()))).collect()
    }

    fn worker_event(kind: Kind, number: u128) -> Event {
        let mut event = Event::new(kind, start());
        event.worker_id = Some(Uuid::from_u128(number));
        event.machine_id = Some(Name::literal("rack-7"));
        event.data.name = Some(Name::literal("worker-10"));
        event.data.status = Some(Name::literal("idle"));
        event
    }

    fn codes(board: &Board, seconds: i64) -> (Level, Vec<&'static str>) {
        let health = overall(board, QUIET, start() + TimeDelta::seconds(seconds));
        (health.status, health.reasons.iter().map(|reason| reason.code).collect())
    }

    #[test]
    fn an_empty_board_is_healthy() {
        assert_eq!(codes(&Board::default(), 0), (Level::Ok, vec![]));
    }

    #[test]
    fn a_missing_worker_is_a_reason_after_ten_seconds() {
        let board = board(created(1));
        assert_eq!(codes(&board, 9), (Level::Ok, vec![]));
        assert_eq!(codes(&board, 10), (Level::Stalled, vec!["no_worker"]));
    }

    #[test]
    fn a_paused_queue_is_that_and_nothing_else() {
        let mut paused = Event::new(Kind::QueuePaused, start());
        paused.queue = Some(Name::literal("mails"));
        let changes = serde_json::json!({ "paused_at": [null, "2027-01-15T08:00:00Z"] });
        paused.data.changes = Some(serde_json::from_value(changes).unwrap());
        let board = board(created(1).into_iter().chain([(1, paused)]));
        assert_eq!(codes(&board, 100), (Level::Degraded, vec!["queue_paused"]));
    }

    #[test]
    fn workers_that_claim_nothing_are_at_a_standstill_after_a_minute() {
        let board = board([(0, worker_event(Kind::WorkerStarted, 9))].into_iter().chain(created(1)));
        assert_eq!(codes(&board, 24), (Level::Ok, vec![]));
        assert_eq!(codes(&board, 60), (Level::Stalled, vec!["standstill"]));
    }

    #[test]
    fn a_lost_worker_is_a_reason_for_five_minutes() {
        let mut lost = worker_event(Kind::WorkerStopped, 9);
        lost.data.status = Some(Name::literal("lost"));
        let board = board([(0, worker_event(Kind::WorkerStarted, 9)), (10, lost)]);
        assert_eq!(codes(&board, 309), (Level::Degraded, vec!["worker_lost"]));
        assert_eq!(codes(&board, 311), (Level::Ok, vec![]));
    }

    #[test]
    fn codes_are_unique_and_every_rule_says_what_it_means() {
        let mut codes: Vec<_> = RULES.iter().map(|rule| rule.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), RULES.len());
        assert!(RULES.iter().all(|rule| rule.about.ends_with('.') && rule.severity > Level::Ok));
    }

    /// A queue with pending tasks, paused: a reason at once.
    fn paused(board: &mut Board, name: &str, tasks: u64) {
        let queue = board.queues.0.entry(Name::new(name).unwrap()).or_default();
        (queue.depth[5], queue.paused_at) = (tasks, Some(start()));
    }

    /// A queue that no worker serves since the start.
    fn unserved(board: &mut Board, name: &str) {
        let queue = board.queues.0.entry(Name::new(name).unwrap()).or_default();
        (queue.depth[5], queue.waiting_since) = (1, Some(start()));
    }

    fn stuck_task(number: u128, reason: StuckReason) -> Stuck {
        let on = (reason != StuckReason::NoChildren).then(Uuid::max);
        Stuck { task_id: Uuid::from_u128(number), project_id: None, task_type: Name::literal("mail"), reason, on }
    }

    #[test]
    fn a_queue_without_pending_tasks_is_healthy_whatever_was_decided_about_it() {
        let mut board = Board::default();
        paused(&mut board, "mails", 0);
        assert_eq!(codes(&board, 3_600), (Level::Ok, vec![]));
    }

    #[test]
    fn the_first_rule_of_a_queue_counts_alone() {
        let mut board = Board::default();
        unserved(&mut board, "mails");
        let queue = board.queues.0.get_mut("mails").unwrap();
        (queue.rate_limit, queue.concurrency_limit) = (Some(1), Some(0));
        assert_eq!(codes(&board, 3_600).1, ["no_worker"]);
        let idle = worker_event(Kind::WorkerStarted, 9);
        board.workers.apply(&idle);
        assert_eq!(codes(&board, 0).1, ["concurrency_limited"]);
        board.queues.0.get_mut("mails").unwrap().concurrency_limit = None;
        assert_eq!(codes(&board, 3_600).1, ["rate_limited"]);
        paused(&mut board, "mails", 1);
        assert_eq!(codes(&board, 3_600).1, ["queue_paused"], "whoever paused it knows");
    }

    #[test]
    fn the_most_severe_reasons_come_first_and_keep_their_order() {
        let mut board = Board::default();
        for name in ["a", "c"] {
            paused(&mut board, name, 1);
        }
        for name in ["b", "d"] {
            unserved(&mut board, name);
        }
        let health = overall(&board, QUIET, start() + TimeDelta::seconds(10));
        let queues: Vec<_> = health.reasons.iter().map(|reason| reason.queue.as_ref().unwrap().as_str()).collect();
        assert_eq!((health.status, queues), (Level::Stalled, vec!["b", "d", "a", "c"]));
    }

    #[test]
    fn an_answer_has_fifty_reasons_at_most_and_never_loses_the_worst() {
        let mut board = Board::default();
        for number in 0..50 {
            paused(&mut board, &format!("q{number:02}"), 1);
        }
        assert_eq!(codes(&board, 10).1.len(), 50);
        unserved(&mut board, "zzz");
        let (status, codes) = codes(&board, 10);
        assert_eq!((status, codes.len(), codes[0]), (Level::Stalled, 50, "no_worker"));
    }

    #[test]
    fn stuck_tasks_beyond_the_listed_ones_are_counted() {
        let mut board = Board { stuck_total: 1, ..Board::default() };
        board.stuck.push(stuck_task(1, StuckReason::NoChildren));
        assert_eq!(codes(&board, 0), (Level::Degraded, vec!["group_without_children"]));
        board.stuck_total = 3;
        let health = overall(&board, QUIET, start());
        assert_eq!(health.reasons[0].text, "2 more tasks wait for tasks that can never complete");
        assert_eq!((health.status, health.reasons[0].task_id), (Level::Stalled, None));
        board.stuck_total = 0;
        assert_eq!(codes(&board, 0).1, ["group_without_children"], "fewer than are listed are no more");
    }

    #[test]
    fn every_reason_leads_to_what_it_is_about() {
        let mut board = Board::default();
        paused(&mut board, "mails", 1);
        let mut lost = worker_event(Kind::WorkerStarted, 9);
        lost.data.status = Some(Name::literal("lost"));
        board.workers.apply(&lost);
        board.stuck.push(stuck_task(7, StuckReason::Ring));
        let health = overall(&board, QUIET, start());
        let found: Vec<_> =
            health.reasons.iter().map(|r| (r.code, r.queue.is_some(), r.task_id, r.worker_id)).collect();
        assert_eq!(
            found,
            [
                ("blocked_forever", false, Some(Uuid::from_u128(7)), None),
                ("queue_paused", true, None, None),
                ("worker_lost", false, None, Some(Uuid::from_u128(9))),
            ]
        );
    }

    #[test]
    fn levels_compare_by_severity() {
        assert!(Level::Ok < Level::Degraded && Level::Degraded < Level::Stalled);
        assert_eq!(
            serde_json::to_string(&[Level::Ok, Level::Degraded, Level::Stalled]).unwrap(),
            r#"["ok","degraded","stalled"]"#
        );
    }
}
