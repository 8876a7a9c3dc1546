//! From a report's first byte to its frame at a client: 20 readers of `/events`, 1,000 progress reports a second, each a
//! request of its own. Readers check that every position comes once and in order.
//!
//! `BENCH_SECONDS` sets the length (20).

use std::time::{Duration, Instant};

use crate::bench::{Bench, Client, each_event, percentile, seconds};
use serde_json::json;
use taskwatch::store::writer::MAX_BATCH;
use tokio::{runtime::Runtime, task::JoinSet};

/// Readers of the stream.
const READERS: usize = 20;
/// Connections that report.
const REPORTERS: usize = 50;
/// Reports a second of each.
const EACH: u64 = 20;

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    let address = bench.serve(1, MAX_BATCH).remove(0);
    clients.block_on(measure(address));
}

async fn measure(address: String) {
    let began = Instant::now();
    let total = EACH * seconds(20);
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let stream = Client::connect(&address).await.stream("/events?after=earliest").await;
        readers.spawn(async move {
            let (mut position, mut late) = (0_i64, Vec::new());
            each_event(stream, |data| {
                let Some(at) = field(data, "\"position\":").filter(|_| data.contains("\"event_id\":")) else {
                    return true;
                };
                assert_eq!(at, position + 1, "a gap or a repetition");
                position = at;
                if let Some(sent) = field(data, "\"message\":\"") {
                    late.push(began.elapsed().as_secs_f64() * 1_000.0 - sent as f64 / 1_000.0);
                }
                late.len() < (REPORTERS as u64 * total) as usize
            })
            .await;
            late
        });
    }
    let mut reporters = JoinSet::new();
    for number in 0..REPORTERS {
        let mut client = Client::connect(&address).await;
        reporters.spawn(async move {
            let (worker, path) = client.begins_a_task().await;
            // Spread over the period, not in step.
            tokio::time::sleep(Duration::from_millis(1_000 / EACH * number as u64 / REPORTERS as u64)).await;
            let mut tick = tokio::time::interval(Duration::from_millis(1_000 / EACH));
            for _ in 0..total {
                tick.tick().await;
                let sent = began.elapsed().as_micros().to_string();
                client.post(&path, json!({ "worker_id": worker, "attempt": 1, "message": sent }).to_string()).await;
            }
        });
    }
    let started = Instant::now();
    reporters.join_all().await;
    let rate = (REPORTERS as u64 * total) as f64 / started.elapsed().as_secs_f64();
    let all =
        tokio::time::timeout(Duration::from_secs(20), readers.join_all()).await.expect("every reader gets every event");
    let mut late: Vec<_> = all.into_iter().flatten().collect();
    assert_eq!(late.len() as u64, READERS as u64 * REPORTERS as u64 * total, "every reader got every report");
    late.sort_unstable_by(f64::total_cmp);
    println!(
        "{READERS} readers, {rate:.0} reports/s for {} s, {} deliveries, none missing, none twice, all in order: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        seconds(20),
        late.len(),
        percentile(&late, 50.0),
        percentile(&late, 99.0),
        percentile(&late, 100.0)
    );
}

/// The number behind a key.
fn field(data: &str, key: &str) -> Option<i64> {
    let rest = &data[data.find(key)? + key.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}
