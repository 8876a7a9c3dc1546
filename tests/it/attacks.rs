//! Resource exhaustion by clients: each attack costs the attacker its connection or its answer, and other clients nothing.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use taskwatch::config::Settings;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::{TestApp, app::settings, cluster, eventually};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_nothing_is_closed() {
    let app = TestApp::limited(settings(), |limits| limits.headers = SHORT).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // SETTINGS without any, and its acknowledgement.
    let settings = [&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &[0, 0, 0, 4, 1, 0, 0, 0, 0]].concat();
    let begun: [&[u8]; 7] = [
        b"",
        b"P",
        b"PRI",
        b"PRI * HTTP",
        preface,
        &[&preface[..], &settings].concat(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    ];
    for bytes in begun {
        app.raw(bytes).await.closed().await;
    }
    // The same after an answer, of either protocol.
    let mut first = app.raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(first.status().await, 200);
    first.closed().await;
    let (mut second, connection) = second(&app, 65_535).await;
    second.send_request(get(&app, "/healthz")).await.unwrap().into_body().collect().await.unwrap();
    connection.await.unwrap();
    // A stream is asked for nothing more, and stays.
    let mut stream = app.events("?after=now").await;
    assert_eq!(stream.next().await.unwrap().event, "hello");
    tokio::time::sleep(3 * SHORT).await;
    app.creates("t").await;
    stream.event().await;
}

/// A client of HTTP/2 that grants so much per stream.
async fn second(app: &TestApp, window: u32) -> (http2::SendRequest<Empty<Bytes>>, tokio::task::JoinHandle<()>) {
    let stream = app.raw("").await.0;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

fn get(app: &TestApp, path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("{}{path}", app.url)).body(Empty::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_2_without_progress_ends_and_its_neighbours_stay() {
    let app = TestApp::limited(settings(), |limits| limits.stuck = SHORT).await;
    app.creates("t").await;
    app.settles().await;
    let (mut client, _connection) = second(&app, 0).await;
    for path in ["/events?after=earliest", "/live?page=overview", "/openapi.json"] {
        let answer = client.send_request(get(&app, path)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let ended = tokio::time::timeout(crate::harness::DEADLINE, answer.into_body().collect()).await.unwrap();
        assert!(ended.is_err(), "{path} is cut");
    }
    let streams = || async { app.get("/api/v1/streams").await.expect(200) };
    eventually("both streams end as stuck", || async {
        let ended = streams().await["ended"].clone();
        ended.as_array().unwrap().iter().filter(|row| row["close_reason"] == "stuck").count() == 2
    })
    .await;
    assert_eq!(streams().await["open"], json!([]));
    // One that reads is not disturbed on such a connection, nor by being quiet.
    let (mut reader, _connection) = second(&app, 65_535).await;
    let mut body = reader.send_request(get(&app, "/events?after=now")).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    tokio::time::sleep(3 * SHORT).await;
    app.creates("t").await;
    body.frame().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_are_bounded() {
    let app = TestApp::limited(settings(), |limits| limits.answers_per_connection = 100_000).await;
    let tasks = vec![json!({ "task_type": "t", "title": "x".repeat(400) }); 200];
    app.post("/api/v1/tasks", &json!(tasks)).await.expect(201);
    let (mut client, _connection) = second(&app, 0).await;
    let mut statuses = Vec::new();
    let mut unread = Vec::new();
    for _ in 0..2 {
        let answer = client.send_request(get(&app, "/api/v1/tasks?limit=200")).await.unwrap();
        statuses.push(answer.status().as_u16());
        unread.push(answer);
    }
    assert_eq!(statuses, [200, 503]);
    assert_eq!(unread[1].headers()["retry-after"], "1");
    // What is the same for all is not counted.
    assert_eq!(client.send_request(get(&app, "/openapi.json")).await.unwrap().status(), 200);
    drop(unread);
    eventually("what is given up is free", || async {
        client.clone().send_request(get(&app, "/api/v1/tasks?limit=200")).await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_given_up_at_every_door() {
    let app = TestApp::limited(settings(), |limits| limits.body_grace = SHORT).await;
    let form = "application/x-www-form-urlencoded";
    for (path, kind) in [
        ("/api/v1/tasks", "application/json"),
        ("/api/v1/events", "application/cloudevents+json"),
        ("/api/v1/reports", "application/x-ndjson"),
        ("/settings", form),
        ("/schedules", form),
        ("/tasks/bulk", form),
        ("/test-client/tasks", form),
        ("/test-client/work", form),
        ("/queues/default/limits", form),
    ] {
        for length in ["Content-Length: 9", "Transfer-Encoding: chunked"] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{length}\r\n\r\n");
            let body = if length.starts_with('C') { "a" } else { "1\r\na\r\n" };
            let mut slow = app.raw(head + body).await;
            assert_eq!(slow.status().await, 408, "{path} {length}");
            slow.closed().await;
        }
    }
    assert_eq!(cluster::number(&app.database, "SELECT count(*) FROM taskwatch.events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_share_a_budget_and_small_ones_need_none() {
    let app = TestApp::limited(settings(), |limits| {
        limits.bodies_per_address = 300_000;
        limits.body_wait = SHORT;
    })
    .await;
    let large = json!({ "task_type": "t", "description": "x".repeat(10_000), "payload": "y".repeat(240_000) });
    let half = |path: &str, kind: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 260000\r\n\r\nhalf")
    };
    for (path, kind) in [("/api/v1/events", "application/json"), ("/settings", "application/x-www-form-urlencoded")] {
        let holder = app.raw(half(path, kind)).await;
        eventually("a large body finds no room", || async {
            let refused = app.post("/api/v1/tasks", &large).await;
            refused.status == 503 && refused.code() == "too_many_bodies"
        })
        .await;
        // Refused by its length, before it is sent.
        let expects = half(path, kind).replace("\r\n\r\nhalf", "\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(app.raw(expects).await.status().await, 503);
        app.creates("t").await;
        drop(holder);
        eventually("its room is free again", || async { app.post("/api/v1/tasks", &large).await.status == 201 }).await;
    }
    let huge = "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(app.raw(huge).await.status().await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_connections_there_are_the_server_says_how_it_is() {
    let app = TestApp::limited(settings(), |limits| {
        limits.connections = 6;
        limits.reserve = 2;
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(app.raw("").await);
    }
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let asks = async |path: &str| {
        let mut raw = app.raw(request(path)).await;
        let status = raw.status().await;
        raw.closed().await;
        status
    };
    assert_eq!(asks("/healthz").await, 200);
    assert_eq!(asks("/healthz/").await, 200);
    for path in ["/", "/api/v1/stats", "/events", "/readyz"] {
        assert_eq!(asks(path).await, 503, "{path}");
    }
    // The reserve is for those who ask at once.
    held.push(app.raw("").await);
    held.push(app.raw("").await);
    for silent in &mut held[6..] {
        silent.closed().await;
    }
    held.clear();
    eventually("places are free again", || async { app.get("/readyz").await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_cannot_be_made_up() {
    let app = TestApp::with(Settings { stream_max_per_address: 3, ..settings() }, Default::default()).await;
    let mut streams = Vec::new();
    for number in 0..6_u8 {
        let forged = IpAddr::from([198, 18, 0, number]).to_string();
        let request = app.http().get(format!("{}/events?after=now", app.url)).header("x-forwarded-for", forged);
        let response = request.send().await.unwrap();
        let is_refused = response.headers()["events-resume"] == "refused";
        assert_eq!(is_refused, number >= 3, "stream {number}");
        streams.push(response);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_claims_are_not_kept() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(3, "t").await;
    app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": 1 })).await.expect(200);
    app.settles().await;
    worker.claims("default").await;
    for round in 0..20 {
        let names: Vec<_> = (0..63).map(|number| format!("made-up-{round}-{number}")).collect();
        let mut queues: Vec<_> = names.iter().map(String::as_str).collect();
        queues.push("default");
        assert!(worker.claims_up_to(1, &queues, 0).await.is_empty());
    }
    assert_eq!(app.state.claim_waiters.remembered(), (1, 0));
    app.patch("/api/v1/queues/default", &json!({ "concurrency_limit": null })).await.expect(200);
    eventually("a queue without a limit is forgotten", || async { app.state.claim_waiters.remembered() == (0, 0) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_do_not_stand_in_the_way_of_reads() {
    let app = TestApp::start().await;
    app.creates_many(2_000, "t").await;
    let slow = "UPDATE taskwatch.tasks SET status = 'failed', error = repeat('a', 16000)";
    cluster::execute(&app.database, slow).await;
    let id = app.creates_as(json!({ "task_type": "findable", "title": "a needle" })).await;
    let searches: Vec<_> = (0..16)
        .map(|_| {
            let text = format!("{}b", "a".repeat(199));
            let request = app.http().get(format!("{}/api/v1/tasks?status=failed&q={text}", app.url));
            tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
        })
        .collect();
    let mut reads = 0;
    while reads < 20 || searches.iter().any(|search| !search.is_finished()) {
        app.get("/readyz").await.expect(200);
        app.get(&format!("/api/v1/tasks/{id}")).await.expect(200);
        app.get(&format!("/tasks/{id}")).await.expect(200);
        reads += 1;
    }
    for search in searches {
        let status = search.await.unwrap();
        assert!([200, 503].contains(&status), "{status}");
    }
    let found = app.get("/api/v1/tasks?q=needle").await.expect(200);
    assert_eq!(found["tasks"][0]["id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_commands_go_before_long_ones() {
    let app = Arc::new(TestApp::start().await);
    let thousand = json!(vec![json!({ "task_type": "long", "description": "y".repeat(300) }); 1_000]);
    let long: Vec<_> = (0..8)
        .map(|_| {
            let (app, thousand) = (app.clone(), thousand.clone());
            tokio::spawn(async move { app.post("/api/v1/tasks", &thousand).await.status.as_u16() })
        })
        .collect();
    eventually("the first is done", || async { long.iter().any(JoinHandle::is_finished) }).await;
    // So many that one of them is always there, however slow the machine is: in a pause of 20 ms a long one may go.
    let short: JoinSet<_> = (0..48)
        .map(|_| {
            let app = app.clone();
            async move {
                for _ in 0..4 {
                    app.creates("short").await;
                }
            }
        })
        .collect();
    short.join_all().await;
    let done = long.iter().filter(|long| long.is_finished()).count();
    assert!(done < long.len(), "short ones waited for all the long ones");
    for status in long {
        assert_eq!(status.await.unwrap(), 201, "long ones get their turn");
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_in_time_whatever_its_clients_do() {
    let app = TestApp::start().await;
    let large = vec![json!({ "task_type": "t", "title": "x".repeat(500), "description": "y".repeat(3_000) }); 200];
    for _ in 0..20 {
        app.post("/api/v1/tasks", &json!(large)).await.expect(201);
    }
    app.settles().await;
    // A reader that stops reading, half a request, half a body, and an HTTP/2 stream without a window.
    let stream = "GET /events?after=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let body = "POST /settings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\na";
    let _held = [app.raw(stream).await, app.raw("GET / HTTP/1.1\r\nHost: lo").await, app.raw(body).await];
    let (mut client, _connection) = second(&app, 0).await;
    let _unread = client.send_request(get(&app, "/events?after=earliest")).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(8), app.stopped()).await;
    assert!(stopped.is_ok(), "supervisors kill what does not stop within 10 s");
}
