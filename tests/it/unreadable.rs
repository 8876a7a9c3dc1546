//! One bad row must not stop everyone: rows of the log and of tables that cannot be read, holes, a board without a beginning.

use serde_json::{Value, json};

use crate::harness::{Stream, TestApp, cluster};

async fn verify(app: &TestApp) -> Vec<String> {
    let store = taskwatch::store::Store::open(app.database.clone(), Default::default()).await.unwrap();
    let report = taskwatch::store::verify::verify(&store).await.unwrap();
    store.close().await;
    report.differences
}

/// Reads events up to a position, by their ids; how many they were.
async fn reads_up_to(reader: &mut Stream, position: i64) -> usize {
    let mut events = 0;
    loop {
        events += 1;
        if reader.event().await.id.unwrap().ends_with(&format!("-{position}")) {
            return events;
        }
    }
}

/// Puts an event into the log as a program with rights of its own might.
async fn append(app: &TestApp, body: &str) -> i64 {
    let head = app.settles().await;
    let body = body.replace('\'', "''").replace("POSITION", &(head + 1).to_string());
    let insert = format!(
        "INSERT INTO taskwatch.events (position, at, event_type, body) VALUES ({}, now(), 'odd', '{body}')",
        head + 1
    );
    cluster::execute(&app.database, &insert).await;
    head + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_read_are_handed_on_and_named() {
    let app = TestApp::start().await;
    app.creates("first").await;
    let mut reader = app.events("?after=earliest").await;
    let bodies = [
        r#"{"event_id":"x","position":POSITION,"event_type":"task_created","schema_version":1,"ts":"12000-01-01T00:00:00Z"}"#,
        r#"{"event_type":"task_failed","schema_version":1,"ts":"2026-11-20T16:05:00Z","priority":77}"#,
        "not json at all",
        "{\"event_type\":\"a\\u0000b\",\n\"ts\":7}",
        "[]",
        "",
    ];
    for body in bodies {
        let position = append(&app, body).await;
        reads_up_to(&mut reader, position).await;
        app.reaches(position).await;
    }
    app.creates("last").await;
    let head = app.settles().await;
    reads_up_to(&mut reader, head).await;
    for path in ["/", "/tasks", "/events-view", "/queues", "/api/v1/snapshot", "/readyz"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    let differences = verify(&app).await;
    assert!(differences.iter().filter(|text| text.contains("cannot be read")).count() >= 4, "{differences:?}");
    // The next start survives them as well.
    let app = app.restarted().await;
    assert_eq!(app.position().await, head);
    let mut again = app.events("?after=earliest").await;
    assert_eq!(reads_up_to(&mut again, head).await, usize::try_from(head).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_log_is_filled_for_readers_and_named() {
    let app = TestApp::start().await;
    app.creates_many(10, "t").await;
    let head = app.settles().await;
    cluster::execute(&app.database, "DELETE FROM taskwatch.events WHERE position BETWEEN 5 AND 7").await;
    let app = app.restarted().await;
    assert_eq!(app.position().await, head);
    let mut reader = app.events("?after=earliest").await;
    let events = reader.events_to(head).await;
    let positions: Vec<_> = events.iter().filter_map(|frame| frame.position()).collect();
    assert_eq!(positions, (1..=head).collect::<Vec<_>>(), "each position comes once");
    assert!(events[5].json()["error"].as_str().unwrap().contains("missing"), "{:?}", events[5]);
    app.creates("next").await;
    app.settles().await;
    let differences = verify(&app).await;
    assert_eq!(differences.iter().filter(|text| text.contains("missing")).count(), 3, "{differences:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_page_that_is_missing_is_not_the_end_of_the_log() {
    let app = TestApp::start().await;
    app.creates_many(1_500, "t").await;
    let head = app.settles().await;
    cluster::execute(&app.database, "DELETE FROM taskwatch.events WHERE position BETWEEN 10 AND 2500").await;
    cluster::execute(&app.database, "DELETE FROM taskwatch.checkpoints").await;
    let app = app.restarted().await;
    assert_eq!(app.position().await, head);
    assert_eq!(app.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_of_a_new_version_starts_on_a_log_without_its_beginning() {
    let app = TestApp::start().await;
    // Retries are far away: nothing happens by itself between the two snapshots.
    let tasks = vec![json!({ "task_type": "t", "backoff_initial_seconds": 3_600 }); 300];
    app.post("/api/v1/tasks", &json!(tasks)).await.expect(201);
    let worker = app.worker("w1").await;
    for number in 0..40 {
        let task = worker.claims("default").await;
        if number % 4 == 0 {
            task.fails("disk full").await
        } else {
            task.completes().await
        };
    }
    let parent = app.creates_as(json!({ "task_type": "order", "phases": ["a", "b"] })).await;
    for phase in ["a", "b"] {
        app.creates_as(json!({ "task_type": "t", "parent_task_id": parent, "phase": phase, "queue": "other" })).await;
    }
    app.post("/api/v1/queues/other/pause", &json!({})).await.expect(200);
    worker.claims("default").await;
    let head = app.settles().await;
    let before = app.get("/api/v1/snapshot").await.expect(200);
    // As an update leaves it: retention took the beginning, and no checkpoint is of this version.
    cluster::execute(&app.database, &format!("UPDATE taskwatch.log SET oldest = {}", head - 20)).await;
    cluster::execute(&app.database, &format!("DELETE FROM taskwatch.events WHERE position < {}", head - 20)).await;
    cluster::execute(&app.database, "UPDATE taskwatch.checkpoints SET version = 1").await;
    let app = app.restarted().await;
    assert_eq!(app.position().await, head);
    assert_eq!(app.get("/readyz").await.status, 200);
    let after = app.get("/api/v1/snapshot").await.expect(200);
    assert_eq!(after["counts"], before["counts"]);
    let ids = |snapshot: &Value, part: &str, id: &str| -> Vec<String> {
        snapshot[part].as_array().unwrap().iter().map(|item| item[id].as_str().unwrap().to_owned()).collect()
    };
    for (part, id) in [("workers", "worker_id"), ("queues", "queue"), ("running", "task_id"), ("parents", "task_id")] {
        assert_eq!(ids(&after, part, id), ids(&before, part, id), "{part}");
    }
    for (was, is) in before["queues"].as_array().unwrap().iter().zip(after["queues"].as_array().unwrap()) {
        for field in ["tasks", "depth", "paused_at", "concurrency_limit"] {
            assert_eq!(is[field], was[field], "{field} of {}", was["queue"]);
        }
    }
    for (was, is) in before["parents"].as_array().unwrap().iter().zip(after["parents"].as_array().unwrap()) {
        assert_eq!((&is["phases"], &is["status"]), (&was["phases"], &was["status"]));
    }
    // It goes on from there, and the next start has a checkpoint.
    app.creates("next").await;
    app.settles().await;
    app.is_clean().await;
    let app = app.restarted().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_tasks_that_cannot_be_read_is_left_out_of_lists() {
    let app = TestApp::start().await;
    let bad = app.creates("bad").await;
    let good = app.creates("good").await;
    app.settles().await;
    let drop_checks = "DO $$ DECLARE c record; BEGIN FOR c IN SELECT conname FROM pg_constraint
        WHERE conrelid = 'taskwatch.tasks'::regclass AND contype = 'c' LOOP
        EXECUTE format('ALTER TABLE taskwatch.tasks DROP CONSTRAINT %I', c.conname); END LOOP; END $$";
    cluster::execute(&app.database, drop_checks).await;
    for damage in
        ["run_at = 'infinity'", "queue = repeat('q', 300)", "priority = 77", "labels = '[1]'", "status = 'odd'"]
    {
        cluster::execute(&app.database, &format!("UPDATE taskwatch.tasks SET {damage} WHERE id = '{bad}'")).await;
        let listed = app.get("/api/v1/tasks").await.expect(200);
        let ids: Vec<_> = listed["tasks"].as_array().unwrap().iter().map(|task| task["id"].clone()).collect();
        assert_eq!(ids, [json!(good)], "{damage}");
        assert_eq!(app.get("/tasks").await.status, 200, "{damage}");
        assert!(app.get(&format!("/api/v1/tasks/{bad}")).await.status.is_server_error(), "{damage}");
        // A command about it costs its own answer; others go on.
        assert!(app.delete(&format!("/api/v1/tasks/{bad}")).await.status.is_server_error(), "{damage}");
        app.creates("other").await;
        cluster::execute(&app.database, "DELETE FROM taskwatch.tasks WHERE task_type = 'other'").await;
        let repair = "run_at = NULL, queue = 'default', priority = 5, labels = NULL, status = 'pending'";
        cluster::execute(&app.database, &format!("UPDATE taskwatch.tasks SET {repair} WHERE id = '{bad}'")).await;
    }
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(app.delete(&format!("/api/v1/tasks/{bad}")).await.status, 204);
}
