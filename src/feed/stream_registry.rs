//! The stream registry: who is connected, the lag of each stream, and how the last streams closed.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use super::progress::ReaderProgress;
use crate::{
    clock::{Clock, Time},
    event::frame::{Form, Format, Wire},
};

/// Number of closed streams that are remembered.
const ENDED: usize = 100;

/// Type of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// `GET /events`.
    Events,
    /// A long poll of `GET /events`.
    Poll,
    /// A live page.
    Page,
}

/// Why a stream was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CloseReason {
    /// The client closed the connection, or the connection was lost.
    ClientLeft,
    /// The client stopped reading for too long.
    Stuck,
    /// The server is shutting down.
    Drain,
    /// Maximum age reached; the client reconnects, perhaps to another server.
    Rotation,
    /// The requested number of events or the end of the range was reached.
    Finished,
    /// Retention removed events that it had yet to deliver.
    TooOld,
    /// The log was replaced or lost its newest events while a range was read.
    LogChanged,
    /// The page no longer exists.
    PageGone,
}

impl CloseReason {
    /// All variants.
    pub const ALL: [Self; 8] = [
        Self::ClientLeft,
        Self::Stuck,
        Self::Drain,
        Self::Rotation,
        Self::Finished,
        Self::TooOld,
        Self::LogChanged,
        Self::PageGone,
    ];

    /// The value in JSON, metrics and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::Stuck => "stuck",
            Self::Drain => "drain",
            Self::Rotation => "rotation",
            Self::Finished => "finished",
            Self::TooOld => "too_old",
            Self::LogChanged => "log_changed",
            Self::PageGone => "page_gone",
        }
    }
}

/// The peer of a connection, and whether it was aborted.
#[derive(Debug, Clone)]
pub struct Peer {
    /// IP address.
    pub address: IpAddr,
    /// Set when the connection is aborted.
    pub stuck: Arc<AtomicBool>,
    /// Set when only the response to this request is aborted, as for an HTTP/2 stream; otherwise the same as `stuck`.
    pub stalled: Arc<AtomicBool>,
}

/// The key for limits per IP address: an IPv6 client usually owns its whole /64 network, so that counts as one address;
/// an IPv4-mapped address counts as the IPv4 address.
#[must_use]
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if !six.is_loopback() => IpAddr::V6((u128::from(six) >> 64 << 64).into()),
        other => other,
    }
}

/// What is known about a stream when it opens.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// Type of the stream.
    pub purpose: Purpose,
    /// IP address of the client.
    pub address: IpAddr,
    /// User agent.
    pub user_agent: Option<Box<str>>,
    /// Query string.
    pub query: Box<str>,
    /// Format of the events.
    pub form: Form,
    /// Compressed with gzip.
    pub gzip: bool,
}

impl StreamInfo {
    /// The format for display.
    #[must_use]
    pub fn form_in_words(&self) -> String {
        let wire = match self.form.wire {
            Wire::Named => "SSE",
            Wire::Unnamed => "SSE without names",
            Wire::Lines => "NDJSON",
        };
        let format = if self.form.format == Format::CloudEvents { ", CloudEvents" } else { "" };
        format!("{wire}{format}{}", if self.gzip { ", gzip" } else { "" })
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Row {
    /// Sequence number since the server started.
    pub id: u64,
    /// What was known when it opened.
    pub info: StreamInfo,
    /// When it opened.
    pub opened_at: Time,
    progress: Mutex<Option<Arc<ReaderProgress>>>,
    cursor: AtomicI64,
    /// Events sent.
    pub events: AtomicU64,
    /// Bytes passed to the connection, after compression.
    pub bytes: AtomicU64,
    close_reason: AtomicU8,
}

impl Row {
    /// The last position examined for it.
    #[must_use]
    pub fn position(&self) -> i64 {
        let cursor = self.cursor.load(Ordering::Relaxed);
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        progress.map_or(cursor, |progress| progress.position().max(cursor))
    }
}

/// A closed stream.
#[derive(Debug, Clone)]
pub struct ClosedStream {
    /// The stream.
    pub row: Arc<Row>,
    /// The close reason.
    pub close_reason: CloseReason,
    /// Time of closing.
    pub ended_at: Time,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// Limit on all streams.
    Total,
    /// Limit per IP address.
    Address,
}

/// Upper bounds of the histogram buckets of the delivery delay, milliseconds; a last bucket has no upper bound.
pub const DELAYS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 250, 500, 1_000, 5_000, 30_000];

/// Counters over all streams since the server started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events sent.
    pub events: AtomicU64,
    /// Bytes passed to connections, after compression.
    pub bytes: AtomicU64,
    /// Streams rejected because of a limit.
    pub refused: AtomicU64,
    /// Closed streams, in the order of [`CloseReason::ALL`].
    pub ended: [AtomicU64; CloseReason::ALL.len()],
    /// Histogram of the delay from publication in this process until the bytes are passed to the connection, which
    /// writes them immediately; counts events. Excludes events delivered while catching up.
    pub delays: [AtomicU64; DELAYS_MS.len() + 1],
    /// Sum of these delays, microseconds.
    pub delay_sum_us: AtomicU64,
}

impl Counters {
    /// Counts events with the same delay.
    pub fn delayed(&self, events: u64, delay: Duration) {
        let class = DELAYS_MS.partition_point(|end| u128::from(*end) < delay.as_millis().saturating_add(1));
        self.delays[class].fetch_add(events, Ordering::Relaxed);
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delay_sum_us.fetch_add(micros.saturating_mul(events), Ordering::Relaxed);
    }
}

impl LimitReached {
    /// The reason in the error response.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "too_many_streams",
            Self::Address => "too_many_streams_per_address",
        }
    }
}

/// The registry of all streams.
#[derive(Debug)]
pub struct StreamRegistry {
    inner: Mutex<Inner>,
    max: usize,
    max_per_address: usize,
    clock: Clock,
    /// Counters over all streams.
    pub counters: Counters,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Arc<Row>>,
    by_address: HashMap<IpAddr, usize>,
    ended: VecDeque<ClosedStream>,
}

/// Registration of an open stream; dropping it closes the entry.
#[derive(Debug)]
pub struct StreamSlot {
    stream_registry: Arc<StreamRegistry>,
    /// Its entry.
    pub row: Arc<Row>,
    given_up: Option<[Arc<AtomicBool>; 2]>,
}

impl StreamRegistry {
    /// An empty registry with the given limits.
    #[must_use]
    pub fn new(max: usize, max_per_address: usize, clock: Clock) -> Self {
        Self { inner: Mutex::default(), max, max_per_address, clock, counters: Counters::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a stream.
    ///
    /// # Errors
    /// [`LimitReached`] if a limit is reached.
    pub fn enter(
        self: &Arc<Self>,
        info: StreamInfo,
        cursor: i64,
        peer: Option<&Peer>,
    ) -> Result<StreamSlot, LimitReached> {
        let mut inner = self.inner();
        let address = counted_as(info.address);
        let of_address = inner.by_address.get(&address).copied().unwrap_or_default();
        let full = if inner.open.len() >= self.max {
            Some(LimitReached::Total)
        } else if of_address >= self.max_per_address {
            Some(LimitReached::Address)
        } else {
            None
        };
        if let Some(full) = full {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(full);
        }
        *inner.by_address.entry(address).or_default() += 1;
        inner.next += 1;
        let row = Arc::new(Row {
            id: inner.next,
            info,
            opened_at: self.clock.now(),
            progress: Mutex::default(),
            cursor: AtomicI64::new(cursor),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            close_reason: AtomicU8::new(CloseReason::ClientLeft as u8),
        });
        inner.open.insert(row.id, row.clone());
        let given_up = peer.map(|peer| [peer.stuck.clone(), peer.stalled.clone()]);
        Ok(StreamSlot { stream_registry: self.clone(), row, given_up })
    }

    /// Number of open streams.
    #[must_use]
    pub fn open(&self) -> usize {
        self.inner().open.len()
    }

    /// The open streams, oldest first, and the last closed ones, newest first.
    #[must_use]
    pub fn rows(&self) -> (Vec<Arc<Row>>, Vec<ClosedStream>) {
        let inner = self.inner();
        (inner.open.values().cloned().collect(), inner.ended.iter().rev().cloned().collect())
    }
}

impl StreamSlot {
    /// Counts events and bytes sent.
    pub fn sent(&self, events: u64, bytes: usize) {
        let bytes = bytes as u64;
        self.row.events.fetch_add(events, Ordering::Relaxed);
        self.row.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.stream_registry.counters.events.fetch_add(events, Ordering::Relaxed);
        self.stream_registry.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes its position from a reader from now on.
    pub fn follows(&self, progress: Arc<ReaderProgress>) {
        // A stream that restarts in another epoch may be at a lower position.
        self.row.cursor.store(0, Ordering::Relaxed);
        *self.row.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// Records the position that a live page shows.
    pub fn shows(&self, position: i64) {
        self.row.cursor.store(position, Ordering::Relaxed);
    }

    /// Records the delivery delay of events.
    pub fn delayed(&self, events: u64, delay: Duration) {
        self.stream_registry.counters.delayed(events, delay);
    }

    /// Sets the close reason.
    pub fn ends(&self, close_reason: CloseReason) {
        self.row.close_reason.store(close_reason as u8, Ordering::Relaxed);
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.row.cursor.store(self.row.position(), Ordering::Relaxed);
        let stuck = self.given_up.iter().flatten().any(|given_up| given_up.load(Ordering::Relaxed));
        let told = self.row.close_reason.load(Ordering::Relaxed);
        let close_reason =
            CloseReason::ALL.into_iter().find(|close_reason| *close_reason as u8 == told).filter(|_| !stuck);
        let close_reason = close_reason.unwrap_or(CloseReason::Stuck);
        self.stream_registry.counters.ended[close_reason as usize].fetch_add(1, Ordering::Relaxed);
        let mut inner = self.stream_registry.inner();
        inner.open.remove(&self.row.id);
        let address = counted_as(self.row.info.address);
        if let Some(count) = inner.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                inner.by_address.remove(&address);
            }
        }
        inner.ended.push_back(ClosedStream {
            row: self.row.clone(),
            close_reason,
            ended_at: self.stream_registry.clock.now(),
        });
        if inner.ended.len() > ENDED {
            inner.ended.pop_front();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn registry(max: usize, max_per_address: usize) -> Arc<StreamRegistry> {
        let now = Time::from_timestamp(1_800_000_000, 0).unwrap();
        Arc::new(StreamRegistry::new(max, max_per_address, Clock::stopped(now)))
    }

    fn from(address: &str) -> StreamInfo {
        StreamInfo {
            purpose: Purpose::Events,
            address: address.parse().unwrap(),
            user_agent: None,
            query: "".into(),
            form: Form::default(),
            gzip: false,
        }
    }

    fn count(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    #[test]
    fn the_limit_of_all_streams_is_reached_by_the_last_one_allowed() {
        let registry = registry(2, 9);
        let _open = [1, 2].map(|last| registry.enter(from(&format!("192.0.2.{last}")), 0, None).unwrap());
        assert_eq!(registry.enter(from("192.0.2.3"), 0, None).unwrap_err(), LimitReached::Total);
        assert_eq!((registry.open(), count(&registry.counters.refused)), (2, 1));
        let none = self::registry(0, 9);
        assert_eq!(none.enter(from("192.0.2.1"), 0, None).unwrap_err(), LimitReached::Total);
    }

    #[test]
    fn an_address_that_has_enough_keeps_nobody_else_out() {
        let registry = registry(9, 1);
        let first = registry.enter(from("192.0.2.1"), 0, None).unwrap();
        assert_eq!(registry.enter(from("192.0.2.1"), 0, None).unwrap_err(), LimitReached::Address);
        let _other = registry.enter(from("192.0.2.2"), 0, None).unwrap();
        drop(first);
        let _again = registry.enter(from("192.0.2.1"), 0, None).unwrap();
        assert_eq!(registry.open(), 2);
    }

    #[test]
    fn a_network_of_one_client_counts_as_one_address() {
        let counted = |address: &str| counted_as(address.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:ffff::9"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:3::1"), "2001:db8:1:3::");
        assert_eq!((counted("::ffff:192.0.2.7"), counted("192.0.2.7")), ("192.0.2.7".into(), "192.0.2.7".into()));
        assert_eq!(counted("::1"), "::1", "the loopback address is not a network");
        let registry = registry(9, 1);
        let _open = registry.enter(from("2001:db8::1"), 0, None).unwrap();
        assert_eq!(registry.enter(from("2001:db8::2"), 0, None).unwrap_err(), LimitReached::Address);
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_left() {
        let registry = registry(9, 9);
        for last in 0..100 {
            drop(registry.enter(from(&format!("192.0.2.{last}")), 0, None).unwrap());
        }
        assert!(registry.inner().by_address.is_empty());
    }

    #[test]
    fn the_last_hundred_that_ended_are_remembered_newest_first() {
        let registry = registry(9, 9);
        for position in 0..101 {
            drop(registry.enter(from("192.0.2.1"), position, None).unwrap());
        }
        let (open, ended) = registry.rows();
        let ids: Vec<_> = ended.iter().map(|ended| ended.row.id).collect();
        assert_eq!((open.len(), ids), (0, (2..=101).rev().collect()));
    }

    #[test]
    fn open_streams_are_listed_oldest_first() {
        let registry = registry(9, 9);
        let slots: Vec<_> = (0..3).map(|_| registry.enter(from("192.0.2.1"), 0, None).unwrap()).collect();
        assert_eq!(registry.rows().0.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2, 3]);
        drop(slots);
        let next = registry.enter(from("192.0.2.1"), 0, None).unwrap();
        assert_eq!(next.row.id, 4, "a number is not used again");
    }

    #[test]
    fn every_end_is_counted_where_its_reason_stands() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            let registry = registry(9, 9);
            let slot = registry.enter(from("192.0.2.1"), 0, None).unwrap();
            slot.ends(reason);
            drop(slot);
            let counts: Vec<_> = registry.counters.ended.iter().map(count).collect();
            assert_eq!((counts[index], counts.iter().sum::<u64>()), (1, 1), "{}", reason.as_str());
            assert_eq!(registry.rows().1[0].close_reason, reason);
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.as_str()));
        }
    }

    #[test]
    fn a_stream_that_gives_no_reason_was_left_by_its_client() {
        let registry = registry(9, 9);
        drop(registry.enter(from("192.0.2.1"), 0, None).unwrap());
        assert_eq!(registry.rows().1[0].close_reason, CloseReason::ClientLeft);
    }

    #[test]
    fn a_client_that_was_stuck_is_that_whatever_else_was_said() {
        for which in 0..2 {
            let registry = registry(9, 9);
            let flags = [false, false].map(|_| Arc::new(AtomicBool::new(false)));
            let [stuck, stalled] = flags.clone();
            let peer = Peer { address: "192.0.2.1".parse().unwrap(), stuck, stalled };
            let slot = registry.enter(from("192.0.2.1"), 0, Some(&peer)).unwrap();
            slot.ends(CloseReason::Drain);
            flags[which].store(true, Ordering::Relaxed);
            drop(slot);
            assert_eq!(registry.rows().1[0].close_reason, CloseReason::Stuck);
        }
    }

    #[test]
    fn what_was_sent_counts_for_the_stream_and_for_the_server() {
        let registry = registry(9, 9);
        let slots = [1, 2].map(|last| registry.enter(from(&format!("192.0.2.{last}")), 0, None).unwrap());
        slots[0].sent(3, 100);
        slots[0].sent(0, 7);
        slots[1].sent(1, 1);
        assert_eq!((count(&slots[0].row.events), count(&slots[0].row.bytes)), (3, 107));
        assert_eq!((count(&registry.counters.events), count(&registry.counters.bytes)), (4, 108));
    }

    #[test]
    fn a_live_page_is_where_it_says() {
        let registry = registry(9, 9);
        let slot = registry.enter(from("192.0.2.1"), 7, None).unwrap();
        assert_eq!(slot.row.position(), 7);
        slot.shows(40);
        let row = slot.row.clone();
        drop(slot);
        assert_eq!(row.position(), 40, "also after it ended");
    }

    #[test]
    fn a_delay_belongs_to_the_first_bucket_that_holds_it() {
        let counters = Counters::default();
        let buckets = |delay| {
            let counters = Counters::default();
            counters.delayed(2, delay);
            let found = counters.delays.iter().position(|bucket| count(bucket) == 2).unwrap();
            DELAYS_MS.get(found).copied()
        };
        let micros = |micros| buckets(Duration::from_micros(micros));
        assert_eq!((micros(0), micros(999), micros(1_999)), (Some(1), Some(1), Some(2)));
        for (index, end) in DELAYS_MS.into_iter().enumerate() {
            assert_eq!(buckets(Duration::from_millis(end - 1)), Some(end));
            assert_eq!(buckets(Duration::from_millis(end)), DELAYS_MS.get(index + 1).copied(), "{end}");
        }
        assert_eq!(buckets(Duration::MAX), None);
        counters.delayed(3, Duration::from_micros(1_500));
        assert_eq!(count(&counters.delay_sum_us), 4_500);
    }

    #[test]
    fn a_form_reads_like_its_name() {
        let words =
            |wire, format, gzip| StreamInfo { form: Form { wire, format }, gzip, ..from("192.0.2.1") }.form_in_words();
        assert_eq!(words(Wire::Named, Format::Native, false), "SSE");
        assert_eq!(words(Wire::Unnamed, Format::Native, true), "SSE without names, gzip");
        assert_eq!(words(Wire::Lines, Format::CloudEvents, true), "NDJSON, CloudEvents, gzip");
    }
}
