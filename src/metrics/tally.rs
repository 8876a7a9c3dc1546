//! Counters and histograms of tasks by queue and type, from the events published by this process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use super::{Metric, Value};
use crate::{
    event::{Event, Kind},
    model::Name,
};

/// Maximum number of queues, and of types, with their own label; further ones are counted as [`OTHER`].
pub const MAX_LABELS: usize = 200;
/// Maximum number of pairs of queue and type.
const MAX_PAIRS: usize = 2_000;
/// Label of everything beyond these limits.
pub const OTHER: &str = "other";

/// What is counted: event type and metric.
const COUNTED: [(Kind, &str, &str); 7] = [
    (Kind::TaskCreated, "taskwatch_tasks_created", "Tasks created"),
    (Kind::TaskStarted, "taskwatch_attempts_started", "Attempts started"),
    (Kind::TaskCompleted, "taskwatch_tasks_completed", "Tasks completed"),
    (Kind::TaskFailed, "taskwatch_tasks_failed", "Tasks that failed with no attempts left"),
    (Kind::TaskRetry, "taskwatch_tasks_retried", "Attempts that failed and are followed by another"),
    (Kind::TaskStalled, "taskwatch_tasks_stalled", "Attempts that lost their lease, their worker or their time"),
    (Kind::TaskCancelled, "taskwatch_tasks_cancelled", "Tasks cancelled"),
];

/// Upper bounds of the buckets of wait and run times, seconds.
const BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0];

/// Counts since the process started. Every server publishes every event of the log, so each counts all of them.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    queues: BTreeSet<Name>,
    types: BTreeSet<Name>,
    tasks: BTreeMap<(Name, Name), [u64; COUNTED.len()]>,
    waits: BTreeMap<Name, Distribution>,
    runs: BTreeMap<Name, Distribution>,
}

#[derive(Debug, Clone, Default)]
struct Distribution {
    sum: f64,
    counts: [u64; BUCKETS.len() + 1],
}

impl Distribution {
    fn add(&mut self, ms: u64) {
        let seconds = ms as f64 / 1_000.0;
        self.sum += seconds;
        self.counts[BUCKETS.partition_point(|end| *end < seconds)] += 1;
    }

    fn value(&self) -> Value {
        let ends = BUCKETS.into_iter().chain([f64::INFINITY]);
        Value::Histogram(self.sum, ends.zip(self.counts).collect())
    }
}

/// The label of a name, or [`OTHER`] at the limit.
fn label(known: &mut BTreeSet<Name>, name: &Name) -> Name {
    if !known.contains(name) {
        if known.len() >= MAX_LABELS {
            return Name::literal(OTHER);
        }
        known.insert(name.clone());
    }
    name.clone()
}

impl Tallies {
    /// Counts one published event.
    pub fn count(&self, event: &Event) {
        let (Some(queue), Some(task_type)) = (&event.queue, &event.task_type) else { return };
        let Some(which) = COUNTED.iter().position(|(kind, _, _)| *kind == event.event_type) else { return };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        let queue = label(&mut counts.queues, queue);
        if let Some(ms) = event.data.wait_ms {
            counts.waits.entry(queue.clone()).or_default().add(ms);
        }
        if let Some(ms) = event.duration_ms {
            counts.runs.entry(queue.clone()).or_default().add(ms);
        }
        let mut pair = (queue, label(&mut counts.types, task_type));
        if counts.tasks.len() >= MAX_PAIRS && !counts.tasks.contains_key(&pair) {
            pair = (Name::literal(OTHER), Name::literal(OTHER));
        }
        counts.tasks.entry(pair).or_default()[which] += 1;
    }

    /// Converts to metrics.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = COUNTED.iter().enumerate().map(|(which, (_, name, help))| {
            let series = counts.tasks.iter().map(|((queue, task_type), counts)| {
                let labels = vec![("queue", queue.to_string()), ("task_type", task_type.to_string())];
                (labels, Value::Counter(counts[which] as f64))
            });
            Metric { name, help, series: series.collect() }
        });
        let distribution = |name, help, by_queue: &BTreeMap<Name, Distribution>| {
            let series = by_queue.iter().map(|(queue, all)| (vec![("queue", queue.to_string())], all.value()));
            Metric { name, help, series: series.collect() }
        };
        counters
            .chain([
                distribution(
                    "taskwatch_task_wait_seconds",
                    "Time from pending to the start of an attempt",
                    &counts.waits,
                ),
                distribution("taskwatch_task_run_seconds", "Time of attempts that completed or failed", &counts.runs),
            ])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_the_rest_is_counted_together() {
        let tallies = Tallies::default();
        for number in 0..MAX_LABELS + 50 {
            let mut event = Event::new(Kind::TaskCreated, chrono::DateTime::UNIX_EPOCH);
            event.queue = Name::new(&format!("q{number:03}")).ok();
            event.task_type = Some(Name::literal("t"));
            tallies.count(&event);
        }
        let metrics = tallies.metrics();
        let created = &metrics[0].series;
        assert_eq!(created.len(), MAX_LABELS + 1);
        let other = created.iter().find(|(labels, _)| labels[0].1 == OTHER).map(|(_, value)| value);
        assert!(matches!(other, Some(Value::Counter(count)) if (*count - 50.0).abs() < 0.1), "{other:?}");
    }

    fn event(kind: Kind, queue: &'static str) -> Event {
        let mut event = Event::new(kind, chrono::DateTime::UNIX_EPOCH);
        event.queue = Some(Name::literal(queue));
        event.task_type = Some(Name::literal("t"));
        event
    }

    fn histogram(tallies: &Tallies, name: &str) -> (f64, Vec<(f64, u64)>) {
        let metric = tallies.metrics().into_iter().find(|metric| metric.name == name).expect("it is there");
        match metric.series.into_iter().next() {
            Some((_, Value::Histogram(sum, buckets))) => (sum, buckets),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_happens_to_tasks_is_counted() {
        let tallies = Tallies::default();
        tallies.count(&event(Kind::TaskProgress, "q"));
        tallies.count(&Event::new(Kind::TaskCreated, chrono::DateTime::UNIX_EPOCH));
        assert!(tallies.metrics().iter().all(|metric| metric.series.is_empty()), "neither counts");
        for (kind, ..) in COUNTED {
            tallies.count(&event(kind, "q"));
        }
        for metric in &tallies.metrics()[..COUNTED.len()] {
            let [(_, Value::Counter(count))] = metric.series.as_slice() else { panic!("{metric:?}") };
            assert!((count - 1.0).abs() < 0.1, "{}", metric.name);
        }
    }

    #[test]
    fn a_time_at_the_bound_of_a_bucket_is_within_it() {
        let tallies = Tallies::default();
        for ms in [0, 5, 6, 21_600_000, 21_600_001, 31_536_000_000] {
            let mut started = event(Kind::TaskStarted, "q");
            started.data.wait_ms = Some(ms);
            tallies.count(&started);
        }
        let (sum, buckets) = histogram(&tallies, "taskwatch_task_wait_seconds");
        let of = |end: f64| buckets.iter().find(|(bound, _)| *bound >= end).map(|(_, count)| *count);
        assert_eq!([of(0.005), of(0.01), of(21_600.0), of(f64::INFINITY)], [Some(2), Some(1), Some(1), Some(2)]);
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 6);
        assert!((sum - (0.011 + 43_200.001 + 31_536_000.0)).abs() < 1e-3, "{sum}");
        assert!(buckets.is_sorted_by(|(one, _), (next, _)| one < next));
    }

    #[test]
    fn pairs_of_queue_and_type_are_bounded_too() {
        let tallies = Tallies::default();
        for number in 0..MAX_PAIRS + 30 {
            let mut created = event(Kind::TaskCreated, "q");
            created.queue = Name::new(&format!("q{}", number % 100)).ok();
            created.task_type = Name::new(&format!("t{}", number / 100)).ok();
            tallies.count(&created);
        }
        let created = &tallies.metrics()[0].series;
        assert_eq!(created.len(), MAX_PAIRS + 1);
        let other = created.iter().find(|(labels, _)| labels.iter().all(|(_, value)| value == OTHER));
        assert!(matches!(other, Some((_, Value::Counter(count))) if (count - 30.0).abs() < 0.1), "{other:?}");
    }
}
