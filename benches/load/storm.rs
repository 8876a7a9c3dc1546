//! A reconnect storm: 5,000 clients at 100 events/s; the server is stopped (`SIGTERM`) and later killed (`kill -9`),
//! and started again at the same address while reports go on. Everyone must be back soon, not all at once, and have
//! lost nothing, and the log must not be read once per client.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    bench::{Bench, Client},
    fanout::report,
    herd::{Herd, Pace},
    server::Server,
};

const CLIENTS: usize = 5_000;
const RATE: u64 = 100;
/// Seconds of reports before the server goes, and after it is back.
const BEFORE: u64 = 8;
const AFTER: u64 = 8;

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    for (how, end) in [("SIGTERM", Server::terminate as fn(Server)), ("kill -9", Server::kill)] {
        let database = bench.database_url();
        let server = Server::taskwatch(&database, "127.0.0.1:0", &[]);
        let address = server.address.clone();
        let total = RATE * (BEFORE + AFTER);
        let herd = Herd::new(&address, "/events?after=now&types=task_progress", true);
        let mut all = clients.block_on(async {
            let all = herd.join(CLIENTS, Pace::Fast, total).await;
            report(&herd, &address, RATE, RATE * BEFORE).await;
            all
        });
        end(server);
        // What happens while the clients are away comes through another server.
        let other = Server::taskwatch(&database, "127.0.0.1:0", &[]);
        clients.block_on(report(&herd, &other.address, RATE, RATE * AFTER / 2));
        other.terminate();
        let _server = Server::taskwatch(&database, &address, &[]);
        let up = Instant::now();
        clients.block_on(async {
            report(&herd, &address, RATE, RATE * AFTER / 2).await;
            let everyone = async { while all.join_next().await.is_some() {} };
            tokio::time::timeout(Duration::from_secs(60), everyone).await.expect("everyone gets everything");
            let back = herd.back.lock().map(|back| back.clone()).unwrap_or_default();
            let late = back.iter().map(|at| at.saturating_duration_since(up)).max().unwrap_or_default();
            let mut by_second = [0; 12];
            for at in &back {
                by_second[(at.saturating_duration_since(up).as_secs() as usize).min(11)] += 1;
            }
            let metrics = Client::connect(&address).await.text("/metrics").await;
            let rows = metrics.lines().find_map(|line| line.strip_prefix("taskwatch_stream_rows_read_total "));
            println!(
                "storm after {how}: {} of {CLIENTS} back, the last {:.1} s after the server, by second {by_second:?}; {} events each, none missing; the log read {} rows, one client alone at least {}",
                back.len(),
                late.as_secs_f64(),
                herd.read.load(Ordering::Relaxed) / CLIENTS as u64,
                rows.unwrap_or("?"),
                RATE * AFTER / 2
            );
        });
    }
}
