//! Process metrics, named as by the official Prometheus clients. Read from `/proc`; omitted on other systems.

use super::{Metric, Value};

/// Metrics of the process; `started` is Unix time in seconds.
pub(super) fn metrics(started: f64) -> Vec<Metric> {
    let one = |name, help, value| Metric { name, help, series: vec![(Vec::new(), value)] };
    let gauge = |name, help, value: Option<f64>| value.map(|value| one(name, help, Value::Gauge(value)));
    [
        cpu_seconds().map(|value| {
            one("process_cpu_seconds", "Total user and system CPU time spent in seconds", Value::Counter(value))
        }),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            status_kb("VmRSS:").map(|kb| kb * 1_024.0),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes",
            status_kb("VmSize:").map(|kb| kb * 1_024.0),
        ),
        gauge("process_threads", "Threads of the process", status_kb("Threads:")),
        gauge("process_open_fds", "Number of open file descriptors", open_files()),
        gauge("process_max_fds", "Maximum number of open file descriptors", most_files()),
        gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds", Some(started)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program name is in parentheses and may contain spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

fn status_kb(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<f64> {
    // Minus one: the directory itself is open while it is read.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as f64 - 1.0).max(0.0))
}

fn most_files() -> Option<f64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|most| most as f64)
}
