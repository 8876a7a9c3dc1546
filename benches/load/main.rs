//! Load runs over HTTP against real servers and a private Postgres, all on this machine.
//!
//! `cargo bench` runs all; `cargo bench -- throughput`, `-- latency`, `-- history`, `-- fold`, `-- pages`, `-- fanout`, `-- slow`,
//! `-- storm`, `-- attack` or `-- against` one of them.

#![expect(clippy::disallowed_methods, reason = "a load run looks at the machine's own clock")]
#![expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentile's index")]

mod against;
mod attack;
mod bench;
mod fanout;
mod fold;
mod herd;
mod history;
mod latency;
mod pages;
mod plain;
mod server;
mod slow;
mod storm;
mod throughput;

use bench::Bench;
use tokio::runtime::Runtime;

/// One load run.
type Run = fn(&Bench, &Runtime);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "plain-server") {
        Runtime::new().expect("a runtime can be made").block_on(plain::serve());
        return;
    }
    // `cargo test --benches` starts this too, without the flag; a load run is not a test.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let chosen = arguments.iter().find(|argument| !argument.starts_with('-'));
    if chosen.is_some_and(|chosen| ["fanout", "slow", "storm"].contains(&chosen.as_str())) {
        server::leave_the_first_core();
    }
    let bench = Bench::start();
    let clients = Runtime::new().expect("a runtime can be made");
    let runs: [(&str, Run); 10] = [
        ("throughput", throughput::run),
        ("latency", latency::run),
        ("history", history::run),
        ("fold", fold::run),
        ("pages", pages::run),
        ("fanout", fanout::run),
        ("slow", slow::run),
        ("storm", storm::run),
        ("attack", attack::run),
        ("against", against::run),
    ];
    for (name, run) in runs {
        if chosen.is_none_or(|chosen| chosen == name) {
            run(&bench, &clients);
        }
    }
}
