//! The wall: nobody touches it for weeks.

use std::time::{Duration, Instant};

use serde_json::json;
use taskwatch::{
    config::{DemoSettings, Settings},
    demo::Demo,
    feed::Callbacks,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    TestApp,
    app::settings,
    browser::Browser,
    eventually,
    fixture::Scene,
    program::{Folder, Program},
};

/// What the browser holds for a page: DOM nodes, event listeners, bytes of the heap after a collection.
async fn holds(browser: &Browser) -> [f64; 3] {
    browser.devtools("HeapProfiler.collectGarbage", json!({})).await;
    let told = browser.devtools("Performance.getMetrics", json!({})).await;
    let metric = |name: &str| {
        let metrics = told["metrics"].as_array().unwrap();
        metrics.iter().find(|metric| metric["name"] == name).unwrap()["value"].as_f64().unwrap()
    };
    ["Nodes", "JSEventListeners", "JSHeapUsedSize"].map(metric)
}

/// Counts how often each tile is painted anew: whatever changes between two frames is one paint.
const COUNT_PAINTS: &str = "window.paints = {}; window.began = performance.now(); const tiles = new Set(); \
    const paint = () => { for (const id of tiles) window.paints[id] = (window.paints[id] ?? 0) + 1; tiles.clear(); }; \
    new MutationObserver((changes) => { \
      if (!tiles.size) requestAnimationFrame(() => setTimeout(paint)); \
      for (const change of changes) { \
        const element = change.target.nodeType === 1 ? change.target : change.target.parentElement; \
        const tile = element?.closest('.tile'); if (tile) tiles.add(tile.id); } \
    }).observe(document.getElementById('page'), { subtree: true, childList: true, characterData: true, attributes: true });";

/// Fake workers at a server, until they are told to end.
struct FakeWork {
    over: CancellationToken,
    demo: JoinHandle<()>,
}

impl FakeWork {
    fn on(url: &str, rate: f64, workers: u32) -> Self {
        let work = DemoSettings { url: url.to_owned(), rate, workers, seconds: 0 };
        let over = CancellationToken::new();
        let demo = Demo::of(&work).unwrap().run(over.clone());
        let demo = tokio::spawn(async {
            let _ = demo.await;
        });
        Self { over, demo }
    }

    async fn ends(self) {
        self.over.cancel();
        let _ = self.demo.await;
    }
}

/// A longer run is asked for by the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_stays_as_large_as_it_was() {
    let app = TestApp::start().await;
    let seconds = number("TASKWATCH_WALL").unwrap_or(20);
    let work = FakeWork::on(&app.url, 20.0, 60);
    let browser = Browser::open().await;
    browser.devtools("Performance.enable", json!({})).await;
    browser.goes_to(&format!("{}/wall?rotate=5", app.url)).await;
    browser.shows("#link-state", "Live").await;
    browser.runs(COUNT_PAINTS).await;
    let began = (Instant::now(), app.position().await);
    // After a twelfth of the time everything that there is has been shown.
    tokio::time::sleep(Duration::from_secs((seconds / 12).max(5))).await;
    let first = holds(&browser).await;
    let mut last = first;
    let mut least = f64::MAX;
    while began.0.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_secs((seconds / 24).max(3))).await;
        last = holds(&browser).await;
        least = least.min(last[2]);
        println!("wall after {} s: nodes, listeners, heap {last:?}", began.0.elapsed().as_secs());
    }
    let rate = (app.position().await - began.1) as f64 / began.0.elapsed().as_secs_f64();
    let most = browser
        .runs("return Math.max(0, ...Object.values(window.paints)) / ((performance.now() - window.began) / 1000)")
        .await
        .as_f64()
        .unwrap();
    println!(
        "{rate:.0} events/s for {} s: from {first:?} to {last:?}; a tile changed {most:.2} times a second at most",
        seconds
    );
    work.ends().await;
    assert_eq!(last[1], first[1], "listeners");
    // Boards have more or fewer tiles from time to time, and in the first minutes more and more.
    let (nodes, heap) = if seconds >= 600 { (first[0] * 1.1, first[2] * 1.1) } else { (4_000.0, 4_000_000.0) };
    assert!(last[0] <= nodes, "nodes: {first:?} to {last:?}");
    assert!(least <= heap, "heap: {first:?} to {last:?}");
    assert!(most <= 1.1, "a tile was painted {most} times a second");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_says_that_it_is_not_live_and_comes_back_untouched() {
    let data = Folder::new();
    let server = Program::start(&data.0, &[]);
    let listen = server.url.trim_start_matches("http://").to_owned();
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/wall", server.url)).await;
    browser.shows("#link-state", "Live").await;
    // Two minutes pass faster for the page than for the test.
    let away = number("TASKWATCH_WALL_AWAY");
    browser.runs("window.mark = true").await;
    server.kill();
    browser.shows("#link-state", "Reconnecting").await;
    if away.is_none() {
        browser.runs("const real = Date.now.bind(Date); Date.now = () => real() + 130000").await;
    }
    let waits = Instant::now();
    while browser.text("#cover").await.is_empty() {
        assert!(waits.elapsed() < Duration::from_secs(150), "the wall never said it");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    browser.shows("#cover", "NOT LIVE since").await;
    println!("the wall covered itself after {:.0} s", waits.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(away.unwrap_or(0)).saturating_sub(waits.elapsed())).await;
    let server = Program::start_on(&data.0, &listen, &[]);
    let back = Instant::now();
    while browser.text("#link-state").await != "Live" || !browser.text("#cover").await.is_empty() {
        assert!(
            back.elapsed() < Duration::from_secs(90),
            "the wall did not come back: {}",
            browser.text("#link-state").await
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("the wall was live again after {:.1} s, untouched", back.elapsed().as_secs_f64());
    assert_eq!(
        browser.runs("return [window.mark, document.getElementById('cover').hidden]").await,
        json!([true, true])
    );
    server.kill();
}

/// Lets the page's clock jump by half an hour with each heartbeat, or twice a second when the server is away; loads of
/// the page are noted.
const HURRY: &str = "(() => { \
    const real = Date.now.bind(Date); const Real = Date; const halfHour = 1800000; \
    let ahead = Number(sessionStorage.getItem('ahead') ?? 0); \
    const jump = () => { ahead += halfHour; sessionStorage.setItem('ahead', ahead); }; \
    window.Date = class extends Real { constructor(...a) { if (a.length) super(...a); else super(real() + ahead); } static now() { return real() + ahead; } }; \
    const later = window.setTimeout.bind(window); \
    window.setTimeout = (f, ms, ...a) => later(f, ms > 20000 ? ms / 10 : ms, ...a); \
    const loads = JSON.parse(sessionStorage.getItem('loads') ?? '[]'); \
    sessionStorage.setItem('loads', JSON.stringify([...loads, real() + ahead])); \
    window.addEventListener('htmx:sse:after:message', (event) => { \
      if (event.detail?.message?.event === 'heartbeat') jump(); }, true); \
    setInterval(() => { if (window.away) jump(); }, 500); })()";

/// When the page was loaded, by its own clock, in hours after its first load.
async fn loads(browser: &Browser) -> Vec<f64> {
    let loads = browser.runs("return JSON.parse(sessionStorage.getItem('loads'))").await;
    let loads: Vec<f64> = loads.as_array().unwrap().iter().map(|load| load.as_f64().unwrap()).collect();
    loads.iter().map(|load| (load - loads[0]) / 3_600_000.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_starts_afresh_every_six_hours_when_the_server_is_there() {
    let hours = number("TASKWATCH_WALL_HOURS").unwrap_or(7) as f64;
    let data = Folder::new();
    let server = Program::start(&data.0, &[]);
    let listen = server.url.trim_start_matches("http://").to_owned();
    let work = FakeWork::on(&server.url, 5.0, 12);
    let browser = Browser::open().await;
    browser.devtools("Performance.enable", json!({})).await;
    browser.goes_to(&format!("{}/healthz", server.url)).await;
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": HURRY })).await;
    browser.goes_to(&format!("{}/wall?rotate=60&dim_from=22:00&dim_to=06:00", server.url)).await;
    let now = || async { browser.runs("return Date.now() / 3600000").await.as_f64().unwrap() };
    let (mut seen, mut first, began) = (1, None, now().await);
    // Two seconds for each half hour, and some.
    let deadline = Instant::now() + Duration::from_secs_f64(hours * 6.0 + 60.0);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(Instant::now() < deadline, "the wall was loaded at these hours only: {:?}", loads(&browser).await);
        let (passed, hours_of_loads) = (now().await - began, loads(&browser).await);
        if hours_of_loads.len() > seen {
            seen = hours_of_loads.len();
            browser.shows("#link-state", "Live").await;
            let last = holds(&browser).await;
            println!("after {passed:.1} h: load {seen}, nodes, listeners, heap {last:?}");
            let first = *first.get_or_insert(last);
            assert!(last[1] <= first[1] && last[2] <= first[2] * 1.2, "from {first:?} to {last:?}");
        }
        if passed >= hours && seen > 1 {
            break;
        }
    }
    let before = loads(&browser).await;
    for pair in before.windows(2) {
        assert!((5.4..9.0).contains(&(pair[1] - pair[0])), "the wall was loaded at these hours: {before:?}");
    }
    // The server goes away for a night: the wall stays, and says so.
    server.kill();
    browser.runs("window.away = true").await;
    let left = now().await;
    browser.shows("#cover", "NOT LIVE since").await;
    while now().await - left < 8.0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        browser.runs("return [window.away, document.querySelectorAll('.tile').length > 0]").await,
        json!([true, true])
    );
    let server = Program::start_on(&data.0, &listen, &[]);
    eventually("the wall starts afresh once the server is back", || async {
        loads(&browser).await.len() > before.len()
    })
    .await;
    browser.shows("#link-state", "Live").await;
    assert_eq!(browser.text("#cover").await, "");
    work.ends().await;
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_turns_its_pages_over_and_moves_a_little() {
    let app = TestApp::with(Settings { poll_seconds: 2, ..settings() }, Callbacks::default()).await;
    for queue in 0..9 {
        app.creates_as(json!({ "task_type": "t", "queue": format!("q{queue}") })).await;
    }
    app.settles().await;
    let browser = Browser::open().await;
    browser.sized(1920, 1080).await;
    browser.goes_to(&format!("{}/wall?boards=queues&rotate=2&tiles=5&theme=light&tz=Europe/Berlin", app.url)).await;
    for (page, count) in [("1/2", 5), ("2/2", 4), ("1/2", 5)] {
        eventually(&format!("page {page}"), || async {
            let shown = browser.runs("return [document.getElementById('wall-page').textContent, [...document.querySelectorAll('.tile')].filter((tile) => !tile.hidden).length]").await;
            shown == json!([page, count])
        })
        .await;
    }
    let look = browser
        .runs("const root = document.documentElement; return [root.dataset.theme, document.scrollingElement.scrollHeight <= innerHeight, document.getElementById('clock').textContent.endsWith(' Berlin')]")
        .await;
    assert_eq!(look, json!(["light", true, true]));
    // A minute later everything stands a few pixels elsewhere.
    let place = || async {
        browser.runs("const box = document.querySelector('#page').getBoundingClientRect(); return [box.x, box.y]").await
    };
    let first = place().await;
    browser.runs("const Real = Date; window.Date = class extends Real { constructor(...a) { if (a.length) super(...a); else super(Real.now() + 120000); } static now() { return Real.now() + 120000; } }").await;
    eventually("the page has moved", || async { place().await != first }).await;
}

/// Texts of the wall that are cut, and figures: share of the screen that is used, smallest sentence and numeral in
/// hundredths of the shorter side.
const CUT: &str = "const visible = (element) => element.offsetParent; \
    const texts = [...document.querySelectorAll('.tile .name, .tile .huge, .tile .below, .wall-health')].filter(visible); \
    const over = (element) => element.scrollWidth > element.clientWidth + 1 || (element.matches('.wall-health') && element.scrollHeight > element.clientHeight + 1); \
    const tiles = [...document.querySelectorAll('.tile')].filter(visible); \
    const cut = [...texts.filter(over), ...tiles.filter((tile) => tile.scrollHeight > tile.clientHeight + 1)]; \
    const area = [...tiles, document.getElementById('wall-health'), document.querySelector('.wall-bar')].reduce((sum, element) => sum + element.offsetWidth * element.offsetHeight, 0); \
    const vmin = Math.min(innerWidth, innerHeight) / 100; \
    const least = (selector) => Math.min(...[...document.querySelectorAll(selector)].filter(visible).map((element) => parseFloat(getComputedStyle(element).fontSize))) / vmin; \
    return [cut.map((element) => element.textContent), tiles.length, area / (innerWidth * innerHeight), least('.tile .below'), least('.tile .huge')]";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_on_the_wall_is_cut_at_any_size_with_any_number_of_tiles() {
    let scene = Scene::on(TestApp::start().await, false).await;
    let app = &scene.app;
    app.creates_many(1_234, "t").await;
    for queue in 0..9 {
        app.creates_as(
            json!({ "task_type": "t", "queue": format!("a-queue-with-a-rather-long-name-of-team-{queue}") }),
        )
        .await;
    }
    app.settles().await;
    app.post("/api/v1/queues/default/pause", &json!({ "reason": "a long reason for a pause that someone wrote" }))
        .await;
    app.settles().await;
    app.time_passes(15);
    let browser = Browser::open().await;
    let (mut layouts, mut sizes) = (0, Vec::new());
    for (width, height) in
        [(1366, 768), (1024, 768), (1920, 1080), (3440, 1440), (3840, 2160), (1080, 1920), (2160, 3840)]
    {
        browser.sized(width, height).await;
        for tiles in 1..=15_u64 {
            browser.goes_to(&format!("{}/wall?tiles={tiles}&live=0&refresh=0", app.url)).await;
            eventually("it is laid out", || async {
                browser.runs("return document.querySelector('.tile')?.style.gridColumn !== ''").await == true
            })
            .await;
            let [cut, shown, area, sentence, numeral]: [serde_json::Value; 5] =
                serde_json::from_value(browser.runs(CUT).await).unwrap();
            assert_eq!(cut, json!([]), "{width} x {height} with {tiles} tiles");
            // What could not be read is left out and counted.
            let shown = shown.as_u64().unwrap();
            assert!(
                shown == tiles || (shown > 6 && height.min(width) < 1_080),
                "{width} x {height}: {shown} of {tiles}"
            );
            layouts += 1;
            sizes.push((area.as_f64().unwrap(), sentence.as_f64().unwrap(), numeral.as_f64().unwrap()));
        }
    }
    let least = |figure: fn(&(f64, f64, f64)) -> f64| sizes.iter().map(figure).fold(f64::MAX, f64::min);
    let (area, sentence, numeral) = (least(|size| size.0), least(|size| size.1), least(|size| size.2));
    println!(
        "{layouts} layouts, none cut: at least {:.0} % of the screen, sentences {sentence:.1} vmin, numerals {numeral:.1} vmin",
        area * 100.0
    );
    assert!(area > 0.8 && sentence > 2.0, "{area} {sentence}");
    let html = app.get("/wall?tiles=3").await.text;
    assert_eq!(html.matches("id=\"tile-").count(), 3);
    assert!(html.contains("id=\"wall-more\"") && !html.contains("data-more=\"0\""), "more than three");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_comes_first_on_the_wall() {
    let app = TestApp::start().await;
    app.creates_as(json!({ "task_type": "t", "queue": "calm" })).await;
    for _ in 0..3 {
        app.creates_as(json!({ "task_type": "t", "queue": "busy" })).await;
    }
    app.settles().await;
    app.post("/api/v1/queues/calm/pause", &json!({})).await.expect(200);
    app.settles().await;
    let html = app.get("/wall?boards=queues").await.text;
    let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text} is not there"));
    assert!(at("tile-queue-calm") < at("tile-queue-busy"));
    assert!(html.contains("Paused") && !html.contains("<nav"));
}
