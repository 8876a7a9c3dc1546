//! Ready means able: whatever keeps the database from taking writes is known, said everywhere, and over by itself.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::harness::{
    TestApp, cluster, eventually,
    postgres::Server,
    program::{Folder, command},
};

/// The code and the words of `/readyz`.
async fn readiness(app: &TestApp) -> (String, String) {
    let reply = app.get("/readyz").await;
    (reply.code().to_owned(), reply.text)
}

async fn cut_connections(app: &TestApp) {
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    cluster::execute(&app.database, cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_turned_read_only_is_said_everywhere() {
    let app = TestApp::quick().await;
    app.creates("before").await;
    let mut stream = app.events("?after=now&snapshot=never&heartbeat=5").await;
    let name = app.database.get_database().unwrap().to_owned();
    cluster::execute(&app.database, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    cut_connections(&app).await;
    // Without a single report: the server looks by itself.
    eventually("it is not ready", || async { readiness(&app).await.0 == "not_writing" }).await;
    assert!(readiness(&app).await.1.contains("read-only"));
    let refused = app.post("/api/v1/tasks", &json!({ "task_type": "t" })).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "not_writing"), "{}", refused.text);
    for path in ["/", "/queues", "/tasks", "/wall"] {
        let page = app.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text.contains("Reports are refused since"), "{path} says nothing");
    }
    while !stream.until("heartbeat").await.pop().unwrap().json()["not_writing_since"].is_string() {}
    let reset = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    cluster::execute(&app.database.clone().database("postgres"), &reset).await;
    eventually("it is ready again", || async { app.get("/readyz").await.status == 200 }).await;
    app.creates("after").await;
    eventually("pages say it no more", || async { !app.get("/").await.text.contains("Reports are refused since") })
        .await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_is_named_and_waited_for() {
    let app = TestApp::start().await;
    app.creates("before").await;
    let mut holder =
        PgConnection::connect_with(&app.database.clone().application_name("nightly-report")).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT pg_advisory_xact_lock(8386658438437413987)").execute(&mut holder).await.unwrap();
    let (http, url) = (app.http().clone(), app.url.clone());
    let waiting = tokio::spawn(async move {
        http.post(format!("{url}/api/v1/tasks")).json(&json!({ "task_type": "t" })).send().await.unwrap().status()
    });
    eventually("who holds the lock is named", || async {
        let (code, text) = readiness(&app).await;
        code == "not_writing" && text.contains("nightly-report")
    })
    .await;
    assert_eq!(app.post("/api/v1/tasks", &json!({ "task_type": "t" })).await.code(), "not_writing");
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    eventually("it is ready again", || async { app.get("/readyz").await.status == 200 }).await;
    assert!([201, 503].contains(&waiting.await.unwrap().as_u16()));
    app.creates("after").await;
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_tables_are_refused_and_the_board_is_shown() {
    let server = Server::start();
    server.runs("createdb", &["work"]);
    let app = TestApp::again(server.options("work")).await;
    let id = app.creates("before").await;
    app.settles().await;
    server.stops("fast");
    eventually("it is known to be away", || async { !app.state.store.is_reachable() }).await;
    for path in ["/tasks", &format!("/tasks/{id}"), "/api/v1/tasks", "/schedules"] {
        assert_eq!(app.get(path).await.status, 503, "{path}");
    }
    for path in ["/", "/queues", "/workers", "/wall", "/api/v1/snapshot", "/api/v1/queues", "/healthz"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    eventually("reports are refused at once", || async {
        app.post("/api/v1/tasks", &json!({ "task_type": "t" })).await.code() == "not_writing"
    })
    .await;
    server.starts();
    eventually("it is ready again", || async { app.get("/readyz").await.status == 200 }).await;
    app.creates("after").await;
    let listed = app.get("/api/v1/tasks").await.expect(200);
    assert!(listed["tasks"].as_array().unwrap().len() >= 2, "{listed}");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_wrong_uses_the_databases() {
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let server = Server::start();
    server.runs("createdb", &["work"]);
    let (folder, http) = (Folder::new(), reqwest::Client::new());
    let address = format!("postgres://taskwatch@localhost/work?host={}", server.socket_dir().display());
    let mut child = command(&["--listen", "127.0.0.1:0", "--data-dir", folder.0.to_str().unwrap()])
        .env("TASKWATCH_DATABASE_URL", address)
        .env("LD_PRELOAD", FAKETIME)
        .env("FAKETIME", "+90")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let url = line.trim().strip_prefix("taskwatch listening on ").unwrap_or_else(|| panic!("it printed {line:?}"));
    let task = json!({ "task_type": "t" });
    let created: serde_json::Value =
        http.post(format!("{url}/api/v1/tasks")).json(&task).send().await.unwrap().json().await.unwrap();
    let metrics = http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let created: chrono::DateTime<chrono::Utc> = created["task"]["created_at"].as_str().unwrap().parse().unwrap();
    let ahead = created - chrono::Utc::now();
    assert!(ahead.num_seconds() < 5, "its tasks are {ahead} ahead of the database's clock");
    let offset = metrics.lines().find_map(|line| line.strip_prefix("taskwatch_database_clock_offset_seconds "));
    let offset: f64 = offset.expect("the offset is a metric").parse().unwrap();
    assert!((-92.0..-88.0).contains(&offset), "{offset}");
}
