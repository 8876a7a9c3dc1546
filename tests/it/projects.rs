//! Projects: every page, figure, list, snapshot and live page of some of them.

use serde_json::{Value, json};
use taskwatch::page::PAGES;

use crate::harness::{TestApp, browser::Browser, eventually, fixture::Scene};

/// Two projects share a queue: one task of each is pending, one of the first failed, one of the second runs.
async fn two_projects() -> TestApp {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let task = |project: &str, kind: &str| json!({ "task_type": kind, "project_id": project, "max_attempts": 1 });
    app.creates_as(task("atlas", "render")).await;
    worker.claims("default").await.fails("disk full").await;
    app.creates_as(task("borealis", "import")).await;
    worker.claims("default").await.progresses(40).await;
    app.creates_as(task("atlas", "render")).await;
    app.creates_as(task("borealis", "import")).await;
    app.settles().await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_read_from_the_board_is_of_the_projects_asked_for() {
    let app = two_projects().await;
    let read = async |path: &str, query: &str| app.get(&format!("/api/v1/{path}?{query}")).await.expect(200);
    for (query, pending, running, failed) in [
        ("", 2, 1, 1),
        ("project_id=atlas", 1, 0, 1),
        ("project_id=borealis", 1, 1, 0),
        ("project_id=atlas,borealis", 2, 1, 1),
        ("project_id=atlas&project_id=borealis", 2, 1, 1),
        ("project_id=unknown", 0, 0, 0),
    ] {
        let stats = read("stats", query).await;
        let counts = ["pending", "running", "failed"].map(|name| stats[name].as_u64().unwrap());
        assert_eq!(counts, [pending, running, failed], "{query}");
        let snapshot = read("snapshot", query).await;
        assert_eq!(snapshot["running"].as_array().unwrap().len() as u64, running, "{query}");
        assert_eq!(snapshot["failed"].as_array().unwrap().len() as u64, failed, "{query}");
        assert_eq!(snapshot["position"], stats["position"], "of the same log: {query}");
        let history = read("history", query).await;
        let buckets = history["buckets"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket["failed"].as_u64().unwrap()).sum::<u64>(), failed, "{query}");
        let groups = read("failures", query).await;
        assert_eq!(groups["groups"].as_array().unwrap().len() as u64, failed, "{query}");
        let queues = read("queues", query).await;
        let depth: u64 =
            queues["queues"].as_array().unwrap().iter().map(|queue| queue["depth"]["normal"].as_u64().unwrap()).sum();
        assert_eq!(depth, pending, "{query}");
        read("health", query).await;
        read("workers", query).await;
    }
    app.get("/api/v1/queues/default?project_id=atlas").await.expect(200);
    app.get("/api/v1/queues/default?project_id=unknown").await.expect(404);
    for path in ["stats", "health", "snapshot", "queues", "failures", "history", "workers", "queues/default"] {
        let refused = app.get(&format!("/api/v1/{path}?project=atlas")).await.expect(400);
        assert!(refused["errors"][0]["detail"].as_str().unwrap().contains("project_id"), "{refused}");
        app.get(&format!("/api/v1/{path}?project_id=%01")).await.expect(400);
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_project_begins_with_a_snapshot_of_it() {
    let app = two_projects().await;
    for (query, expected) in [("project_id=atlas&", 0), ("", 1), ("project_id=atlas,borealis&", 1)] {
        let mut stream = app.events(&format!("?{query}snapshot=always")).await;
        let frames = stream.until("snapshot_end").await;
        let parts = frames.iter().filter(|frame| frame.event == "snapshot");
        let parts: Vec<Value> = parts.map(|frame| serde_json::from_str(&frame.data).unwrap()).collect();
        let running = parts.iter().filter(|part| part["part"] == "running");
        assert_eq!(running.map(|part| part["items"].as_array().unwrap().len()).sum::<usize>(), expected, "{query}");
    }
    let polled = app.get("/events?project_id=atlas&snapshot=always&poll=1").await.expect(200);
    assert_eq!(polled["snapshot"]["running"], json!([]));
    assert_eq!(polled["snapshot"]["counts"]["failed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_takes_a_project_and_its_links_keep_it() {
    let scene = Scene::on(TestApp::start().await, false).await;
    let app = &scene.app;
    app.creates_as(json!({ "task_type": "far", "project_id": "elsewhere", "queue": "far-queue" })).await;
    app.settles().await;
    for page in &PAGES {
        let path = scene.path(page);
        let reply = app.get(&format!("{path}?project_id=elsewhere")).await;
        // That queue and that error group have nothing of this project.
        let expected = if ["queue", "failure"].contains(&page.name) { 404 } else { 200 };
        assert_eq!(reply.status.as_u16(), expected, "{}", page.name);
        let header = reply.text.split_once("<nav ").map_or("", |(_, rest)| rest.split("</nav>").next().unwrap());
        if expected == 404 {
            continue;
        }
        let links = [header, &app.get(&format!("{path}?project_id=elsewhere&fragment=1")).await.text].concat();
        for link in links.split(" href=\"/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let leads =
                PAGES.iter().any(|other| !other.is_rare && other.path[1..] == *link.split(['?', '#']).next().unwrap());
            assert!(!leads || link.contains("project_id="), "{}: {link}", page.name);
        }
        app.get(&format!("{path}?project_id=%00")).await.expect(400);
    }
    let queues = app.get("/queues?project_id=elsewhere&fragment=1").await.text;
    assert!(queues.contains("far-queue") && !queues.contains("q-default"), "{queues}");
    let wall = app.get("/wall?project_id=elsewhere&boards=queues&fragment=1").await.text;
    assert!(wall.contains("far-queue") && !wall.contains(">default<"), "{wall}");
    // The menu offers all of them, on this page.
    let page = app.get("/queues?project_id=elsewhere").await.text;
    assert!(page.contains("<a href=\"/queues\">All projects</a>"), "{page}");
    assert!(page.contains("<a href=\"/queues?project_id=elsewhere\" aria-current=\"true\">elsewhere</a>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_a_project_is_its_own() {
    let app = two_projects().await;
    let then = app.position().await;
    app.creates_as(json!({ "task_type": "late", "project_id": "atlas" })).await;
    app.settles().await;
    let pending = async |query: &str| {
        let page = app.get(&format!("/?fragment=1&{query}")).await.text;
        let at = page.split_once("waiting-now\" data-live>").unwrap().1;
        at.split('<').next().unwrap().to_owned()
    };
    assert_eq!(pending("").await, "3");
    assert_eq!(pending("project_id=atlas").await, "2");
    assert_eq!(pending(&format!("project_id=atlas&at={then}")).await, "1");
    assert_eq!(pending(&format!("at={then}")).await, "2");
    let page = app.get(&format!("/?project_id=atlas&at={then}")).await.text;
    assert!(page.contains(&format!("href=\"/queues?at={then}&#38;project_id=atlas\"")), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_of_a_project_follows_it_and_its_title_tells_its_trouble() {
    let app = two_projects().await;
    let browser = Browser::open().await;
    browser.goes_to(&format!("{}/queues?live=1&project_id=atlas", app.url)).await;
    let shown = async || browser.runs("return document.querySelectorAll('#queue-list tr').length").await;
    eventually("the queue of the project", || async { shown().await == 1 }).await;
    app.creates_as(json!({ "task_type": "far", "project_id": "borealis", "queue": "lonely" })).await;
    let near = app.creates_as(json!({ "task_type": "near", "project_id": "atlas", "queue": "near" })).await;
    eventually("both queues", || async { shown().await == 2 }).await;
    // The queue of the other project has no worker either: not this one's trouble.
    app.delete(&format!("/api/v1/tasks/{near}")).await.expect(204);
    app.time_passes(15);
    let title = async |query: &str| {
        let page = app.get(&format!("/queues?{query}")).await.text;
        page.split_once("<title>").unwrap().1.split(" ·").next().unwrap().to_owned()
    };
    eventually("trouble of the other", || async { title("project_id=borealis").await == "✕ Stalled" }).await;
    // Its worker may have become quiet meanwhile, which degrades every project.
    assert_ne!(title("project_id=atlas").await, "✕ Stalled");
    assert_eq!(title("").await, "✕ Stalled");
}
