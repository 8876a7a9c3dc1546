//! Slow readers: 1,000 fast clients at 100 events/s, alone and then beside 50 that stop reading and 50 that read a
//! kilobyte a second. At the end the slow ones hurry, and must have everything.
//!
//! `BENCH_SECONDS` sets the length of each half (40).

use std::{sync::atomic::Ordering, time::Duration};

use tokio::runtime::Runtime;

use crate::{
    bench::{Bench, percentile, seconds},
    fanout::report,
    herd::{Herd, Pace},
    server::Server,
};

const FAST: usize = 1_000;
const SLOW: usize = 50;
const RATE: u64 = 100;

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    let total = RATE * seconds(40);
    for slow in [0, SLOW] {
        let server = Server::taskwatch(&bench.database_url(), "127.0.0.1:0", &[]);
        clients.block_on(async {
            let path = "/events?after=now&types=task_progress";
            let (herd, lame) = (Herd::new(&server.address, path, true), Herd::new(&server.address, path, true));
            let mut fast = herd.join(FAST, Pace::Fast, total).await;
            let mut stopped = lame.join(slow, Pace::Stopped, total).await;
            let mut slowly = lame.join(slow, Pace::Slow, total).await;
            let before = server.usage();
            report(&herd, &server.address, RATE, total).await;
            let all = async { while fast.join_next().await.is_some() {} };
            tokio::time::timeout(Duration::from_secs(20), all).await.expect("the fast ones get everything");
            let (delays, after) = (herd.delays(), server.usage());
            println!(
                "slow: {FAST} fast clients beside {slow} that stop and {slow} at 1 KB/s, {RATE} events/s for {} s: p50 {:.1} ms, p99 {:.1} ms; server memory {} to {} MiB",
                seconds(40),
                percentile(&delays, 50.0),
                percentile(&delays, 99.0),
                before.resident_kib / 1_024,
                after.resident_kib / 1_024
            );
            let had = lame.read.load(Ordering::Relaxed);
            lame.hurry.store(true, Ordering::Relaxed);
            let all = async {
                while stopped.join_next().await.is_some() {}
                while slowly.join_next().await.is_some() {}
            };
            tokio::time::timeout(Duration::from_secs(60), all).await.expect("the slow ones get everything in the end");
            println!(
                "slow: the slow ones had {had} of {} events, and all of them in the end; {} were cut and came back",
                2 * slow as u64 * total,
                lame.back.lock().map(|back| back.len()).unwrap_or_default()
            );
        });
    }
}
