//! Load runs over HTTP against real servers and a private Postgres, all on this machine.
//!
//! `cargo bench` runs all; `cargo bench -- throughput`, `-- latency` or `-- history` one of them.

#![expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentile's index")]

mod bench;
mod history;
mod latency;
mod throughput;

use bench::Bench;
use tokio::runtime::Runtime;

/// One load run.
type Run = fn(&Bench, &Runtime);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts this too, without the flag; a load run is not a test.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let chosen = arguments.iter().find(|argument| !argument.starts_with('-'));
    let bench = Bench::start();
    let clients = Runtime::new().expect("a runtime can be made");
    let runs: [(&str, Run); 3] =
        [("throughput", throughput::run), ("latency", latency::run), ("history", history::run)];
    for (name, run) in runs {
        if chosen.is_none_or(|chosen| chosen == name) {
            run(&bench, &clients);
        }
    }
}
