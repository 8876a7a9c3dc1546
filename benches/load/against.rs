//! This server against another binary of it, such as the one of the commit before, in the same run: each gets the same
//! load in slices that alternate, so that what else the machine does hits both alike.
//!
//! `BENCH_AGAINST=path/to/taskwatch cargo bench -- against`. `BENCH_SECONDS` sets the time of each measurement on each
//! side (10), which is cut into slices of a second.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::{
    bench::{Bench, percentile, seconds},
    server::Server,
    throughput::{in_batches, one_by_one},
};

/// How long one side has the machine for itself.
const SLICE: Duration = Duration::from_secs(1);

/// One binary, and what it did so far.
struct Side {
    name: &'static str,
    server: Server,
    /// Tasks per second of each slice.
    rates: Vec<f64>,
    tasks: usize,
    cpu: Duration,
}

#[derive(Clone, Copy)]
enum Load {
    Single(usize),
    Batches,
}

pub(crate) fn run(bench: &Bench, clients: &Runtime) {
    let Ok(other) = std::env::var("BENCH_AGAINST") else { return };
    println!(
        "{:<26} {:>10} {:>10} {:>7} {:>9} {:>9} {:>7}",
        "tasks/s, median of slices", "other", "this", "ratio", "CPU other", "CPU this", "ratio"
    );
    for (name, load) in [
        ("1 client", Load::Single(1)),
        ("16 clients", Load::Single(16)),
        ("256 clients", Load::Single(256)),
        ("16 clients, 100 a request", Load::Batches),
    ] {
        let this = env!("CARGO_BIN_EXE_taskwatch");
        let mut sides = [("other", other.as_str()), ("this", this)].map(|(name, program)| Side {
            name,
            server: Server::start_program(program, &bench.database_url()),
            rates: Vec::new(),
            tasks: 0,
            cpu: Duration::ZERO,
        });
        // The first slice of a server is its slowest, and is not counted.
        for round in 0..=seconds(10) {
            for side in &mut sides {
                clients.block_on(side.slice(load, round > 0));
            }
            // Whoever comes second finds a warmer machine.
            sides.reverse();
        }
        sides.sort_unstable_by_key(|side| side.name);
        let [other, this] = &sides;
        println!(
            "{name:<26} {:>10.0} {:>10.0} {:>7.2} {:>6.0} us {:>6.0} us {:>7.2}",
            other.rate(),
            this.rate(),
            this.rate() / other.rate(),
            other.cost(),
            this.cost(),
            this.cost() / other.cost()
        );
    }
}

impl Side {
    async fn slice(&mut self, load: Load, counts: bool) {
        let (before, began) = (self.server.usage(), Instant::now());
        let address = self.server.address.clone();
        let done = match load {
            Load::Single(count) => one_by_one(std::slice::from_ref(&address), count, SLICE).await.len(),
            Load::Batches => in_batches(&address, 16, SLICE).await,
        };
        if counts {
            self.rates.push(done as f64 / began.elapsed().as_secs_f64());
            self.tasks += done;
            self.cpu += self.server.usage().cpu - before.cpu;
        }
    }

    /// Tasks per second.
    fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_unstable_by(f64::total_cmp);
        percentile(&rates, 50.0)
    }

    /// The server's CPU time for a task, microseconds.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.tasks as f64
    }
}
