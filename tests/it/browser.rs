//! Pages in a real browser.

use serde_json::json;

use crate::harness::{TestApp, app::settings, browser::Browser, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_polls_and_shows_what_is_new() {
    let app = TestApp::quick().await;
    let browser = Browser::open().await;
    browser.goes_to(&app.url).await;
    browser.shows("#page", "No tasks yet").await;
    browser.shows("#link-state", "Every 2s").await;
    app.creates_many(41, "t").await;
    browser.shows("#page .figures", "41").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_follows_and_falls_back_to_polling() {
    let app = TestApp::quick().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/?live=1", app.url)).await;
    browser.shows("#link-state", "Live").await;
    app.creates_many(7, "t").await;
    browser.shows("#page .figures", "7").await;
    browser.runs("document.getElementById('live').remove(); document.dispatchEvent(new Event('htmx:sse:close'))").await;
    browser.shows("#link-state", "Reconnecting").await;
    app.creates_many(16, "t").await;
    browser.shows("#page .figures", "23").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_is_not_disturbed_by_a_swap() {
    let app = TestApp::quick().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "t", "payload": { "a": 1 } })).await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/tasks/{id}", app.url)).await;
    browser
        .runs("document.querySelector('#payload .raw').open = true; document.querySelector('#payload .raw summary').focus()")
        .await;
    let task = worker.claims("default").await;
    for percent in [20, 40, 60] {
        task.progresses(percent).await;
    }
    browser.shows("#page", "60.0%").await;
    let kept = browser
        .runs("return [document.querySelector('#payload .raw').open, document.activeElement === document.querySelector('#payload .raw summary')]")
        .await;
    assert_eq!(kept, json!([true, true]));
    // A half-typed search survives as well.
    browser.goes_to(&format!("{}/tasks", app.url)).await;
    browser.runs("document.querySelector('#q').focus(); document.querySelector('#q').value = 'half'").await;
    task.completes().await;
    browser.shows("#page table", "completed").await;
    let kept = browser.runs("return [document.activeElement.id, document.querySelector('#q').value]").await;
    assert_eq!(kept, json!(["q", "half"]));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_runs_a_failed_task_again() {
    let app = TestApp::quick().await;
    let worker = app.worker("w1").await;
    app.creates_as(json!({ "task_type": "t", "title": "Import <b>", "max_attempts": 1 })).await;
    worker.claims("default").await.fails("disk full").await;
    app.settles().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/tasks?status=failed", app.url)).await;
    browser.shows("#page table", "disk full").await;
    browser.page.find(fantoccini::Locator::Css("#task-rows .row-link")).await.unwrap().click().await.unwrap();
    browser.shows("h1", "Import <b>").await;
    let button = fantoccini::Locator::XPath("//button[text()='Retry']");
    browser.page.find(button).await.unwrap().click().await.unwrap();
    browser.shows("#page", "pending").await;
    browser.shows("#page .timeline", "by local").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browsers_own_reader_of_streams_takes_compressed_ones_and_comes_back() {
    let app = TestApp::with(
        taskwatch::config::Settings { stream_max_age_seconds: 4, ..settings() },
        taskwatch::feed::Callbacks::default(),
    )
    .await;
    let browser = Browser::open().await;
    browser.goes_to(&app.url).await;
    app.creates_many(20, "t").await;
    browser
        .runs(
            "window.seen = []; window.hellos = 0; const source = new EventSource('/events?after=earliest'); \
             source.addEventListener('hello', () => window.hellos++); \
             for (const type of ['task_created', 'task_enqueued']) \
               source.addEventListener(type, (event) => window.seen.push(JSON.parse(event.data).position));",
        )
        .await;
    let seen = |count: usize| {
        let browser = &browser;
        async move { browser.runs("return window.seen").await.as_array().map_or(0, Vec::len) >= count }
    };
    eventually("the browser has all events", || seen(40)).await;
    let streams = app.get("/api/v1/streams").await.expect(200);
    let gzip = streams["open"].as_array().unwrap().iter().any(|row| row["purpose"] == "events" && row["gzip"] == true);
    assert!(gzip, "browsers ask for gzip: {streams}");
    // Its stream is old soon; it comes back behind what it had, without being told in the page.
    eventually("the browser came back", || async { browser.runs("return window.hellos").await.as_i64() >= Some(2) })
        .await;
    app.creates_many(5, "t").await;
    eventually("the browser has what came later", || seen(50)).await;
    assert_eq!(browser.runs("return window.seen").await, json!((1..=50).collect::<Vec<_>>()));
}
