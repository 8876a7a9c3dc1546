//! Events and actions of people found in the whole log, and tasks by what is in their payload.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::TestApp;

/// Positions of the events on a page, and the address at which the search goes on.
fn shown(html: &str) -> (Vec<i64>, Option<String>) {
    let rows = html.split("<tr id=\"e").skip(1).filter_map(|row| row.split('"').next()?.parse().ok()).collect();
    let pager = html.split_once("<p class=\"pager\"><a class=\"button\" href=\"").map(|(_, rest)| rest);
    let url = pager.and_then(|rest| rest.split('"').next()).map(|url| url.replace("&#38;", "&"));
    (rows, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_each_event_of_the_log_once() {
    let app = TestApp::start().await;
    for _ in 0..3 {
        app.creates_many(300, "noise").await;
        app.creates_many(90, "wanted").await;
    }
    let head = app.settles().await;
    let mut found = Vec::new();
    let mut url = Some(format!("/events-view?types=task_created&task_type=wanted&before={}", head + 1));
    while let Some(next) = url {
        let (rows, older) = shown(&app.get(&next).await.text);
        found.extend(rows);
        url = older;
    }
    assert!(found.is_sorted_by(|a, b| a > b), "newest first, none twice");
    assert_eq!(found.len(), 270);
    for nothing in ["topics=queues&types=task_created&before=100", "stats_only=true&types=task_*&before=100"] {
        let page = app.get(&format!("/events-view?{nothing}")).await;
        assert_eq!((page.status.as_u16(), shown(&page.text).0.len()), (200, 0), "{nothing}");
    }
    let (all, older) = shown(&app.get(&format!("/events-view?until={}", "2001-01-01T00:00Z")).await.text);
    assert_eq!((all, older), (Vec::new(), None), "nothing happened then");
    let (some, _) = shown(&app.get("/events-view?from=-1h&before=11&topics=all").await.text);
    assert_eq!(some, (1..11).rev().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_long_ago_is_found_with_who_did_it_and_why() {
    let app = TestApp::start().await;
    app.creates("first").await;
    app.post("/api/v1/queues/default/pause", &json!({ "reason": "disk swap" })).await.expect(200);
    app.creates_many(1_000, "noise").await;
    app.settles().await;
    // The topic is the first click, the search the second.
    let (_, older) = shown(&app.get("/events-view?topics=queues").await.text);
    let found = app.get(&older.expect("a way to go on")).await.text;
    let rows = shown(&app.get("/events-view?topics=queues").await.text).0.len() + shown(&found).0.len();
    assert_eq!(rows, 1, "in memory or in the log: {found}");
    let audit = app.get("/audit?action=pause&queue=default").await.text;
    for word in ["paused queue", "local", "disk swap", "/queues/default"] {
        assert!(audit.contains(word), "{word}: {audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_has_what_people_did_and_nothing_else() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let failed = app.creates_as(json!({ "task_type": "t", "max_attempts": 1 })).await;
    worker.claims("default").await.fails("disk full").await;
    app.post(&format!("/api/v1/tasks/{failed}/retry"), &json!({})).await.expect(200);
    let edited = app.creates("edited").await;
    app.patch(&format!("/api/v1/tasks/{edited}"), &json!({ "priority": 9 })).await.expect(200);
    app.post(&format!("/api/v1/tasks/{edited}/cancel"), &json!({})).await.expect(200);
    app.delete(&format!("/api/v1/tasks/{edited}")).await.expect(204);
    app.put("/api/v1/schedules/tick", &json!({ "cron": "0 3 * * *", "task": { "task_type": "t" } })).await.expect(200);
    app.creates_many(20, "noise").await;
    app.settles().await;
    let words = async |query: &str| {
        let html = app.get(&format!("/audit?{query}")).await.text;
        let rows = html.split("<tr id=\"a").skip(1).map(|row| row.split("</td><td>").nth(2).unwrap().to_owned());
        rows.collect::<Vec<_>>()
    };
    let all = ["set schedule", "deleted task", "cancelled task", "changed priority", "retried task"];
    let told = words("").await;
    assert_eq!(told.len(), all.len(), "{told:?}");
    assert_eq!(told[1..], all[1..], "newest first");
    assert_eq!(words("action=retry").await, ["retried task"]);
    assert_eq!(words("actor=local").await.len(), 5);
    assert!(words("actor=ann").await.is_empty() && words("until=2001-01-01T00:00Z").await.is_empty());
    let refused = app.get("/audit?action=dance").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("action: must be one of pause"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_shown_as_a_whole() {
    let app = TestApp::start().await;
    app.creates_as(json!({ "task_type": "<b>", "title": "a \"title\"" })).await;
    app.settles().await;
    let page = app.get("/events-view?queue=default&event=1").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("Event 1 ") && page.text.contains("&#60;b&#62;"), "{}", page.text);
    assert_eq!(app.get("/events-view?event=999").await.status, 404);
    assert_eq!(app.get("/events-view?event=x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_found_by_what_is_in_their_payload_and_result() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let order = |id: &str, sku: &str| json!({ "task_type": "t", "payload": { "order": { "id": id, "lines": [{ "sku": sku, "n": 2 }] }, "a.b": true } });
    let one = app.creates_as(order("ORD-1,2", "x")).await;
    let two = app.creates_as(order("ORD-2", "y")).await;
    app.creates("bare").await;
    let task = worker.claims("default").await;
    task.reports("complete", json!({ "result": { "pages": 12 } })).await;
    app.settles().await;
    let found = async |query: &str| {
        let tasks = app.get(&format!("/api/v1/tasks?{query}")).await.expect(200)["tasks"].clone();
        tasks.as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let (one_only, two_only) = ([one.clone()].into(), [two.clone()].into());
    assert_eq!(found(r"payload.order.id=ORD-1\,2").await, one_only);
    assert_eq!(found("payload.order.lines.0.sku=y,z").await, two_only);
    assert_eq!(found("payload.order.lines.0.n=2").await, [one.clone(), two.clone()].into());
    assert_eq!(found(r"payload.a\.b=true&-payload.order.id=ORD-2").await, one_only);
    assert_eq!(found("result.pages=12").await.len(), 1);
    assert!(found("payload.order=x").await.is_empty() && found("payload.nothing.at.all=1").await.is_empty());
    let page = app.get("/tasks?q=payload.order.id:ORD-2").await.text;
    assert!(page.contains(&two) && !page.contains(&one), "{page}");
    // The link beside a value leads to its task.
    let task = app.get(&format!("/tasks/{one}")).await.text;
    let link = task.split("href=\"/tasks?payload.order.id=").nth(1).unwrap().split('"').next().unwrap();
    assert!(app.get(&format!("/tasks?payload.order.id={link}")).await.text.contains(&one));
    for (query, detail) in [
        ("payload..x=1", "payload.order.id"),
        ("payload.=1", "payload.order.id"),
        ("payload=1", "unknown filter"),
        ("result.a=%00", "control characters"),
    ] {
        let refused = app.get(&format!("/api/v1/tasks?{query}")).await.expect(400);
        assert!(refused["detail"].as_str().unwrap().contains(detail), "{query}: {refused}");
    }
    let refused = app.get("/events?payload.a=1").await.expect(400);
    assert!(refused["detail"].as_str().unwrap().contains("filters tasks"), "{refused}");
}
