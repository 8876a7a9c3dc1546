//! What each page costs with a million tasks and five million events in the store: the time of the server as one client
//! sees it, the size of the page, and what a first visit brings over the wire.
//!
//! `BENCH_TASKS` sets the number of finished tasks (1,000,000), each with five events.

use std::{collections::BTreeSet, time::Instant};

use serde_json::json;
use taskwatch::{app::Options, config::Settings};
use tokio::runtime::Runtime;

use crate::{
    bench::{Bench, Client, percentile},
    history,
};

/// Requests of each page.
const ROUNDS: usize = 400;

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    let tasks: i64 = std::env::var("BENCH_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let database = bench.database();
    clients.block_on(history::seed(&database, tasks));
    let settings = Settings { retain_tasks_days: 0, retain_events_days: 0, ..Settings::default() };
    let (address, _) = bench.serve_on(settings, Options::new(database));
    clients.block_on(measure(&address, tasks));
}

/// Something of everything beside the old tasks; a task and a parent of it.
async fn furnish(client: &mut Client) -> (String, String) {
    let worker = client.worker().await;
    let parent = client
        .post("/api/v1/tasks", r#"{"task_type":"import","queue":"parents","phases":["fetch","load"]}"#.to_owned())
        .await;
    let parent = parent["task"]["id"].as_str().expect("an id").to_owned();
    client.post("/api/v1/claims", json!({ "worker_id": worker, "queues": ["parents"] }).to_string()).await;
    let children: Vec<_> = (0..400)
        .map(|n| json!({ "task_type": format!("kind-{}", n % 12), "queue": format!("queue-{}", n % 20), "parent_task_id": parent, "phase": if n % 2 == 0 { "fetch" } else { "load" }, "max_attempts": 1 }))
        .collect();
    client.post("/api/v1/tasks", json!(children).to_string()).await;
    let queues: Vec<_> = (0..20).map(|n| format!("queue-{n}")).collect();
    let claim = json!({ "worker_id": worker, "queues": queues, "limit": 100 }).to_string();
    let claimed = client.post("/api/v1/claims", claim).await;
    let mut last = String::new();
    for (n, task) in claimed["tasks"].as_array().expect("tasks").iter().enumerate().take(80) {
        last = task["id"].as_str().expect("an id").to_owned();
        let report =
            json!({ "worker_id": worker, "attempt": 1, "error": format!("HTTP 5{:02} from 10.0.0.{n}", n % 8) });
        client.post(&format!("/api/v1/tasks/{last}/fail"), report.to_string()).await;
    }
    (last, parent)
}

async fn measure(address: &str, tasks: i64) {
    let mut client = Client::connect(address).await;
    let (task, parent) = furnish(&mut client).await;
    let middle = tasks * 5 / 2;
    let pages = [
        "/".to_owned(),
        "/tasks".to_owned(),
        "/tasks?status=failed".to_owned(),
        "/tasks?queue=old&status=completed".to_owned(),
        "/tasks?task_type=there-is-none".to_owned(),
        "/tasks?q=there-is-none".to_owned(),
        format!("/tasks/{task}"),
        format!("/parents/{parent}"),
        "/queues".to_owned(),
        "/workers".to_owned(),
        "/failures".to_owned(),
        "/events-view".to_owned(),
        "/events-view?types=task_failed".to_owned(),
        "/analytics?range=7d".to_owned(),
        "/schedules".to_owned(),
        "/streams".to_owned(),
        "/test-client".to_owned(),
        "/wall".to_owned(),
        format!("/?at={middle}"),
        format!("/tasks?at={middle}"),
    ];
    for path in pages {
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..ROUNDS {
            // Something changes in between, so that nothing is answered from memory that would not be.
            client.post("/api/v1/tasks", r#"{"task_type":"bench","queue":"bench"}"#.to_owned()).await;
            let began = Instant::now();
            size = client.get(&path).await;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&times, 50.0), percentile(&times, 99.0));
        println!(
            "pages: {:40} p50 {p50:6.2} ms, p99 {p99:6.2} ms, {:6.1} kB",
            path.replace(&task, "{id}").replace(&parent, "{id}"),
            size as f64 / 1_000.0
        );
    }
    visit(&mut client).await;
}

/// A first visit: the page and all its files, compressed as a browser asks for them.
async fn visit(client: &mut Client) {
    let html = client.text("/").await;
    let files: BTreeSet<_> = html.split("\"/static/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let mut sum = client.gzipped("/").await;
    for file in &files {
        sum += client.gzipped(&format!("/static/{file}")).await;
    }
    println!(
        "pages: a first visit of the overview: {} requests, {:.1} kB compressed",
        files.len() + 1,
        sum as f64 / 1_000.0
    );
}
