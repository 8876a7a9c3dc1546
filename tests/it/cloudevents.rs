//! CloudEvents by the letter, also with the official SDK.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::harness::{TestApp, packages};

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_says_the_same_in_each_mode() {
    let app = TestApp::start().await;
    let Some(bin) = packages::python().await else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/cloudevents_send.py");
    let url = app.url.clone();
    let run = move || Command::new(bin.join("python")).arg(script).arg(url).output().unwrap();
    let done = tokio::task::spawn_blocking(run).await.unwrap();
    let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{errors}");
    let mut count = 0;
    for line in out.lines() {
        let (id, subject) = line.split_once(' ').unwrap();
        let task = app.task(id).await;
        assert_eq!(
            (&task["external_id"], &task["result"], &task["task_type"]),
            (&json!(subject), &json!({ "n": count }), &json!("mail"))
        );
        count += 1;
    }
    assert_eq!(count, 5);
    app.settles().await;
    app.is_clean().await;
}

fn event(more: &serde_json::Value) -> serde_json::Value {
    let mut event =
        json!({ "specversion": "1.0", "type": "a.task_completed", "source": "s", "id": "1", "subject": "b" });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_read_or_refused_and_never_dropped() {
    let app = TestApp::start().await;
    let cloud = Some("application/cloudevents+json; charset=utf-8");
    // {"task_type":"t","queue":"q"}
    let good = event(
        &json!({ "subject": "base64", "data_base64": "eyJ0YXNrX3R5cGUiOiJ0IiwicXVldWUiOiJxIn0=", "myextension": 7 }),
    );
    let heard = app.sends("POST", "/api/v1/events", cloud, good.to_string()).await.expect(200);
    let task = app.task(heard["outcomes"][0]["task_id"].as_str().unwrap()).await;
    assert_eq!((&task["task_type"], &task["queue"], &task["status"]), (&json!("t"), &json!("q"), &json!("completed")));
    let head = app.settles().await;
    for (more, field) in [
        (json!({ "data_base64": "%%%" }), "data_base64"),
        (json!({ "data_base64": "aGVsbG8=" }), "data_base64"),
        (json!({ "data_base64": "W10=" }), "data_base64"),
        (json!({ "data_base64": "e30=", "data": {} }), "data_base64"),
        (json!({ "data": [{ "event_type": "task_created" }] }), "data"),
        (json!({ "data": "text", "datacontenttype": "text/plain" }), "data"),
        (json!({ "data": { "no_such_field": 1 } }), "no_such_field"),
        (json!({ "specversion": "0.3" }), "specversion"),
        (json!({ "id": "" }), "id"),
        (json!({ "type": "a.nothing" }), "event_type"),
        (json!({ "time": "yesterday" }), "time"),
    ] {
        let reply = app.sends("POST", "/api/v1/events", cloud, event(&more).to_string()).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{more}: {}",
            reply.text
        );
        let batch = format!("[{}]", event(&more));
        let heard =
            app.sends("POST", "/api/v1/events", Some("application/cloudevents-batch+json"), batch).await.expect(200);
        assert_eq!((&heard["outcomes"][0]["status"], &heard["outcomes"][0]["field"]), (&json!(422), &json!(field)));
    }
    let reply = app.sends("POST", "/api/v1/events", cloud, "{\"event_type\":\"task_created\",\"task_id\":\"x\"}").await;
    assert_eq!(reply.status.as_u16(), 422, "no CloudEvent: {}", reply.text);
    let empty = app.sends("POST", "/api/v1/events", Some("application/cloudevents-batch+json"), "[]").await;
    assert_eq!(empty.expect(200)["outcomes"], json!([]));
    assert_eq!(app.settles().await, head, "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_mode_reads_its_headers_as_the_binding_says() {
    let app = TestApp::start().await;
    let send = |subject: &'static [u8], content_type: Option<&'static str>, body: &'static str| {
        let request = app.http().post(format!("{}/api/v1/events", app.url)).body(body);
        let headers = [("specversion", "1.0"), ("type", "x.task_created"), ("source", "/s"), ("id", "1")];
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(format!("ce-{name}"), *value));
        let request = request.header("CE-Subject", reqwest::header::HeaderValue::from_bytes(subject).unwrap());
        let request = content_type.iter().fold(request, |request, kind| request.header("content-type", *kind));
        async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.json::<serde_json::Value>().await.unwrap())
        }
    };
    for (subject, right) in [
        (&b"plain"[..], "plain"),
        (b"j%C3%B6b%2017", "jöb 17"),
        (b"\"j%C3%B6b \\\"17\\\"\"", "jöb \"17\""),
        ("jöb".as_bytes(), "jöb"),
        (b"100%25", "100%"),
    ] {
        for (kind, body) in [
            (None, "{}"),
            (None, ""),
            (Some("application/json"), "{\"queue\":\"q\"}"),
            (Some("application/vnd.x+json"), "\u{feff}{}"),
        ] {
            let (status, heard) = send(subject, kind, body).await;
            assert_eq!(status, 200, "{heard}");
            let task = app.task(heard["outcomes"][0]["task_id"].as_str().unwrap()).await;
            assert_eq!(task["external_id"], right);
        }
    }
    let head = app.settles().await;
    for subject in [&b"%ff"[..], b"j\xf6b", b"%ED%A0%BD"] {
        let (status, problem) = send(subject, None, "{}").await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("ce-subject")), "{problem}");
    }
    // An array is data, not a batch, and a native report has to be an object.
    let (status, problem) = send(b"x", None, "[{\"queue\":\"a\"},{\"queue\":\"b\"}]").await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("data")), "{problem}");
    let (status, problem) = send(b"x", None, "{").await;
    assert!(status == 400 && problem["code"].is_string(), "{problem}");
    assert_eq!(send(b"x", Some("text/plain"), "{}").await.0, 415);
    let request = app.http().post(format!("{}/api/v1/events", app.url)).header("ce-specversion", "1.0").body("{}");
    let problem: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(problem["errors"][0]["field"], "ce-type", "{problem}");
    assert_eq!(app.settles().await, head, "something was written");
}
