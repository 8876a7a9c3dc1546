//! Figures about tasks and about the program itself. Their names and help texts stand here, in one table.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    event::envelope::Stats,
    feed::{
        Callbacks, Deliveries,
        ledger::{DELAYS_MS, Ending, Ledger},
    },
    store::writer::WriterCounters,
};

/// What `/metrics` shows.
#[derive(Debug, Default)]
pub struct Metrics {
    callbacks: Callbacks,
}

/// Where figures come from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The board's figures.
    pub stats: &'a Stats,
    /// The board's position.
    pub position: i64,
    /// Streams.
    pub ledger: &'a Ledger,
    /// What streams are fed from.
    pub deliveries: &'a Deliveries,
    /// The writer.
    pub writer: &'a WriterCounters,
}

#[derive(Debug)]
struct Sample {
    gauges: Vec<(&'static str, &'static str, f64)>,
    counters: Vec<(&'static str, &'static str, u64)>,
    families: Vec<Family>,
    delays: (f64, Vec<(f64, u64)>),
}

/// A counter with labels.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    series: Vec<(Vec<(&'static str, &'static str)>, u64)>,
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    /// Metrics that include those of registered hooks.
    #[must_use]
    pub const fn new(callbacks: Callbacks) -> Self {
        Self { callbacks }
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self, sources: Sources<'_>) -> String {
        let sample = Sample {
            gauges: gauges(sources),
            counters: counters(sources),
            families: vec![self.hooks(), endings(sources.ledger)],
            delays: delays(sources.ledger),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sample));
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics could not be written down");
        }
        text
    }

    fn hooks(&self) -> Family {
        let series = self.callbacks.counters().flat_map(|(name, hook)| {
            let outcomes = [
                ("done", read(&hook.done)),
                ("error", read(&hook.errors)),
                ("panic", read(&hook.panics)),
                ("timeout", read(&hook.timeouts)),
                ("skipped", read(&hook.skipped)),
            ];
            outcomes.map(|(outcome, count)| (vec![("hook", name), ("outcome", outcome)], count))
        });
        Family {
            name: "taskwatch_callback_events",
            help: "Events handed to callbacks, by what became of them",
            series: series.collect(),
        }
    }
}

fn gauges(sources: Sources<'_>) -> Vec<(&'static str, &'static str, f64)> {
    let Sources { stats, position, ledger, deliveries, .. } = sources;
    let (rows, _) = ledger.rows();
    let cursors = rows.iter().map(|row| row.position());
    let behind = cursors.map(|cursor| (position - cursor).max(0)).max().unwrap_or_default();
    vec![
        ("taskwatch_workers_online", "Workers that are expected to report", stats.workers_online as f64),
        ("taskwatch_tasks_pending", "Tasks that may be claimed", stats.pending as f64),
        ("taskwatch_tasks_running", "Tasks that workers have", stats.running as f64),
        ("taskwatch_tasks_retrying", "Tasks that wait for another attempt", stats.retrying as f64),
        ("taskwatch_tasks_completed", "Tasks done, of those not deleted", stats.completed as f64),
        ("taskwatch_tasks_failed", "Tasks given up, of those not deleted", stats.failed as f64),
        (
            "taskwatch_error_rate_percent",
            "Attempts that failed of attempts that ended, last minute",
            stats.error_rate_1m_percent,
        ),
        ("taskwatch_log_position", "Position of the last event on the board", position as f64),
        ("taskwatch_streams_open", "Event streams and live pages that are open", rows.len() as f64),
        ("taskwatch_stream_classes", "Distinct filters and forms that streams share", deliveries.classes() as f64),
        ("taskwatch_stream_behind_events", "Events that the slowest stream is behind", behind as f64),
    ]
}

fn counters(sources: Sources<'_>) -> Vec<(&'static str, &'static str, u64)> {
    let Sources { ledger, deliveries, writer, .. } = sources;
    vec![
        ("taskwatch_writer_commands", "Commands carried out or refused by this process", read(&writer.commands)),
        ("taskwatch_writer_batches", "Transactions of the writer", read(&writer.batches)),
        ("taskwatch_writer_events", "Events appended by this process", read(&writer.events)),
        ("taskwatch_writer_retries", "Transactions that the database did not take at first", read(&writer.retries)),
        ("taskwatch_stream_events", "Events sent to streams, once per stream", read(&ledger.counters.events)),
        ("taskwatch_stream_bytes", "Bytes sent to streams, compressed as sent", read(&ledger.counters.bytes)),
        ("taskwatch_streams_refused", "Streams that found no place", read(&ledger.counters.refused)),
        ("taskwatch_stream_rows_read", "Rows of the log read for streams that were behind", deliveries.rows_read()),
    ]
}

fn endings(ledger: &Ledger) -> Family {
    let ended = Ending::ALL.into_iter().zip(&ledger.counters.ended);
    Family {
        name: "taskwatch_streams_ended",
        help: "Streams that ended, by how",
        series: ended.map(|(ending, count)| (vec![("ending", ending.as_str())], read(count))).collect(),
    }
}

/// The sum in seconds, and events by class of delay.
fn delays(ledger: &Ledger) -> (f64, Vec<(f64, u64)>) {
    let ends = DELAYS_MS.iter().map(|ms| *ms as f64 / 1_000.0).chain([f64::MAX]);
    let sum = read(&ledger.counters.delay_sum_us) as f64 / 1e6;
    (sum, ends.zip(&ledger.counters.delays).map(|(end, count)| (end, read(count))).collect())
}

impl Collector for Sample {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, value) in &self.gauges {
            let gauge = ConstGauge::new(*value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in &self.counters {
            let counter = ConstCounter::new(*value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for Family { name, help, series } in self.families.iter().filter(|family| !family.series.is_empty()) {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, count) in series {
                ConstCounter::new(*count).encode(family.encode_family(&labels.as_slice())?)?;
            }
        }
        let (sum, buckets) = &self.delays;
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut histogram = encoder.encode_descriptor(
            "taskwatch_stream_delay_seconds",
            "From an event's arrival in this server to its hand-over to a stream's connection",
            None,
            MetricType::Histogram,
        )?;
        histogram.encode_histogram::<prometheus_client::encoding::NoLabelSet>(*sum, count, buckets, None)
    }
}
