//! Figures about tasks and about the program itself. Their help texts stand here, in one table.

use std::sync::atomic::Ordering;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{event::envelope::Stats, feed::Callbacks, store::writer::WriterCounters};

/// What `/metrics` shows.
#[derive(Debug, Default)]
pub struct Metrics {
    callbacks: Callbacks,
}

#[derive(Debug)]
struct Sample {
    gauges: Vec<(&'static str, &'static str, f64)>,
    counters: Vec<(&'static str, &'static str, u64)>,
    hooks: Vec<(&'static str, [(&'static str, u64); 5])>,
}

impl Metrics {
    /// Metrics that include those of registered hooks.
    #[must_use]
    pub const fn new(callbacks: Callbacks) -> Self {
        Self { callbacks }
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self, stats: &Stats, position: i64, streams: usize, writer: &WriterCounters) -> String {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let sample = Sample {
            gauges: vec![
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
                ("taskwatch_streams_open", "Event streams and live pages that are open", streams as f64),
            ],
            counters: vec![
                (
                    "taskwatch_writer_commands",
                    "Commands carried out or refused by this process",
                    read(&writer.commands),
                ),
                ("taskwatch_writer_batches", "Transactions of the writer", read(&writer.batches)),
                ("taskwatch_writer_events", "Events appended by this process", read(&writer.events)),
                (
                    "taskwatch_writer_retries",
                    "Transactions that the database did not take at first",
                    read(&writer.retries),
                ),
            ],
            hooks: self
                .callbacks
                .counters()
                .map(|(name, hook)| {
                    let outcomes = [
                        ("done", read(&hook.done)),
                        ("error", read(&hook.errors)),
                        ("panic", read(&hook.panics)),
                        ("timeout", read(&hook.timeouts)),
                        ("skipped", read(&hook.skipped)),
                    ];
                    (name, outcomes)
                })
                .collect(),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sample));
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics could not be written down");
        }
        text
    }
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
        if self.hooks.is_empty() {
            return Ok(());
        }
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor(
            "taskwatch_callback_events",
            "Events handed to callbacks, by what became of them",
            None,
            kind,
        )?;
        for (hook, outcomes) in &self.hooks {
            for (outcome, count) in outcomes {
                let labels = [("hook", *hook), ("outcome", *outcome)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
