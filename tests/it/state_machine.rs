//! The task state machine: transition by transition, and as a property.

use chrono::TimeDelta;
use proptest::prelude::*;
use taskwatch::{
    clock::{Clock, Time},
    model::{
        Name, Status, Task,
        dependency::Dependencies,
        edit::Edit,
        lease::{Claimant, StallReason, StalledPolicy},
        observation::{Observation, ObservedKind},
        report::{Fence, Progress},
        step::TaskEvent,
        task::NewTask,
        transition::Transition,
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

fn claim(now: Time) -> Transition {
    let by = Claimant { worker_id: WORKER, machine_id: Name::literal("m"), connector_id: None };
    Transition::Claim { by, lease_until: now + TimeDelta::seconds(30) }
}

fn fence(task: &Task) -> Fence {
    Fence { worker_id: WORKER, attempt: task.attempt }
}

fn fail(task: &Task, retryable: bool) -> Transition {
    Transition::Fail { fence: fence(task), error: "e".to_owned(), retryable, jitter: 0.5 }
}

/// A task in each state.
fn in_state(status: Status) -> Task {
    let start = now();
    let step = |task: Task, command: Transition| task.decide(command, start).unwrap().0;
    let pending = fresh(3);
    let running = step(pending.clone(), claim(start));
    match status {
        Status::Pending => pending,
        Status::Scheduled | Status::Blocked => Task { status, ..pending },
        Status::Running => running,
        Status::Retrying => step(running.clone(), fail(&running, true)),
        Status::Completed => step(running.clone(), Transition::Complete { fence: fence(&running), result: None }),
        Status::Failed => step(running.clone(), fail(&running, false)),
        Status::Cancelled => step(pending, Transition::Cancel { reason: None }),
    }
}

fn order() -> [Status; 8] {
    use Status::{Blocked, Cancelled, Completed, Failed, Pending, Retrying, Running, Scheduled};
    [Scheduled, Blocked, Pending, Running, Retrying, Completed, Failed, Cancelled]
}

fn observed(at: Time) -> Observation {
    Observation::new(ObservedKind::Completed, at)
}

/// The arrows of the table: from each state by each command, the state after; `None` where it is refused.
#[test]
fn the_table_of_states_holds_arrow_by_arrow() {
    use Status::{Blocked, Cancelled, Completed, Failed, Pending, Retrying, Running, Scheduled};
    let late = now() + TimeDelta::hours(3);
    type Arrow = (&'static str, fn(&Task, Time) -> Transition, [Option<Status>; 8]);
    let arrows: [Arrow; 19] = [
        // scheduled, blocked, pending, running, retrying, completed, failed, cancelled
        ("claim", |_, now| claim(now), [None, None, Some(Running), None, None, None, None, None]),
        (
            "progress",
            |t, now| Transition::Progress {
                fence: fence(t),
                progress: Progress { percent: Some(7.0), ..Progress::default() },
                lease_until: now,
            },
            [None, None, None, Some(Running), None, None, None, None],
        ),
        (
            "extend",
            |t, now| Transition::Extend { fence: fence(t), lease_until: now },
            [None, None, None, Some(Running), None, None, None, None],
        ),
        // The last three are the same report again, where the outcome was the same.
        (
            "complete",
            |t, _| Transition::Complete { fence: fence(t), result: None },
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
            |t, _| Transition::Release { fence: fence(t) },
            [None, None, None, Some(Pending), None, None, None, None],
        ),
        ("due", |_, _| Transition::Due, [Some(Pending), None, None, None, Some(Pending), None, None, None]),
        (
            "stall",
            |_, _| Transition::Stall { reason: StallReason::LeaseExpired, policy: StalledPolicy::Retry },
            [None, None, None, Some(Pending), None, None, None, None],
        ),
        (
            "stall for good",
            |_, _| Transition::Stall { reason: StallReason::WorkerLost, policy: StalledPolicy::Fail },
            [None, None, None, Some(Failed), None, None, None, None],
        ),
        (
            "cancel",
            |_, _| Transition::Cancel { reason: None },
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
        (
            "dependencies done",
            |_, _| Transition::Depend(Dependencies::Done),
            [
                Some(Scheduled),
                Some(Pending),
                Some(Pending),
                Some(Running),
                Some(Retrying),
                Some(Completed),
                Some(Failed),
                Some(Cancelled),
            ],
        ),
        (
            "dependency failed",
            |_, _| Transition::Depend(Dependencies::Broken(Uuid::nil(), "failed")),
            [
                Some(Scheduled),
                Some(Failed),
                Some(Pending),
                Some(Running),
                Some(Retrying),
                Some(Completed),
                Some(Failed),
                Some(Cancelled),
            ],
        ),
        (
            "edit",
            |_, _| Transition::Edit(Box::new(Edit { title: Some(Some("new".to_owned())), ..Edit::default() })),
            order().map(Some),
        ),
        (
            "move to another queue",
            |_, _| Transition::Edit(Box::new(Edit { queue: Some(Name::literal("other")), ..Edit::default() })),
            order().map(|status| Some(status).filter(|status| *status != Running)),
        ),
        (
            "depend on others",
            |_, _| Transition::Edit(Box::new(Edit { depends_on: Some(vec![Uuid::nil()]), ..Edit::default() })),
            order().map(|status| Some(status).filter(|status| *status == Blocked)),
        ),
        ("observe", |_, now| Transition::Observe(Box::new(observed(now))), [None; 8]),
        (
            "retry of one that waits for others",
            |_, _| Transition::RetryBlocked,
            [None, None, None, None, None, Some(Blocked), Some(Blocked), Some(Blocked)],
        ),
        (
            "retry",
            |_, _| Transition::Retry,
            [None, None, None, None, None, Some(Pending), Some(Pending), Some(Pending)],
        ),
    ];
    for (name, command, expected) in arrows {
        for (from, to) in order().into_iter().zip(expected) {
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
    let (same, steps) = task.decide(Transition::Due, now() - TimeDelta::seconds(5)).unwrap();
    assert_eq!((same.status, steps.len()), (Status::Retrying, 0));
}

#[test]
fn a_lease_that_was_extended_is_not_stalled() {
    let task = in_state(Status::Running);
    let stall = Transition::Stall { reason: StallReason::LeaseExpired, policy: StalledPolicy::Retry };
    let (same, steps) = task.decide(stall, now()).unwrap();
    assert_eq!((same, steps.len()), (task, 0));
}

#[test]
fn a_stall_that_is_only_reported_is_reported_once() {
    let task = in_state(Status::Running);
    let late = now() + TimeDelta::hours(1);
    let stall = || Transition::Stall { reason: StallReason::TimeLimit, policy: StalledPolicy::Report };
    let (task, steps) = task.decide(stall(), late).unwrap();
    assert_eq!((task.status, steps.len()), (Status::Running, 1));
    assert_eq!(task.decide(stall(), late).unwrap().1.len(), 0);
    // Also when the worker goes on reporting: the time limit stays passed.
    let (task, _) = task.decide(Transition::Extend { fence: fence(&task), lease_until: late }, late).unwrap();
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
                Try::Progress(back) => Transition::Progress { fence: at(back), progress: Progress { percent: Some(f64::from(back)), ..Progress::default() }, lease_until: time },
                Try::Complete(back) => Transition::Complete { fence: at(back), result: None },
                Try::Fail(back, retryable) => Transition::Fail { fence: at(back), error: "e".to_owned(), retryable, jitter: 0.1 },
                Try::Release(back) => Transition::Release { fence: at(back) },
                Try::Due => Transition::Due,
                Try::Stall(fail) => Transition::Stall { reason: StallReason::LeaseExpired, policy: if fail { StalledPolicy::Fail } else { StalledPolicy::Retry } },
                Try::Cancel => Transition::Cancel { reason: None },
                Try::Retry => Transition::Retry,
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
    Wait { pick: usize, policy: u8, later: bool },
    Once { key: u8 },
    Group { children: u8 },
    Edit { pick: usize, what: u8 },
    Tell { task: u8, kind: u8, attempt: u8, second: i64, child: bool },
    Queue { queue: u8, what: u8 },
    Enqueue { queue: u8, pick: usize, child: bool, rolled_back: bool },
    Bulk { what: u8 },
    Claim { worker: usize, limit: u32 },
    Report { pick: usize, what: u8 },
    Operate { pick: usize, what: u8 },
    Worker { worker: usize, what: u8 },
    Pass(i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let one = prop_oneof![
        3 => (0..2_u8, 0..10_u8, any::<bool>()).prop_map(|(queue, priority, child)| Act::Create { queue, priority, child }),
        2 => (any::<usize>(), 0..3_u8, any::<bool>()).prop_map(|(pick, policy, later)| Act::Wait { pick, policy, later }),
        1 => (0..2_u8).prop_map(|key| Act::Once { key }),
        1 => (1..4_u8).prop_map(|children| Act::Group { children }),
        2 => (any::<usize>(), 0..6_u8).prop_map(|(pick, what)| Act::Edit { pick, what }),
        4 => (0..4_u8, 0..8_u8, 0..3_u8, 0..9_i64, any::<bool>())
            .prop_map(|(task, kind, attempt, second, child)| Act::Tell { task, kind, attempt, second, child }),
        1 => (0..2_u8, 0..4_u8).prop_map(|(queue, what)| Act::Queue { queue, what }),
        2 => (0..2_u8, any::<usize>(), any::<bool>(), any::<bool>())
            .prop_map(|(queue, pick, child, rolled_back)| Act::Enqueue { queue, pick, child, rolled_back }),
        1 => (0..3_u8).prop_map(|what| Act::Bulk { what }),
        4 => (0..3_usize, 1..4_u32).prop_map(|(worker, limit)| Act::Claim { worker, limit }),
        6 => (any::<usize>(), 0..5_u8).prop_map(|(pick, what)| Act::Report { pick, what }),
        3 => (any::<usize>(), 0..6_u8).prop_map(|(pick, what)| Act::Operate { pick, what }),
        1 => (0..3_usize, 0..3_u8).prop_map(|(worker, what)| Act::Worker { worker, what }),
        1 => (0..90_i64).prop_map(Act::Pass),
    ];
    prop::collection::vec(one, 20..70)
}

#[test]
fn the_fold_of_the_log_is_the_tables_whatever_happens() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = ProptestConfig {
        cases: std::env::var("TASKWATCH_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(12),
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    };
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
            Act::Wait { pick, policy, later } => {
                let on = if ids.is_empty() {
                    Vec::new()
                } else {
                    vec![&ids[pick % ids.len()], &ids[(pick / 7) % ids.len()]]
                };
                let policy = ["fail", "cancel", "ignore"][usize::from(policy)];
                let run_at = taskwatch::event::envelope::rfc3339(app.clock.now() + TimeDelta::seconds(30));
                let body = json!({ "task_type": "w", "queue": "q0", "depends_on": on, "on_dependency_failure": policy, "run_at": later.then_some(run_at) });
                let reply = app.post("/api/v1/tasks", &body).await;
                assert!(reply.status.as_u16() < 500, "{}", reply.text);
                ids.extend(reply.json["task"]["id"].as_str().map(str::to_owned));
            }
            Act::Once { key } => {
                let body = json!({ "task_type": "o", "queue": "q1", "unique_key": format!("k{key}") });
                let reply = app.post("/api/v1/tasks", &body).await;
                assert!(reply.status.as_u16() < 300, "{}", reply.text);
                ids.extend(reply.json["task"]["id"].as_str().map(str::to_owned));
            }
            Act::Group { children } => {
                let id = Uuid::now_v7().to_string();
                let group = json!({ "id": id, "task_type": "g", "auto_complete": true, "parent_task_id": ids.first() });
                let child = json!({ "task_type": "c", "queue": "q1", "parent_task_id": id, "phase": "p" });
                let all: Vec<_> = [group].into_iter().chain(std::iter::repeat_n(child, children.into())).collect();
                let reply = app.post("/api/v1/tasks", &json!(all)).await;
                assert!(reply.status.as_u16() < 500, "{}", reply.text);
                let created = reply.json["tasks"].as_array().into_iter().flatten();
                ids.extend(created.filter_map(|task| task["id"].as_str().map(str::to_owned)));
            }
            Act::Edit { pick, what } if !ids.is_empty() => {
                let id = &ids[pick % ids.len()];
                let other = &ids[(pick / 3) % ids.len()];
                let body = match what {
                    0 => json!({ "priority": pick % 10 }),
                    1 => json!({ "queue": format!("q{}", pick % 2) }),
                    2 => json!({ "title": "t".repeat(pick % 500), "labels": { "l": "x".repeat(pick % 200) } }),
                    3 => json!({ "assignee": "ann", "watchers": ["bob"], "description": "d".repeat(pick % 16_000) }),
                    4 => json!({ "depends_on": [other] }),
                    _ => json!({ "depends_on": [] }),
                };
                let reply = app.patch(&format!("/api/v1/tasks/{id}"), &body).await;
                assert!(reply.status.as_u16() < 500, "{}", reply.text);
            }
            Act::Tell { task, kind, attempt, second, child } => {
                let kind = ["created", "enqueued", "started", "progress", "completed", "retry", "failed", "cancelled"]
                    [usize::from(kind)];
                let mut report = json!({ "event_type": format!("task_{kind}"), "task_id": format!("r{task}"), "queue": "q0", "worker_id": "far" });
                report["ts"] = json!(taskwatch::event::envelope::rfc3339(
                    Time::from_timestamp(1_700_000_000 + second, 0).unwrap()
                ));
                if attempt > 0 {
                    report["attempt"] = json!(attempt);
                }
                if child {
                    // Its parent is reported too, now or later or never; or it is a task of ours.
                    report["parent_task_id"] = if task == 0 { json!(ids.first()) } else { json!("r3") };
                    report["connector_id"] = json!("link");
                }
                let reply = app.post("/api/v1/events", &json!([report, report])).await;
                assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
            }
            Act::Queue { queue, what } => {
                let path = format!("/api/v1/queues/q{queue}");
                let reply = match what {
                    0 => app.post(&format!("{path}/pause"), &json!({})).await,
                    1 => app.post(&format!("{path}/resume"), &json!({})).await,
                    2 => app.patch(&path, &json!({ "concurrency_limit": 1, "rate_limit": 3 })).await,
                    _ => app.patch(&path, &json!({ "concurrency_limit": null, "rate_limit": null })).await,
                };
                assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
            }
            Act::Enqueue { queue, pick, child, rolled_back } => {
                let on = ids.get(pick % ids.len().max(1)).map_or(String::new(), |id| format!("'{id}'"));
                let parent = ids.first().filter(|_| child).map_or("NULL".to_owned(), |id| format!("'{id}'"));
                let end = if rolled_back { "ROLLBACK" } else { "COMMIT" };
                let statement = format!(
                    "BEGIN; SELECT taskwatch.enqueue('s', queue => 'q{queue}', depends_on => ARRAY[{on}]::uuid[], parent_task_id => {parent}); {end}"
                );
                // A parent may be gone, and a finished one is as good as any: only the former is refused.
                crate::harness::cluster::tries(&app.database, &statement).await;
            }
            Act::Bulk { what } => {
                let action = ["cancel", "retry", "delete"][usize::from(what)];
                let body = json!({ "action": action, "filter": { "queue": "q1", "priority": "0..4" } });
                let reply = app.post("/api/v1/tasks/bulk", &body).await;
                assert_eq!(reply.status.as_u16(), 202, "{}", reply.text);
            }
            Act::Claim { worker, limit } => {
                let connector = (limit == 2).then_some("c1");
                let body = json!({ "worker_id": workers[worker].id, "queues": ["q0", "q1"], "limit": limit, "connector_id": connector });
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
                    2 => app.post(&format!("/api/v1/tasks/{id}/cancel"), &json!({ "children": true })).await,
                    3 => app.post(&format!("/api/v1/tasks/{id}/retry"), &json!({ "children": true })).await,
                    4 => app.delete(&format!("/api/v1/tasks/{id}?children=true")).await,
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
            Act::Report { .. } | Act::Operate { .. } | Act::Edit { .. } => {}
        }
    }
    crate::harness::eventually("everything is looked at again and done", || async {
        let open = "(SELECT count(*) FROM taskwatch.rechecks) + (SELECT count(*) FROM taskwatch.bulk_actions WHERE state = 'running')";
        crate::harness::cluster::number(&app.database, open).await == 0
    })
    .await;
    app.is_clean().await;
    app.stopped().await;
}

/// Over HTTP: what the table does not allow is a 409 that changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_table_does_not_allow_is_refused_and_changes_nothing() {
    use serde_json::json;
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let in_queue =
        |queue: &str| json!({ "task_type": "t", "queue": queue, "max_attempts": 2, "backoff_initial_seconds": 600 });
    let with = |mut body: serde_json::Value, field: &str, value: serde_json::Value| {
        body[field] = value;
        body
    };
    let gate = app.creates_as(in_queue("gate")).await;
    let scheduled = app.creates_as(with(in_queue("a"), "run_at", json!("2100-01-01T00:00:00Z"))).await;
    let blocked = app.creates_as(with(in_queue("a"), "depends_on", json!([gate]))).await;
    let pending = app.creates_as(in_queue("waiting")).await;
    let mut held = std::collections::HashMap::new();
    for status in ["running", "retrying", "completed", "failed", "cancelled"] {
        app.creates_as(in_queue("work")).await;
        let task = worker.claims("work").await;
        match status {
            "retrying" => drop(task.fails("e").await),
            "completed" => drop(task.completes().await),
            "failed" => drop(task.reports("fail", json!({ "error": "e", "retryable": false })).await.expect(200)),
            "cancelled" => drop(app.post(&format!("/api/v1/tasks/{}/cancel", task.id), &json!({})).await.expect(200)),
            _ => {}
        }
        held.insert(status, task);
    }
    let reports = |task: &str| json!({ "worker_id": worker.id, "attempt": 1, "error": "e", "task": task });
    let head = app.settles().await;
    let unclaimed = [(&scheduled, "scheduled"), (&blocked, "blocked"), (&pending, "pending")];
    for (id, status) in unclaimed {
        for what in ["progress", "complete", "fail", "release"] {
            let mut body = reports(id);
            body.as_object_mut().unwrap().remove("task");
            if what != "fail" {
                body.as_object_mut().unwrap().remove("error");
            }
            let refused = app.post(&format!("/api/v1/tasks/{id}/{what}"), &body).await;
            assert_eq!((refused.status.as_u16(), refused.code()), (409, "lease_lost"), "{what} of a {status} task");
        }
        let refused = app.post(&format!("/api/v1/tasks/{id}/retry"), &json!({})).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (409, "illegal_transition"), "retry of a {status} task");
    }
    for (status, what, code) in [
        ("running", "retry", "illegal_transition"),
        ("retrying", "retry", "illegal_transition"),
        ("completed", "cancel", "illegal_transition"),
        ("failed", "cancel", "illegal_transition"),
    ] {
        let refused = app.post(&format!("/api/v1/tasks/{}/{what}", held[status].id), &json!({})).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (409, code), "{what} of a {status} task");
    }
    for (status, what, code) in [
        ("retrying", "complete", "lease_lost"),
        ("retrying", "release", "lease_lost"),
        ("completed", "progress", "lease_lost"),
        ("completed", "fail", "lease_lost"),
        ("failed", "complete", "lease_lost"),
        ("cancelled", "complete", "task_cancelled"),
        ("cancelled", "progress", "task_cancelled"),
    ] {
        let body = if what == "fail" { json!({ "error": "e" }) } else { json!({}) };
        let refused = held[status].reports(what, body).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (409, code), "{what} of a {status} task");
    }
    assert_eq!(app.settles().await, head, "a refused command changed something");
    app.is_clean().await;
}
