//! Tasks and workers over HTTP.

use serde_json::json;

use crate::harness::{TestApp, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_all_the_way() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "render", "payload": { "frames": 12 }, "priority": 7 })).await;
    let task = worker.claims("default").await;
    assert_eq!((task.id.as_str(), task.attempt), (id.as_str(), 1));
    assert_eq!(task.record["payload"], json!({ "frames": 12 }));
    task.progresses(40).await;
    assert_eq!(app.task(&id).await["progress"]["percent"], 40.0);
    let done = task.completes().await;
    assert_eq!(done["status"], "completed");
    assert_eq!(
        app.history(&id).await,
        ["task_created", "task_enqueued", "task_started", "task_progress", "task_completed"]
    );
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_kept_byte_for_byte() {
    let app = TestApp::start().await;
    let body = r#"{"task_type":"t","payload":{"n":12345678901234567890.1230,"e":1E400,"s":"\u00e4"}}"#;
    let request =
        app.http().post(format!("{}/api/v1/tasks", app.url)).header("content-type", "application/json").body(body);
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.contains(r#""payload":{"n":12345678901234567890.1230,"e":1E400,"s":"\u00e4"}"#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_priority_comes_first_then_the_oldest() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    for (name, priority) in [("low", 1), ("normal-1", 5), ("high", 9), ("normal-2", 5)] {
        app.creates_as(json!({ "task_type": name, "priority": priority })).await;
    }
    app.creates_as(json!({ "task_type": "elsewhere", "queue": "other", "priority": 6 })).await;
    let mut order = Vec::new();
    for task in worker.claims_up_to(10, &["default", "other"], 0).await {
        order.push(task.record["task_type"].as_str().unwrap().to_owned());
    }
    assert_eq!(order, ["high", "elsewhere", "normal-1", "normal-2", "low"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_claim_gets_the_task_as_soon_as_it_comes() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let waiting = tokio::spawn(async move { worker.claims_up_to(1, &["default"], 30).await });
    eventually("the claim waits", || async {
        app.state.writer.counters().commands.load(std::sync::atomic::Ordering::Relaxed) >= 2
    })
    .await;
    let started = std::time::Instant::now();
    let id = app.creates("t").await;
    let claimed = waiting.await.unwrap();
    assert_eq!(claimed[0].id, id);
    assert!(started.elapsed().as_secs() < 5, "it was found by looking again, not by being woken");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_waiting_claim_gets_one_of_many_tasks() {
    let app = TestApp::start().await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..20 {
        let worker = app.worker(&format!("w{number}")).await;
        waiting.spawn(async move { worker.claims("default").await.id });
    }
    app.creates_many(20, "t").await;
    let mut ids = waiting.join_all().await;
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_no_task_behind() {
    let app = TestApp::start().await;
    let (gone, there) = (app.worker("gone").await, app.worker("there").await);
    for _ in 0..20 {
        let worker = gone.clone();
        let claim = tokio::spawn(async move { worker.claims_up_to(1, &["default"], 30).await });
        tokio::task::yield_now().await;
        claim.abort();
    }
    let id = app.creates("t").await;
    // Either it was never handed out, or it came back by itself: no lease has to expire.
    assert_eq!(there.claims("default").await.id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_report_twice_has_one_effect() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    for report in ["complete", "fail", "release"] {
        let id = app.creates_as(json!({ "task_type": report, "queue": report })).await;
        let task = worker.claims(report).await;
        let body = if report == "fail" { json!({ "error": "no" }) } else { json!({}) };
        let first = task.reports(report, body.clone()).await.expect(200);
        let events = app.history(&id).await;
        let second = task.reports(report, body).await.expect(200);
        assert_eq!(first["task"]["status"], second["task"]["status"]);
        assert_eq!(events, app.history(&id).await, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_another_attempt_or_worker_is_fenced_off() {
    let app = TestApp::start().await;
    let (one, two) = (app.worker("w1").await, app.worker("w2").await);
    let id = app.creates("t").await;
    let old = one.claims("default").await;
    old.reports("release", json!({})).await.expect(200);
    let new = two.claims("default").await;
    assert_eq!(new.attempt, 2);
    for report in ["progress", "complete", "fail"] {
        let reply = old.reports(report, if report == "fail" { json!({ "error": "x" }) } else { json!({}) }).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (409, "lease_lost"), "{}", reply.text);
    }
    assert_eq!(app.task(&id).await["status"], "running");
    new.completes().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_retried_until_no_attempt_is_left() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "t", "max_attempts": 2 })).await;
    let failed = worker.claims("default").await.fails("once").await;
    assert_eq!((&failed["status"], &failed["retry_count"]), (&json!("retrying"), &json!(1)));
    // Backoff is at most a second for the first retry.
    app.time_passes(2);
    let again = worker.claims("default").await;
    assert_eq!(again.attempt, 2);
    assert_eq!(again.fails("twice").await["status"], "failed");
    assert_eq!(
        app.history(&id).await,
        ["task_created", "task_enqueued", "task_started", "task_retry", "task_enqueued", "task_started", "task_failed"]
    );
    // An operator gives it another chance.
    app.post(&format!("/api/v1/tasks/{id}/retry"), &json!({})).await.expect(200);
    worker.claims("default").await.completes().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_cannot_be_helped_is_final() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates("t").await;
    let reply = worker.claims("default").await.reports("fail", json!({ "error": "never", "retryable": false })).await;
    assert_eq!(reply.expect(200)["task"]["status"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_learns_that_its_task_was_cancelled() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    let task = worker.claims("default").await;
    app.post(&format!("/api/v1/tasks/{id}/cancel"), &json!({ "reason": "not needed" })).await.expect(200);
    let beat = worker.beats(json!({ "tasks": [{ "task_id": id, "attempt": 1 }] })).await;
    assert_eq!(beat["cancelled"], json!([id]));
    assert_eq!(task.reports("complete", json!({})).await.code(), "task_cancelled");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_with_an_id_of_ones_own_can_be_repeated() {
    let app = TestApp::start().await;
    let id = uuid::Uuid::now_v7();
    let body = json!({ "id": id, "task_type": "t" });
    app.post("/api/v1/tasks", &body).await.expect(201);
    let again = app.post("/api/v1/tasks", &body).await.expect(200);
    assert_eq!(again["task"]["id"], json!(id));
    assert_eq!(app.history(&id.to_string()).await, ["task_created", "task_enqueued"]);
    // Also when two come at the same time.
    let id = uuid::Uuid::now_v7();
    let body = json!({ "id": id, "task_type": "t" });
    let twin = app.twin().await;
    let (one, two) = tokio::join!(app.post("/api/v1/tasks", &body), twin.post("/api/v1/tasks", &body));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{} {}", one.text, two.text);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_are_created_all_or_none() {
    let app = TestApp::start().await;
    let tasks = json!([{ "task_type": "a" }, { "task_type": "b", "parent_task_id": uuid::Uuid::now_v7() }]);
    let reply = app.post("/api/v1/tasks", &tasks).await;
    assert_eq!((reply.status.as_u16(), &reply.json["errors"][0]["field"]), (422, &json!("parent_task_id")));
    assert_eq!(app.get("/api/v1/tasks").await.expect(200)["tasks"], json!([]));
    let lines = "{\"task_type\":\"a\"}\n\n{\"task_type\":\"b\"}\n";
    let request =
        app.http().post(format!("{}/api/v1/tasks", app.url)).header("content-type", "application/x-ndjson").body(lines);
    assert_eq!(request.send().await.unwrap().status(), 201);
    assert_eq!(app.get("/api/v1/tasks").await.expect(200)["tasks"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_in_bulk_have_an_outcome_each() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(2, "t").await;
    let tasks = worker.claims_up_to(2, &["default"], 0).await;
    let reports = json!([
        { "report": "progress", "task_id": tasks[0].id, "worker_id": worker.id, "attempt": 1, "percent": 50 },
        { "report": "complete", "task_id": tasks[0].id, "worker_id": worker.id, "attempt": 1 },
        { "report": "complete", "task_id": tasks[1].id, "worker_id": worker.id, "attempt": 7 },
        { "report": "fail", "task_id": uuid::Uuid::now_v7(), "worker_id": worker.id, "attempt": 1, "error": "x" },
    ]);
    let outcomes = app.post("/api/v1/reports", &reports).await.expect(200)["outcomes"].clone();
    let statuses: Vec<_> = outcomes.as_array().unwrap().iter().map(|o| o["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 409, 404]);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_takes_its_parents_project_and_is_counted() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let parent =
        app.creates_as(json!({ "task_type": "p", "queue": "parents", "project_id": "atlas", "title": "Import" })).await;
    let child = app.creates_as(json!({ "task_type": "c", "parent_task_id": parent, "phase": "fetch" })).await;
    app.creates_as(json!({ "task_type": "c", "parent_task_id": parent, "phase": "fetch" })).await;
    assert_eq!(app.task(&child).await["project_id"], "atlas");
    worker.claims("default").await.completes().await;
    app.settles().await;
    let snapshot = app.get("/api/v1/snapshot").await.expect(200);
    let shown = &snapshot["parents"][0];
    assert_eq!(
        (&shown["task_id"], &shown["title"], &shown["project_id"]),
        (&json!(parent), &json!("Import"), &json!("atlas"))
    );
    assert_eq!(shown["phases"][0]["name"], "fetch");
    let counts = &shown["phases"][0]["counts"];
    assert_eq!((&counts["completed"], &counts["pending"]), (&json!(1), &json!(1)));
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_takes_a_task_out_of_everything_but_the_log() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    for state in ["pending", "running"] {
        let id = app.creates("t").await;
        if state == "running" {
            worker.claims("default").await;
        }
        app.delete(&format!("/api/v1/tasks/{id}")).await.expect(204);
        app.get(&format!("/api/v1/tasks/{id}")).await.expect(404);
        assert_eq!(app.history(&id).await.last().unwrap(), "task_deleted");
    }
    app.settles().await;
    assert_eq!(app.get("/api/v1/stats").await.expect(200)["pending"], 0);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_gives_its_tasks_back() {
    let app = TestApp::start().await;
    let (one, two) = (app.worker("w1").await, app.worker("w2").await);
    let id = app.creates("t").await;
    one.claims("default").await;
    one.leaves().await;
    let task = two.claims("default").await;
    assert_eq!((task.id.as_str(), task.attempt), (id.as_str(), 2));
    let body = json!({ "worker_id": one.id, "queues": ["default"] });
    assert_eq!(app.post("/api/v1/claims", &body).await.code(), "worker_stopped");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged_by_key() {
    let app = TestApp::start().await;
    for number in 0..7 {
        app.creates_as(json!({ "task_type": "t", "title": format!("100%_{number}"), "priority": number })).await;
    }
    app.creates_as(json!({ "task_type": "other", "title": "100 of them" })).await;
    let mut titles = Vec::new();
    let mut path = "/api/v1/tasks?task_type=t&limit=3".to_owned();
    loop {
        let page = app.get(&path).await.expect(200);
        titles.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/tasks?task_type=t&limit=3&cursor={cursor}");
    }
    assert_eq!(titles, (0..7).rev().map(|n| format!("100%_{n}")).collect::<Vec<_>>());
    // The signs of patterns stand for themselves.
    let found = app.get("/api/v1/tasks?q=100%25_").await.expect(200)["tasks"].as_array().unwrap().len();
    assert_eq!(found, 7);
    let some =
        app.get("/api/v1/tasks?priority=2..3&status=pending").await.expect(200)["tasks"].as_array().unwrap().len();
    assert_eq!(some, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_the_document_answer() {
    let app = TestApp::start().await;
    app.get("/healthz").await.expect(200);
    app.get("/readyz").await.expect(200);
    app.creates("t").await;
    app.settles().await;
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("taskwatch_tasks{status=\"pending\"} 1"), "{metrics}");
    let document = app.get("/openapi.json").await.expect(200);
    for path in ["/api/v1/tasks", "/api/v1/claims", "/api/v1/workers/{id}/heartbeat", "/events"] {
        assert!(document["paths"][path].is_object(), "{path} is not in the document");
    }
    // Every response is described, and everything that is referred to is there.
    let mut names = std::collections::BTreeSet::new();
    for (path, calls) in document["paths"].as_object().unwrap() {
        for (method, call) in calls.as_object().unwrap() {
            assert!(names.insert(call["operationId"].to_string()), "{method} {path} has the name of another call");
            for (status, response) in call["responses"].as_object().unwrap() {
                let referred = response["$ref"].as_str().and_then(|to| document.pointer(to.trim_start_matches('#')));
                let response = referred.unwrap_or(response);
                assert!(!response["description"].as_str().unwrap_or_default().is_empty(), "{method} {path} {status}");
            }
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference} is not in the document");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_left_stays_away() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    worker.leaves().await;
    let late = app.post(&format!("/api/v1/workers/{}/heartbeat", worker.id), &json!({})).await;
    assert_eq!((late.status.as_u16(), late.code()), (409, "worker_stopped"));
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_several_queues_wakes_only_one_waiter() {
    let app = TestApp::start().await;
    let (both, second) = (app.worker("both").await, app.worker("second").await);
    let first = tokio::spawn(async move { both.claims_up_to(1, &["a", "b"], 30).await });
    let commands = || app.state.writer.counters().commands.load(std::sync::atomic::Ordering::Relaxed);
    eventually("the first waits", || async { commands() >= 3 }).await;
    let other = tokio::spawn(async move { second.claims_up_to(1, &["b"], 30).await });
    eventually("the second waits", || async { commands() >= 4 }).await;
    let started = std::time::Instant::now();
    app.post("/api/v1/tasks", &json!([{ "task_type": "t", "queue": "a" }, { "task_type": "t", "queue": "b" }]))
        .await
        .expect(201);
    assert_eq!(first.await.unwrap().len() + other.await.unwrap().len(), 2);
    assert!(started.elapsed().as_secs() < 5, "a wake-up was swallowed");
}
