//! Why nothing moves, in words.

use serde_json::{Value, json};

use crate::harness::{TestApp, eventually};

impl TestApp {
    pub(crate) async fn health(&self) -> (String, Vec<String>) {
        self.settles().await;
        let health = self.get("/api/v1/health").await.expect(200);
        let codes =
            health["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap().to_owned());
        (health["status"].as_str().unwrap().to_owned(), codes.collect())
    }

    /// Waits until health is this, for this reason before all.
    pub(crate) async fn is_judged(&self, level: &str, code: &str) {
        let is_so = || async {
            let (status, codes) = self.health().await;
            status == level && codes.iter().any(|told| told == code)
        };
        eventually(&format!("health is {level} because of {code}"), is_so).await;
    }

    pub(crate) async fn reason_of(&self, id: &str) -> Value {
        let read = self.get(&format!("/api/v1/tasks/{id}")).await.expect(200);
        read["health"]["reasons"].as_array().unwrap().first().cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_names_what_holds_work_up() {
    let app = TestApp::start().await;
    assert_eq!(app.health().await, ("ok".to_owned(), vec![]));
    let id = app.creates("lonely").await;
    app.time_passes(15);
    app.is_judged("stalled", "no_worker").await;
    assert_eq!(app.reason_of(&id).await["code"], "no_worker");
    let queues = app.get("/api/v1/queues").await.expect(200);
    assert_eq!(
        (&queues["queues"][0]["health"]["status"], &queues["queues"][0]["health"]["reasons"][0]["code"]),
        (&json!("stalled"), &json!("no_worker"))
    );
    let worker = app.worker("w1").await;
    app.settles().await;
    assert_eq!(app.health().await.0, "ok");
    assert_eq!(app.reason_of(&id).await["code"], "waits_in_line");
    // A worker that is only known from elsewhere is none for this queue.
    let report = json!({ "event_type": "task_started", "task_id": "x", "queue": "far", "worker_id": "far" });
    app.post("/api/v1/events", &report).await.expect(200);
    let other = app.creates_as(json!({ "task_type": "t", "queue": "nobodys" })).await;
    app.time_passes(11);
    worker.beats(json!({})).await;
    app.is_judged("stalled", "no_worker").await;
    app.delete(&format!("/api/v1/tasks/{other}")).await.expect(204);
    app.post("/api/v1/queues/default/pause", &json!({})).await.expect(200);
    app.is_judged("degraded", "queue_paused").await;
    assert_eq!(app.reason_of(&id).await["code"], "queue_paused");
    app.post("/api/v1/queues/default/resume", &json!({})).await.expect(200);
    app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": 1 })).await.expect(200);
    let running = worker.claims("default").await;
    let next = app.creates("next").await;
    app.is_judged("degraded", "concurrency_limited").await;
    assert_eq!(app.reason_of(&next).await["code"], "concurrency_limited");
    running.completes().await;
    worker.claims("default").await.completes().await;
    app.settles().await;
    assert_eq!(app.health().await, ("ok".to_owned(), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_that_moves_is_no_standstill() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(3, "t").await;
    for _ in 0..5 {
        app.time_passes(13);
        worker.beats(json!({})).await;
    }
    app.is_judged("stalled", "standstill").await;
    let still = app.creates_as(json!({ "task_type": "t", "queue": "default" })).await;
    let then = app.settles().await;
    // All of these wait longer than a minute, and for a moment none runs.
    worker.claims("default").await.completes().await;
    app.is_judged("degraded", "backlog").await;
    assert_eq!(app.reason_of(&still).await["code"], "backlog");
    let past = app.get(&format!("/?at={then}")).await.text;
    assert!(
        past.contains("Queue default has workers that claim no tasks · 4 pending"),
        "the past knows what stood still"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_connectors_and_slow_tasks_are_named() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(26, "t").await;
    for _ in 0..25 {
        worker.claims("default").await.completes().await;
    }
    let slow = worker.claims("default").await;
    worker.beats(json!({ "connectors": [{ "connector_id": "c1", "status": "error", "error": "no disk" }] })).await;
    app.is_judged("degraded", "connector_error").await;
    app.time_passes(26);
    app.is_judged("degraded", "worker_quiet").await;
    app.is_judged("degraded", "task_slow").await;
    let codes = app.get(&format!("/api/v1/tasks/{}", slow.id)).await.expect(200);
    let codes: Vec<_> =
        codes["health"]["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"task_slow") && codes.contains(&"worker_quiet"), "{codes:?}");
    app.time_passes(30);
    app.is_judged("stalled", "worker_lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_says_what_it_waits_for() {
    let app = TestApp::start().await;
    let first = app.creates("first").await;
    let blocked = app.creates_as(json!({ "task_type": "t", "depends_on": [first] })).await;
    let reason = app.reason_of(&blocked).await;
    assert_eq!(reason["code"], "blocked_by");
    assert!(reason["text"].as_str().unwrap().contains(&first), "{reason}");
    let later = app.creates_as(json!({ "task_type": "t", "run_at": "2100-01-01T00:00:00Z" })).await;
    assert_eq!(app.reason_of(&later).await["code"], "waits_for_time");
    let group = app.creates_as(json!({ "task_type": "t", "auto_complete": true })).await;
    assert_eq!(app.reason_of(&group).await["code"], "waits_for_children");
}
