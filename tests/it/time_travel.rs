//! Looking at the past: every page as it was.

use chrono::TimeDelta;
use serde_json::json;
use taskwatch::page::{PAGES, Reach};

use crate::harness::{TestApp, browser::Browser, eventually, fixture::Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_what_it_showed_then() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    app.creates_many(3, "early").await;
    let then = app.settles().await;
    let waiting = app.get("/?fragment=1").await.text;
    assert!(waiting.contains("waiting-now\" data-live>3"));
    worker.claims("default").await.fails("HTTP 503").await;
    app.creates_many(5, "belated").await;
    app.settles().await;
    let past = app.get(&format!("/?at={then}")).await.text;
    assert!(past.contains("Historical view") && past.contains(&format!("position {then}")));
    assert!(past.contains("waiting-now\" data-live>3") && !past.contains("HTTP 503"));
    // Of lists the tables know the present only; the log knows what was.
    let tasks = app.get(&format!("/tasks?at={then}")).await.text;
    assert_eq!((tasks.matches("<tr id=\"task-").count(), tasks.matches("belated").count()), (3, 0));
    let running = app.get(&format!("/tasks?at={then}&status=pending")).await.text;
    assert_eq!(running.matches("<tr id=\"task-").count(), 3, "none had been claimed then");
    // One goes on through the past.
    for link in [format!("<a href=\"/tasks?at={then}&status=pending\">"), format!("href=\"/queues?at={then}\"")] {
        assert!(past.contains(&link), "{link}");
    }
    assert!(!past.contains("id=\"copy-curl\""), "programs get the present");
    let now = app.get("/tasks?status=pending").await.text;
    assert_eq!(now.matches("<tr id=\"task-").count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_can_be_asked_for_the_past() {
    let scene = Scene::on(TestApp::start().await, false).await;
    let at = scene.app.position().await - 1;
    for page in &PAGES {
        let reply = scene.app.get(&format!("{}?at={at}", scene.path(page))).await;
        assert_eq!(reply.status, 200, "{}", page.name);
        let words = if page.reach == Reach::Log { "Historical view" } else { "has no history" };
        assert!(reply.text.contains(words), "{}", page.name);
        assert!(!reply.text.contains("hx-sse:connect"), "{} does not follow", page.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_shown_as_its_events_told_it_then() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let id = app.creates_as(json!({ "task_type": "t", "max_attempts": 1 })).await;
    let created = app.settles().await;
    worker.claims("default").await.fails("disk full").await;
    app.settles().await;
    let then = app.get(&format!("/tasks/{id}?at={created}")).await.text;
    assert!(then.contains("(pending)") && !then.contains("disk full") && !then.contains("/retry\""));
    let before = app.get(&format!("/tasks/{id}?at=1")).await;
    assert_eq!(before.status, 404);
    assert!(before.text.contains("did not exist at that time"));
    assert!(app.get(&format!("/tasks/{id}")).await.text.contains("disk full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_taken_as_well_as_positions() {
    let app = TestApp::start().await;
    app.creates_many(2, "t").await;
    app.settles().await;
    let middle = app.clock.now();
    app.time_passes(3_600);
    app.creates_many(2, "t").await;
    app.settles().await;
    for at in [middle.to_rfc3339(), (middle + TimeDelta::minutes(30)).format("%Y-%m-%dT%H:%M").to_string()] {
        let page = app.http().get(format!("{}/", app.url)).query(&[("at", &at)]).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(page.text().await.unwrap().contains("waiting-now\" data-live>2"), "{at}");
    }
    let future = app.get("/?at=2099-01-01T00:00:00Z").await.text;
    assert!(future.contains("waiting-now\" data-live>4") && !future.contains("Historical view"));
    let early = app.get("/?at=1999-01-01T00:00:00Z").await;
    assert_eq!(early.status, 400);
    assert!(early.text.contains("before the oldest event"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_passes_as_fast_as_is_said() {
    let app = TestApp::start().await;
    app.creates("t").await;
    app.settles().await;
    let began = app.clock.now();
    app.time_passes(3_600);
    app.creates("t").await;
    app.settles().await;
    let at = |seconds| (began + TimeDelta::seconds(seconds)).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let far = format!("/?play=3600&played={}&at=9999-12-31T23:59:59Z", i64::MIN);
    assert_eq!(app.get(&far).await.status, 200);
    assert_eq!(app.get(&far.replace("9999", "%2B262142")).await.status, 400);
    // However long it took until it was asked for again.
    for (ago_ms, passed) in [(2_500, 150), (0, 0), (3_600_000, 600), (-5_000, 0)] {
        let played = app.clock.now().timestamp_millis() - ago_ms;
        let path = format!("/?fragment=1&play=60&played={played}&at={}", at(10));
        let shown = app.get(&path).await.text;
        let url = shown.split("data-url=\"").nth(1).unwrap().split('"').next().unwrap();
        let time = url.split("at=").nth(1).unwrap().split('&').next().unwrap().replace("%3A", ":");
        let time: taskwatch::clock::Time = time.parse().unwrap();
        let off = time - (began + TimeDelta::seconds(10 + passed));
        assert!(off >= TimeDelta::zero() && off < TimeDelta::seconds(60), "after {ago_ms} ms: {off} off");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_played_up_to_the_present() {
    let app = TestApp::start().await;
    app.creates_many(2, "t").await;
    app.settles().await;
    app.time_passes(600);
    app.creates_many(2, "t").await;
    let head = app.settles().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/?at=4&play=60", app.url)).await;
    browser.shows("#link-state", "Past · 60×").await;
    browser.shows("#waiting", "2").await;
    // Ten minutes at sixty times the speed.
    browser.shows("#waiting", "4").await;
    eventually("the present is reached", || async {
        browser.runs("return document.getElementById('past')").await.is_null()
    })
    .await;
    assert!(head > 4);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slider_leads_into_the_past() {
    let app = TestApp::start().await;
    app.creates_many(10, "t").await;
    let browser = Browser::open().await;
    browser.goes_to(&app.url).await;
    browser.shows("#waiting", "10").await;
    browser
        .runs("document.getElementById('past-picker').open = true; const slider = document.getElementById('at-slider'); slider.value = 6; slider.dispatchEvent(new Event('pointerup', { bubbles: true }))")
        .await;
    browser.shows("#past", "Historical view").await;
    browser.shows("#waiting", "3").await;
}
