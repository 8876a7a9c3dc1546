//! Names with commas, spaces and backslashes: each can be named in a filter, or does not come in.

use serde_json::json;

use crate::harness::{TestApp, cluster};

const UNREACHABLE: [&str; 8] = [" a", "a ", " ", "\u{a0}", "a\u{2003}", "\u{3000}a", ".", ".."];

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_filter_or_link_can_name_come_in_by_no_door() {
    let app = TestApp::start().await;
    let id = app.creates("t").await;
    let head = app.settles().await;
    for name in UNREACHABLE {
        for (path, body) in [
            ("/api/v1/tasks", json!({ "task_type": name })),
            ("/api/v1/tasks", json!({ "task_type": "t", "queue": name })),
            ("/api/v1/tasks", json!({ "task_type": "t", "project_id": name })),
            ("/api/v1/tasks", json!({ "task_type": "t", "phase": name })),
            ("/api/v1/tasks", json!({ "task_type": "t", "phases": [name] })),
            ("/api/v1/tasks", json!({ "task_type": "t", "labels": { name: "x" } })),
            ("/api/v1/workers", json!({ "name": name, "machine_id": "m" })),
            ("/api/v1/workers", json!({ "name": "w", "machine_id": name })),
            ("/api/v1/events", json!({ "event_type": "task_created", "task_id": "x", "queue": name })),
            ("/api/v1/events", json!({ "event_type": "task_created", "task_id": "x", "machine_id": name })),
            ("/api/v1/tasks/bulk", json!({ "action": "edit", "ids": [id], "queue": name })),
        ] {
            let reply = app.post(path, &body).await;
            assert_eq!(reply.status.as_u16(), 422, "{name:?} {path} {body}: {}", reply.text);
            assert!(!reply.json["errors"][0]["field"].as_str().unwrap().is_empty(), "{}", reply.text);
        }
        assert_eq!(app.patch(&format!("/api/v1/tasks/{id}"), &json!({ "queue": name })).await.status.as_u16(), 422);
        if !name.starts_with('.') {
            let path = format!(
                "/api/v1/schedules/{}",
                url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
            );
            let schedule = json!({ "cron": "@daily", "task": { "task_type": "t" } });
            assert_eq!(app.put(&path, &schedule).await.status.as_u16(), 422, "{path}");
        }
        for field in ["queue", "project_id", "phase"] {
            let statement = format!("SELECT taskwatch.enqueue('t', {field} => '{name}')");
            cluster::tries(&app.database, &statement).await;
        }
    }
    assert_eq!(app.settles().await, head, "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_that_comes_in_can_be_named_in_every_filter() {
    let app = TestApp::start().await;
    let names = ["a,b", "a", "b", r"rack\7", r"x\,y", "a b", "größe/7?&#", "\"q\"", "%2C", "+"];
    for name in names {
        app.creates_as(json!({ "task_type": name, "queue": name, "labels": { "k": name } })).await;
    }
    app.settles().await;
    let escaped = |name: &str| {
        url::form_urlencoded::byte_serialize(taskwatch::event::filter::escaped(name).as_bytes()).collect::<String>()
    };
    for name in names {
        for filter in ["queue", "task_type", "label.k"] {
            let found = app.get(&format!("/api/v1/tasks?{filter}={}", escaped(name))).await.expect(200);
            let found: Vec<_> = found["tasks"].as_array().unwrap().iter().map(|task| task["queue"].clone()).collect();
            assert_eq!(found, [json!(name)], "{filter}={name}");
            let events = format!("/events?after=earliest&max_events=1&types=task_created&{filter}={}", escaped(name));
            let text = app.get(&events).await.text;
            assert!(text.contains(&format!("\"queue\":{}", json!(name))), "{filter}={name}: {text}");
        }
        // Our own links lead there.
        let queues = app.get("/queues").await.text;
        assert!(queues.contains(&format!("/queues/{}\"", in_path(name))), "{name}: {queues}");
    }
    for query in ["queue=a&queue=b", "queue=a,b", "queue=%20a%20,%20b%20", "queue=&queue=b&queue=a"] {
        let found = app.get(&format!("/api/v1/tasks?{query}")).await.expect(200);
        assert_eq!(found["tasks"].as_array().unwrap().len(), 2, "{query}: {found}");
        assert_eq!(app.get(&format!("/tasks?{query}&utm_source=chat")).await.status.as_u16(), 200, "{query}");
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_never_on_the_wrong_queue() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for name in ["a,b", "a", "b"] {
        ids.push(app.creates_as(json!({ "task_type": "t", "queue": name })).await);
    }
    let preview = app
        .post("/api/v1/tasks/bulk", &json!({ "action": "cancel", "preview": true, "filter": { "queue": "a\\,b" } }))
        .await;
    assert_eq!(preview.expect(200)["matched"], 1);
    // By the form, which carries what the list was filtered by.
    let page = app.get("/tasks/bulk?scope=filter&action=cancel&queue=a%5C%2Cb").await.text;
    assert!(page.contains("value=\"a\\,b\""), "{page}");
    let form = "action=cancel&queue=a%5C%2Cb&max_per_second=100";
    app.sends("POST", "/tasks/bulk", Some("application/x-www-form-urlencoded"), form).await;
    crate::harness::eventually("the task is cancelled", || async { app.task(&ids[0]).await["status"] == "cancelled" })
        .await;
    assert_eq!(
        (&app.task(&ids[1]).await["status"], &app.task(&ids[2]).await["status"]),
        (&json!("pending"), &json!("pending"))
    );
    // Given twice, a filter has both values.
    let form = "action=cancel&queue=a&queue=b&max_per_second=100";
    app.sends("POST", "/tasks/bulk", Some("application/x-www-form-urlencoded"), form).await;
    for id in &ids {
        crate::harness::eventually("all are cancelled", || async { app.task(id).await["status"] == "cancelled" }).await;
    }
}

/// A name as a part of a path.
fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
