//! Metrics of tasks and of the process, for `/metrics`; defines their names and help texts.

mod process;
mod requests;
mod tally;
mod text;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

pub use requests::Requests;
pub use tally::{MAX_LABELS, OTHER, Tallies};
pub use text::TextFormat;

use crate::{
    board::health::Level,
    clock::{Time, machine_time},
    event::envelope::Stats,
    feed::{
        ByteReaders, Callbacks,
        stream_registry::{CloseReason, DELAYS_MS, StreamRegistry},
    },
    store::Writer,
};

/// Metrics collected in this process.
#[derive(Debug)]
pub struct Metrics {
    callbacks: Callbacks,
    /// Task counters by queue and type.
    pub tallies: Arc<Tallies>,
    /// Responses by route and status.
    pub requests: Requests,
    /// When this process last saved a checkpoint, Unix time in seconds; 0 before the first.
    checkpoint: Arc<AtomicI64>,
    started: SystemTime,
}

/// Sources of the metrics.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Current time.
    pub now: Time,
    /// Statistics of the board.
    pub stats: &'a Stats,
    /// Health of the whole system.
    pub health: Level,
    /// Lost workers that are still shown.
    pub workers_lost: u64,
    /// The largest queues; the last entry may aggregate all others.
    pub queues: Vec<QueueFigures>,
    /// Number of paused queues.
    pub queues_paused: usize,
    /// State of the log.
    pub log: LogFigures,
    /// Stream registry.
    pub stream_registry: &'a StreamRegistry,
    /// Delivery of events to streams.
    pub byte_readers: &'a ByteReaders,
    /// The writer.
    pub writer: &'a Writer,
    /// Connection pool: open, idle, maximum.
    pub connections: (u32, u32, u32),
}

/// One queue.
#[derive(Debug, Clone)]
pub struct QueueFigures {
    /// Its name.
    pub name: String,
    /// Pending tasks.
    pub pending: u64,
    /// Running tasks.
    pub running: u64,
    /// Age of the oldest pending task, seconds.
    pub oldest_pending_seconds: f64,
    /// It is paused.
    pub is_paused: bool,
}

/// State of the log and the board.
#[derive(Debug, Clone, Copy)]
pub struct LogFigures {
    /// The board's position.
    pub position: i64,
    /// Head of the log in the database; `None` if the database did not respond.
    pub head: Option<i64>,
    /// Oldest position in the log.
    pub oldest: i64,
    /// Time since this process was last known to be up to date.
    pub age: Duration,
    /// Number of times that the log was found replaced or truncated.
    pub changes: u64,
    /// Missing or unreadable events.
    pub unreadable: usize,
    /// Offset of the database clock from the clock of this machine, seconds.
    pub clock_offset: f64,
}

/// One metric: a gauge, a counter (named without `_total`) or a histogram.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    series: Vec<(Vec<(&'static str, String)>, Value)>,
}

#[derive(Debug)]
enum Value {
    Gauge(f64),
    Counter(f64),
    /// Sum, and counts by upper bound of the bucket.
    Histogram(f64, Vec<(f64, u64)>),
}

fn read(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Metric {
    Metric { name, help, series: vec![(Vec::new(), Value::Gauge(value))] }
}

fn counter(name: &'static str, help: &'static str, value: f64) -> Metric {
    Metric { name, help, series: vec![(Vec::new(), Value::Counter(value))] }
}

impl Metrics {
    /// Metrics including those of registered hooks.
    #[must_use]
    pub fn new(callbacks: Callbacks, tallies: Arc<Tallies>, checkpoint: Arc<AtomicI64>) -> Self {
        Self { callbacks, tallies, requests: Requests::default(), checkpoint, started: machine_time() }
    }

    /// Renders all metrics in a text format.
    #[must_use]
    pub fn render(&self, sources: &Sources<'_>, format: TextFormat) -> String {
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut metrics = vec![build(), self.hooks(), self.requests.metric()];
        metrics.extend(tasks(sources));
        metrics.extend(queues(sources));
        metrics.extend(self.tallies.metrics());
        metrics.extend(self.log(sources));
        metrics.extend(writer(sources.writer));
        metrics.extend(streams(sources));
        metrics.extend(process::metrics(started));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Sample(metrics)));
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!("metrics could not be rendered");
        }
        format.write(text)
    }

    fn hooks(&self) -> Metric {
        let series = self.callbacks.counters().flat_map(|(name, hook)| {
            let outcomes = [
                ("done", read(&hook.done)),
                ("error", read(&hook.errors)),
                ("panic", read(&hook.panics)),
                ("timeout", read(&hook.timeouts)),
                ("skipped", read(&hook.skipped)),
            ];
            outcomes.map(|(outcome, count)| {
                (vec![("hook", name.to_owned()), ("outcome", outcome.to_owned())], Value::Counter(count))
            })
        });
        Metric {
            name: "taskwatch_callback_events",
            help: "Events passed to callbacks, by outcome",
            series: series.collect(),
        }
    }

    fn log(&self, sources: &Sources<'_>) -> Vec<Metric> {
        let LogFigures { position, head, oldest, age, changes, unreadable, clock_offset } = sources.log;
        let mut metrics = vec![
            counter(
                "taskwatch_log_changes",
                "Times the event log was replaced or lost its newest events",
                changes as f64,
            ),
            gauge("taskwatch_log_unreadable_events", "Missing or unreadable events", unreadable as f64),
            gauge(
                "taskwatch_database_clock_offset_seconds",
                "Offset of the database clock from this machine's, seconds",
                clock_offset,
            ),
            gauge("taskwatch_log_position", "Position of the last processed event", position as f64),
            gauge("taskwatch_log_oldest_position", "Position of the oldest retained event", oldest as f64),
            gauge(
                "taskwatch_data_age_seconds",
                "Time since this server was up to date with the event log",
                age.as_secs_f64(),
            ),
        ];
        if let Some(head) = head {
            metrics.push(gauge("taskwatch_log_head", "Position of the newest event in the database", head as f64));
        }
        let checkpoint = self.checkpoint.load(Ordering::Relaxed);
        if checkpoint > 0 {
            let age = (sources.now.timestamp() - checkpoint).max(0) as f64;
            metrics.push(gauge("taskwatch_checkpoint_age_seconds", "Age of the last checkpoint", age));
        }
        metrics
    }
}

fn build() -> Metric {
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    Metric {
        name: "taskwatch_build_info",
        help: "Always 1; the label is the version",
        series: vec![(labels, Value::Gauge(1.0))],
    }
}

fn tasks(sources: &Sources<'_>) -> Vec<Metric> {
    let stats = sources.stats;
    let health = match sources.health {
        Level::Ok => 0.0,
        Level::Degraded => 1.0,
        Level::Stalled => 2.0,
    };
    let by_status = [
        ("pending", stats.pending),
        ("running", stats.running),
        ("retrying", stats.retrying),
        ("completed", stats.completed),
        ("failed", stats.failed),
    ];
    let by_status = by_status.map(|(status, count)| (vec![("status", status.to_owned())], Value::Gauge(count as f64)));
    vec![
        gauge("taskwatch_health", "0 ok, 1 degraded, 2 stalled; reasons at /api/v1/health", health),
        Metric { name: "taskwatch_tasks", help: "Tasks by status", series: by_status.into() },
        gauge("taskwatch_workers_online", "Online workers", stats.workers_online as f64),
        gauge("taskwatch_workers_lost", "Recently lost workers", sources.workers_lost as f64),
        gauge(
            "taskwatch_error_ratio",
            "Failed attempts divided by finished attempts, last minute",
            stats.error_rate_1m_percent / 100.0,
        ),
    ]
}

fn queues(sources: &Sources<'_>) -> Vec<Metric> {
    let per_queue = |name, help, value: fn(&QueueFigures) -> f64| {
        let series =
            sources.queues.iter().map(|queue| (vec![("queue", queue.name.clone())], Value::Gauge(value(queue))));
        Metric { name, help, series: series.collect() }
    };
    vec![
        per_queue("taskwatch_queue_pending_tasks", "Pending tasks", |queue| queue.pending as f64),
        per_queue("taskwatch_queue_running_tasks", "Running tasks", |queue| queue.running as f64),
        per_queue("taskwatch_queue_oldest_pending_seconds", "Age of the oldest pending task", |queue| {
            queue.oldest_pending_seconds
        }),
        per_queue("taskwatch_queue_paused", "1 if the queue is paused", |queue| f64::from(u8::from(queue.is_paused))),
        gauge("taskwatch_queues_paused", "Paused queues", sources.queues_paused as f64),
    ]
}

fn writer(writer: &Writer) -> Vec<Metric> {
    let counters = writer.counters();
    let commits = Metric {
        name: "taskwatch_writer_commit_seconds",
        help: "Commit latency of the writer",
        series: vec![(Vec::new(), Value::Histogram(counters.commits.sum_seconds(), counters.commits.buckets()))],
    };
    let failing = writer.writing().failing().map_or(0.0, |failing| failing.elapsed.as_secs_f64());
    vec![
        counter("taskwatch_writer_commands", "Commands processed", read(&counters.commands)),
        counter("taskwatch_writer_batches", "Write transactions", read(&counters.batches)),
        counter("taskwatch_writer_events", "Events appended", read(&counters.events)),
        counter("taskwatch_writer_retries", "Write transactions retried", read(&counters.retries)),
        counter("taskwatch_writer_panics", "Commands that panicked", read(&counters.panics)),
        gauge("taskwatch_writer_failing_seconds", "Time since writes started failing; 0 if they succeed", failing),
        gauge("taskwatch_writer_waiting_commands", "Commands waiting for the writer", writer.waiting() as f64),
        commits,
    ]
}

fn streams(sources: &Sources<'_>) -> Vec<Metric> {
    let Sources { stream_registry, byte_readers, log, connections: (open, idle, most), .. } = sources;
    let (rows, _) = stream_registry.rows();
    let behind = rows.iter().map(|row| (log.position - row.position()).max(0)).max().unwrap_or_default();
    let ended = CloseReason::ALL.into_iter().zip(&stream_registry.counters.ended);
    let ended = ended
        .map(|(close_reason, count)| (vec![("reason", close_reason.as_str().to_owned())], Value::Counter(read(count))));
    let pool = [("idle", *idle), ("used", open.saturating_sub(*idle))];
    let pool = pool.map(|(state, count)| (vec![("state", state.to_owned())], Value::Gauge(count.into())));
    let (sum, buckets) = delays(stream_registry);
    vec![
        gauge("taskwatch_streams_open", "Open streams and live pages", rows.len() as f64),
        gauge("taskwatch_stream_groups", "Distinct shared subscriptions", byte_readers.streams() as f64),
        gauge("taskwatch_stream_lag_events", "Lag of the slowest stream in events", behind as f64),
        counter("taskwatch_stream_events", "Events delivered, once per stream", read(&stream_registry.counters.events)),
        counter("taskwatch_stream_bytes", "Bytes sent (compressed)", read(&stream_registry.counters.bytes)),
        counter("taskwatch_streams_refused", "Streams rejected by a limit", read(&stream_registry.counters.refused)),
        counter(
            "taskwatch_stream_rows_read",
            "Log rows read to catch up lagging streams",
            byte_readers.rows_read() as f64,
        ),
        Metric { name: "taskwatch_streams_ended", help: "Streams closed, by reason", series: ended.collect() },
        Metric {
            name: "taskwatch_stream_delay_seconds",
            help: "ByteReader latency from arrival of an event to the client connection",
            series: vec![(Vec::new(), Value::Histogram(sum, buckets))],
        },
        Metric {
            name: "taskwatch_database_connections",
            help: "Database connections of the read pool, by state",
            series: pool.into(),
        },
        gauge("taskwatch_database_connections_max", "Size limit of the read pool", f64::from(*most)),
    ]
}

/// The delivery delay histogram: sum in seconds, and events by bucket.
fn delays(stream_registry: &StreamRegistry) -> (f64, Vec<(f64, u64)>) {
    let ends = DELAYS_MS.iter().map(|ms| *ms as f64 / 1_000.0).chain([f64::INFINITY]);
    let sum = read(&stream_registry.counters.delay_sum_us) / 1e6;
    (sum, ends.zip(&stream_registry.counters.delays).map(|(end, count)| (end, count.load(Ordering::Relaxed))).collect())
}

#[derive(Debug)]
struct Sample(Vec<Metric>);

impl Value {
    const fn metric_type(&self) -> MetricType {
        match self {
            Self::Gauge(_) => MetricType::Gauge,
            Self::Counter(_) => MetricType::Counter,
            Self::Histogram(..) => MetricType::Histogram,
        }
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Gauge(value) => ConstGauge::new(*value).encode(encoder),
            Self::Counter(value) => ConstCounter::new(*value).encode(encoder),
            Self::Histogram(sum, buckets) => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
        }
    }
}

impl Collector for Sample {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Metric { name, help, series } in &self.0 {
            let Some((_, first)) = series.first() else { continue };
            let mut family = encoder.encode_descriptor(name, help, None, first.metric_type())?;
            if let [(labels, value)] = series.as_slice()
                && labels.is_empty()
            {
                value.encode(family)?;
                continue;
            }
            for (labels, value) in series {
                value.encode(family.encode_family(&labels.as_slice())?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use axum::http::{Method, StatusCode};

    fn rendered(metrics: Vec<Metric>, format: TextFormat) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Sample(metrics)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        format.write(text)
    }

    const BOTH: [TextFormat; 2] = [TextFormat::Prometheus, TextFormat::OpenMetrics];

    fn labelled(label: &str, value: Value) -> Metric {
        Metric { name: "taskwatch_x", help: "X", series: vec![(vec![("queue", label.to_owned())], value)] }
    }

    #[test]
    fn a_label_may_hold_any_text() {
        for format in BOTH {
            let text = rendered(vec![labelled("a\"b\\c\nd ä", Value::Gauge(1.0))], format);
            assert!(text.contains(r#"taskwatch_x{queue="a\"b\\c\nd ä"} 1"#), "{text}");
        }
    }

    #[test]
    fn each_metric_is_described_once_whatever_its_series() {
        let series = ["a", "b", "c"].map(|queue| (vec![("queue", queue.to_owned())], Value::Counter(2.0)));
        let metric = || Metric { name: "taskwatch_x", help: "X", series: series_of(&series) };
        for (format, name) in [(TextFormat::Prometheus, "taskwatch_x_total"), (TextFormat::OpenMetrics, "taskwatch_x")]
        {
            let text = rendered(vec![metric()], format);
            assert_eq!(text.matches("# HELP ").count(), 1, "{text}");
            assert_eq!(text.matches(&format!("# TYPE {name} counter\n")).count(), 1, "{text}");
            assert_eq!(text.matches("\ntaskwatch_x_total{").count(), 3, "{text}");
            assert_eq!(text.ends_with("# EOF\n"), format == TextFormat::OpenMetrics);
        }
    }

    fn series_of(series: &[(Vec<(&'static str, String)>, Value); 3]) -> Vec<(Vec<(&'static str, String)>, Value)> {
        let copy = |value: &Value| match value {
            Value::Gauge(value) => Value::Gauge(*value),
            Value::Counter(value) => Value::Counter(*value),
            Value::Histogram(sum, buckets) => Value::Histogram(*sum, buckets.clone()),
        };
        series.iter().map(|(labels, value)| (labels.clone(), copy(value))).collect()
    }

    #[test]
    fn a_metric_without_a_series_is_left_out() {
        for format in BOTH {
            let none = Metric { name: "taskwatch_none", help: "None", series: Vec::new() };
            let text = rendered(vec![none, gauge("taskwatch_y", "Y", 0.5)], format);
            assert!(!text.contains("taskwatch_none") && text.contains("\ntaskwatch_y 0.5\n"), "{text}");
        }
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up_to_its_count() {
        let buckets = vec![(0.1, 3), (1.0, 0), (f64::INFINITY, 2)];
        for format in BOTH {
            let text = rendered(vec![labelled("q", Value::Histogram(7.5, buckets.clone()))], format);
            let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next()).unwrap();
            assert_eq!(value("taskwatch_x_sum"), "7.5");
            assert_eq!(value("taskwatch_x_count"), "5");
            assert_eq!(value(r#"taskwatch_x_bucket{le="+Inf""#), "5", "{text}");
            assert_eq!([value(r#"taskwatch_x_bucket{le="0.1""#), value(r#"taskwatch_x_bucket{le="1.0""#)], ["3", "3"]);
        }
    }

    #[test]
    fn requests_are_counted_by_route_never_by_path() {
        let requests = Requests::default();
        let patch = Method::from_bytes(b"PROPFIND").unwrap();
        requests.count(&Method::GET, Some("/tasks/{id}"), StatusCode::OK);
        requests.count(&Method::GET, Some("/tasks/{id}"), StatusCode::NO_CONTENT);
        requests.count(&Method::GET, Some("/tasks/{id}"), StatusCode::NOT_FOUND);
        requests.count(&patch, None, StatusCode::NOT_FOUND);
        let text = rendered(vec![requests.metric()], TextFormat::Prometheus);
        let count = |labels: &str| {
            text.lines().find_map(|line| line.strip_prefix(&format!("taskwatch_http_requests_total{{{labels}}} ")))
        };
        assert_eq!(count(r#"method="GET",route="/tasks/{id}",status="2xx""#), Some("2.0"), "{text}");
        assert_eq!(count(r#"method="GET",route="/tasks/{id}",status="4xx""#), Some("1.0"));
        assert_eq!(count(r#"method="other",route="other",status="4xx""#), Some("1.0"));
    }

    #[test]
    fn metrics_have_names_of_their_own() {
        let tallies = Tallies::default();
        let names: Vec<_> =
            tallies.metrics().iter().map(|metric| metric.name).chain(["taskwatch_http_requests"]).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        for name in names {
            assert!(name.starts_with("taskwatch_") && !name.ends_with("_total"), "{name}: the format adds _total");
        }
    }
}
