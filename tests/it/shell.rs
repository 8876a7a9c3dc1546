//! The frame of every page: one row, whatever it says; title and icon that tell trouble; a box that jumps.

use serde_json::json;
use taskwatch::{config::Settings, feed::Callbacks};
use uuid::Uuid;

use crate::harness::{TestApp, app::settings, browser::Browser};

/// Everything that lies over its neighbour, leaves the window, or makes the header another height.
const MISPLACED: &str = "const wrong = []; const top = document.querySelector('header > .top'); \
    const size = top.getBoundingClientRect(); \
    if (size.height !== 48) wrong.push(`height ${size.height}`); \
    const parts = [...top.querySelectorAll(':scope > *, :scope > nav > *')].filter((e) => e.tagName !== 'NAV' && e.getClientRects().length); \
    let before = null; \
    for (const part of parts.sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left)) { \
        const at = part.getBoundingClientRect(); \
        if (at.right > innerWidth + 0.5) wrong.push(`${part.className || part.tagName} ends at ${at.right}`); \
        if (before && at.left < before.right - 0.5) wrong.push(`${part.className || part.tagName} begins at ${at.left}, before ${before.right}`); \
        before = at; \
    } \
    return wrong";

#[tokio::test(flavor = "multi_thread")]
async fn the_header_is_one_row_at_every_width_and_for_every_word() {
    let settings = Settings { instance_name: "production-europe-west-1".to_owned(), ..settings() };
    let app = TestApp::with(settings, Callbacks::default()).await;
    let browser = Browser::open().await;
    browser.goes_to(&app.url).await;
    let mut wrong = Vec::new();
    for width in [320, 360, 420, 480, 640, 720, 900, 960, 1_080, 1_180, 1_280, 1_400, 1_440, 1_572, 1_920] {
        browser.sized(width, 800).await;
        for word in ["Live · 0s", "Every 60s · 59s", "Paused · 120", "Reconnecting", "Offline · 27s", "Past · 3600×"]
        {
            let set = format!(
                "document.getElementById('link-state').textContent = {}; \
                 document.querySelectorAll('[data-badge]').forEach((badge) => {{ badge.textContent = '128'; badge.hidden = false; }}); {MISPLACED}",
                json!(word)
            );
            let found = browser.runs(&set).await;
            wrong.extend(found.as_array().unwrap().iter().map(|line| format!("{width} {word}: {line}")));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn title_and_icon_tell_trouble() {
    let settings = Settings { instance_name: "prod-eu".to_owned(), ..settings() };
    let app = TestApp::with(settings, Callbacks::default()).await;
    let browser = Browser::open().await;
    let told = async || {
        browser.runs("return [document.title, document.getElementById('icon').href.replace(/.*static.(icon.*)\\.svg.*/, '$1')]").await
    };
    let becomes = async |title: &str, icon: &str| {
        crate::harness::eventually(&format!("the title is {title}"), || async { told().await == json!([title, icon]) })
            .await;
    };
    for live in [1, 0] {
        browser.goes_to(&format!("{}/tasks?live={live}&refresh=2", app.url)).await;
        becomes("Tasks · prod-eu", "icon").await;
        let id = app.creates("lonely").await;
        app.time_passes(15);
        becomes("✕ Stalled · Tasks · prod-eu", "icon-bad").await;
        // Without scripts it is right from the beginning.
        let page = app.get("/tasks?status=failed").await.text;
        assert!(page.contains("<title>✕ Stalled · Tasks · prod-eu</title>"), "{page}");
        assert!(page.contains("data-badge=\"queues\">1</b>"), "{page}");
        let worker = app.worker("w1").await;
        becomes("Tasks · prod-eu", "icon").await;
        app.post("/api/v1/queues/default/pause", &json!({})).await.expect(200);
        becomes("▲ Degraded · Tasks · prod-eu", "icon-warn").await;
        app.post("/api/v1/queues/default/resume", &json!({})).await.expect(200);
        app.delete(&format!("/api/v1/tasks/{id}")).await.expect(204);
        worker.leaves().await;
        becomes("Tasks · prod-eu", "icon").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_box_jumps_to_whatever_is_pasted() {
    let app = TestApp::start().await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let goes = async |text: &str| {
        let reply = client.get(format!("{}/jump", app.url)).query(&[("q", text)]).send().await.unwrap();
        (reply.status().as_u16(), reply.headers().get("location").map(|at| at.to_str().unwrap().to_owned()))
    };
    let to = |path: String| (303, Some(path));
    let worker = app.worker("box-7").await;
    let id = app.creates_as(json!({ "task_type": "send-mail", "queue": "mail", "unique_key": "order/4711" })).await;
    let parent = app.creates_as(json!({ "task_type": "import", "queue": "imports" })).await;
    app.creates_as(json!({ "task_type": "fetch", "queue": "imports", "parent_task_id": parent })).await;
    let report = json!({ "event_type": "task_started", "task_id": "job 12", "task_type": "sync", "worker_id": "far" });
    app.post("/api/v1/events", &report).await.expect(200);
    let schedule = json!({ "cron": "@hourly", "task": { "task_type": "report" } });
    app.put("/api/v1/schedules/nightly", &schedule).await.expect(200);
    worker.claims("mail").await.completes().await;
    app.settles().await;
    let observed =
        app.get("/api/v1/tasks?task_type=sync").await.expect(200)["tasks"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(goes(&id).await, to(format!("/tasks/{id}")));
    assert_eq!(goes(&format!(" {} ", id.to_uppercase())).await, to(format!("/tasks/{id}")));
    assert_eq!(goes(&id.replace('-', "")).await, to(format!("/tasks/{id}")));
    assert_eq!(goes(&parent).await, to(format!("/parents/{parent}")));
    assert_eq!(goes(&worker.id).await, to(format!("/workers/{}", worker.id)));
    assert_eq!(goes(&id[28..]).await, to(format!("/tasks/{id}")), "the short ID of pages");
    assert_eq!(goes("order/4711").await, to(format!("/tasks/{id}")), "also of a finished task");
    assert_eq!(goes("job 12").await, to(format!("/tasks/{observed}")));
    assert_eq!(goes("Mail").await, to("/queues/mail".to_owned()));
    assert_eq!(goes("box-7").await, to(format!("/workers/{}", worker.id)));
    assert_eq!(goes("nightly").await, to("/schedules".to_owned()));
    assert_eq!(goes("metrics").await, to("/analytics".to_owned()));
    assert_eq!(goes("").await, to("/tasks".to_owned()));
    // What is not known is searched for, whatever it is.
    assert_eq!(goes(&Uuid::nil().to_string()).await, to(format!("/tasks?q={}", Uuid::nil())));
    assert_eq!(goes("<b>&%").await, to("/tasks?q=%3Cb%3E%26%25".to_owned()));
    assert_eq!(goes(&"x".repeat(600)).await.0, 400);
    // Several are offered.
    app.creates_as(json!({ "task_type": "t", "queue": "box-7" })).await;
    app.settles().await;
    let page = app.get("/jump?q=box-7").await.text;
    assert!(page.contains("/queues/box-7") && page.contains(&format!("/workers/{}", worker.id)), "{page}");
}
