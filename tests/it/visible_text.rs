//! No text can hide on a page, steer a terminal or end a line of the stream.

use serde_json::json;
use taskwatch::event::visible::is_hidden;

use crate::harness::{TestApp, cluster};

/// Of each kind: turns of direction, without width, fillers, tags, controls.
const HIDDEN: [char; 14] = [
    '\u{202e}',
    '\u{2066}',
    '\u{200b}',
    '\u{200f}',
    '\u{61c}',
    '\u{feff}',
    '\u{2060}',
    '\u{ad}',
    '\u{3164}',
    '\u{e0041}',
    '\u{fe01}',
    '\u{180e}',
    '\u{2028}',
    '\u{115f}',
];

#[tokio::test(flavor = "multi_thread")]
async fn every_text_on_a_page_can_be_seen() {
    let app = TestApp::start().await;
    let text = |place: &str| HIDDEN.iter().map(|c| format!("{place}{c}")).collect::<String>();
    let name = |place: &str| {
        let all = text(place);
        let end = all.floor_char_boundary(120);
        all[..end].to_owned() + "z"
    };
    let worker = json!({ "name": name("w"), "machine_id": name("m"), "queues": [name("q")], "version": text("v"),
        "connectors": [{ "connector_id": name("c"), "status": "error", "error": text("e") }] });
    let worker = app.post("/api/v1/workers", &worker).await.expect(201)["worker"]["id"].clone();
    let parent = app.creates_as(json!({ "task_type": name("p"), "title": text("pt"), "phases": [name("ph")] })).await;
    let task = json!({ "task_type": name("t"), "queue": name("q"), "project_id": name("pr"), "title": text("ti"),
        "description": format!("{}\u{1b}[31m", text("d")), "labels": { name("k"): text("l") }, "assignee": format!("{}\u{8}", name("a")),
        "watchers": [name("wa")], "unique_key": format!("{}\u{7}", text("u")), "payload": text("pa"), "parent_task_id": parent,
        "phase": name("ph"), "max_attempts": 1 });
    let id = app.creates_as(task).await;
    let claim = json!({ "worker_id": worker, "queues": [name("q")], "connector_id": name("c") });
    app.post("/api/v1/claims", &claim).await.expect(200);
    let progress = json!({ "worker_id": worker, "attempt": 1, "message": text("me") });
    app.post(&format!("/api/v1/tasks/{id}/progress"), &progress).await.expect(200);
    let fail = json!({ "worker_id": worker, "attempt": 1, "error": format!("{}\u{1b}]0;x\u{7}\u{9b}2J", text("er")) });
    app.post(&format!("/api/v1/tasks/{id}/fail"), &fail).await.expect(200);
    app.put(
        "/api/v1/schedules/s",
        &json!({ "cron": "@daily", "task": { "task_type": name("s"), "queue": name("q") } }),
    )
    .await
    .expect(200);
    app.post("/api/v1/queues/q%E2%80%AEx/pause", &json!({})).await;
    app.settles().await;
    let filter = url::form_urlencoded::byte_serialize(name("q").as_bytes()).collect::<String>();
    let mut shown = 0;
    for path in [
        "/".to_owned(),
        "/tasks".to_owned(),
        format!("/tasks/{id}"),
        format!("/parents/{parent}"),
        "/queues".to_owned(),
        "/workers".to_owned(),
        "/failures".to_owned(),
        "/schedules".to_owned(),
        "/events-view".to_owned(),
        "/streams".to_owned(),
        "/wall".to_owned(),
        "/analytics".to_owned(),
        format!("/tasks/{id}?at=3"),
        format!("/tasks?status=running&q=%E2%80%AE&label.x=%E2%80%AE&queue={filter}"),
        "/nothing%E2%80%AE".to_owned(),
        "/tasks?colour%E2%80%AE=red".to_owned(),
    ] {
        let request = app.http().get(format!("{}{path}", app.url)).header("accept", "text/html");
        let page = request.send().await.unwrap().text().await.unwrap();
        shown += page.matches("\\u{202e}").count();
        // Only what goes back to the server stays as it is.
        let without_fields: String = page
            .split("value=\"")
            .enumerate()
            .map(|(n, part)| if n == 0 { part } else { part.split_once('"').unwrap().1 })
            .collect();
        let hidden: Vec<_> =
            without_fields.char_indices().filter(|(_, c)| is_hidden(*c) && !matches!(c, '\n' | '\t')).collect();
        let around = hidden.first().map(|(at, _)| {
            without_fields[..*at].chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect::<String>()
        });
        assert!(hidden.is_empty(), "{path}: {hidden:?} after {around:?}");
    }
    assert!(shown > 40, "{shown}");
    // An edit form gives back what it was given.
    let page = app.get(&format!("/tasks/{id}")).await.text;
    assert!(page.contains(&format!("value=\"{}\"", text("ti"))), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_ends_a_line_of_the_stream_for_any_reader() {
    let app = TestApp::start().await;
    let ends = ['\u{85}', '\u{2028}', '\u{2029}'];
    cluster::execute(&app.database, "SELECT taskwatch.enqueue('t', title => E'a\\u2028b\\u2029c\\u0085d', labels => json_build_object('k', E'a\\u2028b'))").await;
    app.creates_as(json!({ "task_type": "t", "queue": "a\u{2028}b", "title": "a\u{2028}b\u{2029}c\u{85}d" })).await;
    app.post("/api/v1/queues/a%E2%80%A8b/pause", &json!({})).await.expect(200);
    // As an older version, or a hand, may have written it.
    cluster::execute(
        &app.database,
        "UPDATE taskwatch.events SET body = replace(body, '\\u2028', E'\\u2028') WHERE position <= 2",
    )
    .await;
    let again = app.twin().await;
    for server in [&app, &again] {
        server.settles().await;
        for format in ["native", "cloudevents"] {
            for accept in ["text/event-stream", "application/x-ndjson"] {
                let url = format!("{}/events?after=earliest&max_events=5&format={format}", server.url);
                let text = server.http().get(url).header("accept", accept).send().await.unwrap().text().await.unwrap();
                assert!(text.contains("\\u2028") && text.contains("queue_paused"), "{text}");
                assert!(!text.contains(ends), "{format} {accept}: {text}");
            }
        }
    }
}
