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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_duration_at_the_bound_of_a_bucket_is_within_it() {
        let latency = Latency::default();
        for micros in [0, 500, 501, 15_000_000, 15_000_001] {
            latency.add(Duration::from_micros(micros));
        }
        let buckets = latency.buckets();
        let counts: Vec<_> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!((counts[0], counts[1], counts[ENDS.len() - 1], counts[ENDS.len()]), (2, 1, 1, 1));
        assert_eq!(buckets.last().map(|(end, _)| *end), Some(f64::INFINITY));
        assert!((latency.sum_seconds() - 30.001_002).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_lost_when_several_count() {
        let latency = Arc::new(Latency::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let latency = latency.clone();
                std::thread::spawn(move || (0..500).for_each(|_| latency.add(Duration::from_millis(3))))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        assert_eq!(latency.buckets().iter().map(|(_, count)| count).sum::<u64>(), 2_000);
        assert!((latency.sum_seconds() - 6.0).abs() < 1e-6);
    }
}
