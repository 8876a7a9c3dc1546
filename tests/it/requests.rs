//! What all requests have in common: ids, preconditions, keys, places to follow from, and codes.

use std::collections::BTreeSet;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use taskwatch::http::codes;

use crate::harness::TestApp;

/// A request with headers.
async fn send(app: &TestApp, method: Method, path: &str, headers: &[(&'static str, &str)], body: &Value) -> Response {
    let mut request = app.http().request(method, format!("{}{path}", app.url)).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).unwrap_or_else(|| panic!("{name}")).to_str().unwrap().to_owned()
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_creates_nothing_twice() {
    let app = TestApp::start().await;
    let key = [("idempotency-key", "order-7")];
    let task = json!({ "task_type": "t", "payload": { "a": 1 } });
    let first = send(&app, Method::POST, "/api/v1/tasks", &key, &task).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    let place = header(&first, "location");
    let first: Value = first.json().await.unwrap();
    assert_eq!(place, format!("/api/v1/tasks/{}", first["task"]["id"].as_str().unwrap()));
    app.get(&place).await.expect(200);
    let again = send(&app, Method::POST, "/api/v1/tasks", &key, &task).await;
    assert_eq!((again.status(), again.json::<Value>().await.unwrap()), (StatusCode::CREATED, first.clone()));
    // Another body is refused, also in part of a batch; then nothing of it is created.
    for other in
        [json!({ "task_type": "t", "payload": { "a": 2 } }), json!([{ "task_type": "x" }, { "task_type": "y" }])]
    {
        let refused = send(&app, Method::POST, "/api/v1/tasks", &key, &other).await;
        assert_eq!(code(refused).await, (422, "idempotency_key_reused".to_owned()));
    }
    // At the same time on two servers.
    let twin = app.twin().await;
    let both = [("idempotency-key", "order-8")];
    let (one, two) = tokio::join!(
        send(&app, Method::POST, "/api/v1/tasks", &both, &task),
        send(&twin, Method::POST, "/api/v1/tasks", &both, &task)
    );
    let (one, two): (Value, Value) = (one.json().await.unwrap(), two.json().await.unwrap());
    assert_eq!(one["task"]["id"], two["task"]["id"]);
    assert_eq!(app.get("/api/v1/tasks").await.expect(200)["tasks"].as_array().unwrap().len(), 2);
    // Calls that would do more each time say so.
    let worker = json!({ "name": "w", "machine_id": "m" });
    let refused = send(&app, Method::POST, "/api/v1/workers", &both, &worker).await;
    assert_eq!(code(refused).await, (400, "idempotency_key_unsupported".to_owned()));
    let bad = send(&app, Method::POST, "/api/v1/tasks", &[("idempotency-key", "a b")], &task).await;
    assert_eq!(code(bad).await, (400, "invalid_parameter".to_owned()));
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_belongs_to_one_request() {
    let app = TestApp::start().await;
    let id = uuid::Uuid::now_v7();
    let task = json!({ "id": id, "task_type": "t", "payload": [1] });
    app.post("/api/v1/tasks", &task).await.expect(201);
    app.patch(&format!("/api/v1/tasks/{id}"), &json!({ "title": "edited", "priority": 9 })).await.expect(200);
    app.post("/api/v1/tasks", &task).await.expect(200);
    for (field, value) in [("payload", json!([2])), ("task_type", json!("u")), ("max_attempts", json!(9))] {
        let mut other = task.clone();
        other[field] = value;
        let refused = app.post("/api/v1/tasks", &json!([{ "task_type": "new" }, other])).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (409, "id_taken"), "{field}");
    }
    assert_eq!(app.get("/api/v1/tasks").await.expect(200)["tasks"].as_array().unwrap().len(), 1);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_made_only_to_the_version_that_it_names() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates("t").await;
    let path = format!("/api/v1/tasks/{id}");
    let etag = |response: &Response| header(response, "etag");
    let read = || async { app.http().get(format!("{}{path}", app.url)).send().await.unwrap() };
    let first = etag(&read().await);
    let edit = |tag: String| {
        let (app, path) = (&app, &path);
        async move { send(app, Method::PATCH, path, &[("if-match", &tag)], &json!({ "title": tag })).await }
    };
    // Of many that begin with one version, one succeeds.
    let all = futures_util::future::join_all((0..8).map(|_| edit(first.clone()))).await;
    let done: Vec<_> = all.into_iter().filter(|response| response.status() == StatusCode::OK).collect();
    assert_eq!(done.len(), 1);
    let second = etag(&done[0]);
    assert_eq!(second, etag(&read().await));
    assert_eq!(code(edit(first).await).await, (412, "task_changed".to_owned()));
    assert_eq!(code(edit(format!("W/{second}")).await).await, (412, "task_changed".to_owned()));
    assert_eq!(code(edit("x".to_owned()).await).await, (400, "invalid_parameter".to_owned()));
    let second = etag(&edit(format!("\"0\", {second}")).await);
    assert_eq!(edit("*".to_owned()).await.status(), StatusCode::OK);
    // Progress and heartbeats do not change it; the status does.
    let task = worker.claims("default").await;
    let running = etag(&read().await);
    assert_ne!(running, second);
    task.progresses(10).await;
    assert_eq!(etag(&read().await), running);
    let refused = send(&app, Method::DELETE, &path, &[("if-match", &running)], &json!({})).await;
    assert_eq!(code(refused).await, (400, "if_match_unsupported".to_owned()));
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_ids() {
    let app = TestApp::start().await;
    let path = format!("{}/api/v1/tasks/x", app.url);
    let named = app.http().get(&path).header("x-request-id", "my-7").send().await.unwrap();
    assert_eq!(header(&named, "x-request-id"), "my-7");
    let problem: Value = named.json().await.unwrap();
    assert_eq!((&problem["request_id"], &problem["code"]), (&json!("my-7"), &json!("invalid_id")));
    let long = "x".repeat(129);
    for bad in ["", "a b", "a\"b", &long] {
        let answer = app.http().get(&path).header("x-request-id", bad).send().await.unwrap();
        let id = header(&answer, "x-request-id");
        assert!(uuid::Uuid::parse_str(&id).is_ok(), "{bad} became {id}");
        assert_eq!(answer.json::<Value>().await.unwrap()["request_id"], json!(id));
    }
    // `/healthz` is answered in front of everything.
    for path in ["/readyz", "/", "/api/v1/tasks", "/nothing", "/events?after=now"] {
        let answer = app.http().get(format!("{}{path}", app.url)).send().await.unwrap();
        assert!(answer.headers().contains_key("x-request-id"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_name_the_event_to_follow_from() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    // Tasks are created all the while; a list and what follows it have each of them.
    let (url, http) = (app.url.clone(), app.http().clone());
    let creating = tokio::spawn(async move {
        for number in 0..60 {
            let body = json!({ "task_type": "t", "title": format!("{number}") });
            http.post(format!("{url}/api/v1/tasks")).json(&body).send().await.unwrap();
        }
    });
    let list = app.get("/api/v1/tasks?limit=200").await.expect(200);
    creating.await.unwrap();
    let head = app.settles().await;
    let mut known: BTreeSet<String> =
        list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect();
    let mut stream = app.events(&format!("?snapshot=never&after={}", list["event_id"].as_str().unwrap())).await;
    for frame in stream.events_to(head).await {
        known.extend(frame.json()["task_id"].as_str().map(str::to_owned));
    }
    assert_eq!(known.len(), 60);
    let id = known.first().unwrap();
    app.put("/api/v1/schedules/s", &json!({ "cron": "@hourly", "task": { "task_type": "t" } })).await.expect(200);
    for path in [
        "/api/v1/workers".to_owned(),
        format!("/api/v1/workers/{}", worker.id),
        format!("/api/v1/tasks/{id}"),
        "/api/v1/queues".to_owned(),
        "/api/v1/queues/default".to_owned(),
        "/api/v1/schedules".to_owned(),
        "/api/v1/schedules/s".to_owned(),
        "/api/v1/bulk".to_owned(),
        "/api/v1/failures".to_owned(),
        "/api/v1/stats".to_owned(),
        "/api/v1/health".to_owned(),
        "/api/v1/snapshot".to_owned(),
    ] {
        let event_id = app.get(&path).await.expect(200)["event_id"].clone();
        assert!(event_id.as_str().is_some_and(|id| id.len() > 9), "{path}: {event_id}");
    }
    let unknown = uuid::Uuid::now_v7();
    for (path, code) in [
        (format!("/api/v1/workers/{unknown}"), "worker_not_found"),
        (format!("/api/v1/tasks/{unknown}/events"), "task_not_found"),
        ("/api/v1/queues/nothing".to_owned(), "queue_not_found"),
    ] {
        let reply = app.get(&path).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (404, code), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_numbers_may_be_written_as_floats() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let post = |path: &str, text: String| {
        let request = app.http().post(format!("{}{path}", app.url)).header("content-type", "application/json");
        async move { request.body(text).send().await.unwrap().status().as_u16() }
    };
    let task =
        r#"{"task_type":"t","priority":7.0,"max_attempts":2.0,"timeout_seconds":60.0,"backoff_initial_seconds":1.0}"#;
    assert_eq!(post("/api/v1/tasks", task.to_owned()).await, 201);
    let task = worker.claims("default").await;
    let fence = format!("\"worker_id\":\"{}\",\"attempt\":1.0", worker.id);
    let path = format!("/api/v1/tasks/{}/progress", task.id);
    assert_eq!(post(&path, format!("{{{fence},\"counts\":{{\"completed\":3.0}}}}")).await, 200);
    let held = format!("{{\"tasks\":[{{\"task_id\":\"{}\",\"attempt\":1.0}}]}}", task.id);
    assert_eq!(post(&format!("/api/v1/workers/{}/heartbeat", worker.id), held).await, 200);
    let report = r#"[{"event_type":"task_completed","task_id":"j","attempt":2.0,"duration_ms":5.0}]"#;
    assert_eq!(post("/api/v1/events", report.to_owned()).await, 200);
    let wrong = format!("{{\"worker_id\":\"{}\",\"attempt\":1.5}}", worker.id);
    assert_eq!(post(&format!("/api/v1/tasks/{}/complete", task.id), wrong).await, 422);
    let claim = format!("{{\"worker_id\":\"{}\",\"queues\":[\"none\"],\"limit\":3.0,\"wait_seconds\":0.0}}", worker.id);
    assert_eq!(post("/api/v1/claims", claim).await, 200);
    assert_eq!(post(&format!("/api/v1/tasks/{}/complete", task.id), format!("{{{fence}}}")).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_names_its_scope() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.expect(200);
    let mut scopes = std::collections::BTreeMap::<_, usize>::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scope = operation["x-scope"].as_str().unwrap_or_else(|| panic!("{method} {path} has no scope"));
            *scopes.entry(scope.to_owned()).or_default() += 1;
            let reads = method == "get";
            assert!(["public", "read"].contains(&scope) == reads, "{method} {path}: {scope}");
        }
    }
    assert_eq!(scopes.keys().collect::<Vec<_>>(), ["operate", "public", "read", "report"]);
}

/// The sources, tests inside them cut off.
fn sources(folder: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if !path.ends_with("codes.rs") {
            text.push_str(std::fs::read_to_string(&path).unwrap().split("#[cfg(test)]").next().unwrap());
        }
    }
}

#[test]
fn every_error_code_is_used() {
    let mut text = String::new();
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let used = |code: &str| {
        let variant: String = code.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        [format!("ErrorCode::{variant}"), format!("Self::{variant},")].iter().any(|name| text.contains(name))
            || (code.starts_with("invalid_") && text.contains(&format!("Problem::{code}(")))
    };
    let unused: Vec<_> = codes::ROWS.iter().map(|row| row.code).filter(|code| !used(code)).collect();
    assert!(unused.is_empty(), "no call answers {unused:?}");
}
