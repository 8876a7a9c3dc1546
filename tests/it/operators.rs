//! Recurring tasks, and actions on many tasks.

use std::time::Duration;

use chrono::Timelike;
use serde_json::{Value, json};

use crate::harness::{TestApp, cluster, eventually};

impl TestApp {
    async fn puts(&self, path: &str, body: Value) -> crate::harness::app::Reply {
        let response = self.http().put(format!("{}{path}", self.url)).json(&body).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        crate::harness::app::Reply { status, json: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    /// Goes to ten seconds after the next full minute.
    fn next_minute(&self) {
        let into = i64::from(self.clock.now().second());
        self.time_passes(70 - into);
    }

    async fn created(&self, task_type: &str) -> i64 {
        let count = format!("SELECT count(*) FROM taskwatch.tasks WHERE task_type = '{task_type}'");
        cluster::number(&self.database, &count).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recurring_task_is_created_each_time() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let body = json!({ "cron": "* * * * *", "time_zone": "Europe/Berlin", "task": { "task_type": "tick", "queue": "ticks", "backoff_initial_seconds": 7 } });
    let put = app.puts("/api/v1/schedules/tick", body.clone()).await.expect(200);
    assert_eq!(put["schedule"]["task"]["backoff_initial_seconds"], 7);
    app.next_minute();
    let first = worker.claims("ticks").await;
    let shown = app.get("/api/v1/schedules/tick").await.expect(200)["schedule"].clone();
    assert_eq!(shown["last_task_id"], first.id.as_str());
    let created = app.get(&format!("/api/v1/tasks/{}/events", first.id)).await.expect(200);
    assert_eq!(created[0]["data"]["schedule"], "tick");
    first.completes().await;
    // An hour away: one late firing, not sixty.
    app.time_passes(3_600);
    worker.claims("ticks").await.completes().await;
    assert!(worker.claims_up_to(10, &["ticks"], 1).await.is_empty());
    app.post("/api/v1/schedules/tick/pause", &json!({})).await.expect(200);
    app.next_minute();
    assert!(worker.claims_up_to(10, &["ticks"], 1).await.is_empty());
    app.post("/api/v1/schedules/tick/resume", &json!({})).await.expect(200);
    assert!(worker.claims_up_to(10, &["ticks"], 1).await.is_empty());
    app.next_minute();
    worker.claims("ticks").await.completes().await;
    app.delete("/api/v1/schedules/tick").await.expect(204);
    app.get("/api/v1/schedules/tick").await.expect(404);
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_schedule_is_named() {
    let app = TestApp::start().await;
    let task = json!({ "task_type": "t" });
    for (body, field) in [
        (json!({ "cron": "99 * * * *", "task": task }), "cron"),
        (json!({ "cron": "* * * * *", "time_zone": "Nowhere", "task": task }), "time_zone"),
        (json!({ "cron": "* * * * *", "task": {} }), "task.task_type"),
        (json!({ "cron": "* * * * *", "task": { "task_type": "t", "priority": 12 } }), "task.priority"),
        (json!({ "cron": "* * * * *", "task": { "task_type": "t", "run_at": "2030-01-01T00:00:00Z" } }), "task.run_at"),
        (json!({ "cron": "* * * * *", "task": task, "colour": 1 }), "colour"),
    ] {
        let refused = app.puts("/api/v1/schedules/x", body.clone()).await;
        assert_eq!(refused.status.as_u16(), 422, "{body}: {}", refused.text);
        assert_eq!(refused.json["errors"][0]["field"], field, "{body}: {}", refused.text);
    }
    assert_eq!(app.get("/api/v1/schedules").await.expect(200)["schedules"], json!([]));
    assert_eq!(app.position().await, 0);
}

/// `TASKWATCH_FIRINGS` sets how often; in each, one of two servers is killed as the time comes.
#[tokio::test(flavor = "multi_thread")]
async fn each_firing_happens_once_while_servers_die() {
    let firings: i64 = std::env::var("TASKWATCH_FIRINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let app = TestApp::start().await;
    let mut other = app.twin().await;
    let body = json!({ "cron": "* * * * *", "task": { "task_type": "tick" } });
    app.puts("/api/v1/schedules/tick", body).await.expect(200);
    for firing in 1..=firings {
        app.next_minute();
        // At a different moment around the firing each time.
        tokio::time::sleep(Duration::from_millis(u64::try_from(firing % 13).unwrap() * 40)).await;
        other.killed().await;
        other = app.twin().await;
        eventually("the firing has happened", || async { app.created("tick").await == firing }).await;
    }
    let minutes = "SELECT count(DISTINCT date_trunc('minute', created_at)) FROM taskwatch.tasks";
    assert_eq!(cluster::number(&app.database, minutes).await, firings);
    assert_eq!(app.created("tick").await, firings);
    println!("{firings} firings, each once");
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_tasks_are_acted_on_at_once() {
    let app = TestApp::start().await;
    let [a, b] = [app.creates("a").await, app.creates("b").await];
    let missing = uuid::Uuid::nil();
    let done = app
        .post("/api/v1/tasks/bulk", &json!({ "action": "cancel", "ids": [a, missing, b], "reason": "cleaning" }))
        .await
        .expect(200);
    assert_eq!((&done["succeeded"], &done["failed"]), (&json!(2), &json!(1)));
    assert_eq!(done["outcomes"][1]["code"], "task_not_found");
    assert!(app.is(&a, "cancelled").await);
    let done = app
        .post("/api/v1/tasks/bulk", &json!({ "action": "edit", "ids": [a, b], "priority": 9, "assignee": "ann" }))
        .await
        .expect(200);
    assert_eq!(done["succeeded"], 2);
    assert_eq!(app.task(&b).await["assignee"], "ann");
    for body in [
        json!({ "action": "cancel" }),
        json!({ "action": "cancel", "ids": [a], "filter": { "queue": "x" } }),
        json!({ "action": "cancel", "filter": {} }),
        json!({ "action": "edit", "ids": [a] }),
        json!({ "action": "retry", "ids": [a], "priority": 3 }),
        json!({ "action": "explode", "ids": [a] }),
        json!({ "action": "retry", "filter": { "queue": "x" }, "max_per_second": 0 }),
    ] {
        let refused = app.post("/api/v1/tasks/bulk", &body).await;
        assert_eq!(refused.status.as_u16(), 422, "{body}: {}", refused.text);
    }
    let refused = app.post("/api/v1/tasks/bulk", &json!({ "action": "retry", "filter": { "colour": "x" } })).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "invalid_field"));
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_filter_finds_is_acted_on_in_the_background() {
    let app = TestApp::start().await;
    let twin = app.twin().await;
    app.creates_many(730, "old").await;
    app.creates_many(20, "other").await;
    let wish = |preview| json!({ "action": "cancel", "filter": { "task_type": "old", "status": "pending" }, "preview": preview });
    assert_eq!(app.post("/api/v1/tasks/bulk", &wish(true)).await.expect(200), json!({ "matched": 730, "more": false }));
    let begun = twin.post("/api/v1/tasks/bulk", &wish(false)).await.expect(202);
    let path = format!("/api/v1/bulk/{}", begun["bulk"]["id"].as_str().unwrap());
    eventually("it is done", || async { app.get(&path).await.expect(200)["bulk"]["state"] == "done" }).await;
    let bulk = app.get(&path).await.expect(200)["bulk"].clone();
    assert_eq!((&bulk["succeeded"], &bulk["failed"]), (&json!(730), &json!(0)));
    let cancelled = "SELECT count(*) FROM taskwatch.tasks WHERE status = 'cancelled' AND task_type = 'old'";
    assert_eq!(cluster::number(&app.database, cancelled).await, 730);
    let told = cluster::texts(
        &app.database,
        "SELECT body FROM taskwatch.events WHERE event_type = 'operator_action' ORDER BY position",
    )
    .await;
    let told: Vec<Value> = told.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    assert_eq!((told.len(), &told[0]["actor"], &told[1]["data"]["succeeded"]), (2, &json!("local"), &json!(730)));
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_paced_and_can_be_stopped() {
    let app = TestApp::start().await;
    app.creates_many(60, "old").await;
    let wish = json!({ "action": "cancel", "filter": { "task_type": "old" }, "max_per_second": 10 });
    let begun = app.post("/api/v1/tasks/bulk", &wish).await.expect(202);
    let path = format!("/api/v1/bulk/{}", begun["bulk"]["id"].as_str().unwrap());
    eventually("some are done", || async {
        app.get(&path).await.expect(200)["bulk"]["succeeded"].as_u64() >= Some(10)
    })
    .await;
    let stopped = app.post(&format!("{path}/cancel"), &json!({})).await.expect(200)["bulk"].clone();
    assert_eq!(stopped["state"], "cancelled");
    assert!(stopped["succeeded"].as_u64().unwrap() < 60, "{stopped}");
    let cancelled = "SELECT count(*) FROM taskwatch.tasks WHERE status = 'cancelled'";
    assert_eq!(
        u64::try_from(cluster::number(&app.database, cancelled).await).unwrap(),
        stopped["succeeded"].as_u64().unwrap()
    );
    app.post(&format!("/api/v1/bulk/{}/cancel", uuid::Uuid::nil()), &json!({})).await.expect(404);
    app.settles().await;
    app.is_clean().await;
}
