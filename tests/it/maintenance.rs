//! What happens by itself: retries, lost leases, lost workers.

use serde_json::json;
use taskwatch::feed::Callbacks;

use crate::harness::{TestApp, app::settings, eventually};

async fn becomes(app: &TestApp, id: &str, status: &str) {
    eventually(&format!("the task becomes {status}"), || async { app.task(id).await["status"] == status }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_puts_the_task_back() {
    let app = TestApp::start().await;
    let (one, two) = (app.worker("w1").await, app.worker("w2").await);
    let id = app.creates("t").await;
    let old = one.claims("default").await;
    // It still beats, but no longer works on this task.
    app.time_passes(61);
    one.beats(json!({ "tasks": [] })).await;
    becomes(&app, &id, "pending").await;
    let history = app.history(&id).await;
    assert_eq!(history[3..], ["task_stalled", "task_enqueued"]);
    assert_eq!(old.reports("complete", json!({})).await.code(), "lease_lost");
    two.beats(json!({})).await;
    two.claims("default").await.completes().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_keeps_the_lease() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    let task = worker.claims("default").await;
    for _ in 0..5 {
        app.time_passes(20);
        let held = json!([{ "task_id": id, "attempt": task.attempt }]);
        let beat = worker.beats(json!({ "status": "active", "tasks": held })).await;
        assert_eq!(beat["cancelled"], json!([]));
    }
    app.settles().await;
    assert_eq!(app.task(&id).await["status"], "running");
    assert_eq!(app.task(&id).await["attempt"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_worker_is_lost_and_its_tasks_go_to_others() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "t", "max_attempts": 1 })).await;
    let task = worker.claims("default").await;
    app.time_passes(31);
    becomes(&app, &id, "failed").await;
    assert_eq!(app.task(&id).await["error"], "worker lost");
    app.settles().await;
    let workers = app.get("/api/v1/workers").await.expect(200);
    assert_eq!(workers["workers"][0]["status"], "lost");
    assert_eq!(task.reports("complete", json!({})).await.status, 409);
    // It speaks again: it is back.
    worker.beats(json!({})).await;
    app.settles().await;
    assert_eq!(app.get("/api/v1/workers").await.expect(200)["workers"][0]["status"], "idle");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_has_a_time_limit() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "t", "timeout_seconds": 5 })).await;
    worker.claims("default").await;
    app.time_passes(31);
    worker.beats(json!({})).await;
    becomes(&app, &id, "pending").await;
    let events = app.get(&format!("/api/v1/tasks/{id}/events")).await.expect(200);
    assert_eq!(events[3]["data"]["reason"], "time_limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_tasks_follow_the_policy() {
    let mut fails = settings();
    fails.stalled_policy = taskwatch::model::lease::StalledPolicy::Fail;
    let app = TestApp::with(fails, Callbacks::default()).await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    worker.claims("default").await;
    app.time_passes(61);
    worker.beats(json!({ "tasks": [] })).await;
    becomes(&app, &id, "failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_declare_healthy_workers_lost() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    worker.claims("default").await;
    let clock = app.clock.clone();
    app.settles().await;
    // Nobody could report for ten minutes, because taskwatch was away.
    clock.advance(chrono::TimeDelta::minutes(10));
    let app = app.restarted().await;
    let before = app.settles().await;
    // A gauge comes every 5 s: by the second one, the jobs that look every second have looked several times.
    let mut stream = app.events("?after=now&stats_only=true").await;
    stream.until("stats_snapshot").await;
    assert_eq!(app.settles().await, before);
    assert_eq!(app.task(&id).await["status"], "running");
}
