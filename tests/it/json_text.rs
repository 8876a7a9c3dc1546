//! Payloads, results and labels come back byte for byte, or are refused by name; nothing else is refused with them.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::harness::{TestApp, app::Reply, cluster};

impl TestApp {
    /// Sends bytes as they are.
    pub(crate) async fn sends(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> Reply {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http().request(method, format!("{}{path}", self.url)).body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        Reply { status, json: serde_json::from_str(&text).unwrap_or_default(), text }
    }
}

/// JSON as only a text can hold it: odd spacing, large numbers, keys twice, escapes.
fn free() -> impl Strategy<Value = String> {
    let string = "\"([a-zé😀 ,:{}\\[\\]]|\\\\n|\\\\\"|\\\\\\\\|\\\\/|\\\\u00e9|\\\\u2028|\\\\ud83d\\\\ude00){0,8}\"";
    let leaf = prop_oneof![
        string,
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?",
        Just("true".to_owned()),
        Just("null".to_owned()),
    ];
    let space = "[ \\t\\r\\n]{0,2}";
    leaf.prop_recursive(5, 24, 4, move |inner| {
        let items = proptest::collection::vec((space, inner.clone(), space), 0..4);
        let fields = proptest::collection::vec((space, "\"[ab]{0,2}\"", space, inner), 0..4);
        prop_oneof![
            items.prop_map(|items| {
                let items: Vec<_> =
                    items.iter().map(|(before, item, after)| format!("{before}{item}{after}")).collect();
                format!("[{}]", items.join(","))
            }),
            fields.prop_map(|fields| {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(before, key, after, value)| format!("{before}{key}{after}:{after}{value}"))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

/// One field of an object, as text.
fn raw(text: &str, path: &[&str]) -> Option<String> {
    let fields: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).unwrap();
    let (first, rest) = path.split_first().unwrap();
    let value = fields.get(*first)?.get();
    if rest.is_empty() { Some(value.to_owned()) } else { raw(value, rest) }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_json_comes_back_byte_for_byte() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let mut runner = TestRunner::deterministic();
    let texts: Vec<String> =
        (0..300).map(|_| free().new_tree(&mut runner).unwrap().current()).filter(|text| text != "null").collect();
    for texts in texts.chunks(50) {
        let bodies: Vec<_> = texts.iter().map(|text| format!("{{\"task_type\":\"t\",\"payload\":{text}}}")).collect();
        let created =
            app.sends("POST", "/api/v1/tasks", Some("application/json"), format!("[{}]", bodies.join(","))).await;
        let created = created.expect(201);
        let ids = created["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap());
        let by_id: std::collections::HashMap<_, _> = ids.zip(texts).collect();
        for _ in texts {
            let claimed = worker.claims("default").await;
            let text = by_id[claimed.id.as_str()];
            let body = format!("{{\"worker_id\":\"{}\",\"attempt\":1,\"result\":{text}}}", worker.id);
            let path = format!("/api/v1/tasks/{}", claimed.id);
            app.sends("POST", &format!("{path}/complete"), Some("application/json"), body).await.expect(200);
            let read = app.get(&path).await.text;
            assert_eq!(raw(&read, &["task", "payload"]).as_deref(), Some(text.as_str()));
            assert_eq!(raw(&read, &["task", "result"]).as_deref(), Some(text.as_str()));
        }
    }
    // A recurring task keeps its payload, and gives it on.
    let text = "{ \"n\": 1e999, \"n\":100000000000000000000000001 , \"e\": []}";
    let body = format!("{{\"cron\":\"0 0 1 1 *\",\"task\":{{\"task_type\":\"t\",\"payload\":{text}}}}}");
    app.sends("PUT", "/api/v1/schedules/s", Some("application/json"), body).await.expect(200);
    assert_eq!(
        raw(&app.get("/api/v1/schedules/s").await.text, &["schedule", "task", "payload"]).as_deref(),
        Some(text)
    );
    // Observed tasks too.
    let body = format!(
        "{{\"event_type\":\"task_completed\",\"task_id\":\"x\",\"payload\":{text},\"data\":{{\"result\":{text}}}}}"
    );
    let heard = app.sends("POST", "/api/v1/events", Some("application/json"), body).await.expect(200);
    let read = app.get(&format!("/api/v1/tasks/{}", heard["outcomes"][0]["task_id"].as_str().unwrap())).await.text;
    assert_eq!(raw(&read, &["task", "payload"]).as_deref(), Some(text));
    assert_eq!(raw(&read, &["task", "result"]).as_deref(), Some(text));
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_for_postgres_is_that_items_fault_alone() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let head = app.settles().await;
    for bad in [r#""\ud83d""#, r#"{"a":["\ude00"]}"#, r#""\ud83d\ud83d""#, r#""\u0000""#, r#"{"\ud83d":1}"#, &deep] {
        for body in [
            format!("{{\"task_type\":\"t\",\"payload\":{bad}}}"),
            format!("{{\"cron\":\"* * * * *\",\"task\":{{\"task_type\":\"t\",\"payload\":{bad}}}}}"),
            format!("{{\"event_type\":\"task_created\",\"task_id\":\"x\",\"payload\":{bad}}}"),
            format!("{{\"event_type\":\"task_completed\",\"task_id\":\"x\",\"data\":{{\"result\":{bad}}}}}"),
        ] {
            let (method, path, field) = match &body {
                body if body.contains("cron") => ("PUT", "/api/v1/schedules/s", "task.payload"),
                body if body.contains("result") => ("POST", "/api/v1/events", "data.result"),
                body if body.contains("event_type") => ("POST", "/api/v1/events", "payload"),
                _ => ("POST", "/api/v1/tasks", "payload"),
            };
            let reply = app.sends(method, path, Some("application/json"), body.clone()).await;
            assert_eq!(reply.status.as_u16(), 422, "{body}: {}", reply.text);
            assert_eq!(reply.json["errors"][0]["field"], field, "{body}: {}", reply.text);
        }
        // Created together: all or none.
        let body = format!("[{{\"task_type\":\"t\"}},{{\"task_type\":\"t\",\"payload\":{bad}}}]");
        let reply = app.sends("POST", "/api/v1/tasks", Some("application/json"), body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json["errors"][0]["field"]),
            (422, &json!("[1].payload")),
            "{}",
            reply.text
        );
    }
    assert_eq!(app.settles().await, head, "something was written");
    // Reported together: each for itself.
    app.creates_many(2, "t").await;
    let tasks = worker.claims_up_to(2, &["default"], 0).await;
    let complete = |id: &str, result: &str| {
        format!(
            "{{\"report\":\"complete\",\"task_id\":\"{id}\",\"worker_id\":\"{}\",\"attempt\":1,\"result\":{result}}}",
            worker.id
        )
    };
    let lines = [complete(&tasks[0].id, "\"\\ud83d\""), "{".to_owned(), complete(&tasks[1].id, "1")];
    let reply = app.sends("POST", "/api/v1/reports", Some("application/x-ndjson"), lines.join("\n")).await.expect(200);
    let statuses: Vec<_> =
        reply["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["status"].clone()).collect();
    assert_eq!(statuses, [422, 400, 200], "{reply}");
    assert_eq!(reply["outcomes"][0]["field"], "result");
    let reply = app
        .sends(
            "POST",
            "/api/v1/reports",
            Some("application/json"),
            format!("[{}]", complete(&tasks[0].id, "\"\\udfff\"")),
        )
        .await;
    assert_eq!(reply.expect(200)["outcomes"][0]["status"], 422);
    let lines = "{\"event_type\":\"task_created\",\"task_id\":\"a\",\"payload\":\"\\ud83d\"}\n{\"event_type\":\"task_created\",\"task_id\":\"b\"}\n{\"task_id\":\"\\xff\"}";
    let reply = app.sends("POST", "/api/v1/events", Some("application/x-ndjson"), lines).await.expect(200);
    let outcomes: Vec<_> =
        reply["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["outcome"].clone()).collect();
    assert_eq!(outcomes, ["refused", "recorded", "refused"], "{reply}");
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_counts_whatever_its_error_looks_like() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    for (error, kept) in [
        ("a\\u0000b".to_owned(), "a\u{fffd}b".to_owned()),
        ("cut \\ud83d".to_owned(), "cut \u{fffd}".to_owned()),
        ("x".repeat(16_384), "x".repeat(16_384)),
        ("x".repeat(16_385), format!("{}…", "x".repeat(16_381))),
    ] {
        for bulk in [false, true] {
            let id = app.creates_as(json!({ "task_type": "t", "max_attempts": 1 })).await;
            worker.claims("default").await;
            let fence = format!("\"worker_id\":\"{}\",\"attempt\":1", worker.id);
            let message = format!("{{{fence},\"message\":\"{error}\"}}");
            app.sends("POST", &format!("/api/v1/tasks/{id}/progress"), Some("application/json"), message)
                .await
                .expect(200);
            if bulk {
                let body = format!("[{{\"report\":\"fail\",\"task_id\":\"{id}\",{fence},\"error\":\"{error}\"}}]");
                let reply = app.sends("POST", "/api/v1/reports", Some("application/json"), body).await.expect(200);
                assert_eq!(reply["outcomes"][0]["status"], 200, "{reply}");
            } else {
                let body = format!("{{{fence},\"error\":\"{error}\"}}");
                app.sends("POST", &format!("/api/v1/tasks/{id}/fail"), Some("application/json"), body)
                    .await
                    .expect(200);
            }
            let task = app.task(&id).await;
            assert_eq!((&task["status"], &task["error"]), (&json!("failed"), &json!(kept)));
        }
    }
    let report = "{\"event_type\":\"task_failed\",\"task_id\":\"x\",\"error\":\"\\ud83d\\u0000\"}";
    let heard = app.sends("POST", "/api/v1/events", Some("application/json"), report).await.expect(200);
    assert_eq!(app.task(heard["outcomes"][0]["task_id"].as_str().unwrap()).await["error"], "\u{fffd}\u{fffd}");
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_loses_nothing() {
    let app = TestApp::start().await;
    let task = "\u{feff}{\"task_type\":\"t\"}";
    app.sends("POST", "/api/v1/tasks", Some("application/json"), task).await.expect(201);
    app.sends("POST", "/api/v1/tasks", Some("application/json"), "\u{feff} [{\"task_type\":\"t\"}]").await.expect(201);
    app.sends("POST", "/api/v1/tasks", Some("application/x-ndjson"), format!("{task}\r\n{task}\r\n")).await.expect(201);
    let id = app.creates("t").await;
    app.sends("POST", &format!("/api/v1/tasks/{id}/cancel"), Some("application/json"), "\u{feff}{}").await.expect(200);
    let line = |id: &str| format!("\u{feff}{{\"event_type\":\"task_created\",\"task_id\":\"{id}\"}}");
    for (kind, body, count) in [
        ("application/json", line("a"), 1),
        ("application/x-ndjson", format!("{}\n{}\n", line("b"), line("c")), 2),
        ("application/json", "\u{feff}[{\"event_type\":\"task_created\",\"task_id\":\"d\"}]".to_owned(), 1),
    ] {
        let heard = app.sends("POST", "/api/v1/events", Some(kind), body).await.expect(200);
        let outcomes = heard["outcomes"].as_array().unwrap();
        assert!(outcomes.len() == count && outcomes.iter().all(|outcome| outcome["outcome"] == "recorded"), "{heard}");
    }
    let form = "\u{feff}name=s&cron=%40daily&time_zone=UTC&task_type=t";
    app.sends("POST", "/schedules", Some("application/x-www-form-urlencoded"), form).await;
    app.get("/api/v1/schedules/s").await.expect(200);
    let big = json!([{ "event_type": "task_created", "task_id": 9_223_372_036_854_775_808_u64 }, { "event_type": "task_created", "task_id": u64::MAX }, { "event_type": "task_created", "task_id": -7 }]);
    let heard = app.post("/api/v1/events", &big).await.expect(200);
    assert!(heard["outcomes"].as_array().unwrap().iter().all(|outcome| outcome["outcome"] == "recorded"), "{heard}");
    assert_eq!(cluster::number(&app.database, "SELECT count(*) FROM taskwatch.tasks").await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_no_object_and_a_field_stands_there_once() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates("t").await;
    let task = worker.claims("default").await;
    let head = app.settles().await;
    let with = |more: &str| format!("{{\"worker_id\":\"{}\",\"attempt\":1,{more}}}", worker.id);
    for (method, path, body, field) in [
        ("PATCH", "/api/v1/queues/q".to_owned(), "[5,null,null]".to_owned(), "body"),
        ("POST", "/api/v1/tasks".to_owned(), "[[null,\"t\"]]".to_owned(), "[0]"),
        ("POST", "/api/v1/workers".to_owned(), "[\"w\",\"m\"]".to_owned(), "body"),
        (
            "POST",
            "/api/v1/workers".to_owned(),
            "{\"name\":\"w\",\"machine_id\":\"m\",\"connectors\":[[\"c\"]]}".to_owned(),
            "connectors[0]",
        ),
        ("POST", format!("/api/v1/tasks/{}/progress", task.id), with("\"counts\":[1,2,3]"), "counts"),
        ("POST", format!("/api/v1/workers/{}/heartbeat", worker.id), "{\"tasks\":[[]]}".to_owned(), "tasks[0]"),
        ("PUT", "/api/v1/schedules/s".to_owned(), "{\"cron\":\"@daily\",\"task\":[null,\"t\"]}".to_owned(), "task"),
        ("POST", "/api/v1/tasks/bulk".to_owned(), "[\"delete\"]".to_owned(), "body"),
        (
            "POST",
            "/api/v1/events".to_owned(),
            "{\"event_type\":\"task_created\",\"task_id\":\"x\",\"data\":[\"title\"]}".to_owned(),
            "data",
        ),
        ("POST", "/api/v1/tasks".to_owned(), "{\"task_type\":\"a\",\"task_type\":\"b\"}".to_owned(), "task_type"),
        (
            "POST",
            "/api/v1/tasks".to_owned(),
            "{\"task_type\":\"a\",\"labels\":{\"k\":\"1\",\"k\":\"2\"}}".to_owned(),
            "labels",
        ),
        (
            "POST",
            "/api/v1/tasks/bulk".to_owned(),
            "{\"action\":\"delete\",\"filter\":{\"queue\":\"a\",\"queue\":\"b\"}}".to_owned(),
            "filter",
        ),
    ] {
        let reply = app.sends(method, &path, Some("application/json"), body.clone()).await;
        assert_eq!(reply.status.as_u16(), 422, "{path} {body}: {}", reply.text);
        let named = reply.json["errors"][0]["field"].as_str().unwrap();
        assert!(named.starts_with(field), "{path} {body}: {named} {}", reply.text);
    }
    assert_eq!(app.settles().await, head, "something was written");
    // A whole number may be written with a fraction, as Lua and PHP do.
    let body = with("\"percent\":50.0").replace("\"attempt\":1", "\"attempt\":1.0");
    app.sends("POST", &format!("/api/v1/tasks/{}/progress", task.id), Some("application/json"), body).await.expect(200);
    let _: Value = app.task(&task.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_keeps_what_was_typed() {
    let app = TestApp::start().await;
    let text = "{ \"n\": 100000000000000000000000001 , \"n\":1e999}";
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("task_type", "t"), ("queue", "forms"), ("payload", text)])
        .finish();
    app.sends("POST", "/test-client/tasks", Some("application/x-www-form-urlencoded"), form).await;
    let id = cluster::texts(&app.database, "SELECT id::text FROM taskwatch.tasks").await.pop().unwrap();
    assert_eq!(raw(&app.get(&format!("/api/v1/tasks/{id}")).await.text, &["task", "payload"]).as_deref(), Some(text));
    // Ids that come back are ids, or nothing.
    let form = "queue=forms&task_id=a%00b%C3%A4";
    let done = app.sends("POST", "/test-client/work", Some("application/x-www-form-urlencoded"), form).await;
    assert_eq!(done.status.as_u16(), 422, "{}", done.text);
    // A name with a comma survives an edit.
    let people = json!({ "task_type": "t", "watchers": ["a,b", "c"], "title": "x\u{202e}" });
    let id = app.creates_as(people).await;
    let page = app.get(&format!("/tasks/{id}")).await.text;
    assert!(page.contains("value=\"a\\,b, c\""), "{page}");
    let form = "title=x%E2%80%AE&watchers=a%5C%2Cb%2C+c&priority=5&queue=default";
    app.sends("POST", &format!("/tasks/{id}/edit"), Some("application/x-www-form-urlencoded"), form).await;
    let task = app.task(&id).await;
    assert_eq!((&task["watchers"], &task["title"]), (&json!(["a,b", "c"]), &json!("x\u{202e}")));
    app.settles().await;
    app.is_clean().await;
}
