//! Pages under the hands of an operator: by keyboard only, without scripts, while everything moves.

use std::time::{Duration, Instant};

use fantoccini::Locator;
use serde_json::{Value, json};
use taskwatch::{config::Settings, feed::Callbacks, page::PAGES};

use crate::harness::{TestApp, app::settings, browser::Browser, eventually, fixture::Scene};

/// Six failed tasks, four of which are alike.
async fn with_failures() -> TestApp {
    let app = TestApp::quick().await;
    let worker = app.worker("w1").await;
    for error in [
        "HTTP 503 from 10.0.0.1",
        "HTTP 503 from 10.0.0.2",
        "disk full",
        "HTTP 503 from 10.0.0.3",
        "HTTP 503 from 10.0.0.4",
        "disk full",
    ] {
        app.creates_as(json!({ "task_type": "import", "max_attempts": 1 })).await;
        worker.claims("default").await.fails(error).await;
    }
    app.settles().await;
    app
}

async fn statuses(app: &TestApp) -> Vec<(String, i64)> {
    let stats = app.get("/api/v1/stats").await.expect(200);
    let of =
        |name: &str| (name.to_owned(), stats[name].as_i64().or_else(|| stats["stats"][name].as_i64()).unwrap_or(-1));
    vec![of("pending"), of("failed")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_failures_is_retried_by_keyboard_alone() {
    let app = with_failures().await;
    let browser = Browser::open().await;
    browser.goes_to(&app.url).await;
    browser.shows("#page .figures", "6 failed").await;
    browser.presses("gf").await;
    browser.shows("h1", "Failures").await;
    browser.shows("#groups", "HTTP 503 from #").await;
    // The last group that failed comes first; the other one is the second.
    browser.tabs_to("#groups tr:nth-of-type(2) .retry-group").await;
    browser.presses("Enter").await;
    browser.shows("h1", "Retry 4 tasks?").await;
    browser.tabs_to("#confirm button").await;
    browser.presses("Enter").await;
    browser.shows("#bulk-state", "done").await;
    browser.shows("#bulk-state", "4").await;
    app.settles().await;
    assert_eq!(statuses(&app).await, [("pending".to_owned(), 4), ("failed".to_owned(), 2)]);
    browser.presses("gf").await;
    browser.shows("#failures-sum", "2 failed tasks").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_failures_is_retried_without_scripts() {
    let app = with_failures().await;
    let browser = Browser::open().await;
    browser.without_scripts().await;
    let clicks = async |selector: &str| {
        browser.page.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
    };
    browser.goes_to(&app.url).await;
    assert!(!browser.page.source().await.unwrap().contains("class=\"js\""), "scripts are off");
    clicks("nav a[href^='/failures']").await;
    browser.shows("#groups", "HTTP 503 from #").await;
    clicks("#groups tr:nth-of-type(2) .retry-group").await;
    browser.shows("h1", "Retry 4 tasks?").await;
    clicks("#confirm button").await;
    browser.shows("h1", "Retry tasks").await;
    eventually("the action is over", || async {
        // Without scripts a page is refreshed by its own link.
        clicks("#ways summary").await;
        clicks("#refresh-now").await;
        browser.text("#bulk-state").await.contains("done")
    })
    .await;
    assert_eq!(statuses(&app).await, [("pending".to_owned(), 4), ("failed".to_owned(), 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_is_there_without_scripts() {
    let app = TestApp::quick().await;
    let browser = Browser::open().await;
    browser.without_scripts().await;
    let clicks = async |selector: &str| {
        browser.page.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
    };
    browser.goes_to(&format!("{}/test-client", app.url)).await;
    clicks("form[action='/test-client/tasks'] button").await;
    browser.shows("#event-list", "task_created").await;
    clicks("form[action='/test-client/work'] button").await;
    browser.shows("#event-list", "task_completed").await;
    browser.goes_to(&format!("{}/queues", app.url)).await;
    clicks("#q-test-client .act a").await;
    clicks("#queue-pause button").await;
    browser.shows("h1", "Paused").await;
    browser.shows("#done", "Queue paused").await;
    browser.goes_to(&format!("{}/queues", app.url)).await;
    clicks("#q-test-client form[action$='/resume'] button").await;
    // Back where one was, and told what was done.
    browser.shows("h1", "Queues").await;
    browser.shows("#done", "Queue resumed").await;
    browser.shows("#q-test-client", "OK").await;
    browser.goes_to(&format!("{}/tasks", app.url)).await;
    clicks("input.select").await;
    clicks("#bulk button").await;
    browser.shows("h1", "Retry 1 task?").await;
    clicks("#confirm button").await;
    browser.shows("h1", "Done").await;
    browser.goes_to(&format!("{}/settings", app.url)).await;
    clicks("#theme-dark").await;
    clicks("form[action='/settings'] button").await;
    eventually("the theme is kept", || async {
        browser.page.find(Locator::Css("html[data-theme=dark]")).await.is_ok()
    })
    .await;
    browser.goes_to(&app.url).await;
    clicks("#past-picker summary").await;
    clicks("#past-picker form:first-of-type button").await;
    browser.shows("h1", "Overview").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_the_hands_survives_20_swaps() {
    let app = TestApp::quick().await;
    let worker = app.worker("w1").await;
    for number in 0..40 {
        app.creates_as(json!({ "task_type": "t", "title": format!("Task {number}") })).await;
    }
    app.settles().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/tasks?live=1", app.url)).await;
    browser.shows("#link-state", "Live").await;
    browser
        .runs(
            "window.swaps = 0; document.addEventListener('htmx:after:swap', () => { window.swaps += 1; }); \
             document.getElementById('more-filters').open = true; \
             const row = document.querySelectorAll('input.select')[20]; window.row = row; \
             const box = document.getElementById('filter-queue'); box.focus({ preventScroll: true }); \
             box.value = 'half-typed'; box.setSelectionRange(2, 6); window.box = box;",
        )
        .await;
    let place = browser.runs("return window.scrollY").await.as_f64().unwrap();
    let mut round = 0;
    while browser.runs("return window.swaps").await.as_i64() < Some(20) {
        round += 1;
        // Rows change, and now and then one comes.
        worker.claims("default").await.reports("release", json!({})).await.expect(200);
        if round % 40 == 0 {
            app.creates_as(json!({ "task_type": "t", "title": format!("More {round}") })).await;
        }
        assert!(round < 4_000, "too few swaps");
    }
    let kept = browser
        .runs(
            "const box = document.getElementById('filter-queue'); const row = document.getElementById(window.row.id); \
             return [document.activeElement === window.box && box === window.box, box.value, box.selectionStart, box.selectionEnd, \
                 document.getElementById('more-filters').open, row === window.row, window.scrollY]",
        )
        .await;
    let kept = kept.as_array().unwrap().clone();
    assert_eq!(kept[..6], [json!(true), json!("half-typed"), json!(2), json!(6), json!(true), json!(true)]);
    // New rows come in above; the browser keeps the place of what one looks at, or the page does not move at all.
    let now = kept[6].as_f64().unwrap();
    assert!(now >= place - 1.0, "scrolled from {place} to {now}");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_read_stays_as_it_is_until_it_is_let_go() {
    let app = TestApp::with(Settings { poll_seconds: 2, ..settings() }, Callbacks::default()).await;
    app.creates_many(60, "t").await;
    app.settles().await;
    let browser = Browser::open().await;
    for (path, row) in
        [("/tasks?live=1", "task-"), ("/events-view?live=1", "e"), ("/tasks", "task-"), ("/events-view", "e")]
    {
        browser.goes_to(&format!("{}{path}", app.url)).await;
        browser.shows("#link-state", if path.contains("live") { "Live" } else { "Every" }).await;
        browser
            .runs(&format!(
                "const link = document.querySelectorAll('tr[id^=\"{row}\"]')[7].querySelector('a'); link.focus(); \
                 window.link = link; window.first = document.querySelector('tr[id^=\"{row}\"]').id; window.y = link.getBoundingClientRect().y"
            ))
            .await;
        let place = "const link = window.link; return [document.activeElement === link, link.isConnected, \
            Math.abs(link.getBoundingClientRect().y - window.y) < 1]";
        app.creates_many(5, "t").await;
        eventually(&format!("{path}: it says that something waits"), || async {
            browser.runs("return !document.getElementById('new-rows').hidden").await == true
        })
        .await;
        assert_eq!(browser.runs(place).await, json!([true, true, true]), "{path}");
        browser.shows("#link-state", if path.contains("live") { "Live" } else { "Held" }).await;
        browser.runs("document.getElementById('new-rows').click()").await;
        eventually(&format!("{path}: what waited is shown"), || async {
            let first =
                browser.runs(&format!("return document.querySelector('tr[id^=\"{row}\"]').id !== window.first")).await;
            first == true && browser.runs("return document.getElementById('new-rows').hidden").await == true
        })
        .await;
    }
    // Whoever follows gets new rows at once, but not while rows are selected, or when the list is scrolled.
    for (how, waits) in
        [("", false), ("document.querySelector('input.select').click()", true), ("window.scrollTo(0, 900)", true)]
    {
        browser.goes_to(&format!("{}/tasks?live=1", app.url)).await;
        browser.shows("#link-state", "Live").await;
        browser
            .runs(&format!(
                "if (sessionStorage.getItem('taskwatch-follow') !== '1') document.getElementById('follow').click(); \
                 {how}; document.activeElement.blur(); window.first = document.querySelector('tr[id^=\"task-\"]').id"
            ))
            .await;
        app.creates("t").await;
        if waits {
            browser.shows("#new-rows", "New data").await;
        } else {
            eventually("the new task is shown", || async {
                browser.runs("return document.querySelector('tr[id^=\"task-\"]').id !== window.first").await == true
            })
            .await;
        }
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Notes how far things move while nobody does anything: the sum of layout shifts.
const COUNT_SHIFTS: &str = "window.shift = 0; window.moved = {}; new PerformanceObserver((list) => { \
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) { window.shift += entry.value; \
      for (const source of entry.sources) { const e = source.node?.nodeType === 1 ? source.node : source.node?.parentElement; \
        const name = `${e?.tagName}#${e?.closest('[id]')?.id}`; window.moved[name] = `${source.previousRect.y | 0} → ${source.currentRect.y | 0}`; } } \
  }).observe({ type: 'layout-shift', buffered: true });";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_when_a_page_opens_and_little_while_it_is_live() {
    let scene = Scene::on(TestApp::quick().await, false).await;
    let app = &scene.app;
    app.creates_many(250, "burst").await;
    app.settles().await;
    let browser = Browser::open().await;
    browser.sized(1_440, 900).await;
    let seconds = std::env::var("TASKWATCH_SHIFT").ok().and_then(|text| text.parse().ok()).unwrap_or(3_u64);
    let mut moved = Vec::new();
    for page in PAGES.iter().filter(|page| page.name != "streams") {
        let (path, joint) = (scene.path(page), if page.path.contains('?') { '&' } else { '?' });
        browser.goes_to(&format!("{}{path}{joint}live=1", app.url)).await;
        browser.runs(COUNT_SHIFTS).await;
        browser.shows("#link-state", "Live").await;
        let opened = browser.runs("return window.shift").await.as_f64().unwrap();
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            app.creates_many(10, "burst").await;
            let held = scene.worker.claims_up_to(10, &["default"], 0).await;
            for task in &held {
                task.completes().await;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let live = browser.runs("return window.shift").await.as_f64().unwrap() - opened;
        let things = if live >= 0.05 || opened >= 0.02 {
            browser.runs("return window.moved").await.to_string()
        } else {
            String::new()
        };
        println!("{path}: layout shift {opened:.3} when it opens, {live:.3} in {seconds} s live {things}");
        moved.push((page.name, opened, live));
    }
    // A wall makes room for a problem that comes; nobody touches it.
    let is_too_far = |(name, opened, live): &&(&str, f64, f64)| *opened >= 0.02 || *live >= 0.05 && *name != "wall";
    let too_far: Vec<_> = moved.iter().filter(is_too_far).collect();
    assert!(too_far.is_empty(), "{too_far:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_being_marked_is_not_torn_away() {
    let app = TestApp::quick().await;
    let browser = Browser::open().await;
    app.creates_many(3, "t").await;
    browser.goes_to(&format!("{}/?live=1", app.url)).await;
    browser.shows("#link-state", "Live").await;
    browser.shows("#waiting", "3").await;
    browser.runs("getSelection().selectAllChildren(document.getElementById('waiting'))").await;
    app.creates_many(4, "t").await;
    browser.shows("#link-state", "Held").await;
    assert!(browser.text("#waiting").await.contains('3'));
    assert!(browser.runs("return getSelection().toString()").await.as_str().unwrap().contains('3'));
    browser.runs("getSelection().removeAllRanges()").await;
    browser.shows("#waiting", "7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_stops_everything_and_counts_what_waits() {
    let app = TestApp::quick().await;
    app.creates("t").await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/events-view?live=1", app.url)).await;
    browser.shows("#link-state", "Live").await;
    browser.page.find(Locator::Id("link-state")).await.unwrap().click().await.unwrap();
    browser.page.find(Locator::Id("pause")).await.unwrap().click().await.unwrap();
    browser.shows("#link-state", "Paused").await;
    let before = browser.text("#page").await;
    app.creates_many(5, "t").await;
    browser.shows("#link-state", "Paused · ").await;
    assert_eq!(browser.text("#page").await, before);
    browser.presses("p").await;
    browser.shows("#position", "12").await;
    browser.shows("#link-state", "Live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_can_be_switched_off_and_never_act_in_fields() {
    let app = TestApp::quick().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/tasks", app.url)).await;
    browser.presses("/").await;
    browser.presses("gq?").await;
    assert_eq!(
        browser.runs("return [document.activeElement.id, document.activeElement.value, location.pathname]").await,
        json!(["q", "gq?", "/tasks"])
    );
    browser.goes_to(&format!("{}/settings", app.url)).await;
    browser.page.find(Locator::Id("keys-off")).await.unwrap().click().await.unwrap();
    browser.page.find(Locator::Css("form[action='/settings'] button")).await.unwrap().click().await.unwrap();
    browser.goes_to(&format!("{}/tasks", app.url)).await;
    browser.presses("gq").await;
    assert_eq!(browser.runs("return location.pathname").await, "/tasks");
    // A menu closes with Escape, and the focus is where it was.
    browser
        .runs("document.querySelector('#share summary').focus(); document.querySelector('#share').open = true")
        .await;
    browser.presses("Escape").await;
    let closed =
        browser.runs("return [document.querySelector('#share').open, document.activeElement.parentElement.id]").await;
    assert_eq!(closed, json!([false, "share"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_live_tabs_leave_the_server_reachable() {
    let app = TestApp::quick().await;
    app.creates("t").await;
    let browser = Browser::open().await;
    let mut tabs = vec![browser.page.window().await.unwrap()];
    for _ in 0..8 {
        browser.goes_to(&format!("{}/?live=1", app.url)).await;
        browser.shows("#waiting", "1").await;
        let tab = browser.page.new_window(true).await.unwrap().handle;
        browser.page.switch_to_window(tab.clone()).await.unwrap();
        tabs.push(tab);
    }
    // The ninth tab loads, asks and acts at once: six connections are all that the browser has for a server.
    browser.goes_to(&format!("{}/tasks", app.url)).await;
    browser.shows("#page table", "pending").await;
    let streams = app.get("/api/v1/streams").await.expect(200)["open"].as_array().unwrap().len();
    assert!(streams <= 4, "{streams} streams are open");
    // Each shows what is new, live or by polling.
    app.creates_many(2, "t").await;
    for tab in &tabs[..8] {
        browser.page.switch_to_window(tab.clone()).await.unwrap();
        browser.shows("#waiting", "3").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_tab_has_no_stream_and_asks_for_nothing() {
    let app = TestApp::quick().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/?live=1", app.url)).await;
    browser.shows("#link-state", "Live").await;
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    browser.runs(&hide(true)).await;
    let open = || async { app.get("/api/v1/streams").await.expect(200)["open"].as_array().unwrap().len() };
    eventually("the stream is closed", || async { open().await == 0 }).await;
    app.creates_many(3, "t").await;
    browser
        .runs("window.asked = 0; document.addEventListener('htmx:before:request', () => { window.asked += 1; })")
        .await;
    browser.runs("document.dispatchEvent(new Event('nothing'))").await;
    browser.runs(&hide(false)).await;
    browser.shows("#waiting", "3").await;
    browser.shows("#link-state", "Live").await;
    assert_eq!(open().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_build_loads_the_page_once_and_not_under_the_hands() {
    let app = TestApp::quick().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/tasks", app.url)).await;
    let become_old = "document.body.dataset.build = 'old'; window.mark = true; document.getElementById('q').focus(); document.getElementById('q').value = 'half'";
    browser.runs(become_old).await;
    eventually("the page knows of the new build", || async {
        browser.runs("return document.body.dataset.newBuild ?? ''").await != ""
    })
    .await;
    assert_eq!(browser.runs("return [window.mark, document.getElementById('q').value]").await, json!([true, "half"]));
    browser.runs("document.getElementById('q').blur()").await;
    browser.runs("document.getElementById('q').value = ''").await;
    eventually("the page was loaded anew", || async { browser.runs("return window.mark ?? false").await == false })
        .await;
    // Still another build than the page says: it does not go round in circles.
    browser.runs("document.body.dataset.build = 'old'; window.mark = true").await;
    app.creates("t").await;
    browser.shows("#page table", "pending").await;
    assert_eq!(
        browser.runs("return [window.mark, document.body.dataset.newBuild ?? null]").await,
        json!([true, Value::Null])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_modes_show_what_the_server_says_after_a_burst() {
    let scene = Scene::on(TestApp::quick().await, false).await;
    let app = &scene.app;
    // The page against the fragment that the server renders now; times are words of the browser.
    let compare = "const done = arguments[0]; const plain = (root) => { root.querySelectorAll('time').forEach((time) => { time.textContent = ''; }); return root.textContent.replace(/\\s+/g, ' '); }; \
        const url = new URL(location.href); url.searchParams.set('fragment', '1'); url.searchParams.delete('live'); \
        fetch(url).then((answer) => answer.text()).then((text) => { \
            const fresh = new DOMParser().parseFromString('<main>' + text + '</main>', 'text/html').querySelector('main'); \
            done(plain(fresh) === plain(document.getElementById('page').cloneNode(true))); })";
    let browser = Browser::open().await;
    browser.goes_to(&app.url).await;
    browser.runs("sessionStorage.setItem('taskwatch-follow', '1')").await;
    for page in PAGES.iter().filter(|page| page.name != "streams") {
        for live in [1, 0] {
            let (path, joint) = (scene.path(page), if page.path.contains('?') { '&' } else { '?' });
            browser.goes_to(&format!("{}{path}{joint}live={live}", app.url)).await;
            app.creates_many(250, "burst").await;
            scene.worker.claims_up_to(50, &["default"], 0).await;
            if live == 0 {
                browser.runs("document.dispatchEvent(new Event('taskwatch:refresh'))").await;
            }
            eventually(&format!("{path} live={live} shows what the server says"), || async {
                browser.page.execute_async(compare, Vec::new()).await.unwrap() == true
            })
            .await;
        }
    }
    browser.goes_to(&format!("{}/?live=1", app.url)).await;
    app.creates_many(1_000, "burst").await;
    app.settles().await;
    let stats = app.get("/api/v1/stats").await.expect(200);
    let pending = stats["pending"].as_u64().or_else(|| stats["stats"]["pending"].as_u64()).unwrap();
    browser.shows("#waiting .big", &taskwatch::page::format::count(&pending)).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
