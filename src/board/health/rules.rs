//! The health rules: ONE table. Health of queues, workers, tasks and the system is derived from it, and so are the
//! alerts.
//!
//! To add a rule, add its row and its test.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Level, Reason};
use crate::{
    board::{
        ended::Outcomes,
        queues::Queue,
        running::{Running, RunningTask},
        workers::LastSeen,
    },
    clock::Time,
    model::{
        Name,
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
    /// One or two words for it, where there is no room for its text.
    pub label: &'static str,
    /// Severity.
    pub severity: Level,
    /// What it means.
    pub about: &'static str,
    pub(super) test: Test,
}

/// What a rule found: the text for people, and since when, if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) since: Option<Time>,
}

/// The condition of a rule.
#[derive(Debug)]
pub(super) enum Test {
    /// On a queue with pending tasks; the first match counts.
    Queue(fn(&QueueScope<'_>) -> Option<Found>),
    /// On a worker and its connectors.
    Worker(fn(&WorkerScope<'_>) -> Vec<Found>),
    /// On a running task.
    RunningTask(fn(&TaskScope<'_>) -> Option<Found>),
    /// On a task that cannot make progress without an operator; the text says what would help.
    StuckTask(fn(&Stuck) -> Option<Found>),
    /// On a task type.
    TaskType(fn(&TypeScope<'_>) -> Option<Found>),
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
    pub(super) id: Uuid,
    pub(super) worker: &'a LastSeen,
    pub(super) running: &'a Running,
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

/// A task type.
pub(super) struct TypeScope<'a> {
    pub(super) name: &'a Name,
    pub(super) outcomes: &'a Outcomes,
    pub(super) now: Time,
}

/// The table.
pub const RULES: &[Rule] = &[
    Rule {
        code: "queue_paused",
        label: "Paused",
        severity: Level::Degraded,
        about: "A queue with pending tasks is paused.",
        test: Test::Queue(|scope| {
            let since = scope.queue.paused_at?;
            let by = scope.queue.paused_by.as_ref().map(|actor| format!(" by {actor}")).unwrap_or_default();
            let why = scope.queue.pause_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            scope.found(&format!("is paused{by}{why}"), Some(since))
        }),
    },
    Rule {
        code: "no_worker",
        label: "No workers",
        severity: Level::Stalled,
        about: "No worker serves a queue with pending tasks.",
        test: Test::Queue(|scope| {
            let since = scope.queue.untaken_since();
            let missing = scope.workers == 0 && scope.for_longer(since, PENDING_AFTER);
            if missing { scope.found("has no workers", since) } else { None }
        }),
    },
    Rule {
        code: "concurrency_limited",
        label: "At limit",
        severity: Level::Degraded,
        about: "A queue with pending tasks is at its concurrency limit.",
        test: Test::Queue(|scope| {
            let running = scope.queue.occupied();
            let limit = scope.queue.concurrency_limit.filter(|limit| running >= u64::from(*limit))?;
            scope.found(&format!("is at its concurrency limit ({running}/{limit})"), scope.queue.waiting_since)
        }),
    },
    Rule {
        code: "rate_limited",
        label: "Rate limited",
        severity: Level::Degraded,
        about: "A queue with pending tasks is held back by its rate limit.",
        test: Test::Queue(|scope| {
            let limit = scope.queue.rate_limit?;
            let period = scope.queue.rate_period_seconds.unwrap_or(1);
            let since = scope.queue.waiting_since.filter(|since| scope.for_longer(Some(*since), PENDING_AFTER))?;
            scope.found(&format!("is rate limited ({limit} per {period} s)"), Some(since))
        }),
    },
    Rule {
        code: "standstill",
        label: "Not claiming",
        severity: Level::Stalled,
        about: "Workers serve a queue with pending tasks and claim nothing.",
        test: Test::Queue(|scope| {
            let since = scope.queue.untaken_since();
            let idle = scope.queue.occupied() == 0 && scope.for_longer(since, STANDSTILL_AFTER);
            if idle { scope.found("has workers that claim no tasks", since) } else { None }
        }),
    },
    Rule {
        code: "backlog",
        label: "Backlog",
        severity: Level::Degraded,
        about: "The oldest task of a queue is pending for ten times the usual wait and a minute at least, or the backlog grows for five minutes.",
        test: Test::Queue(|scope| {
            let grows = || scope.found("has a growing backlog", scope.queue.growth.since(scope.now));
            match scope.queue.late_since(scope.now) {
                Some(since) => scope.found("is behind: its oldest task waits for much longer than usual", Some(since)),
                None => grows().filter(|found| found.since.is_some()),
            }
        }),
    },
    Rule {
        code: "error_rate",
        label: "Error rate",
        severity: Level::Degraded,
        about: "More attempts of a task type fail than usual: three times as many as in the last 12 to 24 hours, and 5% at least.",
        test: Test::TaskType(|TypeScope { name, outcomes, now }| {
            let high = outcomes.high(*now)?;
            let usual = high.usual_percent.map(|usual| format!(" (usually {usual:.1}%)")).unwrap_or_default();
            Some(Found {
                text: format!("Error rate of {name} is {:.1}%{usual}", high.percent),
                since: Some(high.since),
            })
        }),
    },
    Rule {
        code: "worker_lost",
        label: "Lost",
        severity: Level::Degraded,
        about: "A worker was lost within the last five minutes.",
        test: Test::Worker(|WorkerScope { worker, now, .. }| {
            let lost = worker.status == WorkerStatus::Lost && *now - worker.since <= LOST_FOR;
            let text = format!("Worker {} ({}) was lost", worker.name, worker.machine_id);
            lost.then_some(Found { text, since: Some(worker.since) }).into_iter().collect()
        }),
    },
    Rule {
        code: "worker_quiet",
        label: "Quiet",
        severity: Level::Degraded,
        about: "A worker misses heartbeats and is not lost yet.",
        test: Test::Worker(|WorkerScope { id, worker, running, quiet, now }| {
            let last = worker.last_seen_at.filter(|seen| worker.status.is_online() && *now - *seen >= *quiet);
            let Some(last) = last else { return Vec::new() };
            let has = match running.of_worker(*id).count() {
                0 => String::new(),
                1 => " · 1 running task".to_owned(),
                tasks => format!(" · {tasks} running tasks"),
            };
            let text = format!("Worker {} ({}) missed heartbeats{has}", worker.name, worker.machine_id);
            vec![Found { text, since: Some(last) }]
        }),
    },
    Rule {
        code: "connector_error",
        label: "Connector error",
        severity: Level::Degraded,
        about: "A connector of an online worker reports an error.",
        test: Test::Worker(|scope| {
            let found = scope.connectors(ConnectorStatus::Error).map(|(id, connector)| {
                let error = connector.error.as_deref().unwrap_or("no error message");
                Found {
                    text: format!("Connector {id} on {}: {error}", scope.worker.name),
                    since: Some(connector.since),
                }
            });
            found.collect()
        }),
    },
    Rule {
        code: "connector_unknown",
        label: "Connector silent",
        severity: Level::Degraded,
        about: "A connector of an online worker is not reported any more.",
        test: Test::Worker(|scope| {
            let found = scope.connectors(ConnectorStatus::Unknown).map(|(id, connector)| Found {
                text: format!("Connector {id} on {} does not report any more", scope.worker.name),
                since: connector.reported_at.or(Some(connector.since)),
            });
            found.collect()
        }),
    },
    Rule {
        code: "task_slow",
        label: "Slow",
        severity: Level::Degraded,
        about: "A task runs for three times the p95 of its type, and for 10 s at least.",
        test: Test::RunningTask(|TaskScope { id, task, p95_ms, now }| {
            let p95_ms = (*p95_ms)?;
            let elapsed_ms = u64::try_from((*now - task.started_at).num_milliseconds()).unwrap_or_default();
            (elapsed_ms > (p95_ms * SLOW_FACTOR).max(SLOW_AT_LEAST_MS)).then(|| Found {
                text: format!(
                    "{} {} runs for much longer than usual (p95 is {} s)",
                    task.task_type,
                    short(*id),
                    p95_ms.div_ceil(1_000)
                ),
                since: Some(task.started_at),
            })
        }),
    },
    Rule {
        code: "task_stalled",
        label: "Stalled",
        severity: Level::Degraded,
        about: "A running task is stalled and only reported (stalled policy `report`).",
        test: Test::RunningTask(|TaskScope { id, task, .. }| {
            let text = |why| format!("{} {} is stalled: {why}", task.task_type, short(*id));
            task.stalled.as_ref().map(|why| Found { text: text(why), since: None })
        }),
    },
    Rule {
        code: "blocked_forever",
        label: "Blocked",
        severity: Level::Stalled,
        about: "A task waits for itself, or for one that can never complete.",
        test: Test::StuckTask(|Stuck { task_id, task_type, reason, on, .. }| {
            let (task, on) = (short(*task_id), on.map(|on| on.to_string()).unwrap_or_default());
            let text = match reason {
                StuckReason::Ring => format!(
                    "{task_type} {task} waits for itself through {on}: change a dependency of one of them, or cancel one"
                ),
                StuckReason::Waits => format!(
                    "{task_type} {task} waits for {on}, which can never complete: change its dependencies, or cancel it"
                ),
                StuckReason::NoChildren => return None,
            };
            Some(Found { text, since: None })
        }),
    },
    Rule {
        code: "group_without_children",
        label: "No children",
        severity: Level::Degraded,
        about: "A parent task that follows its children has none.",
        test: Test::StuckTask(|Stuck { task_id, task_type, reason, .. }| {
            let text = || {
                format!("{task_type} {} has no children: create one (parent_task_id), or cancel it", short(*task_id))
            };
            (*reason == StuckReason::NoChildren).then(|| Found { text: text(), since: None })
        }),
    },
];

/// One or two words for a code; empty if no rule has it.
#[must_use]
pub fn label(code: &str) -> &'static str {
    RULES.iter().find(|rule| rule.code == code).map_or("", |rule| rule.label)
}

/// The last eight digits of an ID, as pages show it.
fn short(id: Uuid) -> String {
    id.simple().to_string().split_off(24)
}

/// Why a task cannot make progress without an operator.
pub(super) fn stuck_reason(stuck: &Stuck) -> Option<Reason> {
    RULES.iter().find_map(|rule| match rule.test {
        Test::StuckTask(test) => Some(Reason { task_id: Some(stuck.task_id), ..Reason::of(rule, test(stuck)?) }),
        _ => None,
    })
}

impl QueueScope<'_> {
    /// What is wrong with the queue, with the number of its pending tasks.
    fn found(&self, what: &str, since: Option<Time>) -> Option<Found> {
        Some(Found { text: format!("Queue {} {what} · {} pending", self.name, self.queue.waiting()), since })
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::board::samples::{self, worker};
    use crate::model::{Status, worker::Connector};

    const QUIET: TimeDelta = TimeDelta::seconds(25);

    /// Milliseconds after the start of the story.
    fn at(ms: i64) -> Time {
        Time::from_timestamp_millis(1_800_000_000_000 + ms).unwrap()
    }

    fn rule(code: &str) -> &'static Rule {
        RULES.iter().find(|rule| rule.code == code).unwrap()
    }

    /// What a rule says of queue `mails`, whose backlog is as old as the story.
    fn of_queue(code: &str, queue: &Queue, workers: usize, now: Time) -> Option<String> {
        let Test::Queue(test) = rule(code).test else { panic!("{code} is a rule of queues") };
        test(&QueueScope { name: &Name::literal("mails"), queue, workers, now }).map(|found| found.text)
    }

    fn of_worker(code: &str, worker: &LastSeen, now: Time) -> Vec<String> {
        let Test::Worker(test) = rule(code).test else { panic!("{code} is a rule of workers") };
        let running = Running::default();
        let scope = WorkerScope { id: Uuid::nil(), worker, running: &running, quiet: QUIET, now };
        test(&scope).into_iter().map(|found| found.text).collect()
    }

    fn of_task(code: &str, task: &RunningTask, p95_ms: Option<u64>, now: Time) -> Option<String> {
        let Test::RunningTask(test) = rule(code).test else { panic!("{code} is a rule of running tasks") };
        test(&TaskScope { id: Uuid::nil(), task, p95_ms, now }).map(|found| found.text)
    }

    /// A queue whose tasks are pending since the start.
    fn waiting(tasks: u64) -> Queue {
        let mut queue = Queue { waiting_since: Some(at(0)), ..Queue::default() };
        queue.depth[5] = tasks;
        queue
    }

    fn running(tasks: u64, queue: Queue) -> Queue {
        Queue { tasks: [(Status::Running, tasks)].into_iter().collect(), ..queue }
    }

    fn connector(status: ConnectorStatus, error: Option<&str>) -> Connector {
        Connector { status, error: error.map(str::to_owned), since: at(0), reported_at: None, tasks: 0 }
    }

    fn with_connectors(status: WorkerStatus, connectors: &[(&'static str, Connector)]) -> LastSeen {
        let connectors = connectors.iter().map(|(id, connector)| (Name::literal(id), connector.clone()));
        LastSeen { connectors: connectors.collect(), ..worker(status) }
    }

    fn stuck(reason: StuckReason, on: Option<u128>) -> Stuck {
        let on = on.map(Uuid::from_u128);
        Stuck { task_id: Uuid::from_u128(1), project_id: None, task_type: Name::literal("mail"), reason, on }
    }

    const ONLINE: [WorkerStatus; 4] =
        [WorkerStatus::Starting, WorkerStatus::Idle, WorkerStatus::Active, WorkerStatus::Draining];
    const GONE: [WorkerStatus; 2] = [WorkerStatus::Stopped, WorkerStatus::Lost];

    #[test]
    fn only_what_lets_no_task_move_is_stalled() {
        let stalled: Vec<_> =
            RULES.iter().filter(|rule| rule.severity == Level::Stalled).map(|rule| rule.code).collect();
        assert_eq!(stalled, ["no_worker", "standstill", "blocked_forever"]);
    }

    #[test]
    fn a_paused_queue_says_so_at_once_and_how_many_wait() {
        let paused = |tasks| Queue { paused_at: Some(at(0)), ..waiting(tasks) };
        let text = of_queue("queue_paused", &paused(1), 0, at(0));
        assert_eq!(text.as_deref(), Some("Queue mails is paused · 1 pending"));
        let text = of_queue("queue_paused", &paused(2), 7, at(0));
        assert_eq!(text.as_deref(), Some("Queue mails is paused · 2 pending"));
        assert_eq!(of_queue("queue_paused", &waiting(1), 0, at(3_600_000)), None);
    }

    #[test]
    fn a_worker_is_missing_once_nothing_was_claimed_for_ten_seconds() {
        let queue = waiting(3);
        assert_eq!(of_queue("no_worker", &queue, 0, at(9_999)), None);
        let text = of_queue("no_worker", &queue, 0, at(10_000));
        assert_eq!(text.as_deref(), Some("Queue mails has no workers · 3 pending"));
        assert_eq!(of_queue("no_worker", &queue, 1, at(10_000_000)), None, "one is enough");
        let claimed = Queue { taken_at: Some(at(5_000)), ..queue };
        assert_eq!(of_queue("no_worker", &claimed, 0, at(14_999)), None, "counted from the last claim");
        assert!(of_queue("no_worker", &claimed, 0, at(15_000)).is_some());
    }

    #[test]
    fn a_claim_before_the_backlog_began_does_not_count() {
        let queue = Queue { taken_at: Some(at(-60_000)), ..waiting(1) };
        assert_eq!(of_queue("no_worker", &queue, 0, at(9_999)), None);
        assert!(of_queue("no_worker", &queue, 0, at(10_000)).is_some());
    }

    #[test]
    fn a_clock_that_runs_behind_makes_no_backlog_old() {
        for code in ["no_worker", "rate_limited", "standstill"] {
            let queue = Queue { rate_limit: Some(1), ..waiting(1) };
            assert_eq!(of_queue(code, &queue, 0, at(-3_600_000)), None, "{code}");
        }
    }

    #[test]
    fn a_concurrency_limit_is_a_reason_from_the_last_free_place_on() {
        let limited = |tasks| running(tasks, Queue { concurrency_limit: Some(2), ..waiting(1) });
        assert_eq!(of_queue("concurrency_limited", &limited(1), 1, at(0)), None);
        let text = of_queue("concurrency_limited", &limited(2), 1, at(0));
        assert_eq!(text.as_deref(), Some("Queue mails is at its concurrency limit (2/2) · 1 pending"));
        assert!(of_queue("concurrency_limited", &limited(3), 1, at(0)).is_some(), "the limit was lowered");
        assert_eq!(of_queue("concurrency_limited", &running(9, waiting(1)), 1, at(0)), None, "without a limit");
        let none = running(0, Queue { concurrency_limit: Some(0), ..waiting(1) });
        let text = of_queue("concurrency_limited", &none, 1, at(0));
        assert_eq!(text.as_deref(), Some("Queue mails is at its concurrency limit (0/0) · 1 pending"));
        let one = running(1, Queue { concurrency_limit: Some(1), ..waiting(2) });
        let text = of_queue("concurrency_limited", &one, 1, at(0));
        assert_eq!(text.as_deref(), Some("Queue mails is at its concurrency limit (1/1) · 2 pending"));
    }

    #[test]
    fn a_rate_limit_is_a_reason_once_it_holds_tasks_back_for_ten_seconds() {
        let limited = |period| Queue { rate_limit: Some(5), rate_period_seconds: period, ..waiting(4) };
        assert_eq!(of_queue("rate_limited", &limited(None), 1, at(9_999)), None);
        let text = of_queue("rate_limited", &limited(None), 1, at(10_000));
        assert_eq!(text.as_deref(), Some("Queue mails is rate limited (5 per 1 s) · 4 pending"));
        let text = of_queue("rate_limited", &limited(Some(60)), 1, at(10_000));
        assert_eq!(text.as_deref(), Some("Queue mails is rate limited (5 per 60 s) · 4 pending"));
        let claimed = Queue { taken_at: Some(at(9_000)), ..limited(None) };
        assert!(of_queue("rate_limited", &claimed, 1, at(10_000)).is_some(), "also while it claims a few");
        assert_eq!(of_queue("rate_limited", &waiting(4), 1, at(10_000_000)), None, "without a limit");
    }

    #[test]
    fn a_queue_stands_still_after_a_minute_in_which_nothing_was_claimed_or_runs() {
        let queue = waiting(2);
        assert_eq!(of_queue("standstill", &queue, 3, at(59_999)), None);
        let text = of_queue("standstill", &queue, 3, at(60_000));
        assert_eq!(text.as_deref(), Some("Queue mails has workers that claim no tasks · 2 pending"));
        assert_eq!(of_queue("standstill", &running(1, waiting(2)), 3, at(600_000)), None, "its workers are busy");
        let claimed = Queue { taken_at: Some(at(30_000)), ..queue };
        assert_eq!(of_queue("standstill", &claimed, 3, at(89_999)), None);
        assert!(of_queue("standstill", &claimed, 3, at(90_000)).is_some());
    }

    #[test]
    fn a_lost_worker_is_a_reason_up_to_five_minutes() {
        let lost = worker(WorkerStatus::Lost);
        assert_eq!(of_worker("worker_lost", &lost, at(0)), ["Worker w1 (rack) was lost"]);
        assert_eq!(of_worker("worker_lost", &lost, at(300_000)).len(), 1);
        assert!(of_worker("worker_lost", &lost, at(300_001)).is_empty());
        for status in ONLINE.into_iter().chain([WorkerStatus::Stopped]) {
            assert!(of_worker("worker_lost", &worker(status), at(0)).is_empty(), "{status}");
        }
    }

    #[test]
    fn an_online_worker_is_quiet_from_the_moment_it_should_have_been_heard() {
        for status in ONLINE {
            assert!(of_worker("worker_quiet", &worker(status), at(24_999)).is_empty(), "{status}");
            assert_eq!(of_worker("worker_quiet", &worker(status), at(25_000)), ["Worker w1 (rack) missed heartbeats"]);
        }
        for status in GONE {
            assert!(of_worker("worker_quiet", &worker(status), at(3_600_000)).is_empty(), "{status}");
        }
        let unheard = LastSeen { last_seen_at: None, ..worker(WorkerStatus::Idle) };
        assert!(of_worker("worker_quiet", &unheard, at(3_600_000)).is_empty(), "after a restart nobody is blamed");
    }

    #[test]
    fn each_broken_connector_of_an_online_worker_is_a_reason() {
        let connectors = [
            ("a", connector(ConnectorStatus::Error, Some("HTTP 503"))),
            ("b", connector(ConnectorStatus::Error, None)),
            ("c", connector(ConnectorStatus::Active, None)),
            ("d", connector(ConnectorStatus::Unknown, None)),
        ];
        for status in ONLINE {
            let worker = with_connectors(status, &connectors);
            assert_eq!(
                of_worker("connector_error", &worker, at(0)),
                ["Connector a on w1: HTTP 503", "Connector b on w1: no error message"]
            );
            let unknown = of_worker("connector_unknown", &worker, at(0));
            assert_eq!(unknown, ["Connector d on w1 does not report any more"]);
        }
        for status in GONE {
            let worker = with_connectors(status, &connectors);
            assert!(of_worker("connector_error", &worker, at(0)).is_empty(), "{status}");
            assert!(of_worker("connector_unknown", &worker, at(0)).is_empty(), "{status}");
        }
    }

    #[test]
    fn a_task_is_slow_beyond_three_times_what_is_usual() {
        let p95 = Some(4_001);
        assert_eq!(of_task("task_slow", &samples::running(), p95, at(12_003)), None);
        assert_eq!(
            of_task("task_slow", &samples::running(), p95, at(12_004)).unwrap(),
            "mail 00000000 runs for much longer than usual (p95 is 5 s)"
        );
        assert_eq!(of_task("task_slow", &samples::running(), None, at(86_400_000)), None, "nobody knows what is usual");
    }

    #[test]
    fn a_short_task_is_not_slow_within_ten_seconds() {
        for p95 in [0, 1, 3_333] {
            assert_eq!(of_task("task_slow", &samples::running(), Some(p95), at(10_000)), None, "{p95}");
            assert!(of_task("task_slow", &samples::running(), Some(p95), at(10_001)).is_some(), "{p95}");
        }
        assert_eq!(of_task("task_slow", &samples::running(), Some(0), at(-1)), None, "it started on a faster clock");
    }

    #[test]
    fn a_stalled_task_says_why_until_it_reports_again() {
        assert_eq!(of_task("task_stalled", &samples::running(), Some(1), at(86_400_000)), None);
        let stalled = RunningTask { stalled: Some("lease expired".to_owned()), ..samples::running() };
        let text = of_task("task_stalled", &stalled, None, at(0)).unwrap();
        assert_eq!(text, "mail 00000000 is stalled: lease expired");
    }

    #[test]
    fn each_stuck_task_has_exactly_one_rule() {
        for (reason, code, severity) in [
            (StuckReason::Ring, "blocked_forever", Level::Stalled),
            (StuckReason::Waits, "blocked_forever", Level::Stalled),
            (StuckReason::NoChildren, "group_without_children", Level::Degraded),
        ] {
            let found = stuck(reason, Some(2));
            let told = |rule: &Rule| matches!(rule.test, Test::StuckTask(test) if test(&found).is_some());
            assert_eq!(RULES.iter().filter(|rule| told(rule)).count(), 1, "{reason:?}");
            let reason = stuck_reason(&found).unwrap();
            assert_eq!((reason.code, reason.severity, reason.task_id), (code, severity, Some(Uuid::from_u128(1))));
        }
    }

    #[test]
    fn a_stuck_task_names_what_it_waits_for_and_what_would_help() {
        let two = Uuid::from_u128(2).to_string();
        for (reason, on, parts) in [
            (StuckReason::Ring, Some(2), ["waits for itself through", &two, "cancel one"]),
            (StuckReason::Waits, Some(2), ["waits for", &two, "change its dependencies"]),
            (StuckReason::NoChildren, None, ["has no children", "parent_task_id", "cancel it"]),
        ] {
            let text = stuck_reason(&stuck(reason, on)).unwrap().text;
            assert!(text.starts_with("mail 00000001 "), "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
