//! A store that an older version filled is migrated at the start, and nothing in it is lost.

use serde_json::{Value, json};

use crate::harness::{TestApp, cluster, eventually};

/// The migrations of the version that wrote `tests/stores/0008.sql`.
const OLDER: usize = 8;

async fn upgraded() -> TestApp {
    TestApp::again(cluster::older_database(OLDER, include_str!("../stores/0008.sql")).await).await
}

async fn tasks(app: &TestApp, query: &str) -> Vec<Value> {
    app.get(&format!("/api/v1/tasks?{query}")).await.expect(200)["tasks"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_the_version_before_is_migrated_and_verified() {
    let app = upgraded().await;
    app.settles().await;
    app.is_clean().await;
    let [parent] = &tasks(&app, "task_type=order").await[..] else { panic!("one parent") };
    assert_eq!((&parent["auto_complete"], &parent["project_id"]), (&json!(true), &json!("shop")));
    let first = tasks(&app, "queue=mail&label.tenant=a").await.remove(0);
    let first = app.task(first["id"].as_str().unwrap()).await;
    assert_eq!((&first["backoff_initial_seconds"], &first["backoff_max_seconds"]), (&json!(600), &json!(7_200)));
    assert_eq!(first["payload"], json!({ "to": "x", "n": 1.5, "deep": [1, { "b": null }] }));
    let text = app.get(&format!("/api/v1/tasks/{}", first["id"].as_str().unwrap())).await.text;
    assert!(text.contains(r#""n":1.50"#), "payloads stay byte for byte: {text}");
    assert_eq!(tasks(&app, "status=failed&task_type=pick").await.len(), 1);
    assert_eq!(tasks(&app, "status=pending&task_type=bad").await.len(), 2);
    let events = app.get("/events?poll=1&wait=0&after=earliest&types=task_failed").await.expect(200);
    assert_eq!(events["events"][0]["error"], "disk full on node 7");
    let queues = app.get("/api/v1/queues").await.expect(200);
    let queue = |name: &str| queues["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == name).cloned();
    assert!(queue("other").is_none_or(|queue| queue["paused_at"].is_string()));
    assert_eq!(queue("mail").unwrap()["concurrency_limit"], 4);
    assert_eq!(tasks(&app, "task_type=celery").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_and_bulk_actions_of_the_version_before_go_on() {
    let app = upgraded().await;
    let schedule = app.get("/api/v1/schedules/nightly").await.expect(200)["schedule"].clone();
    let task = &schedule["task"];
    assert_eq!(
        (&task["backoff_initial_seconds"], &task["backoff_max_seconds"]),
        (&json!(30), &json!(90)),
        "{schedule}"
    );
    assert_eq!(task["payload"], json!({ "a": 1.0, "close_when_done": "text" }), "only fields of the task were renamed");
    app.time_passes(2 * 86_400);
    eventually("the schedule creates its task", || async { tasks(&app, "task_type=nightly").await.len() == 1 }).await;
    eventually("the bulk action ends", || async {
        app.time_passes(1);
        app.get("/api/v1/bulk").await.expect(200)["bulks"][0]["state"] == "done"
    })
    .await;
    let cancelled = tasks(&app, "queue=bulk&status=cancelled&priority=3&label.tenant=b%5C%2Cc").await;
    assert_eq!(cancelled.len(), 30);
    app.settles().await;
    app.is_clean().await;
}
