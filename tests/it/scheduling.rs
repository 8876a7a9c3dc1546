//! When a task may run: later, after others, once at a time; and what edits do.

use serde_json::{Value, json};
use taskwatch::{clock::Clock, event::envelope::rfc3339};

use crate::harness::{TestApp, eventually};

fn in_seconds(seconds: i64) -> String {
    rfc3339(Clock::default().now() + chrono::TimeDelta::seconds(seconds))
}

impl TestApp {
    pub(crate) async fn is(&self, id: &str, status: &str) -> bool {
        self.task(id).await["status"] == status
    }

    /// Waits until a task is in a state.
    pub(crate) async fn becomes(&self, id: &str, status: &str) {
        eventually(&format!("task {id} becomes {status}"), || async { self.is(id, status).await }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_its_time() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "later", "run_at": in_seconds(60) })).await;
    let past = app.creates_as(json!({ "task_type": "now", "run_at": in_seconds(-60) })).await;
    assert!(app.is(&id, "scheduled").await);
    let first = worker.claims("default").await;
    assert_eq!(first.id, past);
    // So that it does not come back with its lease, which passes as well.
    first.completes().await;
    assert!(worker.claims_up_to(1, &["default"], 0).await.is_empty());
    app.time_passes(61);
    assert_eq!(worker.claims("default").await.id, id);
    assert_eq!(app.history(&id).await, ["task_created", "task_enqueued", "task_started"]);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_task_waits_for_all_it_depends_on() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let first = app.creates("first").await;
    let second = app.creates("second").await;
    let last =
        app.creates_as(json!({ "task_type": "last", "queue": "end", "depends_on": [first, second, first] })).await;
    assert!(app.is(&last, "blocked").await);
    assert_eq!(app.task(&last).await["depends_on"], json!([first, second]));
    worker.claims("default").await.completes().await;
    assert!(app.is(&last, "blocked").await);
    worker.claims("default").await.completes().await;
    assert_eq!(worker.claims("end").await.id, last);
    assert_eq!(app.history(&last).await, ["task_created", "task_enqueued", "task_started"]);
    // What is done already is not waited for.
    let after = app.creates_as(json!({ "task_type": "after", "depends_on": [first] })).await;
    assert!(app.is(&after, "pending").await);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_created_in_one_request_and_runs_in_order() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let ids: Vec<_> = (0..4).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    // The last first: what comes later in the request counts as well.
    let chain: Vec<_> = (0..4_usize)
        .rev()
        .map(|n| json!({ "id": ids[n], "task_type": "link", "depends_on": n.checked_sub(1).map_or(vec![], |n| vec![&ids[n]]) }))
        .collect();
    app.post("/api/v1/tasks", &json!(chain)).await.expect(201);
    for id in &ids {
        let task = worker.claims("default").await;
        assert_eq!(task.id, *id);
        assert!(worker.claims_up_to(1, &["default"], 0).await.is_empty());
        task.completes().await;
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_is_refused_and_named() {
    let app = TestApp::start().await;
    let [a, b, c] = [1, 2, 3].map(uuid::Uuid::from_u128).map(|id| id.to_string());
    let task = |id: &str, on: &str| json!({ "id": id, "task_type": "t", "depends_on": [on] });
    let ring = json!([task(&a, &b), task(&b, &c), task(&c, &a)]);
    let refused = app.post("/api/v1/tasks", &ring).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "dependency_cycle"));
    assert!(refused.text.contains(&format!("{a} -> {b} -> {c} -> {a}")), "{}", refused.text);
    assert_eq!(refused.json["errors"][0]["field"], "depends_on");
    assert_eq!(app.position().await, 0);
    // The same by edits: c waits for b, b for a, and a must not wait for c.
    let gate = app.creates("gate").await;
    for (id, on) in [(&a, &gate), (&b, &a), (&c, &b)] {
        app.creates_as(task(id, on)).await;
    }
    let refused = app.patch(&format!("/api/v1/tasks/{a}"), &json!({ "depends_on": [gate, c] })).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "dependency_cycle"));
    assert!(refused.text.contains(&format!("{a} -> {c} -> {b} -> {a}")), "{}", refused.text);
    let unknown = app.patch(&format!("/api/v1/tasks/{a}"), &json!({ "depends_on": [uuid::Uuid::nil()] })).await;
    assert_eq!(unknown.status.as_u16(), 422);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dependency_has_a_stated_policy() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let broken = app.creates_as(json!({ "task_type": "broken", "max_attempts": 1 })).await;
    let mut waiting = Vec::new();
    for (policy, ends) in [("fail", "failed"), ("cancel", "cancelled"), ("ignore", "pending")] {
        let task =
            json!({ "task_type": policy, "queue": "after", "depends_on": [broken], "on_dependency_failure": policy });
        waiting.push((app.creates_as(task).await, ends));
    }
    // One further on learns it through the first.
    waiting.push((app.creates_as(json!({ "task_type": "chained", "depends_on": [waiting[0].0] })).await, "failed"));
    worker.claims("default").await.fails("no luck").await;
    for (id, ends) in &waiting {
        app.becomes(id, ends).await;
    }
    let error = app.task(&waiting[0].0).await["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&broken) && error.contains("failed"), "{error}");
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_hold_across_servers_and_restarts() {
    let app = TestApp::start().await;
    let twin = app.twin().await;
    let worker = app.worker("w1").await;
    let first = app.creates("first").await;
    let then = twin.creates_as(json!({ "task_type": "then", "queue": "q2", "depends_on": [first] })).await;
    worker.claims("default").await.completes().await;
    app.becomes(&then, "pending").await;
    let gone = app.creates("gone").await;
    let left = twin.creates_as(json!({ "task_type": "left", "queue": "q3", "depends_on": [gone] })).await;
    twin.stopped().await;
    app.delete(&format!("/api/v1/tasks/{gone}")).await.expect(204);
    let app = app.restarted().await;
    app.becomes(&left, "failed").await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_key_has_one_live_task() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let body = json!({ "task_type": "t", "unique_key": "report-7" });
    let first = app.creates_as(body.clone()).await;
    let again = app.post("/api/v1/tasks", &body).await.expect(200);
    assert_eq!(again["task"]["id"], first.as_str());
    let both = app.post("/api/v1/tasks", &json!([body, body])).await.expect(200);
    assert_eq!(both["tasks"][1]["id"], first.as_str());
    // Another project has keys of its own.
    app.creates_as(json!({ "task_type": "t", "unique_key": "report-7", "project_id": "other", "queue": "q2" })).await;
    worker.claims("default").await.completes().await;
    let second = app.creates_as(body).await;
    assert_ne!(first, second);
    // The finished one cannot live again beside it.
    let refused = app.post(&format!("/api/v1/tasks/{first}/retry"), &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "unique_key_taken"));
    // Of two finished ones, one can.
    worker.claims("default").await.completes().await;
    let done = app.post("/api/v1/tasks/bulk", &json!({ "action": "retry", "ids": [first, second] })).await.expect(200);
    assert_eq!(
        (&done["outcomes"][0]["status"], &done["outcomes"][1]["code"]),
        (&json!(200), &json!("unique_key_taken"))
    );
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_agree_on_a_unique_key() {
    let app = TestApp::start().await;
    let twin = app.twin().await;
    for round in 0..20 {
        let body = json!({ "task_type": "t", "unique_key": format!("k{round}") });
        let (one, other) = tokio::join!(app.post("/api/v1/tasks", &body), twin.post("/api/v1/tasks", &body));
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201], "{} {}", one.text, other.text);
        assert_eq!(one.json["task"]["id"], other.json["task"]["id"]);
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_has_its_own_backoff() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let task =
        json!({ "task_type": "t", "backoff_initial_seconds": 100, "backoff_max_seconds": 150, "max_attempts": 3 });
    let id = app.creates_as(task).await;
    worker.claims("default").await.fails("once").await;
    app.time_passes(49);
    assert!(worker.claims_up_to(1, &["default"], 1).await.is_empty());
    app.time_passes(52);
    worker.claims("default").await.fails("twice").await;
    let task = app.task(&id).await;
    assert_eq!((&task["status"], &task["retry_count"]), (&json!("retrying"), &json!(2)));
    app.time_passes(151);
    worker.claims("default").await.completes().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_tell_old_and_new() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "t", "title": "old", "labels": { "a": "1" } })).await;
    let path = format!("/api/v1/tasks/{id}");
    let edit = json!({
        "title": "new", "description": "more", "priority": 9, "queue": "fast", "labels": { "b": "2" },
        "assignee": "ann", "collaborators": ["bob", "cy"], "watchers": ["dee"]
    });
    let task = app.patch(&path, &edit).await.expect(200)["task"].clone();
    for (field, value) in edit.as_object().unwrap() {
        assert_eq!(task[field], *value, "{field}");
    }
    let events = app.get(&format!("{path}/events")).await.expect(200);
    let told = |kind: &str| -> Vec<Value> {
        let events = events.as_array().unwrap().iter().filter(|event| event["event_type"] == kind);
        events.map(|event| event["data"]["changes"].clone()).collect()
    };
    assert_eq!(told("task_updated")[0], json!({ "queue": ["default", "fast"] }));
    assert_eq!(told("task_updated")[1]["title"], json!(["old", "new"]));
    assert_eq!(told("task_updated")[1]["labels"], json!([{ "a": "1" }, { "b": "2" }]));
    assert_eq!(told("task_priority_changed"), [json!({ "priority": [5, 9] })]);
    assert_eq!(told("task_assigned"), [json!({ "assignee": [null, "ann"] })]);
    assert_eq!(told("task_collaborators_updated"), [json!({ "collaborators": [[], ["bob", "cy"]] })]);
    assert_eq!(told("task_watchers_updated"), [json!({ "watchers": [[], ["dee"]] })]);
    assert!(events.as_array().unwrap().iter().skip(2).all(|event| event["actor"] == "local"));
    // The same again changes nothing, and null removes.
    let head = app.settles().await;
    app.patch(&path, &edit).await.expect(200);
    assert_eq!(app.settles().await, head);
    let task = app.patch(&path, &json!({ "assignee": null, "title": null })).await.expect(200)["task"].clone();
    assert_eq!((&task["assignee"], &task["title"]), (&Value::Null, &Value::Null));
    app.settles().await;
    app.is_clean().await;
    // It stands in its new line now, and a running task stays where it is.
    assert_eq!(worker.claims("fast").await.id, id);
    let refused = app.patch(&path, &json!({ "queue": "slow", "title": "lost" })).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "illegal_transition"));
    assert_eq!(app.task(&id).await["title"], Value::Null);
    let late = app.patch(&path, &json!({ "depends_on": [id] })).await;
    assert_eq!(late.status.as_u16(), 422);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_are_added_and_removed() {
    let app = TestApp::start().await;
    let [one, two] = [app.creates("one").await, app.creates("two").await];
    let id = app.creates_as(json!({ "task_type": "t", "depends_on": [one] })).await;
    let path = format!("/api/v1/tasks/{id}");
    app.patch(&path, &json!({ "depends_on": [one, two] })).await.expect(200);
    app.patch(&path, &json!({ "depends_on": [two] })).await.expect(200);
    app.settles().await;
    app.is_clean().await;
    let free = app.patch(&path, &json!({ "depends_on": [] })).await.expect(200);
    assert_eq!(free["task"]["status"], "pending");
    let history = app.history(&id).await;
    assert_eq!(
        history[1..],
        ["task_dependency_added", "task_dependency_removed", "task_dependency_removed", "task_enqueued"]
    );
    let refused = app.patch(&path, &json!({ "depends_on": [one] })).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "illegal_transition"));
    app.is_clean().await;
}
