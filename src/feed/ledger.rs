//! The ledger of streams: who is connected, how far each is, and how the last ones ended.

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

use super::delivery::Progress;
use crate::{
    clock::{Clock, Time},
    event::frame::{Form, Format, Wire},
};

/// Ended streams that are remembered.
const ENDED: usize = 100;

/// What a stream is for.
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

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Ending {
    /// The client closed the connection or was cut off.
    ClientLeft,
    /// The client took no byte for too long.
    Stuck,
    /// The server stops.
    Drain,
    /// It was old; its client comes back, perhaps to another server.
    Rotation,
    /// It had as many events as it asked for, or the end of its range.
    Finished,
    /// Retention removed what it had still to get.
    TooOld,
    /// The log was replaced or lost its newest events while it read a range.
    LogChanged,
    /// The page is gone.
    PageGone,
}

impl Ending {
    /// Every ending.
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

    /// The word in JSON, metrics and pages.
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

/// Who is at the other end of a connection, and what became of it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Set when the connection is given up.
    pub stuck: Arc<AtomicBool>,
    /// Set when this request's answer alone is given up: an HTTP/2 stream; else the same as `stuck`.
    pub stalled: Arc<AtomicBool>,
}

/// The key for limits per address: an IPv6 client usually owns its whole /64 network, so that counts as one address; an
/// IPv4-mapped address counts as the IPv4 address.
#[must_use]
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if !six.is_loopback() => IpAddr::V6((u128::from(six) >> 64 << 64).into()),
        other => other,
    }
}

/// What is known of a stream when it begins.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What it is for.
    pub purpose: Purpose,
    /// The client's address.
    pub address: IpAddr,
    /// What the client says it is.
    pub user_agent: Option<Box<str>>,
    /// Its query, as in a URL.
    pub query: Box<str>,
    /// In which form it gets events.
    pub form: Form,
    /// Compressed.
    pub gzip: bool,
}

impl Opening {
    /// Its form, for people.
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

/// One stream.
#[derive(Debug)]
pub struct Row {
    /// Its number since the server started.
    pub id: u64,
    /// What was known at first.
    pub opening: Opening,
    /// When it began.
    pub opened_at: Time,
    progress: Mutex<Option<Arc<Progress>>>,
    cursor: AtomicI64,
    /// Events sent.
    pub events: AtomicU64,
    /// Bytes handed to its connection, compressed as sent.
    pub bytes: AtomicU64,
    ending: AtomicU8,
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

/// A stream that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Which.
    pub row: Arc<Row>,
    /// How.
    pub ending: Ending,
    /// When.
    pub ended_at: Time,
}

/// Why there is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Too many streams in all.
    Total,
    /// Too many of one address.
    Address,
}

/// Upper ends of the classes of delay, milliseconds; beyond the last is one more.
pub const DELAYS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 250, 500, 1_000, 5_000, 30_000];

/// Figures over all streams since the server started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events sent.
    pub events: AtomicU64,
    /// Bytes handed to connections, compressed as sent.
    pub bytes: AtomicU64,
    /// Streams that found no place.
    pub refused: AtomicU64,
    /// Streams that ended, in the order of [`Ending::ALL`].
    pub ended: [AtomicU64; Ending::ALL.len()],
    /// From an event's arrival in this server to the hand-over of its bytes to the connection, which writes them at
    /// once: events by class of delay. What was caught up from the past is not in it.
    pub delays: [AtomicU64; DELAYS_MS.len() + 1],
    /// The sum of these delays, microseconds.
    pub delay_sum_us: AtomicU64,
}

impl Counters {
    /// Counts events that took so long.
    pub fn delayed(&self, events: u64, delay: Duration) {
        let class = DELAYS_MS.partition_point(|end| u128::from(*end) < delay.as_millis().saturating_add(1));
        self.delays[class].fetch_add(events, Ordering::Relaxed);
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delay_sum_us.fetch_add(micros.saturating_mul(events), Ordering::Relaxed);
    }
}

impl Full {
    /// The reason that a client is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "too_many_streams",
            Self::Address => "too_many_streams_of_this_address",
        }
    }
}

/// All streams.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
    max: usize,
    max_per_address: usize,
    clock: Clock,
    /// Counted over all streams.
    pub counters: Counters,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Arc<Row>>,
    by_address: HashMap<IpAddr, usize>,
    ended: VecDeque<Ended>,
}

/// A stream's place for as long as it lives.
#[derive(Debug)]
pub struct Place {
    ledger: Arc<Ledger>,
    /// Its row.
    pub row: Arc<Row>,
    given_up: Option<[Arc<AtomicBool>; 2]>,
}

impl Ledger {
    /// An empty ledger for at most so many streams.
    #[must_use]
    pub fn new(max: usize, max_per_address: usize, clock: Clock) -> Self {
        Self { inner: Mutex::default(), max, max_per_address, clock, counters: Counters::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more.
    ///
    /// # Errors
    /// [`Full`] when there are too many.
    pub fn enter(self: &Arc<Self>, opening: Opening, cursor: i64, peer: Option<&Peer>) -> Result<Place, Full> {
        let mut inner = self.inner();
        let address = counted_as(opening.address);
        let of_address = inner.by_address.get(&address).copied().unwrap_or_default();
        let full = if inner.open.len() >= self.max {
            Some(Full::Total)
        } else if of_address >= self.max_per_address {
            Some(Full::Address)
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
            opening,
            opened_at: self.clock.now(),
            progress: Mutex::default(),
            cursor: AtomicI64::new(cursor),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ending: AtomicU8::new(Ending::ClientLeft as u8),
        });
        inner.open.insert(row.id, row.clone());
        let given_up = peer.map(|peer| [peer.stuck.clone(), peer.stalled.clone()]);
        Ok(Place { ledger: self.clone(), row, given_up })
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.inner().open.len()
    }

    /// Those that are open, oldest first, and the last that ended, newest first.
    #[must_use]
    pub fn rows(&self) -> (Vec<Arc<Row>>, Vec<Ended>) {
        let inner = self.inner();
        (inner.open.values().cloned().collect(), inner.ended.iter().rev().cloned().collect())
    }
}

impl Place {
    /// Takes note of what is sent.
    pub fn sent(&self, events: u64, bytes: usize) {
        let bytes = bytes as u64;
        self.row.events.fetch_add(events, Ordering::Relaxed);
        self.row.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ledger.counters.events.fetch_add(events, Ordering::Relaxed);
        self.ledger.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Its position is that of a reader from now on.
    pub fn follows(&self, progress: Arc<Progress>) {
        // A stream that begins again, in another log, may be at an earlier position.
        self.row.cursor.store(0, Ordering::Relaxed);
        *self.row.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// Takes note of the position that a page shows.
    pub fn shows(&self, position: i64) {
        self.row.cursor.store(position, Ordering::Relaxed);
    }

    /// Takes note of how long events took to get here.
    pub fn delayed(&self, events: u64, delay: Duration) {
        self.ledger.counters.delayed(events, delay);
    }

    /// Takes note of how it will end.
    pub fn ends(&self, ending: Ending) {
        self.row.ending.store(ending as u8, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.row.cursor.store(self.row.position(), Ordering::Relaxed);
        let stuck = self.given_up.iter().flatten().any(|given_up| given_up.load(Ordering::Relaxed));
        let told = self.row.ending.load(Ordering::Relaxed);
        let ending = Ending::ALL.into_iter().find(|ending| *ending as u8 == told).filter(|_| !stuck);
        let ending = ending.unwrap_or(Ending::Stuck);
        self.ledger.counters.ended[ending as usize].fetch_add(1, Ordering::Relaxed);
        let mut inner = self.ledger.inner();
        inner.open.remove(&self.row.id);
        let address = counted_as(self.row.opening.address);
        if let Some(count) = inner.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                inner.by_address.remove(&address);
            }
        }
        inner.ended.push_back(Ended { row: self.row.clone(), ending, ended_at: self.ledger.clock.now() });
        if inner.ended.len() > ENDED {
            inner.ended.pop_front();
        }
    }
}
