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
