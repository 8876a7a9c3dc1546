//! Queues: pausing, limits, figures; and connectors that follow their tasks.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Stream, TestApp, cluster, eventually,
    program::{Folder, Program},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_hands_nothing_out_and_what_runs_goes_on() {
    let app = TestApp::start().await;
    let twin = app.twin().await;
    let worker = twin.worker("w1").await;
    app.creates_many(3, "t").await;
    let running = worker.claims("default").await;
    let paused = app.post("/api/v1/queues/default/pause", &json!({})).await.expect(200);
    assert!(paused["queue"]["paused_at"].is_string());
    assert!(worker.claims_up_to(5, &["default", "other"], 1).await.is_empty());
    running.completes().await;
    app.post("/api/v1/queues/default/pause", &json!({})).await.expect(200);
    twin.settles().await;
    let shown = twin.get("/api/v1/queues").await.expect(200);
    assert_eq!(shown["queues"][0]["paused_at"], paused["queue"]["paused_at"]);
    // Whoever waits is woken when it goes on.
    let waiting = {
        let worker = worker.clone();
        tokio::spawn(async move { worker.claims_up_to(1, &["default"], 20).await })
    };
    app.post("/api/v1/queues/default/resume", &json!({})).await.expect(200);
    assert_eq!(waiting.await.unwrap().len(), 1);
    let told = cluster::texts(
        &app.database,
        "SELECT event_type FROM taskwatch.events WHERE event_type LIKE 'queue%' ORDER BY position",
    )
    .await;
    assert_eq!(told, ["queue_paused", "queue_resumed"]);
    app.settles().await;
    app.is_clean().await;
}

/// `TASKWATCH_LIMITED` sets how many tasks.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_across_servers() {
    let tasks: usize = std::env::var("TASKWATCH_LIMITED").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let app = TestApp::start().await;
    let twin = app.twin().await;
    let limits = json!({ "concurrency_limit": 10, "rate_limit": 50 });
    app.patch("/api/v1/queues/default", &limits).await.expect(200);
    app.creates_many(tasks, "t").await;
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..40 {
        let worker = if number % 2 == 0 { &app } else { &twin }.worker(&format!("w{number}")).await;
        workers.spawn(async move {
            loop {
                let claimed = worker.claims_up_to(2, &["default"], 2).await;
                if claimed.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(60)).await;
                for task in claimed {
                    task.completes().await;
                }
            }
        });
    }
    workers.join_all().await;
    app.settles().await;
    let events = cluster::texts(
        &app.database,
        "SELECT body FROM taskwatch.events WHERE event_type IN ('task_started', 'task_completed') ORDER BY position",
    )
    .await;
    let (mut running, mut most, mut starts) = (0, 0, Vec::new());
    for event in events.iter().map(|body| serde_json::from_str::<Value>(body).unwrap()) {
        if event["event_type"] == "task_started" {
            running += 1;
            most = most.max(running);
            starts.push(event["ts"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap());
        } else {
            running -= 1;
        }
    }
    assert_eq!((starts.len(), running), (tasks, 0));
    starts.sort();
    let fullest = starts
        .iter()
        .map(|from| starts.iter().filter(|at| *at >= from && **at < *from + chrono::TimeDelta::seconds(1)).count())
        .max();
    let seconds = (starts[tasks - 1] - starts[0]).num_milliseconds() as f64 / 1_000.0;
    println!("{tasks} tasks in {seconds:.1} s: at most {most} at once, {} starts in any second", fullest.unwrap());
    assert!(most <= 10 && fullest <= Some(50), "{most} at once, {fullest:?} in a second");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_checked_lifted_and_shown() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(4, "t").await;
    app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": 1 })).await.expect(200);
    assert_eq!(worker.claims_up_to(4, &["default"], 0).await.len(), 1);
    assert!(worker.claims_up_to(4, &["default"], 0).await.is_empty());
    app.creates_as(json!({ "task_type": "t", "queue": "free" })).await;
    assert_eq!(worker.claims_up_to(4, &["default", "free"], 0).await.len(), 1);
    let lifted = app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": null })).await.expect(200);
    assert_eq!(lifted["queue"]["concurrency_limit"], Value::Null);
    assert_eq!(worker.claims_up_to(4, &["default"], 0).await.len(), 3);
    for (body, field) in [
        (json!({ "concurrency_limit": 0 }), "concurrency_limit"),
        (json!({ "rate_limit": -1 }), "rate_limit"),
        (json!({ "rate_period_seconds": 60 }), "rate_period_seconds"),
        (json!({ "rate_limit": 1, "rate_period_seconds": 0 }), "rate_period_seconds"),
        (json!({ "colour": 1 }), "colour"),
    ] {
        let refused = app.patch("/api/v1/queues/default", &body).await;
        assert_eq!(refused.status.as_u16(), 422, "{body}: {}", refused.text);
        assert_eq!(refused.json["errors"][0]["field"], field, "{}", refused.text);
    }
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_a_queue_tell_how_long_tasks_wait_and_run() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(5, "t").await;
    app.time_passes(4);
    for _ in 0..5 {
        let task = worker.claims("default").await;
        app.time_passes(1);
        task.completes().await;
    }
    app.settles().await;
    let queue = app.get("/api/v1/queues").await.expect(200)["queues"][0].clone();
    let (wait, run) = (queue["wait"]["p50_ms"].as_u64().unwrap(), queue["run"]["p99_ms"].as_u64().unwrap());
    assert!((4_000..12_000).contains(&wait) && (1_000..2_600).contains(&run), "{queue}");
    assert!(queue["completed_per_second"].as_f64().unwrap() > 0.0);
}

impl TestApp {
    /// The connector's badge on the board.
    async fn badge(&self) -> (String, Option<String>) {
        self.settles().await;
        let workers = self.get("/api/v1/workers").await.expect(200);
        let connector = &workers["workers"][0]["connectors"]["gpu"];
        (connector["status"].as_str().unwrap_or("none").to_owned(), connector["error"].as_str().map(str::to_owned))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_follows_its_tasks() {
    let app = TestApp::start().await;
    let body = json!({ "name": "w", "machine_id": "m", "connectors": [{ "connector_id": "gpu" }] });
    let worker = app.post("/api/v1/workers", &body).await.expect(201)["worker"]["id"].clone();
    app.creates_many(3, "t").await;
    let claim = json!({ "worker_id": worker, "queues": ["default"], "connector_id": "gpu", "limit": 2 });
    let tasks = app.post("/api/v1/claims", &claim).await.expect(200)["tasks"].clone();
    assert_eq!(tasks[0]["connector_id"], "gpu");
    assert_eq!(app.badge().await.0, "active");
    let report = |n: usize| json!({ "worker_id": worker, "attempt": tasks[n]["attempt"] });
    let path = |n: usize, what: &str| format!("/api/v1/tasks/{}/{what}", tasks[n]["id"].as_str().unwrap());
    app.post(&path(0, "complete"), &report(0)).await.expect(200);
    assert_eq!(app.badge().await.0, "active");
    let mut failure = report(1);
    failure["error"] = json!("out of memory");
    app.post(&path(1, "fail"), &failure).await.expect(200);
    assert_eq!(app.badge().await, ("error".to_owned(), Some("out of memory".to_owned())));
    let claim = json!({ "worker_id": worker, "queues": ["default"], "connector_id": "gpu" });
    let task = app.post("/api/v1/claims", &claim).await.expect(200)["tasks"][0].clone();
    assert_eq!(app.badge().await, ("active".to_owned(), None));
    let done = json!({ "worker_id": worker, "attempt": task["attempt"] });
    app.post(&format!("/api/v1/tasks/{}/complete", task["id"].as_str().unwrap()), &done).await.expect(200);
    assert_eq!(app.badge().await.0, "idle");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_nobody_reports_is_unknown_until_the_next_report() {
    let app = TestApp::start().await;
    let body = json!({ "name": "w", "machine_id": "m", "connectors": [{ "connector_id": "gpu", "status": "active" }, { "connector_id": "disk" }] });
    let worker = app.post("/api/v1/workers", &body).await.expect(201)["worker"]["id"].as_str().unwrap().to_owned();
    let beat = format!("/api/v1/workers/{worker}/heartbeat");
    // Reports of the other one only: this one grows old.
    for _ in 0..4 {
        app.time_passes(20);
        app.post(&beat, &json!({ "connectors": [{ "connector_id": "disk" }] })).await.expect(200);
    }
    eventually("the badge is unknown", || async { app.badge().await.0 == "unknown" }).await;
    let workers = app.get("/api/v1/workers").await.expect(200);
    let connectors = &workers["workers"][0]["connectors"];
    assert!(connectors["gpu"]["reported_at"].is_string(), "{connectors}");
    assert_eq!(connectors["disk"]["status"], "idle");
    let snapshot = app.get("/api/v1/snapshot").await.expect(200);
    assert_eq!(snapshot["workers"][0]["connectors"], *connectors);
    app.post(&beat, &json!({ "connectors": [{ "connector_id": "gpu", "status": "active" }] })).await.expect(200);
    assert_eq!(app.badge().await.0, "active");
    // A heartbeat without a list says that all is as before.
    for _ in 0..5 {
        app.time_passes(20);
        app.post(&beat, &json!({})).await.expect(200);
    }
    assert_eq!(app.badge().await.0, "active");
    app.settles().await;
    app.is_clean().await;
}

/// Folds connector badges from the stream: what a monitor does that was there before the machine started.
async fn watched(url: &str) -> HashMap<String, Value> {
    let http = reqwest::Client::new();
    let stats: Value = http.get(format!("{url}/api/v1/stats")).send().await.unwrap().json().await.unwrap();
    let head = stats["position"].as_i64().unwrap();
    let mut stream = Stream::open(&http, &format!("{url}/events?after=earliest&snapshot=never"), None).await;
    let mut badges: HashMap<String, Value> = HashMap::new();
    let mut position = 0;
    while position < head {
        let event = stream.event().await.json();
        position = event["position"].as_i64().unwrap_or(position);
        let worker = event["worker_id"].as_str().unwrap_or_default().to_owned();
        match event["event_type"].as_str().unwrap() {
            "worker_started" => {
                badges.insert(worker, json!({}));
            }
            "connector_status_changed" => {
                let mut badge = json!({ "status": event["data"]["status"], "since": event["ts"] });
                if let Some(error) = event.get("error") {
                    badge["error"] = error.clone();
                }
                if let Some(since) = event["data"].get("unreported_since") {
                    badge["reported_at"] = since.clone();
                }
                badges.get_mut(&worker).unwrap()[event["connector_id"].as_str().unwrap()] = badge;
            }
            _ => {}
        }
    }
    badges
}

async fn shown(url: &str) -> HashMap<String, Value> {
    let snapshot: Value = reqwest::get(format!("{url}/api/v1/snapshot")).await.unwrap().json().await.unwrap();
    let workers = snapshot["workers"].as_array().unwrap().iter();
    workers.map(|worker| (worker["worker_id"].as_str().unwrap().to_owned(), worker["connectors"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn badges_are_the_same_whenever_the_monitor_was_opened() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(4, "t").await;
    let claim = json!({ "worker_id": worker.id, "queues": ["default"], "connector_id": "c1", "limit": 2 });
    let tasks = app.post("/api/v1/claims", &claim).await.expect(200)["tasks"].clone();
    app.settles().await;
    assert_eq!(watched(&app.url).await, shown(&app.url).await);
    let app = app.restarted().await;
    app.settles().await;
    assert_eq!(watched(&app.url).await, shown(&app.url).await);
    let failure = json!({ "worker_id": worker.id, "attempt": 1, "error": "broken", "retryable": false });
    app.post(&format!("/api/v1/tasks/{}/fail", tasks[0]["id"].as_str().unwrap()), &failure).await.expect(200);
    app.settles().await;
    assert_eq!(watched(&app.url).await, shown(&app.url).await);
    // The connections to the database are cut, the worker falls silent and comes back.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    cluster::number(&app.database, cut).await;
    app.time_passes(130);
    eventually("everything is unknown", || async {
        let badges = shown(&app.url).await;
        badges.values().all(|badges| badges["c1"]["status"] == "unknown")
    })
    .await;
    app.settles().await;
    assert_eq!(watched(&app.url).await, shown(&app.url).await);
    app.post(&format!("/api/v1/workers/{}/heartbeat", worker.id), &json!({ "connectors": [{ "connector_id": "c1" }] }))
        .await
        .expect(200);
    app.settles().await;
    let badges = shown(&app.url).await;
    assert_eq!(badges[&worker.id]["c1"]["status"], "idle");
    assert_eq!(watched(&app.url).await, badges);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn badges_are_the_same_after_the_server_and_its_postgres_were_killed() {
    let folder = Folder::new();
    let http = reqwest::Client::new();
    let post = async |url: &str, path: &str, body: Value| -> Value {
        http.post(format!("{url}{path}")).json(&body).send().await.unwrap().json().await.unwrap()
    };
    let program = Program::start(&folder.0, &[]);
    let worker = json!({ "name": "w", "machine_id": "m", "connectors": [{ "connector_id": "gpu" }, { "connector_id": "disk", "status": "error", "error": "full" }] });
    let worker = post(&program.url, "/api/v1/workers", worker).await["worker"]["id"].clone();
    post(&program.url, "/api/v1/tasks", json!({ "task_type": "t" })).await;
    let claim = json!({ "worker_id": worker, "queues": ["default"], "connector_id": "gpu" });
    let task = post(&program.url, "/api/v1/claims", claim).await["tasks"][0].clone();
    let before = shown(&program.url).await;
    assert_eq!(before[worker.as_str().unwrap()]["gpu"]["status"], "active");
    assert_eq!(watched(&program.url).await, before);
    // Its private Postgres goes with it, and recovers with the next.
    program.kill();
    let program = Program::start(&folder.0, &[]);
    assert_eq!(shown(&program.url).await, before);
    assert_eq!(watched(&program.url).await, before);
    let path = format!("/api/v1/tasks/{}/complete", task["id"].as_str().unwrap());
    post(&program.url, &path, json!({ "worker_id": worker, "attempt": 1 })).await;
    eventually("the badge is idle", || async {
        shown(&program.url).await[worker.as_str().unwrap()]["gpu"]["status"] == "idle"
    })
    .await;
    assert_eq!(watched(&program.url).await, shown(&program.url).await);
    assert_eq!(program.terminate().code(), Some(0));
}
