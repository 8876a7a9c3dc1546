//! Queue of commands to write. Short ones are written immediately, together. Long ones (a thousand reports, a payload
//! of a megabyte) are too while nothing else arrives, but next to short ones they get a small share of the writer's
//! time: one caller must not block the others.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A command of more than this weight is long.
const LONG: usize = 100;
/// Approximate maximum weight of one transaction; one unit is a row or 4 KiB of JSON.
const MAX_WEIGHT: usize = 4_096;
/// The same for a transaction of long commands: short ones that arrive meanwhile wait for its end.
const MAX_LONG_WEIGHT: usize = 1_024;
/// Maximum number of queued long commands.
const MAX_LONG: usize = 64;
/// Short commands count as arriving continuously while the last one is not older than this.
const QUIET: Duration = Duration::from_millis(20);
/// While short commands keep arriving, the pause after a long command, as a multiple of its duration.
const REST: u32 = 19;
/// Maximum such pause, so that long commands are written before their callers time out.
const LONGEST_REST: Duration = Duration::from_secs(3);

/// Queued commands.
#[derive(Debug)]
pub(super) struct Line<T> {
    short: VecDeque<(T, usize)>,
    long: VecDeque<(T, usize)>,
    /// When the last short command arrived.
    last_short: Option<Instant>,
    /// Until when long commands are held back while short ones keep arriving.
    rests_until: Option<Instant>,
    /// The current batch consists of long commands.
    is_long: bool,
    /// The queue is closed, so nothing is held back.
    closed: bool,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            short: VecDeque::new(),
            long: VecDeque::new(),
            last_short: None,
            rests_until: None,
            is_long: false,
            closed: false,
        }
    }
}

impl<T> Line<T> {
    /// Enqueues a command; a long one is returned if too many of them are queued.
    pub(super) fn push(&mut self, item: T, weight: usize, now: Instant) -> Result<(), T> {
        if weight <= LONG {
            self.last_short = Some(now);
            self.short.push_back((item, weight));
        } else if self.long.len() < MAX_LONG {
            self.long.push_back((item, weight));
        } else {
            return Err(item);
        }
        Ok(())
    }

    /// Whether fewer than `most` short commands are queued.
    pub(super) fn has_room(&self, most: usize) -> bool {
        self.short.len() < most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.long.is_empty()
    }

    /// Closes the queue: no more commands arrive.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// When the held back commands become due; `None` if there are none.
    pub(super) fn held_back_until(&self) -> Option<Instant> {
        let quiet = self.last_short.map(|at| at + QUIET);
        self.rests_until.filter(|_| !self.long.is_empty()).map(|rests| quiet.map_or(rests, |quiet| quiet.min(rests)))
    }

    fn keeps_coming(&self, now: Instant) -> bool {
        !self.closed && (!self.short.is_empty() || self.last_short.is_some_and(|at| now < at + QUIET))
    }

    /// The next batch, of at most `most` commands; empty if none may be written yet.
    pub(super) fn next(&mut self, most: usize, now: Instant) -> Vec<T> {
        let among_short = self.keeps_coming(now);
        let rests = among_short && self.rests_until.is_some_and(|until| now < until);
        self.is_long = !self.long.is_empty() && !rests;
        match (self.is_long, among_short) {
            // One at a time, because short commands wait for it.
            (true, true) => batch(&mut self.long, 1, 0),
            (true, false) => batch(&mut self.long, most, MAX_LONG_WEIGHT),
            (false, _) => batch(&mut self.short, most, MAX_WEIGHT),
        }
    }

    /// Records the duration of the current batch.
    pub(super) fn took(&mut self, time: Duration, now: Instant) {
        if self.is_long {
            self.rests_until = Some(now + time.saturating_mul(REST).min(LONGEST_REST));
        }
    }
}

/// The first commands of a queue that fit into one transaction, at least one.
fn batch<T>(line: &mut VecDeque<(T, usize)>, most: usize, most_weight: usize) -> Vec<T> {
    let mut weight = 0;
    let fits = line.iter().take(most).take_while(|(_, more)| {
        let is_first = weight == 0;
        weight += more;
        is_first || weight <= most_weight
    });
    let count = fits.count();
    line.drain(..count).map(|(item, _)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BATCH: usize = 512;

    fn line(weights: &[usize], now: Instant) -> Line<usize> {
        let mut line = Line::default();
        for weight in weights {
            line.push(*weight, *weight, now).expect("there is room");
        }
        line
    }

    #[test]
    fn a_batch_is_bounded_by_number_and_by_weight() {
        let now = Instant::now();
        assert_eq!(line(&[1; 600], now).next(MAX_BATCH, now).len(), MAX_BATCH);
        assert_eq!(line(&[100; 60], now).next(MAX_BATCH, now).len(), 40);
        assert_eq!(line(&[9_000, 9_000], now).next(MAX_BATCH, now).len(), 1, "one alone is never too heavy");
    }

    #[test]
    fn long_ones_alone_follow_each_other_at_once() {
        let now = Instant::now();
        let mut line = line(&[500; 5], now);
        for left in [3, 1, 0] {
            assert!(!line.next(MAX_BATCH, now).is_empty());
            line.took(Duration::from_millis(100), now);
            assert_eq!(line.long.len(), left);
        }
        assert!(line.held_back_until().is_none());
    }

    #[test]
    fn beside_short_ones_a_long_one_gets_a_twentieth_of_the_time() {
        let start = Instant::now();
        let mut line = line(&[1_000; 20], start);
        let (mut now, mut long, mut short) = (start, Duration::ZERO, Duration::ZERO);
        while now < start + Duration::from_secs(20) {
            line.push(1, 1, now).expect("short ones are never refused");
            let took = if line.next(MAX_BATCH, now).first() == Some(&1) {
                short += Duration::from_millis(5);
                Duration::from_millis(5)
            } else {
                long += Duration::from_millis(100);
                Duration::from_millis(100)
            };
            now += took;
            line.took(took, now);
        }
        assert!(long.as_secs_f64() / (long + short).as_secs_f64() < 0.06, "{long:?} of {:?}", long + short);
        assert!(long > Duration::from_millis(900), "they are not forgotten: {long:?}");
    }

    #[test]
    fn a_long_one_waits_no_longer_than_short_ones_keep_coming() {
        let now = Instant::now();
        let mut line = line(&[1_000, 1, 1_000], now);
        assert_eq!(line.next(MAX_BATCH, now), [1_000]);
        line.took(Duration::from_millis(500), now);
        assert_eq!(line.next(MAX_BATCH, now), [1]);
        line.took(Duration::from_millis(5), now);
        assert_eq!(line.next(MAX_BATCH, now), [0; 0]);
        assert_eq!(line.held_back_until(), Some(now + QUIET));
        assert_eq!(line.next(MAX_BATCH, now + QUIET), [1_000]);
    }

    #[test]
    fn too_many_long_ones_are_handed_back_and_the_last_do_not_rest() {
        let now = Instant::now();
        let mut line = line(&[1_000; MAX_LONG], now);
        assert_eq!(line.push(7, 1_000, now), Err(7));
        assert_eq!(line.push(8, 1, now), Ok(()));
        line.next(MAX_BATCH, now);
        line.took(Duration::from_secs(9), now);
        assert_eq!(line.next(MAX_BATCH, now), [8]);
        assert!(line.next(MAX_BATCH, now).is_empty());
        line.close();
        assert!(!line.next(MAX_BATCH, now).is_empty());
    }
}
