//! Whatever is sent: a clear 4xx that names the field, nothing changed, no 5xx.

use serde_json::{Value, json};

use crate::harness::{TestApp, cluster};

/// Bodies that are wrong for every call, and what the answer must be.
fn wrong_for_all() -> Vec<(&'static str, String, u16)> {
    vec![
        ("nothing", String::new(), 400),
        ("half an object", "{\"worker_id\":".to_owned(), 400),
        ("not JSON", "hello".to_owned(), 400),
        ("a number", "7".to_owned(), 422),
        ("a text", "\"x\"".to_owned(), 422),
        ("null", "null".to_owned(), 422),
        ("an unknown field", "{\"no_such_field\":1}".to_owned(), 422),
        ("deep nesting", "[".repeat(200_000), 400),
        ("invalid UTF-8 by escape", "{\"\\ud800\":1}".to_owned(), 400),
        ("two objects", "{} {}".to_owned(), 400),
        ("two MiB", format!("{{\"x\":\"{}\"}}", "y".repeat(2 * 1024 * 1024)), 413),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_refuses_rubbish_and_changes_nothing() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    worker.claims("default").await;
    let head = app.settles().await;
    let report = |name: &str| format!("/api/v1/tasks/{id}/{name}");
    let calls = [
        ("POST", "/api/v1/tasks".to_owned()),
        ("POST", "/api/v1/tasks/bulk".to_owned()),
        ("POST", "/api/v1/workers".to_owned()),
        ("POST", "/api/v1/claims".to_owned()),
        ("POST", "/api/v1/reports".to_owned()),
        ("POST", "/api/v1/events".to_owned()),
        ("PUT", "/api/v1/schedules/nightly".to_owned()),
        ("PATCH", "/api/v1/queues/default".to_owned()),
        ("PATCH", format!("/api/v1/tasks/{id}")),
        ("POST", report("progress")),
        ("POST", report("complete")),
        ("POST", report("fail")),
        ("POST", report("release")),
        ("POST", report("cancel")),
        ("POST", format!("/api/v1/workers/{}/heartbeat", worker.id)),
    ];
    for (method, call) in &calls {
        let send = |kind: &str, body: String| {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            app.http().request(method, format!("{}{call}", app.url)).header("content-type", kind).body(body).send()
        };
        for (what, body, status) in wrong_for_all() {
            // An empty body stands for the defaults where every field is optional.
            if body.is_empty() && (call.ends_with("cancel") || call.ends_with("heartbeat")) {
                continue;
            }
            let response = send("application/json", body).await.unwrap();
            let got = response.status().as_u16();
            // A call with many reports takes larger bodies.
            let status = if call.ends_with("/events") && status == 413 { 422 } else { status };
            let text = response.text().await.unwrap();
            // Missing fields may be noticed before the one that is too much.
            let right = got == status || (got == 422 && status == 400 && !what.contains("JSON"));
            assert!(right, "{call} with {what}: {got} {text}");
            let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{call} with {what}: {text}"));
            assert!(problem["code"].is_string() && problem["detail"].is_string(), "{call} with {what}: {text}");
        }
        assert_eq!(send("text/plain", "{}".to_owned()).await.unwrap().status(), 415, "{call} as text/plain");
    }
    assert_eq!(app.settles().await, head, "something was written");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_values_are_named() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    let task = worker.claims("default").await;
    let head = app.settles().await;
    let long = "x".repeat(20_000);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let deep: Value = serde_json::from_str(&deep).unwrap();
    let tasks = "/api/v1/tasks".to_owned();
    let fence = json!({ "worker_id": worker.id, "attempt": 1 });
    let with = |more: Value| {
        let mut body = fence.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let report = |name: &str| format!("/api/v1/tasks/{id}/{name}");
    let cases: Vec<(String, Value, &str)> = vec![
        (tasks.clone(), json!({}), "task_type"),
        (tasks.clone(), json!({ "task_type": 7 }), "task_type"),
        (tasks.clone(), json!({ "task_type": "" }), "task_type"),
        (tasks.clone(), json!({ "task_type": "a\u{0}" }), "task_type"),
        (tasks.clone(), json!({ "task_type": "a\nb" }), "task_type"),
        (tasks.clone(), json!({ "task_type": long }), "task_type"),
        (tasks.clone(), json!({ "task_type": "t", "queue": "q\r" }), "queue"),
        (tasks.clone(), json!({ "task_type": "t", "title": "a\u{0}b" }), "title"),
        (tasks.clone(), json!({ "task_type": "t", "title": long }), "title"),
        (tasks.clone(), json!({ "task_type": "t", "priority": 10 }), "priority"),
        (tasks.clone(), json!({ "task_type": "t", "priority": -1 }), "priority"),
        (tasks.clone(), json!({ "task_type": "t", "priority": 5.5 }), "priority"),
        (tasks.clone(), json!({ "task_type": "t", "priority": 1e300 }), "priority"),
        (tasks.clone(), json!({ "task_type": "t", "priority": 18446744073709551615_u64 }), "priority"),
        (tasks.clone(), json!({ "task_type": "t", "priority": "5" }), "priority"),
        (tasks.clone(), json!({ "task_type": "t", "max_attempts": 0 }), "max_attempts"),
        (tasks.clone(), json!({ "task_type": "t", "max_attempts": 4294967296_u64 }), "max_attempts"),
        (tasks.clone(), json!({ "task_type": "t", "timeout_seconds": 0 }), "timeout_seconds"),
        (tasks.clone(), json!({ "task_type": "t", "id": "not-a-uuid" }), "id"),
        (tasks.clone(), json!({ "task_type": "t", "parent_task_id": uuid::Uuid::nil() }), "parent_task_id"),
        (tasks.clone(), json!({ "task_type": "t", "payload": { "a": ["\u{0}"] } }), "payload"),
        (tasks.clone(), json!({ "task_type": "t", "payload": deep }), "payload"),
        (tasks.clone(), json!({ "task_type": "t", "labels": { "k": 7 } }), "labels.k"),
        (tasks.clone(), json!({ "task_type": "t", "labels": { "k": long } }), "labels"),
        (tasks.clone(), json!({ "task_type": "t", "phases": ["a", "a"] }), "phases"),
        (tasks.clone(), json!({ "task_type": "t", "secret": 1 }), "secret"),
        (tasks.clone(), json!([{ "task_type": "t" }, { "task_type": "t", "priority": 99 }]), "[1].priority"),
        (tasks.clone(), json!({ "task_type": "t", "run_at": "soon" }), "run_at"),
        (tasks.clone(), json!({ "task_type": "t", "run_at": 17 }), "run_at"),
        (tasks.clone(), json!({ "task_type": "t", "unique_key": "" }), "unique_key"),
        (tasks.clone(), json!({ "task_type": "t", "unique_key": "a\u{0}" }), "unique_key"),
        (tasks.clone(), json!({ "task_type": "t", "depends_on": ["x"] }), "depends_on[0]"),
        (tasks.clone(), json!({ "task_type": "t", "depends_on": [uuid::Uuid::nil()] }), "depends_on"),
        (tasks.clone(), json!({ "task_type": "t", "depends_on": vec![id.clone(); 1_001] }), "depends_on"),
        (tasks.clone(), json!({ "task_type": "t", "on_dependency_failure": "cry" }), "on_dependency_failure"),
        (tasks.clone(), json!({ "task_type": "t", "auto_complete": true, "depends_on": [id] }), "auto_complete"),
        (tasks.clone(), json!({ "task_type": "t", "backoff_initial_seconds": 700_000 }), "backoff_initial_seconds"),
        (
            tasks.clone(),
            json!({ "task_type": "t", "backoff_initial_seconds": 9, "backoff_max_seconds": 8 }),
            "backoff_max_seconds",
        ),
        (tasks.clone(), json!({ "task_type": "t", "watchers": ["a", "a"] }), "watchers"),
        (tasks.clone(), json!([{ "task_type": "t" }, { "task_type": "t", "unique_key": "" }]), "[1].unique_key"),
        (
            "/api/v1/claims".to_owned(),
            json!({ "worker_id": worker.id, "queues": ["q"], "connector_id": "" }),
            "connector_id",
        ),
        (report("progress"), with(json!({ "percent": 101 })), "percent"),
        (report("progress"), with(json!({ "percent": -1 })), "percent"),
        (report("progress"), with(json!({ "percent": "half" })), "percent"),
        (report("progress"), with(json!({ "message": 7 })), "message"),
        (report("progress"), with(json!({ "counts": { "completed": -1 } })), "counts.completed"),
        (report("progress"), with(json!({ "counts": { "others": 1 } })), "counts.others"),
        (report("progress"), json!({ "worker_id": worker.id }), "attempt"),
        (report("progress"), json!({ "worker_id": worker.id, "attempt": -1 }), "attempt"),
        (report("progress"), json!({ "worker_id": 7, "attempt": 1 }), "worker_id"),
        (report("complete"), with(json!({ "result": "a\u{0}" })), "result"),
        (report("fail"), fence.clone(), "error"),
        (report("fail"), with(json!({ "error": ["a"] })), "error"),
        (report("fail"), with(json!({ "error": "e", "retryable": "yes" })), "retryable"),
        (report("cancel"), json!({ "reason": 7 }), "reason"),
        (
            "/api/v1/reports".to_owned(),
            json!({ "report": "explode", "task_id": id, "worker_id": worker.id, "attempt": 1 }),
            "report",
        ),
        (
            "/api/v1/reports".to_owned(),
            json!({ "report": "fail", "task_id": id, "worker_id": worker.id, "attempt": 1 }),
            "error",
        ),
        (
            "/api/v1/reports".to_owned(),
            json!({ "report": "progress", "task_id": id, "worker_id": worker.id, "attempt": 1, "percent": 1e9 }),
            "percent",
        ),
        ("/api/v1/claims".to_owned(), json!({ "worker_id": worker.id, "queues": [] }), "queues"),
        ("/api/v1/claims".to_owned(), json!({ "worker_id": worker.id, "queues": ["default"], "limit": 0 }), "limit"),
        ("/api/v1/claims".to_owned(), json!({ "worker_id": worker.id, "queues": ["default"], "limit": 1e10 }), "limit"),
        (
            "/api/v1/claims".to_owned(),
            json!({ "worker_id": worker.id, "queues": ["default"], "wait_seconds": 31 }),
            "wait_seconds",
        ),
        ("/api/v1/workers".to_owned(), json!({ "name": "w" }), "machine_id"),
        (
            "/api/v1/workers".to_owned(),
            json!({ "name": "w", "machine_id": "m", "connectors": [{ "connector_id": "c", "status": "fine" }] }),
            "connectors[0].status",
        ),
        (
            "/api/v1/workers".to_owned(),
            json!({ "name": "w", "machine_id": "m", "connectors": [{ "connector_id": "c" }, { "connector_id": "c" }] }),
            "connectors",
        ),
        (format!("/api/v1/workers/{}/heartbeat", worker.id), json!({ "status": "stopped" }), "status"),
        (
            format!("/api/v1/workers/{}/heartbeat", worker.id),
            json!({ "tasks": [{ "task_id": id }] }),
            "tasks[0].attempt",
        ),
    ];
    for (path, body, field) in cases {
        let reply = app.post(&path, &body).await;
        assert_eq!(reply.status.as_u16(), 422, "{path} {body:.200}: {}", reply.text);
        assert_eq!(reply.json["errors"][0]["field"], field, "{path} {body:.200}: {}", reply.text);
    }
    assert_eq!(app.settles().await, head, "something was written");
    task.completes().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_things_are_not_found() {
    let app = TestApp::start().await;
    let nobody = uuid::Uuid::now_v7();
    let fence = json!({ "worker_id": nobody, "attempt": 1 });
    for (path, body) in [
        (format!("/api/v1/tasks/{nobody}/complete"), fence.clone()),
        (format!("/api/v1/tasks/{nobody}/cancel"), json!({})),
        (format!("/api/v1/tasks/{nobody}/retry"), json!({})),
        (format!("/api/v1/workers/{nobody}/heartbeat"), json!({})),
        ("/api/v1/claims".to_owned(), json!({ "worker_id": nobody, "queues": ["default"] })),
    ] {
        let reply = app.post(&path, &body).await;
        assert_eq!(reply.status.as_u16(), 404, "{path}: {}", reply.text);
        assert!(reply.code().ends_with("not_found"), "{path}: {}", reply.text);
    }
    for path in
        [format!("/api/v1/tasks/{nobody}"), "/api/v1/nothing".to_owned(), "/api/v1/events/00000000-1".to_owned()]
    {
        app.get(&path).await.expect(404);
    }
    for path in ["/api/v1/tasks/7", "/api/v1/tasks/%00/events", "/api/v1/events/x"] {
        app.get(path).await.expect(400);
    }
    app.delete(&format!("/api/v1/workers/{nobody}")).await.expect(404);
    app.delete("/api/v1/tasks").await.expect(405);
    assert_eq!(cluster::number(&app.database, "SELECT count(*) FROM taskwatch.events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_queries_are_named() {
    let app = TestApp::start().await;
    for (path, field) in [
        ("/api/v1/tasks?status=fine", "status"),
        ("/api/v1/tasks?priority=3..11", "priority"),
        ("/api/v1/tasks?priority=-1", "priority"),
        ("/api/v1/tasks?limit=0", "limit"),
        ("/api/v1/tasks?limit=201", "limit"),
        ("/api/v1/tasks?limit=99999999999999999999", "limit"),
        ("/api/v1/tasks?cursor=7", "cursor"),
        ("/api/v1/tasks?cursor=-ffffffffffffffff-00000000000000000000000000000000", "cursor"),
        ("/api/v1/tasks?parent_task_id=x", "parent_task_id"),
        ("/api/v1/tasks?colour=red", "colour"),
        ("/api/v1/tasks?limit=1&limit=2", "limit"),
        ("/api/v1/tasks?priority=1&priority=2", "priority"),
        ("/api/v1/tasks?q=%00", "q"),
        ("/events?types=nothing_*", "types"),
        ("/events?topics=gossip", "topics"),
        ("/events?colour=red", "colour"),
        ("/events?snapshot=maybe", "snapshot"),
        ("/events?heartbeat=1", "heartbeat"),
        ("/events?max_events=0", "max_events"),
        ("/events?on_gap=cry", "on_gap"),
        ("/events?label.=x", "label."),
    ] {
        let reply = app.get(path).await;
        assert_eq!(reply.status.as_u16(), 400, "{path}: {}", reply.text);
        assert_eq!(reply.json["errors"][0]["field"], field, "{path}: {}", reply.text);
    }
    let request = app.http().get(format!("{}/events", app.url)).header("accept", "application/pdf");
    assert_eq!(request.send().await.unwrap().status(), 406);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_cannot_post() {
    let app = TestApp::start().await;
    let id = app.creates("t").await;
    let url = format!("{}/tasks/{id}/cancel", app.url);
    let foreign = app.http().post(&url).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
    let foreign = app.http().post(&url).header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
    assert_eq!(app.task(&id).await["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_host_names_are_refused() {
    let mut settings = crate::harness::app::settings();
    settings.allowed_hosts = vec!["watch.example".to_owned()];
    let app = TestApp::with(settings, taskwatch::feed::Callbacks::default()).await;
    for (host, status) in [
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8080", 421),
        ("", 421),
        ("localhost:7", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("watch.example:443", 200),
    ] {
        for path in ["/", "/api/v1/stats", "/events?max_events=1&after=now&heartbeat=5"] {
            let reply = app.http().get(format!("{}{path}", app.url)).header("host", host).send().await.unwrap();
            assert_eq!(reply.status().as_u16(), status, "{host} {path}");
        }
    }
}
