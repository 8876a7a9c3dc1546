//! Who lives keeps what it has: leases, heartbeats, time limits, and what others may say of a worker.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use taskwatch::{config::Settings, feed::Callbacks};

use crate::harness::{TestApp, app::settings, cluster};

/// A worker program of its own, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python_worker(app: &TestApp) -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/worker.py");
    let child = Command::new("python3").args([script, &app.url, "default"]).stdout(Stdio::null()).spawn().unwrap();
    Running(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_takes_longer_than_a_lease_is_done_once_by_the_readmes_worker() {
    let quick = Settings { heartbeat_seconds: 1, lease_seconds: 2, worker_ttl_seconds: 2, ..settings() };
    let app = TestApp::with(quick, Callbacks::default()).await;
    let _workers = [python_worker(&app), python_worker(&app)];
    let id = app.creates_as(json!({ "task_type": "add", "payload": { "a": 2, "b": 40, "seconds": 6 } })).await;
    app.becomes(&id, "completed").await;
    let task = app.task(&id).await;
    assert_eq!((&task["result"]["sum"], &task["attempt"]), (&json!(42), &json!(1)));
    assert_eq!(app.history(&id).await.iter().filter(|kind| *kind == "task_started").count(), 1);
    // One that is cancelled is let go at the next heartbeat, and the worker goes on with the next.
    let long = app.creates_as(json!({ "task_type": "add", "payload": { "seconds": 600 } })).await;
    app.becomes(&long, "running").await;
    app.post(&format!("/api/v1/tasks/{long}/cancel"), &json!({})).await.expect(200);
    let next = vec![json!({ "task_type": "add", "payload": { "a": 1, "seconds": 1 } }); 3];
    let next = app.post("/api/v1/tasks", &json!(next)).await.expect(201);
    for n in 0..3 {
        app.becomes(next["tasks"][n]["id"].as_str().unwrap(), "completed").await;
    }
    assert!(app.is(&long, "cancelled").await);
    app.settles().await;
    app.is_clean().await;
}

#[test]
fn a_time_to_live_below_the_lease_is_refused() {
    let wrong = Settings { lease_seconds: 60, worker_ttl_seconds: 59, ..Settings::default() };
    let said = wrong.check().unwrap_err();
    assert!(said.contains("--worker-ttl-seconds (59) must be at least --lease-seconds (60)"), "{said}");
    let usual = Settings::default();
    assert!(usual.check().is_ok() && usual.worker_ttl_seconds >= usual.lease_seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_not_taken_before_its_lease_ends() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    let task = worker.claims("default").await;
    // So soon after the claim this is not written down as a sign of life of the worker, and yet the lease counts from here.
    app.time_passes(4);
    task.progresses(50).await;
    app.time_passes(26);
    app.time_passes(5);
    app.becomes(&id, "pending").await;
    let events = app.get(&format!("/api/v1/tasks/{id}/events")).await.expect(200);
    let at = |kind: &str| {
        let event = events.as_array().unwrap().iter().find(|event| event["event_type"] == kind).unwrap();
        event["ts"].as_str().unwrap().parse::<taskwatch::clock::Time>().unwrap()
    };
    assert!(at("task_stalled") - at("task_progress") >= chrono::TimeDelta::seconds(30), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_names_no_task_keeps_the_worker_only() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    worker.claims("default").await;
    for _ in 0..2 {
        app.time_passes(20);
        assert_eq!(worker.beats(json!({})).await["cancelled"], json!([]));
    }
    app.becomes(&id, "pending").await;
    let events = app.get(&format!("/api/v1/tasks/{id}/events")).await.expect(200);
    assert_eq!(events[3]["data"]["reason"], "lease_expired");
    let workers = app.get("/api/v1/workers").await.expect(200);
    assert_eq!(workers["workers"][0]["status"], "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_holds_at_once_after_a_start() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let limited = app.creates_as(json!({ "task_type": "t", "timeout_seconds": 2 })).await;
    worker.claims("default").await;
    let leased = app.creates("t").await;
    worker.claims("default").await;
    let clock = app.clock.clone();
    app.settles().await;
    clock.advance(chrono::TimeDelta::minutes(10));
    // The clock stands still from here, so the time to report again after a start never passes.
    let app = app.restarted().await;
    app.becomes(&limited, "pending").await;
    assert!(app.is(&leased, "running").await, "its worker had no time to report yet");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_cannot_say_how_a_registered_worker_is() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    let task = worker.claims("default").await;
    let before = app.settles().await;
    let report = |kind: &str, more: Value| {
        let mut report = json!({ "event_type": kind, "worker_id": worker.id });
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        report
    };
    let reports = json!([
        report("worker_stopped", json!({})),
        report("worker_status_changed", json!({ "status": "draining" })),
        report("worker_heartbeat", json!({})),
        report("worker_started", json!({})),
        report("connector_status_changed", json!({ "connector_id": "c1", "status": "error", "error": "x" })),
    ]);
    let outcomes = app.hears(reports).await;
    for outcome in outcomes["outcomes"].as_array().unwrap() {
        assert_eq!((&outcome["status"], &outcome["code"]), (&json!(409), &json!("worker_managed")), "{outcome}");
    }
    let alone = app.post("/api/v1/events", &report("worker_stopped", json!({}))).await;
    assert_eq!((alone.status.as_u16(), alone.code()), (409, "worker_managed"));
    assert_eq!(app.settles().await, before);
    // A reported task may name it, and its connectors stay as they are.
    let observed = report("task_started", json!({ "task_id": "far", "connector_id": "c1" }));
    assert_eq!(app.hears(json!([observed])).await["outcomes"][0]["status"], 200);
    app.settles().await;
    let workers = app.get("/api/v1/workers").await.expect(200);
    assert_eq!(workers["workers"][0]["status"], "idle");
    assert_eq!(workers["workers"][0]["connectors"]["c1"]["status"], "idle");
    assert!(app.is(&id, "running").await);
    task.completes().await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_worker_that_stops_gives_back_what_it_claimed() {
    let app = TestApp::start().await;
    let worker_id = "01900000-0000-7000-8000-000000000001";
    let report = |kind: &str| json!({ "event_type": kind, "worker_id": worker_id });
    app.hears(json!([report("worker_started")])).await;
    let id = app.creates("t").await;
    let claim = json!({ "worker_id": worker_id, "queues": ["default"] });
    assert_eq!(app.post("/api/v1/claims", &claim).await.expect(200)["tasks"][0]["id"], id.as_str());
    app.time_passes(1);
    app.hears(json!([report("worker_stopped")])).await;
    assert!(app.is(&id, "pending").await);
    app.settles().await;
    app.is_clean().await;
    assert_eq!(cluster::number(&app.database, "SELECT count(*) FROM taskwatch.leases").await, 0);
}
