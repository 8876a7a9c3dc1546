//! The published schemas, and events of other versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    delivery::large_events,
    harness::{Frame, Stream, TestApp, cluster, packages, program::Folder},
};

/// A schema that allows nothing it does not name.
fn strict(mut schema: Value) -> Value {
    schema["additionalProperties"] = json!(false);
    if schema["properties"]["data"].is_object() {
        schema["properties"]["data"]["additionalProperties"] = json!(false);
    }
    schema
}

/// Every stored kind of event.
async fn everything_happens(app: &TestApp) {
    let worker = app.worker("w1").await;
    let parent =
        json!({ "task_type": "import", "title": "Nightly import", "phases": ["fetch"], "auto_complete": true });
    let parent = app.creates_as(parent).await;
    let child = json!({ "task_type": "fetch", "parent_task_id": parent, "phase": "fetch", "labels": { "team": "a" } });
    app.creates_as(child).await;
    let child = worker.claims("default").await;
    let progress = json!({ "percent": 12.5, "message": "page 3 of 24", "counts": { "completed": 3, "pending": 21 } });
    child.reports("progress", progress).await.expect(200);
    child.completes().await;
    app.becomes(&parent, "completed").await;
    let mail = json!({ "task_type": "mail", "title": "Mail to 4711", "max_attempts": 2, "backoff_initial_seconds": 1 });
    let id = app.creates_as(mail).await;
    worker.claims("default").await.fails("HTTP 503 from upstream").await;
    let edit = json!({ "assignee": "ann", "collaborators": ["bob"], "watchers": ["eve"], "title": "Mail to 4712" });
    for edit in [edit, json!({ "priority": 9 })] {
        app.patch(&format!("/api/v1/tasks/{id}"), &edit).await.expect(200);
    }
    let export = app.creates_as(json!({ "task_type": "export", "queue": "reports" })).await;
    let report = json!({ "task_type": "report", "queue": "reports", "depends_on": [id] });
    let report = app.creates_as(report).await;
    for depends_on in [vec![&id, &export], vec![&export]] {
        app.patch(&format!("/api/v1/tasks/{report}"), &json!({ "depends_on": depends_on })).await.expect(200);
    }
    app.post(&format!("/api/v1/tasks/{id}/cancel"), &json!({ "reason": "wrong address" })).await.expect(200);
    app.post("/api/v1/queues/default/pause", &json!({})).await.expect(200);
    app.post("/api/v1/queues/default/resume", &json!({})).await.expect(200);
    app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": 5 })).await.expect(200);
    let reports = json!([
        { "event_type": "task_started", "task_id": "j1", "task_type": "mail", "worker_id": "box", "ts": "2026-11-21T10:00:00Z" },
        { "event_type": "task_failed", "task_id": "j1", "error": "mailbox full", "ts": "2026-11-21T10:00:02Z" },
    ]);
    app.post("/api/v1/events", &reports).await.expect(200);
    let connectors = json!([{ "connector_id": "smtp", "status": "error", "error": "connection refused" }]);
    worker.beats(json!({ "connectors": connectors, "status": "draining" })).await;
    app.delete(&format!("/api/v1/tasks/{id}")).await.expect(204);
    // A parent whose children never come, and a worker that is lost with its task.
    app.creates_as(json!({ "task_type": "import", "auto_complete": true })).await;
    app.creates_as(json!({ "task_type": "slow", "queue": "slow" })).await;
    let lost = app.worker("w2").await;
    lost.claims("slow").await;
    app.settles().await;
    app.time_passes(600);
}

/// Every frame that a stream may carry, at least once.
async fn every_frame(app: TestApp) -> Vec<Frame> {
    let mut live = app.events("?after=earliest&heartbeat=5").await;
    everything_happens(&app).await;
    let mut frames = live.until("task_stalled").await;
    for ephemeral in ["tasks_stuck", "stats_snapshot", "queue_depth_update", "heartbeat"] {
        if frames.iter().all(|frame| frame.event != ephemeral) {
            frames.extend(live.until(ephemeral).await);
        }
    }
    app.worker("w3").await.beats(json!({})).await;
    frames.extend(live.until("worker_heartbeat").await);
    frames.extend(app.events("").await.until("snapshot_end").await);
    frames.extend(app.events("?after=earliest&types=task_failed&max_events=1").await.until("close").await);
    let url = format!("{}/events", app.url);
    frames.extend(Stream::open(app.http(), &url, Some("0badcafe-7")).await.until("reset").await);
    let mut slow = app.events("?after=now").await;
    slow.next().await.unwrap();
    large_events(&app, 10).await;
    app.settles().await;
    app.time_passes(11);
    frames.extend(slow.until("lagging").await);
    let mut last = app.events("?after=now").await;
    last.next().await.unwrap();
    let stopping = tokio::spawn(app.stopped());
    frames.extend(last.until("bye").await);
    drop((live, slow, last));
    stopping.await.unwrap();
    frames
}

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md");

/// The examples of the document: what each frame is called, and its data.
fn documented() -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(EXAMPLES).unwrap();
    let examples = text.split("\n## `").skip(1).map(|part| {
        let (name, rest) = part.split_once('`').unwrap();
        let data = rest.split("```json\n").nth(1).and_then(|rest| rest.split("\n```").next());
        (name.to_owned(), serde_json::from_str(data.unwrap_or_else(|| panic!("{name} has no example"))).unwrap())
    });
    examples.collect()
}

/// Writes the document anew, with the longest frame of each kind that is not too long to read.
fn write_examples(frames: &[Frame]) {
    let mut text = "# Examples of events and frames\n\nOne `data:` of each, as a server sent it. Written by a test \
        (`TASKWATCH_EXAMPLES=write`), which\nalso checks each against its schema, `GET /api/v1/schemas/{name}`.\n"
        .to_owned();
    for name in taskwatch::event::schema::names() {
        let of_kind = frames.iter().filter(|frame| frame.event == name).map(Frame::json);
        let example = of_kind.filter(|data| data.to_string().len() < 1_500).max_by_key(|data| data.to_string().len());
        let example = serde_json::to_string_pretty(&example.unwrap_or_else(|| panic!("{name} never came"))).unwrap();
        let says = taskwatch::event::schema::named(name).unwrap()["description"].as_str().unwrap().to_owned();
        text += &format!("\n## `{name}`\n\n{says}\n\n```json\n{example}\n```\n");
    }
    std::fs::write(EXAMPLES, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_and_its_example_are_as_its_schema_says() {
    let Some(bin) = packages::python().await else { return };
    let app = TestApp::start().await;
    let names: BTreeMap<String, String> = serde_json::from_value(app.get("/api/v1/schemas").await.expect(200)).unwrap();
    let mut schemas = BTreeMap::new();
    for (name, path) in &names {
        schemas.insert(name.clone(), strict(app.get(path).await.expect(200)));
    }
    let frames = every_frame(app).await;
    let came: BTreeSet<_> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(came, names.keys().map(String::as_str).collect());
    if std::env::var("TASKWATCH_EXAMPLES").is_ok_and(|how| how == "write") {
        write_examples(&frames);
    }
    let examples = documented();
    let written: BTreeSet<_> = examples.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(written, came, "docs/events.md has an example of each");
    let sent = frames.into_iter().map(|frame| (frame.event.clone(), frame.json()));
    let pairs = sent.chain(examples).map(|(name, data)| json!({ "schema": schemas[&name], "event": data }));
    let pairs = Value::Array(pairs.collect());
    let mut validate = Command::new(bin.join("python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/validate.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = validate.stdin.take().unwrap();
    let sending = std::thread::spawn(move || input.write_all(pairs.to_string().as_bytes()).unwrap());
    let said = validate.wait_with_output().unwrap();
    sending.join().unwrap();
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
