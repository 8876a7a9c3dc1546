//! Fan-out: many clients of `/events`, taskwatch against the usual way in the same run.
//!
//! Servers run on the first core, the load and Postgres on the others. taskwatch gets its events as progress reports
//! over its API, one request each, and stores them; the plain way (axum `Sse`, tokio broadcast, JSON per client) gets
//! the same events, one request each, and stores nothing. CPU is the server's own (with its share of TCP over
//! loopback), divided by events delivered. `BENCH_SECONDS` sets the length of a measurement (20), `BENCH_SCALES` the
//! measurements, as in `1000x100,1000x1000`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use taskwatch::{
    event::{Event, EventId, Kind, envelope::Epoch},
    model::Name,
};
use tokio::{runtime::Runtime, task::JoinSet, time::MissedTickBehavior};

use crate::{
    bench::{Bench, Client, percentile, seconds},
    herd::{Herd, Pace},
    server::Server,
};

/// Clients that are only there.
const IDLE: usize = 10_000;
/// What a message is filled up to, so that an event is about 350 bytes of JSON and more.
const FILL: &str = "resizing image 17 of 400 for the autumn catalogue";

/// What one measurement says.
struct QueueRates {
    cpu_us: f64,
    p50: f64,
    p99: f64,
    rate: f64,
    missing: u64,
    bytes: f64,
}

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    let scales = std::env::var("BENCH_SCALES").unwrap_or_else(|_| "1000x100,1000x1000".to_owned());
    for scale in scales.split(',') {
        let (readers, rate) = scale.split_once('x').expect("clients x rate");
        let (readers, rate) = (readers.parse().expect("clients"), rate.parse().expect("a rate"));
        let tell = |name: &str, figures: &QueueRates| {
            println!(
                "fanout {readers} clients x {rate}/s, {name}: {:.2} us CPU per delivery, {:.0} deliveries/s, p50 {:.1} ms, p99 {:.1} ms, {} missing, {:.0} bytes per delivery",
                figures.cpu_us, figures.rate, figures.p50, figures.p99, figures.missing, figures.bytes
            );
        };
        let server = Server::taskwatch(&bench.database_url(), "127.0.0.1:0", &[]);
        let ours = clients.block_on(measure(&server, readers, rate, true));
        drop(server);
        tell("taskwatch", &ours);
        let plain = Server::plain();
        let theirs = clients.block_on(measure(&plain, readers, rate, false));
        drop(plain);
        tell("plain", &theirs);
        println!(
            "fanout {readers} x {rate}/s, ratios: CPU {:.2}, p99 {:.2}",
            ours.cpu_us / theirs.cpu_us,
            ours.p99 / theirs.p99
        );
    }
    let idle = |server: &Server| clients.block_on(idle(server));
    let theirs = idle(&Server::plain());
    let ours = idle(&Server::taskwatch(&bench.database_url(), "127.0.0.1:0", &[]));
    println!("fanout {IDLE} idle clients: plain {theirs:.1} KB each, taskwatch {ours:.1} KB each");
}

/// A load, and what it costs the server.
async fn measure(server: &Server, readers: usize, rate: u64, ours: bool) -> QueueRates {
    let total = rate * seconds(20);
    let herd = Herd::new(&server.address, "/events?after=now&types=task_progress", ours);
    let mut clients = herd.join(readers, Pace::Fast, total).await;
    let (before, began) = (server.usage(), Instant::now());
    if ours {
        report(&herd, &server.address, rate, total).await;
    } else {
        publish(&herd, &server.address, rate, total).await;
    }
    let wait = async { while clients.join_next().await.is_some() {} };
    let complete = tokio::time::timeout(Duration::from_secs(15), wait).await.is_ok();
    let (elapsed, after) = (began.elapsed(), server.usage());
    let read = herd.read.load(Ordering::Relaxed);
    assert!(complete || !ours, "taskwatch delivers everything; {read} of {}", total * readers as u64);
    let delays = herd.delays();
    QueueRates {
        cpu_us: (after.cpu - before.cpu).as_secs_f64() * 1e6 / read as f64,
        p50: percentile(&delays, 50.0),
        p99: percentile(&delays, 99.0),
        rate: read as f64 / elapsed.as_secs_f64(),
        missing: (total * readers as u64).saturating_sub(read),
        bytes: herd.bytes.load(Ordering::Relaxed) as f64 / read as f64,
    }
}

/// A message that says when it was sent.
fn message(herd: &Herd) -> String {
    format!("{} {FILL}", herd.began.elapsed().as_micros())
}

/// Progress reports at a rate, spread over the reporters, one request each.
pub(crate) async fn report(herd: &Arc<Herd>, address: &str, rate: u64, total: u64) {
    let mut reporters = JoinSet::new();
    for number in 0..reporters_for(rate) {
        let mut client = Client::connect(address).await;
        let herd = herd.clone();
        reporters.spawn(async move {
            let (worker, path) = client.begins_a_task().await;
            let mut tick = ticks(number, rate);
            for _ in 0..total / reporters_for(rate) {
                tick.tick().await;
                let report = json!({ "worker_id": worker, "attempt": 1, "percent": 41.5, "message": message(&herd) });
                client.post(&path, report.to_string()).await;
            }
        });
    }
    reporters.join_all().await;
}

/// The same events to the plain server.
async fn publish(herd: &Arc<Herd>, address: &str, rate: u64, total: u64) {
    let positions = Arc::new(AtomicI64::new(0));
    let mut reporters = JoinSet::new();
    for number in 0..reporters_for(rate) {
        let mut client = Client::connect(address).await;
        let (herd, positions) = (herd.clone(), positions.clone());
        reporters.spawn(async move {
            let id = uuid::Uuid::now_v7();
            let mut tick = ticks(number, rate);
            for _ in 0..total / reporters_for(rate) {
                tick.tick().await;
                let mut event = Event::new(Kind::TaskProgress, chrono::Utc::now());
                let position = positions.fetch_add(1, Ordering::Relaxed) + 1;
                event.event_id = Some(EventId { epoch: Epoch(0x5c1f_09ae), position }.to_string());
                event.position = Some(position);
                event.project_id = Name::new("default").ok();
                event.task_type = Name::new("bench").ok();
                event.queue = Name::new("default").ok();
                (event.task_id, event.worker_id) = (Some(id), Some(id));
                event.machine_id = Name::new("bench").ok();
                event.attempt = Some(1);
                event.data.percent = Some(41.5);
                event.message = Some(message(&herd));
                client.post("/publish", serde_json::to_string(&event).expect("an event is JSON")).await;
            }
        });
    }
    reporters.join_all().await;
}

/// Connections that report: each waits for its answers, so more are needed for more.
fn reporters_for(rate: u64) -> u64 {
    (rate / 10).clamp(10, 100)
}

/// One reporter's share of a rate, not in step with the others.
fn ticks(number: u64, rate: u64) -> tokio::time::Interval {
    let reporters = reporters_for(rate) as f64;
    let period = Duration::from_secs_f64(reporters / rate as f64);
    let start = tokio::time::Instant::now() + period.mul_f64(number as f64 / reporters);
    let mut tick = tokio::time::interval_at(start, period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    tick
}

/// Memory of a client that waits, KB.
async fn idle(server: &Server) -> f64 {
    let herd = Herd::new(&server.address, "/events?after=now&types=task_progress", true);
    // What the first requests cost is not theirs.
    let first = herd.join(100, Pace::Fast, 1).await;
    let before = server.usage();
    let clients = herd.join(IDLE - 100, Pace::Fast, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = server.usage();
    drop((first, clients));
    after.resident_kib.saturating_sub(before.resident_kib) as f64 * 1.024 / (IDLE - 100) as f64
}
