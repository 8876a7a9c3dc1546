//! Pages for everyone: axe-core finds nothing, small windows are enough, nothing breaks while things move.

use serde_json::json;
use taskwatch::{feed::Callbacks, page::PAGES};

use crate::harness::{TestApp, app::settings, browser::Browser, eventually, fixture::Scene};

/// Every page, and states of pages that look different.
fn addresses(scene: &Scene) -> Vec<String> {
    let fixed = [
        "/settings",
        "/help",
        "/nothing-here",
        "/tasks?status=cancelled",
        "/tasks?colour=red",
        "/events-view?types=worker_*",
        "/failures?show=all",
        "/analytics?range=24h",
        "/?at=9",
        "/tasks?at=9",
        "/queues?at=9&play=1",
        "/wall?theme=light&boards=overview,failures&rotate=30",
    ];
    let bulk = format!("/tasks/bulk?action=delete&ids={}", scene.child);
    let pages = PAGES.iter().map(|page| scene.path(page));
    pages.chain(fixed.map(str::to_owned)).chain([bulk]).collect()
}

async fn scene() -> Scene {
    // Polls by request only, so that a page stands still while it is looked at.
    let settings = taskwatch::config::Settings { poll_seconds: 3_600, ..settings() };
    Scene::on(TestApp::with(settings, Callbacks::default()).await, true).await
}

/// Elements that reach beyond a narrow window without a bar to scroll them by.
const TOO_WIDE: &str = "if (document.scrollingElement.scrollWidth <= innerWidth) { return []; } \
    return [...document.querySelectorAll('body *')] \
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll')) \
        .map((e) => `wide: ${e.tagName}#${e.id}.${e.className}`).slice(0, 5)";

/// axe-core finds nothing, nothing is wider than the window, and the console is silent: no policy is broken.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_and_fits_a_small_window() {
    let scene = scene().await;
    let browser = Browser::open().await;
    let mut found = Vec::new();
    for (theme, width) in [("light", 1_400), ("dark", 320)] {
        browser.prefers("prefers-color-scheme", theme).await;
        browser.sized(width, 900).await;
        for path in addresses(&scene) {
            browser.goes_to(&format!("{}{path}", scene.app.url)).await;
            let mut wrong = browser.complaints().await;
            wrong.retain(|line| !line.contains("Failed to load resource"));
            // With everything open that can be opened.
            browser.runs("document.querySelectorAll('#page details').forEach((box) => { box.open = true; })").await;
            wrong.extend(browser.barriers().await);
            let wide = browser.runs(TOO_WIDE).await;
            wrong.extend(wide.as_array().unwrap().iter().map(ToString::to_string));
            found.extend(wrong.into_iter().map(|line| format!("{theme} {width} {path}: {line}")));
        }
        browser.goes_to(&scene.app.url).await;
        for menu in ["ways", "share"] {
            browser
                .runs(&format!(
                    "document.querySelectorAll('.menu').forEach((box) => {{ box.open = box.id === '{menu}'; }})"
                ))
                .await;
            found.extend(browser.barriers().await.into_iter().map(|line| format!("{theme} {width} {menu}: {line}")));
        }
        browser
            .runs("const stale = document.getElementById('stale'); stale.hidden = false; stale.textContent = 'Data is 74 s old.'; document.body.classList.add('is-stale')")
            .await;
        found.extend(browser.barriers().await.into_iter().map(|line| format!("{theme} {width} stale: {line}")));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_server_is_as_accessible() {
    let app = TestApp::start().await;
    let browser = Browser::open().await;
    let mut found = Vec::new();
    for page in PAGES.iter().filter(|page| !page.is_of_one()) {
        browser.goes_to(&format!("{}{}", app.url, page.path)).await;
        found.extend(browser.barriers().await.into_iter().map(|line| format!("{}: {line}", page.path)));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_after_many_polls_and_live_swaps() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let browser = Browser::open().await;
    let count = "window.swaps = 0; document.addEventListener('htmx:after:swap', () => { window.swaps += 1; });";
    for (path, live, wanted) in
        [("/", false, 20), ("/tasks", false, 20), ("/", true, 60), ("/events-view", true, 60), ("/failures", true, 30)]
    {
        browser.goes_to(&format!("{}{path}?live={}", app.url, u8::from(live))).await;
        browser.runs(count).await;
        if live {
            browser.shows("#link-state", "Live").await;
        }
        let mut round = 0;
        loop {
            round += 1;
            app.creates_as(json!({ "task_type": "t", "title": format!("Task {round}"), "max_attempts": 1 })).await;
            let task = worker.claims("default").await;
            if round % 2 == 0 {
                task.completes().await
            } else {
                task.fails(&format!("HTTP 5{:02}", round % 40)).await
            };
            if !live {
                browser.runs("document.dispatchEvent(new Event('taskwatch:refresh'))").await;
            }
            if browser.runs("return window.swaps").await.as_i64() >= Some(wanted) {
                break;
            }
            assert!(round < 4_000, "{path}: too few swaps");
        }
        assert_eq!(browser.barriers().await, Vec::<String>::new(), "{path} live={live}");
        assert_eq!(browser.complaints().await, Vec::<String>::new(), "{path} live={live}");
        let twice = browser
            .runs("const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.filter((id, at) => ids.indexOf(id) !== at)")
            .await;
        assert_eq!(twice, json!([]), "{path}: ids that are there twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn still_pictures_for_those_who_want_no_motion() {
    let app = TestApp::start().await;
    app.creates("t").await;
    let browser = Browser::open().await;
    browser.prefers("prefers-reduced-motion", "reduce").await;
    browser.goes_to(&format!("{}/wall?rotate=5&boards=overview,queues", app.url)).await;
    eventually("the wall stands", || async {
        browser
            .runs("return document.querySelectorAll('.tile').length > 2 && document.getAnimations().length === 0")
            .await
            == true
    })
    .await;
}
