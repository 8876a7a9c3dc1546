//! The task state machine: transition by transition, and as a property.

use chrono::TimeDelta;
use proptest::prelude::*;
use taskwatch::{
    clock::{Clock, Time},
    model::{
        Name, Status, Task,
        lease::{Claimant, StallReason, StalledPolicy},
        report::{Fence, Progress},
        task::NewTask,
        transition::{Command, TaskEvent},
    },
};
use uuid::Uuid;

use crate::harness::TestApp;

const WORKER: Uuid = Uuid::from_u128(1);

fn now() -> Time {
    Clock::default().now()
}

fn fresh(max_attempts: u32) -> Task {
    let plain = NewTask::plain(Uuid::from_u128(7), Name::literal("t"), Name::literal("q"));
    NewTask { max_attempts, timeout_seconds: Some(60), ..plain }.into_task(None, false, now())
}

fn claim(now: Time) -> Command {
    let by = Claimant { worker_id: WORKER, machine_id: Name::literal("m"), connector_id: None };
    Command::Claim { by, lease_until: now + TimeDelta::seconds(30) }
}

fn fence(task: &Task) -> Fence {
    Fence { worker_id: WORKER, attempt: task.attempt }
}

fn fail(task: &Task, retryable: bool) -> Command {
    Command::Fail { fence: fence(task), error: "e".to_owned(), retryable, jitter: 0.5 }
}

/// A task in each state.
fn in_state(status: Status) -> Task {
    let start = now();
    let step = |task: Task, command: Command| task.decide(command, start).unwrap().0;
    let pending = fresh(3);
    let running = step(pending.clone(), claim(start));
    match status {
        Status::Pending => pending,
        Status::Scheduled | Status::Blocked => Task { status, ..pending },
        Status::Running => running,
        Status::Retrying => step(running.clone(), fail(&running, true)),
        Status::Completed => step(running.clone(), Command::Complete { fence: fence(&running), result: None }),
        Status::Failed => step(running.clone(), fail(&running, false)),
        Status::Cancelled => step(pending, Command::Cancel { reason: None }),
    }
}

/// The arrows of the table: from each state by each command, the state after; `None` where it is refused.
#[test]
fn the_table_of_states_holds_arrow_by_arrow() {
    use Status::{Blocked, Cancelled, Completed, Failed, Pending, Retrying, Running, Scheduled};
    let late = now() + TimeDelta::hours(3);
    type Arrow = (&'static str, fn(&Task, Time) -> Command, [Option<Status>; 8]);
    let arrows: [Arrow; 12] = [
        // scheduled, blocked, pending, running, retrying, completed, failed, cancelled
        ("claim", |_, now| claim(now), [None, None, Some(Running), None, None, None, None, None]),
        (
            "progress",
            |t, now| Command::Progress {
                fence: fence(t),
                progress: Progress { percent: Some(7.0), ..Progress::default() },
                lease_until: now,
            },
            [None, None, None, Some(Running), None, None, None, None],
        ),
        (
            "extend",
            |t, now| Command::Extend { fence: fence(t), lease_until: now },
            [None, None, None, Some(Running), None, None, None, None],
        ),
        // The last three are the same report again, where the outcome was the same.
        (
            "complete",
            |t, _| Command::Complete { fence: fence(t), result: None },
            [None, None, None, Some(Completed), None, Some(Completed), None, None],
        ),
        ("fail", |t, _| fail(t, true), [None, None, None, Some(Retrying), Some(Retrying), None, Some(Failed), None]),
        (
            "fail for good",
            |t, _| fail(t, false),
            [None, None, None, Some(Failed), Some(Retrying), None, Some(Failed), None],
        ),
        (
            "release",
            |t, _| Command::Release { fence: fence(t) },
            [None, None, None, Some(Pending), None, None, None, None],
        ),
        ("due", |_, _| Command::Due, [Some(Pending), None, None, None, Some(Pending), None, None, None]),
        (
            "stall",
            |_, _| Command::Stall { reason: StallReason::LeaseExpired, policy: StalledPolicy::Retry },
            [None, None, None, Some(Pending), None, None, None, None],
        ),
        (
            "stall for good",
            |_, _| Command::Stall { reason: StallReason::WorkerLost, policy: StalledPolicy::Fail },
            [None, None, None, Some(Failed), None, None, None, None],
        ),
        (
            "cancel",
            |_, _| Command::Cancel { reason: None },
            [
                Some(Cancelled),
                Some(Cancelled),
                Some(Cancelled),
                Some(Cancelled),
                Some(Cancelled),
                None,
                None,
                Some(Cancelled),
            ],
        ),
        ("retry", |_, _| Command::Retry, [None, None, None, None, None, Some(Pending), Some(Pending), Some(Pending)]),
    ];
    let order = [Scheduled, Blocked, Pending, Running, Retrying, Completed, Failed, Cancelled];
    for (name, command, expected) in arrows {
        for (from, to) in order.into_iter().zip(expected) {
            let task = in_state(from);
            let before = task.clone();
            match (task.decide(command(&task, late), late), to) {
                (Ok((after, _)), Some(to)) => assert_eq!(after.status, to, "{name} of a {from} task"),
                (Err(_), None) => {}
                (decided, _) => panic!("{name} of a {from} task: {decided:?}"),
            }
            assert_eq!(task, before);
        }
    }
}

#[test]
fn backoff_is_waited_for() {
    let task = in_state(Status::Retrying);
    let (same, steps) = task.decide(Command::Due, now() - TimeDelta::seconds(5)).unwrap();
    assert_eq!((same.status, steps.len()), (Status::Retrying, 0));
}

#[test]
fn a_lease_that_was_extended_is_not_stalled() {
    let task = in_state(Status::Running);
    let stall = Command::Stall { reason: StallReason::LeaseExpired, policy: StalledPolicy::Retry };
    let (same, steps) = task.decide(stall, now()).unwrap();
    assert_eq!((same, steps.len()), (task, 0));
}

#[test]
fn a_stall_that_is_only_reported_is_reported_once() {
    let task = in_state(Status::Running);
    let late = now() + TimeDelta::hours(1);
    let stall = || Command::Stall { reason: StallReason::TimeLimit, policy: StalledPolicy::Report };
    let (task, steps) = task.decide(stall(), late).unwrap();
    assert_eq!((task.status, steps.len()), (Status::Running, 1));
    assert_eq!(task.decide(stall(), late).unwrap().1.len(), 0);
    // Also when the worker goes on reporting: the time limit stays passed.
    let (task, _) = task.decide(Command::Extend { fence: fence(&task), lease_until: late }, late).unwrap();
    assert_eq!(task.decide(stall(), late).unwrap().1.len(), 0);
}

/// What may be tried; the numbers choose whose report it is.
#[derive(Debug, Clone)]
enum Try {
    Claim,
    Progress(u32),
    Complete(u32),
    Fail(u32, bool),
    Release(u32),
    Due,
    Stall(bool),
    Cancel,
    Retry,
    Pass(i64),
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = prop_oneof![
        4 => Just(Try::Claim),
        2 => (0..3_u32).prop_map(Try::Progress),
        2 => (0..3_u32).prop_map(Try::Complete),
        3 => (0..3_u32, any::<bool>()).prop_map(|(back, retryable)| Try::Fail(back, retryable)),
        1 => (0..3_u32).prop_map(Try::Release),
        2 => Just(Try::Due),
        1 => any::<bool>().prop_map(Try::Stall),
        1 => Just(Try::Cancel),
        1 => Just(Try::Retry),
        2 => (-5..100_i64).prop_map(Try::Pass),
    ];
    prop::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn whatever_is_tried_the_task_stays_sound(tries in tries(), max_attempts in 1..5_u32) {
        let mut task = fresh(max_attempts);
        let mut time = now();
        for one in tries {
            let at = |back: u32| Fence { worker_id: WORKER, attempt: task.attempt.saturating_sub(back) };
            let command = match one {
                Try::Claim => claim(time),
                Try::Progress(back) => Command::Progress { fence: at(back), progress: Progress { percent: Some(f64::from(back)), ..Progress::default() }, lease_until: time },
                Try::Complete(back) => Command::Complete { fence: at(back), result: None },
                Try::Fail(back, retryable) => Command::Fail { fence: at(back), error: "e".to_owned(), retryable, jitter: 0.1 },
                Try::Release(back) => Command::Release { fence: at(back) },
                Try::Due => Command::Due,
                Try::Stall(fail) => Command::Stall { reason: StallReason::LeaseExpired, policy: if fail { StalledPolicy::Fail } else { StalledPolicy::Retry } },
                Try::Cancel => Command::Cancel { reason: None },
                Try::Retry => Command::Retry,
                Try::Pass(seconds) => {
                    time += TimeDelta::seconds(seconds);
                    continue;
                }
            };
            match task.decide(command, time) {
                Err(_) => {}
                Ok((after, steps)) => {
                    // Steps form a chain from the state before to the task after.
                    let mut status = task.status;
                    for step in &steps {
                        prop_assert_eq!(step.old_status, Some(status));
                        status = step.after.status;
                    }
                    prop_assert_eq!(status, after.status);
                    if let Some(last) = steps.last() {
                        prop_assert_eq!(&last.after, &after);
                    }
                    let starts = steps.iter().filter(|step| matches!(step.event, TaskEvent::Started { .. })).count();
                    prop_assert_eq!(after.attempt - task.attempt, u32::try_from(starts).unwrap());
                    task = after;
                }
            }
            prop_assert_eq!(task.lease.is_some(), task.status == Status::Running);
            prop_assert!(task.retry_count < task.max_attempts);
            prop_assert_eq!(task.finished_at.is_some(), task.status.is_finished());
            prop_assert_eq!(task.run_at.is_some(), task.status == Status::Retrying || (task.run_at.is_some() && task.status == Status::Cancelled));
        }
    }
}

/// One step of a random history against the real server.
#[derive(Debug, Clone)]
enum Act {
    Create { queue: u8, priority: u8, child: bool },
    Claim { worker: usize, limit: u32 },
    Report { pick: usize, what: u8 },
    Operate { pick: usize, what: u8 },
    Worker { worker: usize, what: u8 },
    Pass(i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let one = prop_oneof![
        3 => (0..2_u8, 0..10_u8, any::<bool>()).prop_map(|(queue, priority, child)| Act::Create { queue, priority, child }),
        4 => (0..3_usize, 1..4_u32).prop_map(|(worker, limit)| Act::Claim { worker, limit }),
        6 => (any::<usize>(), 0..5_u8).prop_map(|(pick, what)| Act::Report { pick, what }),
        2 => (any::<usize>(), 0..3_u8).prop_map(|(pick, what)| Act::Operate { pick, what }),
        1 => (0..3_usize, 0..3_u8).prop_map(|(worker, what)| Act::Worker { worker, what }),
        1 => (0..90_i64).prop_map(Act::Pass),
    ];
    prop::collection::vec(one, 20..70)
}

#[test]
fn the_fold_of_the_log_is_the_tables_whatever_happens() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases: 12, max_shrink_iters: 20, ..ProptestConfig::default() };
    proptest!(config, |(acts in acts())| {
        runtime.block_on(history(acts));
    });
}

async fn history(acts: Vec<Act>) {
    use serde_json::json;
    let app = TestApp::start().await;
    let mut workers = Vec::new();
    for number in 0..3 {
        workers.push(app.worker(&format!("w{number}")).await);
    }
    let mut ids: Vec<String> = Vec::new();
    let mut claimed = Vec::new();
    for act in acts {
        match act {
            Act::Create { queue, priority, child } => {
                let parent = ids.first().filter(|_| child);
                let body = json!({ "task_type": "t", "queue": format!("q{queue}"), "priority": priority, "parent_task_id": parent, "max_attempts": 2 });
                let reply = app.post("/api/v1/tasks", &body).await;
                ids.extend(reply.json["task"]["id"].as_str().map(str::to_owned));
            }
            Act::Claim { worker, limit } => {
                let body = json!({ "worker_id": workers[worker].id, "queues": ["q0", "q1"], "limit": limit });
                let reply = app.post("/api/v1/claims", &body).await;
                for task in reply.json["tasks"].as_array().into_iter().flatten() {
                    claimed.push((workers[worker].id.clone(), task["id"].clone(), task["attempt"].clone()));
                }
            }
            Act::Report { pick, what } if !claimed.is_empty() => {
                let (worker, id, attempt) = &claimed[pick % claimed.len()];
                let mut body = json!({ "worker_id": worker, "attempt": attempt });
                let name = ["progress", "complete", "fail", "fail", "release"][usize::from(what)];
                if name == "fail" {
                    body["error"] = json!("e");
                    body["retryable"] = json!(what == 2);
                }
                if name == "progress" {
                    body["percent"] = json!(pick % 100);
                }
                let reply = app.post(&format!("/api/v1/tasks/{}/{name}", id.as_str().unwrap()), &body).await;
                assert!(reply.status.as_u16() < 500, "{}", reply.text);
            }
            Act::Operate { pick, what } if !ids.is_empty() => {
                let id = &ids[pick % ids.len()];
                let reply = match what {
                    0 => app.post(&format!("/api/v1/tasks/{id}/cancel"), &json!({})).await,
                    1 => app.post(&format!("/api/v1/tasks/{id}/retry"), &json!({})).await,
                    _ => app.delete(&format!("/api/v1/tasks/{id}")).await,
                };
                assert!(reply.status.as_u16() < 500, "{}", reply.text);
            }
            Act::Worker { worker, what } => match what {
                0 => {
                    let body = json!({ "status": "active", "connectors": [{ "connector_id": "c1", "status": "error", "error": "x" }] });
                    app.post(&format!("/api/v1/workers/{}/heartbeat", workers[worker].id), &body).await;
                }
                1 => {
                    app.post(&format!("/api/v1/workers/{}/heartbeat", workers[worker].id), &json!({ "tasks": [] }))
                        .await;
                }
                _ => {
                    app.delete(&format!("/api/v1/workers/{}", workers[worker].id)).await;
                    workers[worker] = app.worker("again").await;
                }
            },
            Act::Pass(seconds) => app.time_passes(seconds),
            Act::Report { .. } | Act::Operate { .. } => {}
        }
    }
    app.is_clean().await;
    app.stopped().await;
}
