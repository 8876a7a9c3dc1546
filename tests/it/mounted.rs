//! The router in a program of others, under that program's own server: streams work there, too.

use axum::{Router, routing::get};
use serde_json::json;
use taskwatch::http;

use crate::harness::{Stream, TestApp, eventually};

/// Serves a router as its authors do; where.
async fn served(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn everything_streams(app: &TestApp, root: &str) {
    let head = app.settles().await;
    for compressed in ["identity", "gzip"] {
        let open = async |path: &str, accept: &str| {
            let request = app.http().get(format!("{root}{path}")).header("accept", accept);
            request.header("accept-encoding", compressed).send().await.unwrap()
        };
        let lines = open("/events?after=earliest&max_events=2", "application/x-ndjson").await;
        assert_eq!((lines.status().as_u16(), lines.headers().get("content-encoding")), (200, None));
        let lines = lines.text().await.unwrap();
        assert!(lines.lines().filter(|line| line.contains("\"position\"")).count() >= 2, "{lines}");
        let polled = open("/events?after=earliest&poll=1", "application/json").await;
        assert_eq!(polled.status(), 200);
    }
    let mut stream = Stream::open(app.http(), &format!("{root}/events?after=earliest"), None).await;
    assert_eq!(stream.next().await.unwrap().event, "hello");
    assert_eq!(stream.events_to(head).await.len() as i64, head);
    let id = app.creates("live").await;
    assert_eq!(stream.event().await.json()["task_id"], json!(id));
    let mut page = Stream::open(app.http(), &format!("{root}/live?page=overview"), None).await;
    assert!(page.next().await.unwrap().data.contains("hx-partial"));
    drop((stream, page));
    let request = app.http().head(format!("{root}/events")).send().await.unwrap();
    assert_eq!((request.status().as_u16(), request.text().await.unwrap().as_str()), (200, ""));
    eventually("streams give their places back", || async {
        app.get("/api/v1/streams").await.expect(200)["open"] == json!([])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_work_under_the_server_of_others() {
    let app = TestApp::start().await;
    app.creates_many(3, "t").await;
    let ours = || http::router(app.state.clone());
    let own = || Router::new().route("/of-the-host", get(|| async { "the host's" }));
    let nested = served(own().nest("/monitor", ours())).await;
    everything_streams(&app, &format!("{nested}/monitor")).await;
    let merged = served(own().merge(ours())).await;
    everything_streams(&app, &merged).await;
    for root in [&nested, &merged] {
        let text = reqwest::get(format!("{root}/of-the-host")).await.unwrap().text().await.unwrap();
        assert_eq!(text, "the host's");
    }
    assert_eq!(reqwest::get(format!("{nested}/monitor/tasks")).await.unwrap().status(), 200);
    let slow = reqwest::Client::new().post(format!("{merged}/api/v1/tasks")).json(&json!({ "task_type": "t" }));
    assert_eq!(slow.send().await.unwrap().status(), 201, "bodies are read there as well");
}
