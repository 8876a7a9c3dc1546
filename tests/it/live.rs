//! Live pages: how soon a change is seen, what it costs on the wire, and that nothing gets lost between the messages.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;

use crate::harness::{Stream, TestApp, browser::Browser, eventually};

/// 200 events a second, until it is dropped.
struct Load(tokio::task::JoinHandle<()>);

impl Load {
    async fn on(app: &TestApp) -> Self {
        let worker = app.worker("load").await;
        app.creates_as(json!({ "task_type": "load", "queue": "load" })).await;
        let task = worker.claims("load").await;
        Self(tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            for percent in (0..100).cycle() {
                tick.tick().await;
                task.progresses(percent).await;
            }
        }))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_seen_in_a_live_page() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let _load = Load::on(&app).await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/events-view?live=1&types=task_failed", app.url)).await;
    browser.shows("#link-state", "Live").await;
    browser.runs("document.getElementById('follow').click()").await;
    browser
        .runs(
            "window.seen = {}; new MutationObserver(() => { \
               for (const error of document.querySelectorAll('#event-list td b')) window.seen[error.textContent] ??= Date.now(); \
             }).observe(document.getElementById('page'), { subtree: true, childList: true, characterData: true });",
        )
        .await;
    let samples = std::env::var("TASKWATCH_SEEN").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let from = (app.position().await, Instant::now());
    let mut told = HashMap::new();
    for sample in 0..samples {
        app.creates_as(json!({ "task_type": "t", "max_attempts": 1 })).await;
        let task = worker.claims("default").await;
        let error = format!("failure {sample}");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        told.insert(error.clone(), now.as_secs_f64() * 1_000.0);
        task.fails(&error).await;
        tokio::time::sleep(Duration::from_millis(300 + fastrand::u64(..200))).await;
    }
    let seen =
        || async { serde_json::from_value::<HashMap<String, f64>>(browser.runs("return window.seen").await).unwrap() };
    eventually("every failure was seen", || async { seen().await.len() >= samples }).await;
    let seen = seen().await;
    let mut delays: Vec<_> = told.iter().map(|(error, at)| seen[error] - at).collect();
    delays.sort_by(f64::total_cmp);
    let rate = (app.position().await - from.0) as f64 / from.1.elapsed().as_secs_f64();
    let at = |percent: usize| delays[(delays.len() * percent / 100).min(delays.len() - 1)];
    println!(
        "{samples} changes at {rate:.0} events/s, from before the report until the browser has it: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        at(50),
        at(99),
        at(100)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn live_pages_send_a_fraction_of_whole_fragments() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let tasks = vec![json!({ "task_type": "t", "max_attempts": 1 }); 400];
    app.post("/api/v1/tasks", &json!(tasks)).await.expect(201);
    let (_load, seconds) = (Load::on(&app).await, 6);
    for path in ["overview", "queues", "events", "failures", "wall"] {
        let mut live = Stream::open(app.http(), &format!("{}/live?page={path}", app.url), None).await;
        let whole = live.next().await.unwrap().data.len();
        let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
        let (mut messages, mut bytes) = (0, 0);
        let mut step = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                frame = live.next() => {
                    let frame = frame.unwrap();
                    if frame.event.is_empty() {
                        messages += 1;
                        bytes += frame.data.len();
                    }
                }
                _ = step.tick() => { worker.claims("default").await.fails(&format!("HTTP 5{:02}", messages % 9)).await; }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        let same = messages * whole;
        let slow = usize::try_from(seconds).unwrap() * whole / 5;
        println!(
            "{path}: {messages} messages, {bytes} bytes in {seconds} s; whole fragments as often: {same} ({:.1} %), every 5 s: {slow}",
            bytes as f64 * 100.0 / same as f64
        );
        // A list of the newest events holds 50 new ones of 200 each time: these have to be told. A table of one queue is
        // hardly more than the row that changes.
        let most = if ["events", "queues"].contains(&path) { same / 3 } else { same / 5 };
        assert!(bytes < most, "{path}: {bytes} bytes live, {same} as whole fragments");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_comes_compressed_to_those_who_ask() {
    let app = TestApp::start().await;
    app.creates_many(5, "t").await;
    let request = app.http().get(format!("{}/live?page=overview", app.url)).header("accept-encoding", "gzip");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/?live=1", app.url)).await;
    browser.shows("#link-state", "Live").await;
    app.creates_many(3, "t").await;
    browser.shows("#waiting", "8").await;
    let open = app.get("/api/v1/streams").await.expect(200);
    let gzip = open["open"].as_array().unwrap().iter().filter(|row| row["purpose"] == "page" && row["gzip"] == true);
    assert!(gzip.count() >= 1, "browsers take it: {open}");
}
