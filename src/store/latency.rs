//! A lock-free histogram for concurrent use.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, seconds; a last bucket has no upper bound.
const ENDS: [f64; 12] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

/// Histogram of a duration since the process started.
#[derive(Debug, Default)]
pub struct Latency {
    counts: [AtomicU64; ENDS.len() + 1],
    sum_us: AtomicU64,
}

impl Latency {
    /// Records one duration.
    pub fn add(&self, took: Duration) {
        let bucket = ENDS.partition_point(|end| *end < took.as_secs_f64());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sum of all durations, seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Counts by the upper bound of the bucket in seconds, the last of which is infinite. Not cumulative.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = ENDS.into_iter().chain([f64::INFINITY]);
        ends.zip(&self.counts).map(|(end, count)| (end, count.load(Ordering::Relaxed))).collect()
    }
}
