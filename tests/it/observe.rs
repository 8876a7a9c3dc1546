//! Systems that run their own work and only report it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use taskwatch::{
    clock::Time,
    model::{
        Name, Priority, Task,
        observation::{Facts, Observation, ObservedKind},
        report::Progress,
        transition::Transition,
    },
};
use uuid::Uuid;

use crate::harness::{TestApp, app::Reply, cluster, eventually};

fn at(second: i64) -> Time {
    Time::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn ts(second: i64) -> String {
    taskwatch::event::envelope::rfc3339(at(second))
}

impl TestApp {
    pub(crate) async fn hears(&self, reports: Value) -> Value {
        self.post("/api/v1/events", &reports).await.expect(200)
    }

    async fn hears_as(&self, content_type: &str, body: impl Into<String>) -> Reply {
        let request = self.http().post(format!("{}/api/v1/events", self.url)).header("content-type", content_type);
        let response = request.body(body.into()).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        Reply { status, json: serde_json::from_str(&text).unwrap_or_default(), text }
    }
}

fn told(kind: &str, id: &str, second: i64) -> Value {
    json!({ "event_type": kind, "task_id": id, "ts": ts(second), "task_type": "mail", "queue": "celery" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_task_is_watched_from_start_to_end() {
    let app = TestApp::start().await;
    let mut start = told("task_started", "job-17", 2);
    start["worker_id"] = json!("celery@box");
    start["machine_id"] = json!("box");
    let mut end = told("task_completed", "job-17", 5);
    end["data"] = json!({ "result": { "sent": 3 } });
    let heard = app.hears(json!([told("task_created", "job-17", 1), start, end])).await;
    let outcomes = heard["outcomes"].as_array().unwrap();
    assert!(outcomes.iter().all(|outcome| outcome["outcome"] == "recorded"), "{heard}");
    let id = outcomes[0]["task_id"].as_str().unwrap();
    let task = app.task(id).await;
    assert_eq!(
        (&task["status"], &task["external_id"], &task["observed"]),
        (&json!("completed"), &json!("job-17"), &json!(true))
    );
    assert_eq!(
        (&task["started_at"], &task["finished_at"]),
        (&json!("2023-11-14T22:13:22Z"), &json!("2023-11-14T22:13:25Z"))
    );
    assert_eq!(task["result"], json!({ "sent": 3 }));
    assert_eq!(app.history(id).await, ["task_created", "task_enqueued", "task_started", "task_completed"]);
    let workers = app.get("/api/v1/workers").await.expect(200);
    assert_eq!(
        (&workers["workers"][0]["name"], &workers["workers"][0]["machine_id"]),
        (&json!("celery@box"), &json!("box"))
    );
    // Nobody is ever given it, and nobody here can steer it.
    let worker = app.worker("w1").await;
    app.hears(told("task_created", "waiting", 3)).await;
    assert!(worker.claims_up_to(5, &["celery"], 0).await.is_empty());
    let refused = app.post(&format!("/api/v1/tasks/{id}/retry"), &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "task_observed"));
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_or_twice_changes_nothing() {
    let app = TestApp::start().await;
    app.hears(told("task_completed", "a", 9)).await;
    let heard = app
        .hears(json!([told("task_completed", "a", 9), told("task_failed", "a", 8), told("task_progress", "a", 7)]))
        .await;
    let id = heard["outcomes"][0]["task_id"].as_str().unwrap().to_owned();
    assert_eq!(heard["outcomes"][0]["outcome"], "unchanged");
    assert!(app.is(&id, "completed").await);
    app.hears(told("task_started", "a", 4)).await;
    let task = app.task(&id).await;
    assert_eq!((&task["status"], &task["started_at"]), (&json!("completed"), &json!("2023-11-14T22:13:24Z")));
    // A further attempt goes on, an earlier one does not come back.
    let mut second = told("task_started", "a", 20);
    second["attempt"] = json!(2);
    app.hears(second).await;
    app.hears(told("task_completed", "a", 30)).await;
    let task = app.task(&id).await;
    assert_eq!((&task["status"], &task["attempt"], &task["retry_count"]), (&json!("running"), &json!(2), &json!(1)));
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_may_be_reported_before_their_parent() {
    let app = TestApp::start().await;
    let child = |n: u8, kind: &str| {
        let mut report = told(kind, &format!("child-{n}"), i64::from(n));
        report["parent_task_id"] = json!("family");
        report["phase"] = json!("one");
        report
    };
    let heard =
        app.hears(json!([child(1, "task_completed"), child(2, "task_started"), child(3, "task_created")])).await;
    let ids: Vec<_> = (0..3).map(|n| heard["outcomes"][n]["task_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(app.task(&ids[0]).await["project_id"], "default");
    let mut parent = told("task_started", "family", 0);
    parent["project_id"] = json!("atlas");
    let heard = app.hears(parent).await;
    let parent = heard["outcomes"][0]["task_id"].as_str().unwrap().to_owned();
    for id in &ids {
        eventually("the child has its parent's project", || async { app.task(id).await["project_id"] == "atlas" })
            .await;
    }
    app.settles().await;
    let snapshot = app.get("/api/v1/snapshot").await.expect(200);
    let shown = &snapshot["parents"][0];
    assert_eq!(
        (&shown["task_id"], &shown["phases"][0]["counts"]),
        (&json!(parent), &json!({ "pending": 1, "running": 1, "completed": 1, "failed": 0, "cancelled": 0 }))
    );
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudevents_are_understood_in_every_mode() {
    let app = TestApp::start().await;
    let event = |id: u8, kind: &str, data: Value| json!({ "specversion": "1.0", "id": id.to_string(), "source": "/shop", "type": kind, "time": ts(id.into()), "subject": "order-1", "data": data });
    let structured = event(1, "com.example.task_created", json!({ "task_type": "ship" }));
    app.hears_as("application/cloudevents+json", structured.to_string()).await.expect(200);
    let batch =
        json!([event(2, "task_started", json!({})), event(3, "task_progress", json!({ "data": { "percent": 40 } }))]);
    let heard = app.hears_as("application/cloudevents-batch+json", batch.to_string()).await.expect(200);
    let id = heard["outcomes"][1]["task_id"].as_str().unwrap().to_owned();
    assert_eq!(app.task(&id).await["progress"]["percent"], 40.0);
    let request = app.http().post(format!("{}/api/v1/events", app.url)).header("content-type", "application/json");
    let request =
        [("specversion", "1.0"), ("id", "4"), ("source", "/shop"), ("type", "task_failed"), ("subject", "order-1")]
            .into_iter()
            .fold(request, |request, (name, value)| request.header(format!("ce-{name}"), value))
            .header("ce-time", ts(4));
    let response = request.body(r#"{"error":"no stock"}"#).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let task = app.task(&id).await;
    assert_eq!(
        (&task["status"], &task["error"], &task["task_type"]),
        (&json!("failed"), &json!("no stock"), &json!("ship"))
    );
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_report_has_its_own_outcome() {
    let app = TestApp::start().await;
    let managed = app.creates("managed").await;
    let lines = [
        told("task_created", "good", 1).to_string(),
        told("task_created", &managed, 1).to_string(),
        json!({ "event_type": "task_exploded", "task_id": "x" }).to_string(),
        json!({ "event_type": "task_started" }).to_string(),
        json!({ "event_type": "task_started", "task_id": "x", "ts": "yesterday" }).to_string(),
        json!({ "event_type": "task_started", "task_id": "x", "ts": "2200-01-01T00:00:00Z" }).to_string(),
        json!({ "event_type": "task_started", "task_id": "x", "colour": "red" }).to_string(),
        json!({ "event_type": "task_completed", "task_id": "x", "duration_ms": u64::MAX }).to_string(),
        "{broken".to_owned(),
    ];
    let heard = app.hears_as("application/x-ndjson", lines.join("\n")).await.expect(200);
    let told: Vec<_> = heard["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| (o["status"].as_u64().unwrap(), o["code"].as_str().unwrap_or("-"), o["field"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(
        told,
        [
            (200, "-", "-"),
            (409, "task_managed", "-"),
            (422, "invalid_field", "event_type"),
            (422, "invalid_field", "task_id"),
            (422, "invalid_field", "ts"),
            (422, "invalid_field", "ts"),
            (422, "invalid_field", "colour"),
            (422, "invalid_field", "duration_ms"),
            (400, "invalid_json", "body"),
        ],
        "{heard}"
    );
    // A single report is answered as a request of its own.
    let single = app.post("/api/v1/events", &json!({ "event_type": "task_started" })).await;
    assert_eq!((single.status.as_u16(), single.json["errors"][0]["field"].as_str()), (422, Some("task_id")));
    let many = vec![json!({ "event_type": "worker_heartbeat", "worker_id": 7 }); 1_001];
    assert_eq!(app.post("/api/v1/events", &json!(many)).await.status.as_u16(), 422);
    let heard = app.hears(json!(many[..1_000])).await;
    assert_eq!(heard["outcomes"].as_array().unwrap().len(), 1_000);
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_taskwatch_can_be_reported_to_another() {
    let [from, to] = [TestApp::start().await, TestApp::start().await];
    let worker = from.worker("w1").await;
    let id = from.creates_as(json!({ "task_type": "t", "title": "relayed", "labels": { "a": "b" } })).await;
    worker.claims("default").await.progresses(50).await;
    let events = cluster::texts(&from.database, "SELECT body FROM taskwatch.events ORDER BY position").await;
    let events: Vec<Value> = events.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let heard = to.hears(json!(events)).await;
    assert!(heard["outcomes"].as_array().unwrap().iter().all(|o| o["status"] == 200), "{heard}");
    let task = to.task(&id).await;
    assert_eq!(
        (&task["status"], &task["title"], &task["progress"]["percent"]),
        (&json!("running"), &json!("relayed"), &json!(50.0))
    );
    to.settles().await;
    to.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_worker_that_falls_silent_is_lost_and_its_tasks_are_only_told_stalled() {
    let app = TestApp::start().await;
    let mut start = told("task_started", "long", 1);
    start["worker_id"] = json!("c1");
    let heard = app.hears(json!([{ "event_type": "worker_started", "worker_id": "c1" }, start])).await;
    let id = heard["outcomes"][1]["task_id"].as_str().unwrap().to_owned();
    app.time_passes(65);
    eventually("the stall is told", || async { app.history(&id).await.contains(&"task_stalled".to_owned()) }).await;
    assert!(app.is(&id, "running").await);
    // It was only slow: its end still counts.
    let mut end = told("task_completed", "long", 90);
    end["worker_id"] = json!("c1");
    app.hears(end).await;
    assert!(app.is(&id, "completed").await);
    app.settles().await;
    app.is_clean().await;
}

// What follows holds the rule itself: a task is what the set of its reports says, whatever their order.

fn observation() -> impl Strategy<Value = Observation> {
    let happened = prop::sample::select(vec![
        ObservedKind::Created,
        ObservedKind::Enqueued,
        ObservedKind::Started,
        ObservedKind::Progressed,
        ObservedKind::Retried,
        ObservedKind::Cancelled,
        ObservedKind::Failed,
        ObservedKind::Completed,
    ]);
    let facts = (prop::option::of(0..3_u8), prop::option::of(0..3_u8), prop::option::of(0..10_i64), any::<bool>());
    (happened, 0..12_i64, prop::option::of(1..4_u32), facts, prop::option::of(0..100_u8), 0..3_u8).prop_map(
        |(happened, second, attempt, (queue, title, priority, parent), percent, worker)| Observation {
            happened,
            at: at(second),
            attempt,
            external_id: Some("x".to_owned()),
            facts: Facts {
                queue: queue.map(|n| Name::new(&format!("q{n}")).unwrap()),
                title: title.map(|n| format!("t{n}")),
                priority: priority.and_then(Priority::new),
                parent_task_id: parent.then(|| Uuid::from_u128(5)),
                ..Facts::default()
            },
            worker: Some((Uuid::from_u128(worker.into()), Name::literal("m"))),
            connector_id: None,
            progress: percent.map(|percent| Progress { percent: Some(percent.into()), ..Progress::default() }),
            result: None,
            error: percent.filter(|percent| percent % 2 == 0).map(|percent| format!("e{percent}")),
            duration_ms: percent.map(u64::from),
        },
    )
}

fn fold(reports: &[Observation]) -> Task {
    let blank = Task::placeholder(Uuid::from_u128(1), None, at(100));
    let (mut task, steps) = blank.first_observed(&reports[0], at(100));
    assert_eq!(steps.last().unwrap().after, task);
    for report in &reports[1..] {
        let (after, steps) = task.decide(Transition::Observe(Box::new(report.clone())), at(100)).unwrap();
        // The events lead from the one to the other.
        let mut status = task.status;
        for step in &steps {
            assert_eq!(step.old_status, Some(status));
            status = step.after.status;
        }
        assert_eq!(status, after.status);
        task = after;
    }
    task
}

proptest! {
    #[test]
    fn the_order_of_reports_does_not_matter(
        reports in prop::collection::vec(observation(), 1..8),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
    ) {
        let told = fold(&reports);
        let mut other = reports.clone();
        other.extend(order.iter().map(|index| index.get(&reports).clone()));
        for (one, two) in swaps {
            let (one, two) = (one.index(other.len()), two.index(other.len()));
            other.swap(one, two);
        }
        prop_assert_eq!(fold(&other), told);
    }
}

/// A small history of one task, as its system would report it.
fn history(number: usize) -> Vec<Value> {
    let id = format!("task-{number}");
    let second = i64::try_from(number % 1_000).unwrap();
    let report = |kind: &str, step: i64, attempt: u32| {
        let mut report = told(kind, &id, second + step);
        report["parent_task_id"] = json!(format!("family-{}", number % 7));
        report["phase"] = json!(format!("phase-{}", number % 3));
        report["worker_id"] = json!(format!("worker-{}", number % 11));
        if attempt > 0 {
            report["attempt"] = json!(attempt);
        }
        report
    };
    let mut reports = vec![report("task_created", 0, 0), report("task_started", 1, 1), report("task_progress", 2, 1)];
    match number % 5 {
        0 => reports.push(report("task_completed", 3, 1)),
        1 => reports.extend([report("task_retry", 3, 1), report("task_started", 5, 2), report("task_completed", 6, 2)]),
        2 => reports.extend([report("task_retry", 3, 1), report("task_started", 5, 2), report("task_failed", 6, 2)]),
        3 => reports.push(report("task_cancelled", 4, 0)),
        _ => {}
    }
    reports
}

/// `TASKWATCH_REPORTS` sets how many reports are told; the same by 50 reporters in a wild order with every tenth twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_shuffled_history_ends_in_the_same_tables_and_board() {
    let wanted: usize = std::env::var("TASKWATCH_REPORTS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    let mut reports: Vec<Value> = (0..).flat_map(history).take(wanted).collect();
    for family in 0..7 {
        let mut parent = told("task_started", &format!("family-{family}"), 0);
        parent["project_id"] = json!(format!("project-{family}"));
        reports.insert(family, parent);
    }
    let [plain, wild] = [TestApp::start().await, TestApp::start().await];
    for chunk in reports.chunks(500) {
        plain.hears(json!(chunk)).await;
    }
    let mut shuffled = reports.clone();
    shuffled.extend(reports.iter().step_by(10).cloned());
    // Within a window, as lateness is in practice, but a wide one.
    for window in shuffled.chunks_mut(2_000) {
        fastrand::shuffle(window);
    }
    let mut reporters = tokio::task::JoinSet::new();
    for part in shuffled.chunks(shuffled.len().div_ceil(50)).map(<[Value]>::to_vec) {
        let (http, url) = (wild.http().clone(), format!("{}/api/v1/events", wild.url));
        reporters.spawn(async move {
            for chunk in part.chunks(40) {
                let answer = http.post(&url).json(chunk).send().await.unwrap();
                assert_eq!(answer.status(), 200);
            }
        });
    }
    reporters.join_all().await;
    let tables =
        "SELECT row_to_json(t)::text FROM (SELECT id, project_id, task_type, queue, parent_task_id, phase, priority,
        status, is_parent, attempt, retry_count, outcome, worker_id, machine_id, created_at, enqueued_at, started_at,
        finished_at, error, external_id, observed::text FROM taskwatch.tasks ORDER BY id) t";
    let shown = async |app: &TestApp| {
        eventually("everything is looked at again", || async {
            cluster::number(&app.database, "SELECT count(*) FROM taskwatch.rechecks").await == 0
        })
        .await;
        app.settles().await;
        let snapshot = app.get("/api/v1/snapshot").await.expect(200);
        let queues: Vec<_> = snapshot["queues"]
            .as_array()
            .unwrap()
            .iter()
            .map(|q| (q["queue"].clone(), q["tasks"].clone(), q["depth"].clone()))
            .collect();
        let parents: BTreeMap<_, _> = snapshot["parents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| {
                let mut phases: Vec<_> = p["phases"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|f| (f["name"].to_string(), f["counts"].to_string()))
                    .collect();
                phases.sort();
                (p["task_id"].to_string(), phases)
            })
            .collect();
        let running: BTreeMap<_, _> = snapshot["running"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| (t["task_id"].to_string(), t["attempt"].to_string()))
            .collect();
        (snapshot["counts"].to_string(), queues, parents, running)
    };
    assert_eq!(shown(&plain).await, shown(&wild).await);
    assert_eq!(cluster::texts(&plain.database, tables).await, cluster::texts(&wild.database, tables).await);
    assert!(
        cluster::number(&plain.database, "SELECT count(*) FROM taskwatch.tasks WHERE status = 'running'").await > 0
    );
    println!("{} reports, {} told in a wild order", reports.len(), shuffled.len());
    plain.is_clean().await;
    wild.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_words_at_the_same_time_the_greater_one_is_kept_in_the_table_as_well() {
    let app = TestApp::start().await;
    let at = "2026-11-21T10:00:00Z";
    let report = |parent: &str, phase: &str, kind: &str, result: i64| {
        json!({ "event_type": "task_completed", "task_id": "job-1", "task_type": kind, "parent_task_id": parent,
            "phase": phase, "ts": at, "data": { "result": result } })
    };
    for (parent, phase, kind, result) in
        [("a", "p1", "mail", 1), ("b", "p2", "post", 2), ("c", "p3", "send", 3), ("a", "p1", "mail", 1)]
    {
        app.post("/api/v1/events", &report(parent, phase, kind, result)).await.expect(200);
        app.settles().await;
        app.is_clean().await;
    }
}
