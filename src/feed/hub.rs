//! The hub: a ring of encoded frames bounded by bytes, and a broadcast that wakes whoever follows live.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::broadcast;

use super::Published;

/// Batches that a live reader may be behind before it reads from the ring instead.
const BROADCAST: usize = 16;
/// Frames handed out from the ring at once.
const CHUNK: usize = 1_000;

/// One publication: stored events in order, or ephemeral ones.
pub(super) type Batch = Arc<[Published]>;

#[derive(Debug)]
pub(super) struct Hub {
    ring: RwLock<Ring>,
    oldest: AtomicI64,
    checked: Mutex<Instant>,
    live: broadcast::Sender<Batch>,
}

#[derive(Debug)]
struct Ring {
    frames: VecDeque<Published>,
    bytes: usize,
    max_bytes: usize,
    /// Position of the newest event handed in.
    head: i64,
}

impl Hub {
    pub(super) fn new(head: i64, oldest: i64, max_bytes: usize) -> Self {
        let ring = Ring { frames: VecDeque::new(), bytes: 0, max_bytes, head };
        Self {
            ring: RwLock::new(ring),
            oldest: AtomicI64::new(oldest),
            checked: Mutex::new(Instant::now()),
            live: broadcast::Sender::new(BROADCAST),
        }
    }

    /// Hands in the next stored events (or ephemeral ones, which the ring does not keep). Never waits for a reader.
    pub(super) fn publish(&self, batch: Batch) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        for published in batch.iter() {
            if let Some(id) = published.id {
                ring.push(published.clone(), id.position);
            }
        }
        // Under the lock, so that who subscribes meanwhile gets each batch either from the ring or live. An error
        // means that nobody listens.
        let _ = self.live.send(batch);
    }

    /// A live reader and the head at that moment: every later event comes through the reader.
    pub(super) fn subscribe(&self) -> (broadcast::Receiver<Batch>, i64) {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        (self.live.subscribe(), ring.head)
    }

    /// The oldest position that the log still has.
    pub(super) fn oldest(&self) -> i64 {
        self.oldest.load(Ordering::Relaxed)
    }

    pub(super) fn set_oldest(&self, position: i64) {
        self.oldest.store(position, Ordering::Relaxed);
    }

    /// The log was read just now: the hub has everything that is in it.
    pub(super) fn checked(&self) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago that was.
    pub(super) fn age(&self) -> Duration {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    pub(super) fn head(&self) -> i64 {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).head
    }

    /// How many listen.
    pub(super) fn readers(&self) -> usize {
        self.live.receiver_count()
    }

    /// The frames after a position, as far as one chunk reaches; `None` when the ring no longer has the next one.
    pub(super) fn after(&self, position: i64) -> Option<Vec<Published>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        if position >= ring.head {
            return Some(Vec::new());
        }
        let oldest = ring.head + 1 - i64::try_from(ring.frames.len()).unwrap_or(i64::MAX);
        let skip = usize::try_from(position + 1 - oldest).ok()?;
        Some(ring.frames.range(skip..(skip + CHUNK).min(ring.frames.len())).cloned().collect())
    }

    /// The newest frames that pass a test, newest first.
    pub(super) fn newest(&self, limit: usize, test: impl Fn(&Published) -> bool) -> Vec<Published> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.frames.iter().rev().filter(|published| test(published)).take(limit).cloned().collect()
    }
}

impl Ring {
    fn push(&mut self, published: Published, position: i64) {
        self.head = position;
        self.bytes += cost(&published);
        self.frames.push_back(published);
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= cost(&oldest);
        }
    }
}

/// What a frame takes in memory: its bytes, the parsed event beside it, and the bookkeeping.
fn cost(published: &Published) -> usize {
    2 * published.frame.len() + 512
}
