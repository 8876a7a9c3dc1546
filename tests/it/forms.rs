//! Forms on pages: what they do, and what they say to nonsense.

use serde_json::json;

use crate::harness::{TestApp, eventually, fixture::Scene};

/// Sends a form as a browser does, and follows to the next page.
async fn sends(app: &TestApp, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let request = app.http().post(format!("{}{path}", app.url)).header("sec-fetch-site", "same-origin").form(fields);
    let reply = request.send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_edited_by_its_form() {
    let app = TestApp::start().await;
    let id = app.creates_as(json!({ "task_type": "t", "title": "old", "assignee": "ann" })).await;
    let fields = [
        ("title", "new"),
        ("priority", "9"),
        ("queue", "mail"),
        ("assignee", ""),
        ("collaborators", "bob, cy"),
        ("watchers", ""),
    ];
    let (status, page) = sends(&app, &format!("/tasks/{id}/edit"), &fields).await;
    assert_eq!(status, 200, "{page}");
    let task = app.task(&id).await;
    assert_eq!((&task["title"], &task["priority"], &task["queue"]), (&json!("new"), &json!(9), &json!("mail")));
    assert!(task.get("assignee").is_none_or(serde_json::Value::is_null));
    assert_eq!(task["collaborators"], json!(["bob", "cy"]));
    let before = app.position().await;
    for (field, value, says) in
        [("priority", "10", "priority"), ("priority", "high", "priority"), ("queue", "a b\u{0}", "queue")]
    {
        let (status, page) = sends(&app, &format!("/tasks/{id}/edit"), &[(field, value)]).await;
        assert_eq!((status, page.contains(says)), (422, true), "{field}={value}: {page}");
    }
    assert_eq!(app.position().await, before, "nothing was changed");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_are_changed_after_a_preview() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let ids = [app.creates("a").await, app.creates("a").await, app.creates("b").await];
    worker.claims_up_to(2, &["default"], 0).await[0].fails("HTTP 503").await;
    app.settles().await;
    // Nothing chosen is not everything.
    let page = app.get("/tasks/bulk?action=delete").await;
    assert_eq!(page.status, 422);
    assert!(page.text.contains("Select tasks or set a filter first."));
    let page = app.get(&format!("/tasks/bulk?action=retry&ids={}&ids={}", ids[0], ids[2])).await.text;
    assert!(page.contains("Retry 2 tasks?") && page.contains("status does not allow it"), "{page}");
    let (status, page) =
        sends(&app, "/tasks/bulk", &[("action", "edit"), ("task_type", "a"), ("priority_new", "7")]).await;
    assert_eq!((status, page.contains("Edit tasks")), (200, true), "{page}");
    eventually("both are changed", || async {
        app.task(&ids[0]).await["priority"] == 7 && app.task(&ids[1]).await["priority"] == 7
    })
    .await;
    assert_eq!(app.task(&ids[2]).await["priority"], 5);
    let (status, page) = sends(&app, "/tasks/bulk", &[("action", "delete"), ("ids", &ids[2])]).await;
    assert_eq!((status, page.contains("deletion cannot be undone")), (422, true));
    let (status, page) =
        sends(&app, "/tasks/bulk", &[("action", "delete"), ("ids", &ids[2]), ("confirm", "delete")]).await;
    assert_eq!((status, page.contains("<b class=\"mid\">1</b> done")), (200, true), "{page}");
    assert_eq!(app.get(&format!("/tasks/{}", ids[2])).await.status, 404);
    for fields in [
        &[("action", "explode")][..],
        &[("action", "retry"), ("ids", "7")],
        &[("action", "retry"), ("colour", "red")],
        &[("action", "retry"), ("task_type", "a"), ("max_per_second", "0")],
    ] {
        let (status, _) = sends(&app, "/tasks/bulk", fields).await;
        assert!((400..500).contains(&status), "{fields:?}: {status}");
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_failures_is_what_the_filter_finds() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    for error in ["timeout after 12 ms", "timeout after 4711 ms", "disk full"] {
        app.creates_as(json!({ "task_type": "import", "max_attempts": 1 })).await;
        worker.claims("default").await.fails(error).await;
    }
    app.settles().await;
    let groups = app.get("/api/v1/failures").await.expect(200)["groups"].as_array().unwrap().clone();
    assert_eq!(groups.len(), 2);
    let timeouts = groups.iter().find(|group| group["pattern"] == "timeout after # ms").unwrap();
    assert_eq!((&timeouts["open"], &timeouts["failed"]), (&json!(2), &json!(2)));
    let fingerprint = timeouts["fingerprint"].as_str().unwrap();
    let found = app.get(&format!("/api/v1/tasks?fingerprint={fingerprint}")).await.expect(200);
    assert_eq!(found["tasks"].as_array().unwrap().len(), 2);
    let mut events = app.events(&format!("?after=earliest&fingerprint={fingerprint}&max_events=2")).await;
    for _ in 0..2 {
        assert_eq!(events.event().await.event, "task_failed");
    }
    // One of them runs again and completes: it is open no more, and still told of.
    let id = found["tasks"][0]["id"].as_str().unwrap();
    app.post(&format!("/api/v1/tasks/{id}/retry"), &json!({})).await.expect(200);
    app.settles().await;
    let page = app.get("/failures").await.text;
    assert!(page.contains("2 failed tasks") && page.contains("2 failures in the last 24 hours"), "{page}");
    worker.claims("default").await.completes().await;
    app.delete(&format!("/api/v1/tasks/{}", found["tasks"][1]["id"].as_str().unwrap())).await.expect(204);
    app.settles().await;
    let groups = app.get("/api/v1/failures").await.expect(200)["groups"].clone();
    let timeouts = groups.as_array().unwrap().iter().find(|group| group["fingerprint"] == fingerprint).unwrap().clone();
    assert_eq!(timeouts["open"], 0);
    assert!(!app.get("/failures").await.text.contains(fingerprint));
    assert!(app.get("/failures?show=all").await.text.contains(fingerprint));
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_and_recurring_tasks_have_their_switches() {
    let scene = Scene::on(TestApp::start().await, false).await;
    let app = &scene.app;
    let (status, page) = sends(app, "/queues/default/pause", &[]).await;
    assert_eq!((status, page.contains("Paused")), (200, true));
    let (status, page) = sends(
        app,
        "/queues/default/limits",
        &[("concurrency_limit", "3"), ("rate_limit", "10"), ("rate_period_seconds", "60")],
    )
    .await;
    assert_eq!((status, page.contains("value=\"3\"") && page.contains("value=\"60\"")), (200, true), "{page}");
    let (status, page) = sends(app, "/queues/default/limits", &[("concurrency_limit", "many")]).await;
    assert_eq!((status, page.contains("concurrency_limit")), (422, true));
    let (status, page) = sends(app, "/queues/default/limits", &[("concurrency_limit", ""), ("rate_limit", "")]).await;
    assert_eq!((status, page.contains("value=\"3\"")), (200, false));
    sends(app, "/queues/default/resume", &[]).await;
    let fields = [
        ("name", "nightly"),
        ("cron", "0 3 * * *"),
        ("time_zone", "Europe/Berlin"),
        ("task_type", "clean"),
        ("payload", "{\"deep\":true}"),
    ];
    let (status, page) = sends(app, "/schedules", &fields).await;
    assert_eq!((status, page.contains("nightly")), (200, true), "{page}");
    for (name, value, says) in
        [("cron", "whenever", "cron"), ("payload", "{", "invalid JSON"), ("time_zone", "Mars", "time_zone")]
    {
        let mut fields = fields.to_vec();
        fields.retain(|(field, _)| *field != name);
        fields.push((name, value));
        let (status, page) = sends(app, "/schedules", &fields).await;
        assert_eq!((status, page.contains(says)), (422, true), "{name}: {page}");
    }
    let (_, page) = sends(app, "/schedules/nightly/pause", &[]).await;
    assert!(page.contains("paused"));
    sends(app, "/schedules/nightly/resume", &[]).await;
    let (status, page) = sends(app, "/schedules/nightly/delete", &[]).await;
    assert_eq!((status, page.contains("nightly")), (200, false));
    let (status, _) = sends(app, "/schedules/nightly/pause", &[]).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_client_submits_and_plays_the_worker() {
    let app = TestApp::start().await;
    let (status, page) = sends(
        &app,
        "/test-client/tasks",
        &[("task_type", "hello"), ("queue", "try"), ("count", "2"), ("payload", "[1]")],
    )
    .await;
    assert_eq!((status, page.contains("task_created")), (200, true), "{page}");
    let (status, page) =
        sends(&app, "/test-client/work", &[("queue", "try"), ("end", "give_up"), ("error", "no luck")]).await;
    assert_eq!((status, page.contains("no luck")), (200, true), "{page}");
    let (status, page) = sends(&app, "/test-client/work", &[("queue", "try"), ("end", "complete")]).await;
    assert_eq!((status, page.contains("task_completed")), (200, true), "{page}");
    let (status, page) = sends(&app, "/test-client/work", &[("queue", "try")]).await;
    assert_eq!((status, page.contains("Queue try has no pending tasks")), (409, true), "{page}");
    for (field, value) in [("count", "101"), ("payload", "{"), ("priority", "x"), ("task_type", "")] {
        let fields = [("task_type", "hello"), (field, value)];
        let fields = if field == "task_type" { &fields[1..] } else { &fields[..] };
        let (status, page) = sends(&app, "/test-client/tasks", fields).await;
        assert_eq!((status, page.contains(field)), (422, true), "{field}: {page}");
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_cannot_send_forms() {
    let app = TestApp::start().await;
    let id = app.creates("t").await;
    for path in [
        format!("/tasks/{id}/cancel"),
        "/tasks/bulk".to_owned(),
        "/queues/default/pause".to_owned(),
        "/settings".to_owned(),
    ] {
        let request = app.http().post(format!("{}{path}", app.url)).header("sec-fetch-site", "cross-site");
        let reply = request.form(&[("action", "delete")]).send().await.unwrap();
        assert_eq!(reply.status(), 403, "{path}");
    }
    assert_eq!(app.task(&id).await["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn preferences_are_kept_in_a_cookie_and_shared_with_nobody() {
    let app = TestApp::start().await;
    let sends = async |fields: &[(&str, &str)]| {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        client.post(format!("{}/settings", app.url)).form(fields).send().await.unwrap()
    };
    let reply = sends(&[("theme", "dark"), ("times", "local")]).await;
    let cookie = reply.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("taskwatch_prefs=theme.dark~times.local~keys.on;") && cookie.contains("SameSite=Lax"));
    let page = app.http().get(&app.url).header("cookie", cookie.split(';').next().unwrap()).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("data-theme=\"dark\"") && page.contains("data-times=\"local\""));
    assert!(app.get("/").await.text.contains("data-theme=\"system\""));
    assert_eq!(sends(&[("theme", "pink")]).await.status(), 422);
    let odd = app.http().get(&app.url).header("cookie", "taskwatch_prefs=theme.\"><script>~x").send().await.unwrap();
    assert!(odd.text().await.unwrap().contains("data-theme=\"system\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_told_as_the_charts_draw_it() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(4, "t").await;
    for _ in 0..3 {
        worker.claims("default").await.completes().await;
    }
    app.time_passes(120);
    app.settles().await;
    let told = app.get("/api/v1/history?range=1h").await.expect(200);
    let buckets = told["buckets"].as_array().unwrap();
    let sum = |field: &str| buckets.iter().map(|stretch| stretch[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((buckets.len(), sum("created"), sum("completed")), (60, 4, 3));
    assert_eq!(buckets[59]["max_pending"], 1);
    let page = app.get("/analytics").await.text;
    assert!(page.contains("<td>4</td><td>3</td>"), "{page}");
    assert_eq!(app.get("/api/v1/history?range=2h").await.status, 400);
    assert_eq!(app.get("/api/v1/history?span=1h").await.status, 400);
}
