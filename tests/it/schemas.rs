//! The published schemas, and events of other versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Stream, TestApp, cluster, packages, program::Folder};

/// A schema that allows nothing it does not name.
fn strict(mut schema: Value) -> Value {
    schema["additionalProperties"] = json!(false);
    if schema["properties"]["data"].is_object() {
        schema["properties"]["data"]["additionalProperties"] = json!(false);
    }
    schema
}

/// Many kinds of events.
async fn much_happens(app: &TestApp) {
    let worker = app.worker("w1").await;
    let parent = app.creates_as(json!({ "task_type": "p", "phases": ["a"], "auto_complete": true })).await;
    app.creates_as(json!({ "task_type": "c", "parent_task_id": parent, "phase": "a", "labels": { "k": "v" } })).await;
    let child = worker.claims("default").await;
    child
        .reports("progress", json!({ "percent": 12.5, "message": "m", "counts": { "completed": 3 } }))
        .await
        .expect(200);
    child.completes().await;
    let id = app
        .creates_as(json!({ "task_type": "t", "title": "x", "max_attempts": 2, "backoff_initial_seconds": 1 }))
        .await;
    worker.claims("default").await.fails("first").await;
    app.patch(
        &format!("/api/v1/tasks/{id}"),
        &json!({ "priority": 9, "assignee": "ann", "collaborators": ["bob"], "watchers": ["eve"], "title": "y" }),
    )
    .await
    .expect(200);
    app.post(&format!("/api/v1/tasks/{id}/cancel"), &json!({ "reason": "r" })).await.expect(200);
    app.post("/api/v1/queues/default/pause", &json!({})).await.expect(200);
    app.post("/api/v1/queues/default/resume", &json!({})).await.expect(200);
    app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": 5 })).await.expect(200);
    let reports = json!([
        { "event_type": "task_started", "task_id": "j1", "task_type": "mail", "worker_id": "box", "ts": "2026-11-21T10:00:00Z" },
        { "event_type": "task_failed", "task_id": "j1", "error": "e", "ts": "2026-11-21T10:00:02Z" },
    ]);
    app.post("/api/v1/events", &reports).await.expect(200);
    worker.leaves().await;
    app.delete(&format!("/api/v1/tasks/{id}")).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_as_its_schema_says() {
    let Some(bin) = packages::python().await else { return };
    let app = TestApp::start().await;
    let mut live = app.events("?after=earliest&heartbeat=5").await;
    much_happens(&app).await;
    let head = app.settles().await;
    let names: BTreeMap<String, String> = serde_json::from_value(app.get("/api/v1/schemas").await.expect(200)).unwrap();
    let mut schemas = BTreeMap::new();
    for (name, path) in &names {
        schemas.insert(name.clone(), strict(app.get(path).await.expect(200)));
    }
    let mut frames = live.events_to(head).await;
    frames.extend(live.until("heartbeat").await);
    frames.extend(app.events("").await.until("snapshot_end").await);
    frames.extend(app.events("?after=earliest&types=task_failed&max_events=1").await.until("close").await);
    frames.extend(app.events("?after=now&stats_only=true").await.until("stats_snapshot").await);
    let kinds: BTreeSet<_> = frames.iter().map(|frame| frame.event.clone()).collect();
    assert!(kinds.len() >= 24, "{} kinds: {kinds:?}", kinds.len());
    let pairs: Vec<_> =
        frames.iter().map(|frame| json!({ "schema": schemas[&frame.event], "event": frame.json() })).collect();
    let mut validate = Command::new(bin.join("python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/validate.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    validate.stdin.take().unwrap().write_all(json!(pairs).to_string().as_bytes()).unwrap();
    let said = validate.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_document_describes_the_stream() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.expect(200);
    let stream = &document["paths"]["/events"]["get"]["responses"]["200"]["content"];
    let item = &stream["text/event-stream"]["x-itemSchema"];
    assert!(item["properties"]["data"]["contentSchema"]["anyOf"].as_array().unwrap().len() > 30);
    assert_eq!(
        document["components"]["schemas"]["task_completed"]["properties"]["event_type"]["const"],
        "task_completed"
    );
    let folder = Folder::new();
    let file = folder.0.join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let Some(bin) = packages::python().await else { return };
    let said = Command::new(bin.join("python")).args(["-m", "openapi_spec_validator"]).arg(file).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    // Nothing refers to what is not there.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    assert_eq!(app.get("/api/v1/schemas/nothing").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_read_in_the_present_version_and_newer_ones_as_they_are() {
    let app = TestApp::start().await;
    for _ in 0..3 {
        app.creates("t").await;
    }
    app.settles().await;
    let epoch = app.state.subscriptions.epoch();
    // As a build before the first version would have stored the third event, and one of the future the fifth.
    let old = "UPDATE taskwatch.events SET body = regexp_replace(replace(replace(body, '\"event_type\"', '\"kind\"'), '\"ts\"', '\"at\"'), \
               '\"schema_version\":1,', '') WHERE position = 3";
    let new = "UPDATE taskwatch.events SET body = replace(replace(body, 'task_created', 'task_teleported'), \
               '\"schema_version\":1', '\"schema_version\":2,\"destination\":\"moon\"') WHERE position = 5";
    let database = app.database.clone();
    app.stopped().await;
    for statement in [old, new, "DELETE FROM taskwatch.checkpoints"] {
        cluster::execute(&database, statement).await;
    }
    let app = TestApp::again(database).await;
    let mut stream = app.events("?after=earliest").await;
    let frames = stream.events_to(6).await;
    assert_eq!(frames[2].event, "task_created");
    let event = frames[2].json();
    assert_eq!((&event["event_type"], &event["schema_version"]), (&json!("task_created"), &json!(1)));
    assert!(event["ts"].is_string() && event["kind"].is_null());
    assert_eq!(app.get(&format!("/api/v1/events/{epoch}-3")).await.expect(200), event);
    assert_eq!(frames[4].event, "task_teleported");
    assert_eq!((&frames[4].json()["schema_version"], &frames[4].json()["destination"]), (&json!(2), &json!("moon")));
    // The board knows the two that it understands.
    assert_eq!(app.get("/api/v1/stats").await.expect(200)["position"], 6);
    let mut filtered =
        Stream::open(app.http(), &format!("{}/events?after=earliest&types=task_created", app.url), None).await;
    assert_eq!((filtered.event().await.position(), filtered.event().await.position()), (Some(1), Some(3)));
}
