//! Tasks per second end to end over HTTP: create, claim, complete; three commands and four events per task.
//!
//! Everything runs on this machine at once: clients, server, Postgres (fsync on). Group commit is compared with one
//! transaction per command in the same run: through one server, and through eight, so that eight transactions at a time
//! compete for the log as they would in a server without a writer.
//!
//! `BENCH_SECONDS` sets the length of each measurement (5).

use std::time::{Duration, Instant};

use crate::bench::{Bench, Client, percentile, seconds};
use serde_json::json;
use taskwatch::store::writer::MAX_BATCH;
use tokio::{runtime::Runtime, task::JoinSet};

/// Tasks in one request of the batch run.
const PER_REQUEST: usize = 100;

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    println!("{:<44} {:>9} {:>9} {:>9}", "", "tasks/s", "p50 ms", "p99 ms");
    let mut grouped = 0.0;
    for count in [1, 16, 256] {
        let rate = clients.block_on(singles(&bench.serve(1, MAX_BATCH), count, "group commit"));
        grouped = rate;
    }
    clients.block_on(batches(&bench.serve(1, MAX_BATCH), 16));
    let one = clients.block_on(singles(&bench.serve(1, 1), 256, "one transaction per command"));
    let eight = clients.block_on(singles(&bench.serve(8, 1), 256, "the same, eight at a time"));
    println!(
        "group commit, 256 clients: {:.1} times one transaction per command, {:.1} times eight at a time",
        grouped / one,
        grouped / eight
    );
}

/// Clients that each do one task after the other; a latency is one task from the first byte to the last.
async fn singles(servers: &[String], count: usize, how: &str) -> f64 {
    let started = Instant::now();
    let mut times = one_by_one(servers, count, Duration::from_secs(seconds(5))).await;
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable_by(f64::total_cmp);
    let name = format!("{count} single-task clients, {how}");
    println!("{name:<44} {rate:>9.0} {:>9.1} {:>9.1}", percentile(&times, 50.0), percentile(&times, 99.0));
    rate
}

/// Clients that do a hundred tasks with three requests.
async fn batches(servers: &[String], count: usize) {
    let started = Instant::now();
    let done = in_batches(&servers[0], count, Duration::from_secs(seconds(5))).await;
    let rate = done as f64 / started.elapsed().as_secs_f64();
    println!("{:<44} {rate:>9.0}", format!("{count} clients, {PER_REQUEST} tasks a request"));
}

/// Does tasks with three requests each for a while: how long each took, milliseconds.
pub(crate) async fn one_by_one(servers: &[String], count: usize, time: Duration) -> Vec<f64> {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for number in 0..count {
        let address = servers[number % servers.len()].clone();
        clients.spawn(async move {
            let mut client = Client::connect(&address).await;
            let worker = client.worker().await;
            let claim = json!({ "worker_id": worker, "queues": ["default"], "wait_seconds": 1 }).to_string();
            let mut times = Vec::new();
            while Instant::now() < until {
                let started = Instant::now();
                client.post("/api/v1/tasks", r#"{"task_type":"bench"}"#.to_owned()).await;
                let claimed = client.post("/api/v1/claims", claim.clone()).await;
                let Some(task) = claimed["tasks"].get(0) else { continue };
                let path = format!("/api/v1/tasks/{}/complete", task["id"].as_str().expect("an id"));
                client.post(&path, json!({ "worker_id": worker, "attempt": task["attempt"] }).to_string()).await;
                times.push(started.elapsed().as_secs_f64() * 1_000.0);
            }
            times
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// Does a hundred tasks with three requests, again and again for a while: how many tasks were done.
pub(crate) async fn in_batches(address: &str, count: usize, time: Duration) -> usize {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let address = address.to_owned();
        clients.spawn(async move {
            let mut client = Client::connect(&address).await;
            let worker = client.worker().await;
            let create = json!(vec![json!({ "task_type": "bench" }); PER_REQUEST]).to_string();
            let claim = json!({ "worker_id": worker, "queues": ["default"], "limit": PER_REQUEST, "wait_seconds": 1 }).to_string();
            let mut done = 0;
            while Instant::now() < until {
                client.post("/api/v1/tasks", create.clone()).await;
                let claimed = client.post("/api/v1/claims", claim.clone()).await;
                let tasks = claimed["tasks"].as_array().into_iter().flatten();
                let reports: Vec<_> = tasks
                    .map(|task| json!({ "report": "complete", "task_id": task["id"], "worker_id": worker, "attempt": task["attempt"] }))
                    .collect();
                if !reports.is_empty() {
                    client.post("/api/v1/reports", json!(reports).to_string()).await;
                    done += reports.len();
                }
            }
            done
        });
    }
    clients.join_all().await.into_iter().sum()
}
