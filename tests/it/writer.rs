//! The writer under adversity.

use std::sync::atomic::Ordering;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use taskwatch::{command::deregister_worker::DeregisterWorker, store::WriteError};

use crate::harness::{TestApp, cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_command_does_not_disturb_the_others() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (http, url, worker) = (app.http().clone(), app.url.clone(), worker.id.clone());
        calls.spawn(async move {
            let (path, body) = match number % 2 {
                0 => ("/api/v1/tasks".to_owned(), json!({ "task_type": "t" })),
                _ => (
                    format!("/api/v1/tasks/{}/complete", uuid::Uuid::now_v7()),
                    json!({ "worker_id": worker, "attempt": 1 }),
                ),
            };
            (number % 2, http.post(format!("{url}{path}")).json(&body).send().await.unwrap().status().as_u16())
        });
    }
    for (kind, status) in calls.join_all().await {
        assert_eq!(status, if kind == 0 { 201 } else { 404 });
    }
    let counters = app.state.writer.counters();
    let (commands, batches) = (counters.commands.load(Ordering::Relaxed), counters.batches.load(Ordering::Relaxed));
    assert!(batches < commands, "{commands} commands in {batches} transactions: nothing was grouped");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_can_wait_is_told_to_come_back() {
    let app = TestApp::start().await;
    // Someone holds the log's lock: the first batch waits, the channel fills.
    let mut holder = PgConnection::connect_with(&app.database).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(8386658438437413987)").execute(&mut holder).await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    let worker = uuid::Uuid::now_v7();
    let (http, url) = (app.http().clone(), app.url.clone());
    waiting.spawn(async move {
        let _ = http.post(format!("{url}/api/v1/tasks")).json(&json!({ "task_type": "t" })).send().await;
        None
    });
    eventually("the writer waits for the lock", || async {
        cluster::number(&app.database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            .await
            > 0
    })
    .await;
    for _ in 0..10_000 {
        let writer = app.state.writer.clone();
        waiting.spawn(async move { writer.run(DeregisterWorker(worker)).await.err() });
    }
    let mut busy = 0;
    while let Some(outcome) = waiting.join_next().await {
        busy += usize::from(matches!(outcome.unwrap(), Some(WriteError::Busy)));
        if busy > 100 {
            break;
        }
    }
    assert!(busy > 100);
    holder.close().await.unwrap();
    waiting.abort_all();
    eventually("it takes tasks again", || async {
        app.post("/api/v1/tasks", &json!({ "task_type": "t" })).await.status == 201
    })
    .await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_any_moment_leaves_one_outcome() {
    let app = TestApp::start().await;
    let cutting = {
        let database = app.database.clone();
        tokio::spawn(async move {
            let mut conn = PgConnection::connect_with(&database).await.unwrap();
            for _ in 0..60 {
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
                )
                .execute(&mut conn)
                .await
                .unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(23)).await;
            }
        })
    };
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (http, url) = (app.http().clone(), app.url.clone());
        clients.spawn(async move {
            let mut created = 0_i64;
            for _ in 0..60 {
                let reply =
                    http.post(format!("{url}/api/v1/tasks")).json(&json!({ "task_type": "t" })).send().await.unwrap();
                created += i64::from(reply.status() == 201);
            }
            created
        });
    }
    let acknowledged: i64 = clients.join_all().await.into_iter().sum();
    cutting.await.unwrap();
    assert_eq!(acknowledged, 480, "the writer tries until it knows");
    let stored = cluster::number(&app.database, "SELECT count(*) FROM taskwatch.tasks").await;
    assert_eq!(stored, acknowledged, "each acknowledged once, none stored twice");
    assert!(app.state.writer.counters().retries.load(Ordering::Relaxed) > 0, "no connection was cut in time to matter");
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_hand_out_a_task_twice() {
    let one = TestApp::start().await;
    let two = one.twin().await;
    one.creates_many(600, "t").await;
    let mut claims = tokio::task::JoinSet::new();
    for app in [&one, &two] {
        for number in 0..6 {
            let worker = app.worker(&format!("w{number}")).await;
            claims.spawn(async move {
                let mut ids = Vec::new();
                loop {
                    let tasks = worker.claims_up_to(7, &["default"], 1).await;
                    if tasks.is_empty() {
                        return ids;
                    }
                    for task in tasks {
                        assert_eq!(task.attempt, 1);
                        task.completes().await;
                        ids.push(task.id);
                    }
                }
            });
        }
    }
    let mut ids: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
    assert_eq!(ids.len(), 600);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 600);
    one.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_is_durable_whatever_the_databases_default_is() {
    let app = TestApp::start().await;
    let name = app.database.get_database().unwrap().to_owned();
    cluster::execute(&app.database, &format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    cluster::execute(
        &app.database,
        &format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"),
    )
    .await;
    let (one, two) = (app.twin().await, app.twin().await);
    let mut created = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (http, url) = (one.http().clone(), if number % 2 == 0 { one.url.clone() } else { two.url.clone() });
        created.spawn(async move {
            http.post(format!("{url}/api/v1/tasks"))
                .json(&json!({ "task_type": "t" }))
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        });
    }
    assert!(created.join_all().await.iter().all(|status| *status == 201));
    app.is_clean().await;
}
