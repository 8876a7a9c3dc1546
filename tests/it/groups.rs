//! Parents and their phases.

use serde_json::{Value, json};

use crate::harness::{TestApp, cluster, eventually};

impl TestApp {
    async fn parent(&self, id: &str) -> Value {
        let snapshot = self.get("/api/v1/snapshot").await.expect(200);
        let parents = snapshot["parents"].as_array().unwrap();
        parents.iter().find(|parent| parent["task_id"] == id).cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_starts_and_ends_with_its_children() {
    let app = TestApp::start().await;
    let twin = app.twin().await;
    let workers = [app.worker("w1").await, twin.worker("w2").await];
    let group = json!({ "task_type": "batch", "phases": ["fetch", "render"], "auto_complete": true });
    let parent = app.creates_as(group).await;
    assert!(app.is(&parent, "blocked").await);
    let child = |phase: &str| json!({ "task_type": "c", "parent_task_id": parent, "phase": phase });
    let children: Vec<_> = (0..12).map(|n| child(if n < 6 { "fetch" } else { "render" })).collect();
    app.post("/api/v1/tasks", &json!(children)).await.expect(201);
    // The last children of a phase end on two servers at once.
    for round in 0..6 {
        let (one, other) = tokio::join!(workers[0].claims("default"), workers[1].claims("default"));
        if round == 0 {
            app.becomes(&parent, "running").await;
        }
        tokio::join!(one.completes(), other.completes());
    }
    app.becomes(&parent, "completed").await;
    let told = app.events_of(&parent).await;
    let phases: Vec<_> =
        told.iter().map(|e| (e["event_type"].as_str().unwrap(), e["phase"].as_str().unwrap())).collect();
    let once = |kind: &str, phase: &str| phases.iter().filter(|told| **told == (kind, phase)).count() == 1;
    for phase in ["fetch", "render"] {
        assert!(once("phase_started", phase) && once("phase_completed", phase), "{phases:?}");
    }
    assert_eq!(phases.len(), 4);
    // Nobody was ever given the parent.
    assert!(app.history(&parent).await.iter().filter(|kind| *kind == "task_started").count() == 1);
    assert_eq!(app.task(&parent).await["worker_id"], Value::Null);
    app.settles().await;
    app.is_clean().await;
}

impl TestApp {
    /// Phase events of a parent.
    async fn events_of(&self, parent: &str) -> Vec<Value> {
        let events = cluster::texts(
            &self.database,
            "SELECT body FROM taskwatch.events WHERE event_type LIKE 'phase%' ORDER BY position",
        )
        .await;
        let events = events.iter().map(|body| serde_json::from_str::<Value>(body).unwrap());
        events.filter(|event| event["parent_task_id"] == parent).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_failed_children_fails_and_opens_again() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let parent = app.creates_as(json!({ "task_type": "batch", "auto_complete": true })).await;
    let child = json!({ "task_type": "c", "parent_task_id": parent, "max_attempts": 1 });
    let created = app.post("/api/v1/tasks", &json!([child, child])).await.expect(201);
    worker.claims("default").await.completes().await;
    worker.claims("default").await.fails("broken").await;
    app.becomes(&parent, "failed").await;
    assert_eq!(app.task(&parent).await["error"], "1 of 2 children failed");
    let refused = app.post(&format!("/api/v1/tasks/{parent}/retry"), &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "task_is_parent"));
    let both: Vec<_> = (0..2).map(|n| created["tasks"][n]["id"].clone()).collect();
    app.post("/api/v1/tasks/bulk", &json!({ "action": "retry", "ids": both })).await.expect(200);
    app.becomes(&parent, "blocked").await;
    // Open again, and still nobody gets the group itself.
    let claimed = worker.claims_up_to(10, &["default"], 1).await;
    assert_eq!(claimed.len(), 2);
    app.becomes(&parent, "running").await;
    for task in claimed {
        task.completes().await;
    }
    app.becomes(&parent, "completed").await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_groups_close_from_the_inside_and_roll_up() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let group = |parent: Option<&str>| json!({ "task_type": "g", "auto_complete": true, "parent_task_id": parent });
    let outer = app.creates_as(group(None)).await;
    let inner = app.creates_as(group(Some(&outer))).await;
    let leaf = json!({ "task_type": "leaf", "parent_task_id": inner });
    app.post("/api/v1/tasks", &json!([leaf, leaf, leaf])).await.expect(201);
    worker.claims("default").await.completes().await;
    app.becomes(&outer, "running").await;
    app.settles().await;
    assert_eq!(
        app.parent(&outer).await["rolled_up"],
        json!({ "pending": 2, "running": 0, "completed": 1, "failed": 0, "cancelled": 0 })
    );
    for _ in 0..2 {
        worker.claims("default").await.completes().await;
    }
    app.becomes(&inner, "completed").await;
    app.becomes(&outer, "completed").await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_told_as_a_range() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let parent = app.creates_as(json!({ "task_type": "batch", "auto_complete": true, "phases": ["only"] })).await;
    let child = json!({ "task_type": "c", "parent_task_id": parent, "phase": "only" });
    app.post("/api/v1/tasks", &json!(vec![child; 20])).await.expect(201);
    for done in 0..8 {
        app.settles().await;
        let shown = app.parent(&parent).await;
        assert_eq!(shown["eta_seconds"].is_null(), done < 5, "after {done}: {shown}");
        app.time_passes(25);
        worker.claims("default").await.completes().await;
    }
    app.settles().await;
    let shown = app.parent(&parent).await;
    let (low, high) = (shown["eta_seconds"][0].as_u64().unwrap(), shown["eta_seconds"][1].as_u64().unwrap());
    // Twelve are left, one in 25 s.
    assert!(low <= 300 && 300 <= high && low > 100 && high < 900, "{shown}");
    assert_eq!(shown["current_phase"], "only");
    eventually("the group is running", || async { app.is(&parent, "running").await }).await;
}
