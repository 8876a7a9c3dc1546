//! Applications that share the database enqueue within their own transactions.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::harness::{TestApp, cluster, eventually};

impl TestApp {
    async fn connection(&self) -> PgConnection {
        PgConnection::connect_with(&self.database).await.unwrap()
    }
}

async fn run(conn: &mut PgConnection, statement: &str) -> Result<(), String> {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(conn).await;
    done.map(|_| ()).map_err(|error| error.to_string())
}

async fn enqueue(conn: &mut PgConnection, arguments: &str) -> uuid::Uuid {
    let statement = sqlx::AssertSqlSafe(format!("SELECT taskwatch.enqueue({arguments})"));
    sqlx::query_scalar(statement).fetch_one(conn).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_appears_if_and_only_if_the_transaction_commits() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let mut conn = app.connection().await;
    run(&mut conn, "CREATE TABLE orders (id int)").await.unwrap();
    run(&mut conn, "BEGIN; INSERT INTO orders VALUES (1)").await.unwrap();
    let lost = enqueue(&mut conn, "'mail'").await;
    run(&mut conn, "ROLLBACK; BEGIN; INSERT INTO orders VALUES (2)").await.unwrap();
    let kept = enqueue(
        &mut conn,
        "'mail', '{\"order\": 2}', queue => 'mails', priority => 7, title => 'Order 2', labels => '{\"shop\": \"b\"}'",
    )
    .await;
    let later = enqueue(&mut conn, "'remind', run_at => now() + interval '1 hour'").await;
    app.get(&format!("/api/v1/tasks/{kept}")).await.expect(404);
    run(&mut conn, "COMMIT").await.unwrap();
    app.get(&format!("/api/v1/tasks/{lost}")).await.expect(404);
    let task = app.task(&kept.to_string()).await;
    assert_eq!(
        (&task["payload"], &task["title"], &task["priority"], &task["labels"]),
        (&json!({ "order": 2 }), &json!("Order 2"), &json!(7), &json!({ "shop": "b" }))
    );
    assert!(app.is(&later.to_string(), "scheduled").await);
    assert_eq!(worker.claims("mails").await.id, kept.to_string());
    assert_eq!(app.history(&kept.to_string()).await, ["task_created", "task_enqueued", "task_started"]);
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_delays_nobody_and_loses_nothing() {
    let app = TestApp::start().await;
    let twin = app.twin().await;
    let worker = app.worker("w1").await;
    let parent = app.creates_as(json!({ "task_type": "batch", "auto_complete": true })).await;
    let gate = app.creates("gate").await;
    let mut conn = app.connection().await;
    run(&mut conn, "BEGIN").await.unwrap();
    let child =
        enqueue(&mut conn, &format!("'child', queue => 'late', parent_task_id => '{parent}', phase => 'one'")).await;
    let blocked = enqueue(&mut conn, &format!("'after', queue => 'late', depends_on => '{{{gate}}}'")).await;
    // Meanwhile everyone works, also on the parent, the queue and the dependency.
    for round in 0..30 {
        let server = if round % 2 == 0 { &app } else { &twin };
        server.creates_as(json!({ "task_type": "t", "queue": "late", "parent_task_id": parent, "phase": "one" })).await;
        worker.claims("late").await.completes().await;
    }
    assert_eq!(worker.claims("default").await.id, gate);
    app.time_passes(3_700);
    run(&mut conn, "COMMIT").await.unwrap();
    assert_eq!(worker.claims("late").await.id, child.to_string());
    app.settles().await;
    assert!(app.is(&blocked.to_string(), "blocked").await || app.is(&gate, "completed").await);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_enqueued_in_sql_has_its_place_among_all_the_rest() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let parent = app.creates("parent").await;
    let done = app.creates_as(json!({ "task_type": "done", "queue": "first" })).await;
    worker.claims("first").await.completes().await;
    let mut applications = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (mut conn, parent, done) = (app.connection().await, parent.clone(), done.clone());
        applications.spawn(async move {
            for _ in 0..10 {
                run(&mut conn, "BEGIN").await.unwrap();
                enqueue(&mut conn, &format!("'a', parent_task_id => '{parent}', depends_on => '{{{done}}}'")).await;
                enqueue(&mut conn, "'b'").await;
                run(&mut conn, "COMMIT").await.unwrap();
            }
        });
    }
    app.creates_many(300, "http").await;
    applications.join_all().await;
    eventually("all that waited for a finished task may go", || async {
        cluster::number(
            &app.database,
            "SELECT count(*) FROM taskwatch.tasks WHERE task_type = 'a' AND status = 'pending'",
        )
        .await
            == 40
    })
    .await;
    eventually("the parent is shown with all of them", || async {
        let snapshot = app.get("/api/v1/snapshot").await.expect(200);
        snapshot["parents"][0]["phases"][0]["counts"]["pending"] == 40
    })
    .await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_named() {
    let app = TestApp::start().await;
    let mut conn = app.connection().await;
    for (arguments, says) in [
        ("''", "task_type"),
        ("NULL", "task_type"),
        ("'t', queue => E'a\\nb'", "queue"),
        ("'t', priority => 10", "priority"),
        ("'t', max_attempts => 0", "max_attempts"),
        ("'t', timeout_seconds => 0", "timeout_seconds"),
        ("'t', labels => '[]'", "labels"),
        ("'t', labels => '{\"a\": 1}'", "labels"),
        ("'t', on_dependency_failure => 'cry'", "on_dependency_failure"),
        ("'t', title => repeat('x', 501)", "title"),
    ] {
        let error = run(&mut conn, &format!("SELECT taskwatch.enqueue({arguments})")).await.unwrap_err();
        assert!(error.contains("taskwatch.enqueue") && error.contains(says), "{arguments}: {error}");
    }
    let error = run(&mut conn, &format!("SELECT taskwatch.enqueue('t', parent_task_id => '{}')", uuid::Uuid::nil()))
        .await
        .unwrap_err();
    assert!(error.contains("parent_task_id"), "{error}");
    let ring = uuid::Uuid::from_u128(7);
    let error = run(&mut conn, &format!("SELECT taskwatch.enqueue('t', id => '{ring}', depends_on => '{{{ring}}}')"))
        .await
        .unwrap_err();
    assert!(error.contains("depends_on"), "{error}");
    let error = run(&mut conn, "SELECT taskwatch.enqueue(E'a\\u0085')").await.unwrap_err();
    assert!(error.contains("task_type"), "{error}");
    let other = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT taskwatch.enqueue('t')";
    let error = run(&mut conn, other).await.unwrap_err();
    assert!(error.contains("READ COMMITTED"), "{error}");
    run(&mut conn, "ROLLBACK").await.unwrap();
    assert_eq!(app.settles().await, 0);
    let _: Value = app.get("/api/v1/stats").await.expect(200);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_needs_no_rights_on_the_tables() {
    let app = TestApp::start().await;
    let mut conn = app.connection().await;
    let role = format!("shop_{:08x}", fastrand::u32(..));
    run(&mut conn, &format!("CREATE ROLE {role}; GRANT USAGE ON SCHEMA taskwatch TO {role}; SET ROLE {role}"))
        .await
        .unwrap();
    let id = enqueue(&mut conn, "'mail'").await;
    assert!(run(&mut conn, "DELETE FROM taskwatch.tasks").await.is_err());
    assert!(app.is(&id.to_string(), "pending").await);
}
