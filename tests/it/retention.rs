//! What is old leaves, and nobody notices.

use serde_json::json;

use taskwatch::{config::Settings, feed::Callbacks};

use crate::harness::{TestApp, app, cluster, eventually};

impl TestApp {
    /// A server that keeps things for the usual thirty days.
    async fn forgets() -> Self {
        let usual = Settings::default();
        let settings = Settings {
            retain_tasks_days: usual.retain_tasks_days,
            retain_events_days: usual.retain_events_days,
            ..app::settings()
        };
        Self::with(settings, Callbacks::default()).await
    }

    async fn number(&self, statement: &str) -> i64 {
        cluster::number(&self.database, statement).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_tasks_leave_and_live_ones_stay() {
    let app = TestApp::forgets().await;
    let worker = app.worker("w1").await;
    let waiting = app.creates_as(json!({ "task_type": "t", "queue": "quiet" })).await;
    app.creates_many(450, "t").await;
    for _ in 0..5 {
        for task in worker.claims_up_to(90, &["default"], 1).await {
            task.completes().await;
        }
    }
    let awaited = app.creates_as(json!({ "task_type": "awaited", "queue": "first" })).await;
    let blocked = json!({ "task_type": "t", "queue": "quiet", "depends_on": [awaited, waiting] });
    let blocked = app.creates_as(blocked).await;
    worker.claims("first").await.completes().await;
    let gone = app.worker("gone").await;
    gone.leaves().await;
    app.time_passes(29 * 86_400);
    let young = app.creates("young").await;
    worker.claims("default").await.completes().await;
    app.time_passes(2 * 86_400);
    eventually("the old ones are gone", || async { app.number("SELECT count(*) FROM taskwatch.tasks").await == 4 })
        .await;
    assert!(app.is(&waiting, "pending").await && app.is(&young, "completed").await);
    eventually("who left long ago is forgotten", || async {
        app.number("SELECT count(*) FROM taskwatch.workers WHERE name = 'gone'").await == 0
    })
    .await;
    app.settles().await;
    assert_eq!(app.get("/api/v1/stats").await.expect(200)["completed"], 2);
    // What a live task waits for stays as long as it does.
    assert!(app.is(&awaited, "completed").await && app.is(&blocked, "blocked").await);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_leave_by_partition_and_the_rest_in_steps() {
    let app = TestApp::forgets().await;
    let worker = app.worker("w1").await;
    // Small partitions in place of the large ones.
    cluster::execute(
        &app.database,
        "DO $$ DECLARE name text; BEGIN
             FOR name IN SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
                 WHERE inhparent = 'taskwatch.events'::regclass LOOP
                 EXECUTE format('ALTER TABLE taskwatch.events DETACH PARTITION taskwatch.%I', name);
             END LOOP;
             FOR i IN 0..4 LOOP
                 EXECUTE format('CREATE TABLE taskwatch.small_%s PARTITION OF taskwatch.events FOR VALUES FROM (%s) TO (%s)',
                     i, i * 500, (i + 1) * 500);
             END LOOP;
             INSERT INTO taskwatch.events SELECT * FROM taskwatch.events_0;
         END $$",
    )
    .await;
    app.creates_many(600, "old").await;
    app.time_passes(31 * 86_400);
    app.creates_many(100, "new").await;
    let head = app.settles().await;
    eventually("the checkpoint covers it and the old ones go", || async {
        app.number("SELECT min(position) FROM taskwatch.events").await > 1_100
    })
    .await;
    let oldest = app.number("SELECT oldest FROM taskwatch.log").await;
    assert!(oldest <= head && oldest > 1_100, "{oldest}");
    assert_eq!(app.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'taskwatch.events'::regclass AND inhrelid::regclass::text IN ('taskwatch.small_0', 'taskwatch.small_1')").await, 0);
    // The board is what it was, before and after a restart, and the stream says where it begins.
    assert_eq!(app.get("/api/v1/stats").await.expect(200)["pending"], 700);
    eventually("readers are told", || async {
        let hello = app.events("?after=now").await.next().await.unwrap().json();
        let told = hello["oldest"].as_str().and_then(|id| id.split('-').nth(1)?.parse::<i64>().ok());
        told >= Some(oldest)
    })
    .await;
    let app = app.restarted().await;
    assert_eq!(app.get("/api/v1/stats").await.expect(200)["pending"], 700);
    drop(worker);
    app.is_clean().await;
}
