//! What grows is bounded: walks, families, phases, connectors, queues, reports that never end.

use serde_json::{Value, json};
use taskwatch::{config::Settings, feed::Callbacks};
use uuid::Uuid;

use crate::harness::{TestApp, app::settings, cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_through_a_large_graph_is_refused_and_disturbs_nobody() {
    let app = TestApp::start().await;
    let layer = |n: u128| (0..120_u128).map(move |i| Uuid::from_u128(n * 1_000 + i + 1));
    let gate = app.creates("gate").await;
    for n in 0..4 {
        let below: Vec<_> = if n == 0 { vec![gate.clone()] } else { layer(n - 1).map(|id| id.to_string()).collect() };
        let tasks: Vec<_> = layer(n).map(|id| json!({ "id": id, "task_type": "t", "depends_on": below })).collect();
        app.post("/api/v1/tasks", &json!(tasks)).await.expect(201);
    }
    // Nothing waits for the top, so there is nothing to walk through.
    let (top, bottom) = (layer(3).next().unwrap(), layer(0).next().unwrap());
    let fewer: Vec<_> = layer(2).take(100).collect();
    app.patch(&format!("/api/v1/tasks/{top}"), &json!({ "depends_on": fewer })).await.expect(200);
    // All wait for the bottom.
    let other = app.creates("other").await;
    let edit = json!({ "depends_on": [gate, other] });
    let refused = app.patch(&format!("/api/v1/tasks/{bottom}"), &edit).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "dependencies_too_deep"), "{}", refused.text);
    assert_eq!(refused.json["errors"][0]["field"], "depends_on");
    // In the same batch as that, others are carried out.
    let path = format!("/api/v1/tasks/{bottom}");
    let small = app.creates_as(json!({ "task_type": "t", "depends_on": [gate] })).await;
    let small = format!("/api/v1/tasks/{small}");
    for _ in 0..5 {
        let (large, fine) = tokio::join!(app.patch(&path, &edit), app.patch(&small, &edit));
        assert_eq!((large.code(), fine.status.as_u16()), ("dependencies_too_deep", 200), "{}", fine.text);
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn families_end_at_32_levels_by_every_door() {
    let app = TestApp::start().await;
    // In one request and in further ones.
    let ids: Vec<_> = (0..33).map(|_| Uuid::now_v7().to_string()).collect();
    let task = |n: usize| json!({ "id": ids[n], "task_type": "t", "queue": "q", "parent_task_id": n.checked_sub(1).map(|n| &ids[n]) });
    let all: Vec<_> = (0..33).map(task).collect();
    let refused = app.post("/api/v1/tasks", &json!(all)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "parents_too_deep"), "{}", refused.text);
    app.post("/api/v1/tasks", &json!(all[..20])).await.expect(201);
    for task in &all[20..32] {
        app.post("/api/v1/tasks", task).await.expect(201);
    }
    let refused = app.post("/api/v1/tasks", &all[32]).await;
    assert_eq!((refused.code(), &refused.json["errors"][0]["field"]), ("parents_too_deep", &json!("parent_task_id")));
    let enqueue = format!("SELECT taskwatch.enqueue('s', parent_task_id => '{}')", ids[31]);
    assert!(!cluster::tries(&app.database, &enqueue).await);
    let enqueue = format!("SELECT taskwatch.enqueue('s', parent_task_id => '{}')", ids[30]);
    assert!(cluster::tries(&app.database, &enqueue).await);
    // By reports, from the top down and from the bottom up, in one call and in several.
    for (name, step) in [("down", 1_000), ("slow", 7)] {
        let told = |n: usize| json!({ "event_type": "task_started", "task_id": format!("{name}{n}"), "parent_task_id": format!("{name}{}", n.wrapping_sub(1)) });
        let reports: Vec<_> = (1..80).map(told).collect();
        assert_eq!(depth_taken(&app, &reports, step).await, 31, "{name}");
        let told = |n: usize| json!({ "event_type": "task_started", "task_id": format!("up-{name}{n}"), "parent_task_id": format!("up-{name}{}", n + 1) });
        let reports: Vec<_> = (1..80).map(told).collect();
        assert!(depth_taken(&app, &reports, step).await <= 32, "up {name}");
    }
    let ring = [("a", "b"), ("b", "c"), ("c", "a")]
        .map(|(id, parent)| json!({ "event_type": "task_started", "task_id": id, "parent_task_id": parent }));
    let outcomes = app.hears(json!(ring)).await;
    assert_eq!(outcomes["outcomes"][2]["code"], "parent_cycle");
    app.settles().await;
    app.get("/api/v1/snapshot").await.expect(200);
    app.is_clean().await;
}

/// How many of these were taken before one was refused.
async fn depth_taken(app: &TestApp, reports: &[Value], step: usize) -> usize {
    let mut taken = 0;
    for chunk in reports.chunks(step) {
        let outcomes = app.hears(json!(chunk)).await;
        for outcome in outcomes["outcomes"].as_array().unwrap() {
            if outcome["status"] != 200 {
                assert_eq!(outcome["code"], "parents_too_deep", "{outcome}");
                return taken;
            }
            taken += 1;
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_of_a_parent_are_bounded_by_every_door() {
    let app = TestApp::start().await;
    let parent = app.creates_as(json!({ "task_type": "p", "queue": "q" })).await;
    let child = |n: usize| json!({ "task_type": "c", "parent_task_id": parent, "phase": format!("p{n}") });
    for chunk in (0..300).collect::<Vec<_>>().chunks(90) {
        app.post("/api/v1/tasks", &json!(chunk.iter().map(|n| child(*n)).collect::<Vec<_>>())).await.expect(201);
    }
    let enqueue =
        (300..310).map(|n| format!("SELECT taskwatch.enqueue('s', parent_task_id => '{parent}', phase => 'p{n}');"));
    assert!(cluster::tries(&app.database, &format!("BEGIN; {} COMMIT", enqueue.collect::<String>())).await);
    let phases = format!("SELECT count(*) FROM taskwatch.phases WHERE parent_task_id = '{parent}'");
    let count = cluster::number(&app.database, &phases).await;
    assert!((200..=201).contains(&count), "{count}");
    // A phase that is there goes on taking children.
    let again = app.post("/api/v1/tasks", &child(7)).await.expect(201);
    assert_eq!(again["task"]["phase"], "p7");
    assert_eq!(app.post("/api/v1/tasks", &child(999)).await.expect(201)["task"]["phase"], Value::Null);
    // Children first, their parent then: what it is told with fits into events.
    let name = "n".repeat(100);
    let told = |n: usize| json!({ "event_type": "task_started", "task_id": format!("k{n}"), "parent_task_id": "P", "phase": format!("{name}{n}") });
    app.hears(json!((0..300).map(told).collect::<Vec<_>>())).await;
    app.hears(json!([{ "event_type": "task_started", "task_id": "P" }])).await;
    // They come from elsewhere.
    let moved = |n: usize| json!({ "event_type": "task_started", "task_id": format!("m{n}"), "parent_task_id": format!("Q{}", n / 100), "phase": format!("q{n}"), "ts": "2026-11-20T10:00:00Z" });
    app.hears(json!((0..300).map(moved).collect::<Vec<_>>())).await;
    let to_one = |n: usize| json!({ "event_type": "task_progress", "task_id": format!("m{n}"), "parent_task_id": "Q", "ts": "2026-11-20T10:00:01Z" });
    app.hears(json!((0..300).map(to_one).collect::<Vec<_>>())).await;
    let most = "SELECT max(count) FROM (SELECT count(*) FROM taskwatch.phases GROUP BY parent_task_id) p";
    assert!(cluster::number(&app.database, most).await <= 201);
    app.settles().await;
    let largest = "SELECT max(octet_length(body)) FROM taskwatch.events";
    let largest = cluster::number(&app.database, largest).await;
    assert!(largest <= 8_192 + 200, "{largest}");
    let overview = app.get("/").await.text;
    assert!(overview.contains("more phases") && overview.len() < 100_000, "{}", overview.len());
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors_of_a_worker_are_bounded_by_every_door() {
    let app = TestApp::start().await;
    let worker = app.worker("w1").await;
    let connectors =
        |range: std::ops::Range<usize>| range.map(|n| json!({ "connector_id": format!("x{n}") })).collect::<Vec<_>>();
    worker.beats(json!({ "connectors": connectors(0..63) })).await;
    let beat = app
        .post(&format!("/api/v1/workers/{}/heartbeat", worker.id), &json!({ "connectors": connectors(60..66) }))
        .await;
    assert_eq!((beat.status.as_u16(), beat.code()), (422, "too_many_connectors"), "{}", beat.text);
    app.creates("t").await;
    let claim = |connector: &str| json!({ "worker_id": worker.id, "queues": ["default"], "connector_id": connector });
    assert_eq!(app.post("/api/v1/claims", &claim("new")).await.code(), "too_many_connectors");
    assert_eq!(app.post("/api/v1/claims", &claim("x5")).await.expect(200)["tasks"].as_array().unwrap().len(), 1);
    let told = |n: usize| json!({ "event_type": "connector_status_changed", "worker_id": "far", "connector_id": format!("y{n}"), "status": "idle" });
    let outcomes = app.hears(json!((0..70).map(told).collect::<Vec<_>>())).await;
    let refused =
        outcomes["outcomes"].as_array().unwrap().iter().filter(|outcome| outcome["code"] == "too_many_connectors");
    assert_eq!(refused.count(), 6);
    let task = |n: usize| json!({ "event_type": "task_started", "worker_id": "far", "connector_id": format!("z{n}"), "task_id": format!("t{n}") });
    app.hears(json!((0..70).map(task).collect::<Vec<_>>())).await;
    app.settles().await;
    let workers = app.get("/api/v1/workers").await.expect(200);
    for worker in workers["workers"].as_array().unwrap() {
        assert_eq!(worker["connectors"].as_object().unwrap().len(), 64);
    }
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reported_tasks_that_never_end_are_given_up() {
    let app = TestApp::with(Settings { observed_stale_days: 3, ..settings() }, Callbacks::default()).await;
    let told = |kind: &str, id: &str| json!({ "event_type": kind, "task_id": id });
    app.hears(json!([told("task_started", "silent"), told("task_started", "alive"), told("task_created", "never")]))
        .await;
    let tasks = async |status: &str| {
        app.get(&format!("/api/v1/tasks?status={status}")).await.expect(200)["tasks"].as_array().unwrap().len()
    };
    app.time_passes(2 * 86_400);
    app.hears(json!([told("task_progress", "alive")])).await;
    app.time_passes(2 * 86_400);
    eventually("two are given up", || async { tasks("failed").await == 2 }).await;
    assert_eq!(tasks("running").await, 1);
    let failed = app.get("/api/v1/tasks?status=failed").await.expect(200);
    assert_eq!(failed["tasks"][0]["error"], "not reported for too long");
    let id = failed["tasks"][1]["id"].as_str().unwrap();
    assert!(app.history(id).await.contains(&"task_stalled".to_owned()));
    // News bring it back.
    app.hears(json!([told("task_completed", "silent")])).await;
    assert_eq!((tasks("completed").await, tasks("failed").await), (1, 1));
    app.settles().await;
    app.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_have_gone_leave_and_depths_are_told_when_they_change() {
    let app = TestApp::start().await;
    let many: Vec<_> = (0..50).map(|n| json!({ "task_type": "t", "queue": format!("q{n}") })).collect();
    let created = app.post("/api/v1/tasks", &json!(many)).await.expect(201);
    let mut stream = app.events("?after=now&types=queue_depth_update,stats_snapshot").await;
    let until = async |stream: &mut crate::harness::Stream| {
        let frames = stream.until("stats_snapshot").await;
        frames.iter().filter(|frame| frame.event == "queue_depth_update").count()
    };
    // At first all are told, later those that changed.
    let first = until(&mut stream).await;
    assert!(first <= 50);
    until(&mut stream).await;
    app.creates_as(json!({ "task_type": "t", "queue": "q7" })).await;
    assert_eq!(until(&mut stream).await, 1);
    assert_eq!(until(&mut stream).await, 0);
    app.post("/api/v1/queues/q3/pause", &json!({})).await.expect(200);
    let ids: Vec<_> = (0..50).map(|n| created["tasks"][n]["id"].clone()).collect();
    app.post("/api/v1/tasks/bulk", &json!({ "action": "delete", "ids": ids })).await.expect(200);
    app.settles().await;
    let names = async || {
        let queues = app.get("/api/v1/queues").await.expect(200);
        queues["queues"].as_array().unwrap().iter().map(|q| q["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["q3", "q7"]);
    app.post("/api/v1/queues/q3/resume", &json!({})).await.expect(200);
    app.settles().await;
    assert_eq!(names().await, ["q7"]);
    app.is_clean().await;
}
