//! The log knows itself: whatever replaces it or takes its newest events is told to every reader, by itself.

use std::process::Command;

use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;

use crate::harness::{
    Stream, TestApp, cluster, eventually,
    postgres::{Proxy, Server, catches_up},
    program::{Folder, Program, output},
};

/// What a reader has after it was told that the log is another one: the events since, as the table has them.
async fn is_told_and_has_what_the_table_has(reader: &mut Stream, database: &PgConnectOptions, old_epoch: &str) {
    let frames = reader.until("reset").await;
    let reset = frames.last().unwrap().json();
    assert_eq!(reset["reason"], "epoch", "{reset}");
    let end = reader.until("snapshot_end").await.pop().unwrap();
    let after = end.json()["position"].as_i64().unwrap();
    let id = end.id.unwrap();
    assert!(!id.starts_with(old_epoch), "{id} has the old epoch");
    let head = cluster::number(database, "SELECT max(position) FROM taskwatch.events").await;
    let events = if head > after { reader.events_to(head).await } else { Vec::new() };
    let stored =
        format!("SELECT body FROM taskwatch.events WHERE position > {after} AND position <= {head} ORDER BY position");
    let stored = cluster::texts(database, &stored).await;
    let received: Vec<_> = events.into_iter().map(|frame| frame.data).collect();
    assert_eq!(received, stored, "what a reader has differs from the table");
}

async fn epoch(database: &PgConnectOptions) -> String {
    cluster::texts(database, "SELECT epoch FROM taskwatch.log").await.remove(0)
}

/// It is ready, its board has what the tables have, and log and tables agree.
async fn is_whole(app: &TestApp, database: &PgConnectOptions) {
    eventually("the server is ready", || async { app.get("/readyz").await.status == 200 }).await;
    eventually("the board counts what the table has", || async {
        let tasks = cluster::number(database, "SELECT count(*) FROM taskwatch.tasks").await;
        let counts = app.get("/api/v1/snapshot").await.expect(200)["counts"].clone();
        let sum: i64 = counts.as_object().unwrap().values().filter_map(Value::as_i64).sum();
        sum == tasks
    })
    .await;
    let created = app.post("/api/v1/tasks", &json!({ "task_type": "after" })).await.expect(201);
    assert_eq!(created["task"]["status"], "pending");
    app.settles().await;
    app.is_clean().await;
}

/// That many taskwatch servers on one database.
async fn servers_on(database: &PgConnectOptions, servers: usize) -> Vec<TestApp> {
    let mut apps = Vec::new();
    for _ in 0..servers {
        apps.push(TestApp::again(database.clone()).await);
    }
    apps
}

/// One reader per server, each with every event of the log.
async fn readers_with_everything(apps: &[TestApp]) -> Vec<Stream> {
    let mut readers = Vec::new();
    for app in apps {
        let head = app.settles().await;
        let mut reader = app.events("?after=earliest").await;
        reader.events_to(head).await;
        readers.push(reader);
    }
    readers
}

/// Every reader gets a reset and then what the table has, and every server is whole.
async fn all_follow_the_new_log(apps: &[TestApp], readers: &mut [Stream], database: &PgConnectOptions, old: &str) {
    // More than what was lost, so that the new log is longer than what readers know.
    let enqueue = "SELECT taskwatch.enqueue('sql', '{}') FROM generate_series(1, 100)";
    cluster::execute(database, enqueue).await;
    for reader in readers {
        is_told_and_has_what_the_table_has(reader, database, old).await;
    }
    for app in apps {
        is_whole(app, database).await;
    }
}

/// A primary, a standby that has lost the last events, and servers that knew them.
async fn lost_tail(servers: usize) {
    let primary = Server::start();
    primary.runs("createdb", &["work"]);
    let proxy = Proxy::to(&primary);
    let apps = servers_on(&proxy.options("work"), servers).await;
    let standby = Server::standby_of(&primary);
    apps[0].creates_many(20, "kept").await;
    catches_up(&standby.options("work"), &primary.options("work")).await;
    cluster::execute(&standby.options("work"), "ALTER SYSTEM SET primary_conninfo = ''").await;
    cluster::execute(&standby.options("work"), "SELECT pg_reload_conf()").await;
    eventually("the standby follows no more", || async {
        cluster::number(&standby.options("work"), "SELECT count(*) FROM pg_stat_wal_receiver").await == 0
    })
    .await;
    let old = epoch(&primary.options("work")).await;
    let mut readers = Vec::new();
    for app in &apps {
        readers.push(app.events("?after=earliest").await);
    }
    apps[servers - 1].creates_many(40, "lost").await;
    let head = cluster::number(&primary.options("work"), "SELECT max(position) FROM taskwatch.events").await;
    for reader in &mut readers {
        reader.events_to(head).await;
    }
    primary.stops("immediate");
    standby.promotes();
    proxy.turns_to(&standby);
    all_follow_the_new_log(&apps, &mut readers, &standby.options("work"), &old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_events_resets_the_readers() {
    lost_tail(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_events_resets_the_readers_of_every_server() {
    lost_tail(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_right_after_a_failover_has_a_new_epoch_and_keeps_it() {
    let primary = Server::start();
    primary.runs("createdb", &["work"]);
    let app = TestApp::again(primary.options("work")).await;
    app.creates_many(10, "kept").await;
    let standby = Server::standby_of(&primary);
    catches_up(&standby.options("work"), &primary.options("work")).await;
    let old = epoch(&primary.options("work")).await;
    app.stopped().await;
    primary.stops("immediate");
    standby.promotes();
    // The control file still names the old timeline: the checkpoint of the promotion is spread over minutes.
    let app = TestApp::again(standby.options("work")).await;
    let new = epoch(&standby.options("work")).await;
    assert_ne!(new, old);
    let http = app.http().clone();
    let mut reader = Stream::open(&http, &format!("{}/events", app.url), Some(&format!("{old}-5"))).await;
    assert_eq!(reader.until("reset").await.pop().unwrap().json()["reason"], "epoch");
    app.stopped().await;
    cluster::execute(&standby.options("work"), "CHECKPOINT").await;
    let app = TestApp::again(standby.options("work")).await;
    assert_eq!(epoch(&standby.options("work")).await, new, "a later start has no reason for another epoch");
    app.is_clean().await;
}

/// A database that is dumped, goes on, and is restored under servers that run.
async fn restored(servers: usize) {
    let server = Server::start();
    server.runs("createdb", &["work"]);
    let work = server.options("work");
    let apps = servers_on(&work, servers).await;
    apps[0].creates_many(20, "kept").await;
    apps[0].settles().await;
    let dump = server.socket_dir().join("dump").display().to_string();
    server.runs("pg_dump", &["-Fc", "-f", &dump, "work"]);
    apps[0].creates_many(30, "lost").await;
    let old = epoch(&work).await;
    let mut readers = readers_with_everything(&apps).await;
    server.runs("dropdb", &["--force", "work"]);
    server.runs("createdb", &["work"]);
    server.runs("pg_restore", &["-d", "work", &dump]);
    all_follow_the_new_log(&apps, &mut readers, &work, &old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_the_same_cluster_resets_the_readers() {
    restored(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_the_same_cluster_resets_the_readers_of_every_server() {
    restored(2).await;
}

/// A server's folder is replaced by an older copy of itself while taskwatch runs.
async fn copied(servers: usize) {
    let server = Server::start();
    server.runs("createdb", &["work"]);
    let work = server.options("work");
    let apps = servers_on(&work, servers).await;
    apps[0].creates_many(20, "kept").await;
    for app in &apps {
        app.settles().await;
    }
    server.stops("fast");
    let copy = server.copies_its_folder();
    server.starts();
    eventually("it takes tasks again", || async {
        apps[0].post("/api/v1/tasks", &json!({ "task_type": "lost" })).await.status == 201
    })
    .await;
    apps[servers - 1].creates_many(30, "lost").await;
    let old = epoch(&work).await;
    let mut readers = readers_with_everything(&apps).await;
    server.stops("fast");
    server.puts_back(&copy);
    server.starts();
    all_follow_the_new_log(&apps, &mut readers, &work, &old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_put_back_from_a_copy_resets_the_readers() {
    copied(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_put_back_from_a_copy_resets_the_readers_of_every_server() {
    copied(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_put_back_while_nothing_runs_has_a_new_epoch() {
    let server = Server::start();
    server.runs("createdb", &["work"]);
    let work = server.options("work");
    let app = TestApp::again(work.clone()).await;
    app.creates_many(5, "kept").await;
    app.settles().await;
    app.stopped().await;
    server.stops("fast");
    let copy = server.copies_its_folder();
    server.puts_back(&copy);
    server.starts();
    let old = epoch(&work).await;
    let app = TestApp::again(work.clone()).await;
    assert_ne!(epoch(&work).await, old);
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_by_hand_reaches_servers_that_run() {
    let app = TestApp::start().await;
    app.creates_many(5, "t").await;
    let head = app.settles().await;
    let mut reader = app.events("?after=earliest").await;
    reader.events_to(head).await;
    let mut quiet = app.events("?after=now&snapshot=never").await;
    quiet.until("hello").await;
    let old = epoch(&app.database).await;
    let store = taskwatch::store::Store::open(app.database.clone(), Default::default()).await.unwrap();
    let (was, new) = store.renew_epoch().await.unwrap();
    assert_eq!(was.to_string(), old);
    is_told_and_has_what_the_table_has(&mut reader, &app.database, &old).await;
    let reset = quiet.until("reset").await.pop().unwrap();
    assert!(reset.id.unwrap().starts_with(&new.to_string()), "without a snapshot the reset says where it goes on");
    app.creates("next").await;
    assert_eq!(quiet.event().await.position(), Some(head + 1));
    is_whole(&app, &app.database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_newest_events_gets_a_new_epoch_without_an_exit() {
    let app = TestApp::start().await;
    app.creates_many(3, "t").await;
    let head = app.settles().await;
    let old = epoch(&app.database).await;
    let mut reader = app.events("?after=earliest").await;
    reader.events_to(head).await;
    cluster::execute(&app.database, "DELETE FROM taskwatch.events WHERE position > 2").await;
    let mut created = Value::Null;
    eventually("a task is taken under the new epoch", || async {
        app.post("/api/v1/tasks", &json!({ "task_type": "t" })).await.status == 201
    })
    .await;
    reader.until("reset").await;
    assert_ne!(epoch(&app.database).await, old);
    created["position"] = json!(app.settles().await);
    assert_eq!(created["position"], 4, "the log goes on behind what it has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_and_a_range_are_told_of_another_epoch() {
    let app = TestApp::start().await;
    app.creates_many(3, "t").await;
    let head = app.settles().await;
    let old = epoch(&app.database).await;
    let strict = app.events("?after=earliest&on_gap=error").await;
    let store = taskwatch::store::Store::open(app.database.clone(), Default::default()).await.unwrap();
    store.renew_epoch().await.unwrap();
    eventually("the new epoch is known", || async {
        let answer = app.get(&format!("/events?poll=1&after={old}-{head}")).await.expect(200);
        answer["reason"] == "epoch"
    })
    .await;
    let answer = app.get(&format!("/events?poll=1&on_gap=error&after={old}-{head}")).await;
    assert_eq!(answer.status, 410);
    let mut strict = strict;
    let bye = strict.until("bye").await.pop().unwrap();
    assert_eq!(bye.json()["reason"], "log_changed");
    assert!(strict.next().await.is_none() && strict.was_cut);
}

/// Creates tasks on a real server, and the id of the newest event then.
async fn creates(http: &reqwest::Client, url: &str, count: usize) -> String {
    let tasks = vec![json!({ "task_type": "t" }); count];
    let created = http.post(format!("{url}/api/v1/tasks")).json(&tasks).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let mut reader = Stream::open(http, &format!("{url}/events?after=earliest"), None).await;
    let snapshot: Value = http.get(format!("{url}/api/v1/snapshot")).send().await.unwrap().json().await.unwrap();
    let position = snapshot["position"].as_i64().unwrap();
    reader.events_to(position).await.pop().unwrap().id.unwrap()
}

async fn reset_reason(http: &reqwest::Client, url: &str, cursor: &str) -> Value {
    let mut reader = Stream::open(http, &format!("{url}/events"), Some(cursor)).await;
    reader.until("reset").await.pop().unwrap().json()["reason"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_folder_put_back_in_place_has_a_new_epoch() {
    let (folder, http) = (Folder::new(), reqwest::Client::new());
    let data = folder.0.join("data");
    let program = Program::start(&data, &[]);
    creates(&http, &program.url, 3).await;
    program.terminate();
    let copy = folder.0.join("copy");
    assert!(Command::new("cp").arg("-a").arg(data.join("pg")).arg(&copy).status().unwrap().success());
    let program = Program::start(&data, &[]);
    let lost = creates(&http, &program.url, 5).await;
    // The note is written every few seconds.
    eventually("it is noted how far the log is", || async {
        std::fs::read_to_string(data.join("log.position")).is_ok_and(|noted| noted == lost)
    })
    .await;
    program.terminate();
    // As a tool that copies only what differs: the file that tells one folder from another stays.
    let put_back = "cd $0 && find . -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec rm -rf {} + \
        && cd $1 && find . -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec cp -a {} $0/ \\;";
    let done = Command::new("sh").args(["-c", put_back]).arg(data.join("pg")).arg(&copy).status().unwrap();
    assert!(done.success());
    let program = Program::start(&data, &[]);
    creates(&http, &program.url, 20).await;
    assert_eq!(reset_reason(&http, &program.url, &lost).await, "epoch");
    program.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_gives_a_new_epoch_while_a_server_runs() {
    let (folder, http) = (Folder::new(), reqwest::Client::new());
    let data = folder.0.join("data");
    let program = Program::start(&data, &[]);
    let before = creates(&http, &program.url, 3).await;
    let (code, printed, complaint) = output(&["new-epoch", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, 0, "{complaint}");
    let old = before.split('-').next().unwrap();
    assert!(printed.contains(&format!("(was {old})")), "{printed}");
    eventually("a cursor of the old epoch is reset", || async {
        let mut reader = Stream::open(&http, &format!("{}/events", program.url), Some(&before)).await;
        let hello = reader.until("hello").await.pop().unwrap();
        hello.json()["resume"] == "reset"
    })
    .await;
    program.terminate();
}
