//! Every door takes the same times: the years 1 to 9999, whole microseconds.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::harness::{TestApp, cluster};

const TOO_FAR: [&str; 5] = [
    "12000-01-01T00:00:00Z",
    "-5000-01-01T00:00:00Z",
    "0000-12-31T23:59:59Z",
    "9999-12-31T23:59:59-00:01",
    "+262142-01-01T00:00:00Z",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_no_reader_can_read_comes_in_by_no_door() {
    let app = TestApp::start().await;
    let report = |more: serde_json::Value| {
        let mut report = json!({ "event_type": "task_created", "task_id": "t" });
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        report
    };
    for time in TOO_FAR {
        let event = json!({ "specversion": "1.0", "type": "x.task_created", "source": "s", "id": "1", "subject": "t", "time": time });
        let schedule = json!({ "cron": "* * * * *", "task": { "task_type": "t", "run_at": time } });
        for (path, body, field) in [
            ("/api/v1/tasks", json!({ "task_type": "t", "run_at": time }), "run_at"),
            ("/api/v1/tasks", json!([{ "task_type": "t" }, { "task_type": "t", "run_at": time }]), "[1].run_at"),
            ("/api/v1/events", report(json!({ "ts": time })), "ts"),
            ("/api/v1/events", report(json!({ "data": { "run_at": time } })), "data.run_at"),
            ("/api/v1/events", report(json!({ "data": { "next_run_at": time } })), "data.next_run_at"),
            ("/api/v1/events", event, "time"),
        ] {
            let reply = app.post(path, &body).await;
            assert_eq!(reply.status.as_u16(), 422, "{body}: {}", reply.text);
            assert_eq!(reply.json["errors"][0]["field"], field, "{body}: {}", reply.text);
        }
        let reply = app.put("/api/v1/schedules/s", &schedule).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json["errors"][0]["field"]),
            (422, &json!("task.run_at")),
            "{}",
            reply.text
        );
        for path in ["/events?from=", "/tasks?at="] {
            let time = time.replace('+', "%2B");
            assert_eq!(app.get(&format!("{path}{time}")).await.status.as_u16(), 400, "{path}{time}");
        }
    }
    let mut conn = PgConnection::connect_with(&app.database).await.unwrap();
    for time in ["infinity", "-infinity", "12000-01-01", "0001-01-01 00:00:00+00 BC", "4714-11-24 00:00:00+00 BC"] {
        let statement = format!("SELECT taskwatch.enqueue('t', run_at => '{time}')");
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut conn).await;
        assert!(
            done.is_err_and(|error| error.to_string().contains("run_at must be between year 1 and 9999")),
            "{time}"
        );
        // Also past the function, on every table.
        let task = |column: &str| {
            format!(
                "INSERT INTO taskwatch.tasks (id, project_id, task_type, queue, priority, status, max_attempts, created_at, {column})
                 VALUES (gen_random_uuid(), 'p', 't', 'q', 5, 'pending', 1, now(), '{time}')"
            )
        };
        for statement in [
            format!(
                "INSERT INTO taskwatch.ready (task_id, queue, priority, enqueued_at) VALUES (gen_random_uuid(), 'q', 5, '{time}')"
            ),
            task("run_at"),
            task("finished_at"),
            format!(
                "INSERT INTO taskwatch.phases (parent_task_id, name, started_at) VALUES (gen_random_uuid(), 'p', '{time}')"
            ),
        ] {
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut conn).await;
            assert!(done.is_err_and(|error| error.to_string().contains("_range")), "{time}");
        }
    }
    let constraints = "SELECT sum(cardinality(conkey)) FROM pg_constraint
        WHERE conname LIKE '%_range' AND connamespace = 'taskwatch'::regnamespace";
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'taskwatch'
        AND data_type = 'timestamp with time zone' AND table_name NOT LIKE 'events%' AND table_name NOT IN ('log', 'checkpoints', '_sqlx_migrations')";
    assert_eq!(cluster::number(&app.database, constraints).await, cluster::number(&app.database, columns).await);
    assert_eq!(app.settles().await, 0);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_cut_to_what_is_kept_before_anything_else() {
    let app = TestApp::start().await;
    let fine = "2099-11-20T16:05:00.123456789+01:00";
    let created = app.post("/api/v1/tasks", &json!({ "task_type": "t", "run_at": fine })).await.expect(201);
    assert_eq!(created["task"]["run_at"], "2099-11-20T15:05:00.123456Z");
    assert_eq!(app.task(created["task"]["id"].as_str().unwrap()).await, created["task"]);
    let report = json!({ "event_type": "task_completed", "task_id": "f", "ts": "2023-11-14T22:13:20.123456789Z" });
    let heard = app.post("/api/v1/events", &report).await.expect(200);
    assert_eq!(heard["outcomes"][0]["outcome"], "recorded");
    let again = app.post("/api/v1/events", &report).await.expect(200);
    assert_eq!(again["outcomes"][0]["outcome"], "unchanged");
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_as_people_type_it_is_taken_or_told_what_it_lacks() {
    let app = TestApp::start().await;
    let reply = app.post("/api/v1/tasks", &json!({ "task_type": "t", "run_at": "2026-11-20T16:05:00" })).await;
    assert_eq!(reply.status.as_u16(), 422);
    assert!(reply.json["detail"].as_str().unwrap().contains("append Z"), "{}", reply.text);
    let reply = app.post("/api/v1/tasks", &json!({ "task_type": "t", "run_at": "" })).await;
    assert!(reply.json["detail"].as_str().unwrap().contains("e.g. 2026-11-20T16:05:00Z"), "{}", reply.text);
    app.creates("t").await;
    app.settles().await;
    // Typed into an address, a plus sign is a space.
    for path in [
        "/tasks?at=2999-11-20T16:05:00+01:00",
        "/?at=2999-11-20T16:05",
        "/events?from=2020-11-20T16:05:00+01:00&until=2021-01-01T00:00:00+01:00&max_events=1",
    ] {
        let reply = app.get(path).await;
        assert_eq!(reply.status.as_u16(), 200, "{path}: {}", reply.text);
    }
    let reply = app.get("/events?from=2020-11-20T16:05:00").await;
    assert!(reply.status.as_u16() == 400 && reply.text.contains("append Z"), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_task_has_one_truth_about_its_times() {
    let app = TestApp::start().await;
    let report = |kind: &str, id: &str, second: u32, more: serde_json::Value| {
        let mut report = json!({ "event_type": kind, "task_id": id, "ts": format!("2023-11-14T22:13:{second:02}Z") });
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        report
    };
    let reports = json!([
        report("task_started", "long", 10, json!({})),
        report("task_completed", "long", 25, json!({ "duration_ms": 999_000 })),
        report("task_started", "late", 50, json!({})),
        report("task_completed", "late", 20, json!({ "duration_ms": 5_000 })),
        report("task_started", "again", 10, json!({ "attempt": 3, "data": { "max_attempts": 1 } })),
    ]);
    let heard = app.post("/api/v1/events", &reports).await.expect(200);
    let id = |n: usize| heard["outcomes"][n]["task_id"].as_str().unwrap().to_owned();
    app.settles().await;
    let events = app.get(&format!("/api/v1/tasks/{}/events", id(0))).await.expect(200);
    assert_eq!(events.as_array().unwrap().last().unwrap()["duration_ms"], 15_000, "{events}");
    let page = app.get(&format!("/tasks/{}", id(0))).await.text;
    assert!(page.contains("15.0 s") && !page.contains("16 min"), "{page}");
    let late = app.task(&id(2)).await;
    assert_eq!(
        (&late["started_at"], &late["finished_at"]),
        (&json!("2023-11-14T22:13:15Z"), &json!("2023-11-14T22:13:20Z"))
    );
    let again = app.task(&id(4)).await;
    assert_eq!((&again["attempt"], &again["max_attempts"]), (&json!(3), &json!(3)));
    app.is_clean().await;
}
