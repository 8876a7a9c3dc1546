//! The hub: a ring buffer of encoded frames bounded by bytes, and cached pages of the log shared by lagging readers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{broadcast, watch};

use super::Published;
use crate::{
    event::{EventId, envelope::Epoch},
    store::{EventLog, event_log::PAGE},
};

/// Maximum number of frames returned from the ring at once.
const CHUNK_FRAMES: usize = 1_000;
/// Pages of the log cached for readers that lag behind the ring.
const PAGES: usize = 4;
/// Timeout of one read of the log.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Batches of ephemeral events buffered per subscriber; a lost batch does no harm, since it can be recomputed.
const EPHEMERAL: usize = 16;

/// A batch of ephemeral events.
pub(super) type Batch = Arc<[Published]>;

#[derive(Debug)]
pub(super) struct Hub {
    ring: RwLock<Ring>,
    oldest: AtomicI64,
    /// The ring's epoch, readable without its lock.
    epoch: AtomicU32,
    checked: Mutex<Instant>,
    /// Counts publications.
    published: watch::Sender<u64>,
    ephemeral: broadcast::Sender<Batch>,
    /// Cached pages of the log, most recently used last. The lock is held during a read, so that concurrent lagging
    /// readers share one read.
    pages: tokio::sync::Mutex<VecDeque<Page>>,
    readers: AtomicUsize,
    rows_read: AtomicU64,
}

#[derive(Debug)]
struct Ring {
    frames: VecDeque<Published>,
    bytes: usize,
    max_bytes: usize,
    /// The epoch of all frames.
    epoch: Epoch,
    /// Position of the newest published event.
    head: i64,
    /// Position of the oldest frame in the ring; `head + 1` when it is empty.
    first: i64,
}

/// Positions from `number × PAGE + 1`, as far as they existed when the page was read.
#[derive(Debug)]
struct Page {
    epoch: Epoch,
    number: i64,
    events: Arc<[Published]>,
}

impl Hub {
    pub(super) fn new(epoch: Epoch, head: i64, oldest: i64, max_bytes: usize) -> Self {
        let ring = Ring { frames: VecDeque::new(), bytes: 0, max_bytes, epoch, head, first: head + 1 };
        Self {
            ring: RwLock::new(ring),
            oldest: AtomicI64::new(oldest),
            epoch: AtomicU32::new(epoch.0),
            checked: Mutex::new(Instant::now()),
            published: watch::Sender::new(0),
            ephemeral: broadcast::Sender::new(EPHEMERAL),
            pages: tokio::sync::Mutex::default(),
            readers: AtomicUsize::new(0),
            rows_read: AtomicU64::new(0),
        }
    }

    /// Resets to another log: the ring is emptied, and every reader sees that its epoch has ended.
    pub(super) fn reset(&self, epoch: Epoch, head: i64, oldest: i64) {
        {
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            ring.frames.clear();
            ring.bytes = 0;
            (ring.epoch, ring.head, ring.first) = (epoch, head, head + 1);
            self.epoch.store(epoch.0, Ordering::SeqCst);
            self.set_oldest(oldest);
        }
        self.checked();
        self.published.send_modify(|count| *count += 1);
    }

    /// The current epoch.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// The newest event, with the epoch it belongs to.
    pub(super) fn end(&self) -> EventId {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        EventId { epoch: ring.epoch, position: ring.head }
    }

    /// Publishes the next stored events. Never blocks on a reader.
    pub(super) fn publish(&self, batch: Vec<Published>) {
        {
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            for published in batch {
                if let Some(id) = published.id {
                    ring.push(published, id.position);
                }
            }
        }
        self.published.send_modify(|count| *count += 1);
    }

    /// Publishes events without a position, which are not kept in the ring.
    pub(super) fn publish_ephemeral(&self, batch: Vec<Published>) {
        // An error means that there is no receiver.
        let _ = self.ephemeral.send(batch.into());
    }

    /// Notifies of publications since the last look.
    pub(super) fn publications(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Subscribes to ephemeral events.
    pub(super) fn ephemeral(&self) -> broadcast::Receiver<Batch> {
        self.ephemeral.subscribe()
    }

    /// The oldest position that the log still has.
    pub(super) fn oldest(&self) -> i64 {
        self.oldest.load(Ordering::Relaxed)
    }

    pub(super) fn set_oldest(&self, position: i64) {
        self.oldest.store(position, Ordering::Relaxed);
    }

    /// Records that the log has just been read: the hub is up to date.
    pub(super) fn checked(&self) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time since then.
    pub(super) fn age(&self) -> Duration {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    pub(super) fn head(&self) -> i64 {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).head
    }

    /// Number of live readers.
    pub(super) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    pub(super) fn reader_came(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reader_left(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Rows of the log read for readers that lag behind the ring.
    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// The frames after a position, at most one chunk; `None` if the ring no longer has the next one. Empty for another
    /// epoch.
    pub(super) fn after(&self, epoch: Epoch, position: i64) -> Option<Vec<Published>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        if position >= ring.head || ring.epoch != epoch {
            return Some(Vec::new());
        }
        let skip = usize::try_from(position + 1 - ring.first).ok()?;
        Some(ring.frames.range(skip..(skip + CHUNK_FRAMES).min(ring.frames.len())).cloned().collect())
    }

    /// The frame at a position, if it is in the ring.
    pub(super) fn at(&self, position: i64) -> Option<Published> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.frames.get(usize::try_from(position - ring.first).ok()?).cloned()
    }

    /// The frames after a position from the ring or, if they are no longer there, from the log, up to the end of the
    /// log's page.
    ///
    /// # Errors
    /// The log has to be read and the database fails, or its epoch has changed.
    pub(super) async fn read_after(
        &self,
        log: &EventLog,
        epoch: Epoch,
        position: i64,
    ) -> sqlx::Result<Arc<[Published]>> {
        if let Some(frames) = self.after(epoch, position) {
            return Ok(frames.into());
        }
        let number = position / PAGE;
        let mut pages = self.pages.lock().await;
        let reaches = |page: &Page| {
            page.epoch == epoch
                && page.number == number
                && page.events.last().and_then(|last| last.id).is_some_and(|last| last.position > position)
        };
        if let Some(found) = pages.iter().position(reaches)
            && let Some(page) = pages.remove(found)
        {
            let events = page.events.clone();
            pages.push_back(page);
            return Ok(events);
        }
        // With a timeout, because every lagging reader waits for this lock.
        let read = log.page(epoch, number * PAGE);
        let rows = tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        if self.epoch() != epoch {
            return Err(sqlx::Error::Protocol("the event log has changed".to_owned()));
        }
        self.rows_read.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let events: Arc<[Published]> = rows.into_iter().map(Published::from).collect();
        pages.retain(|page| page.number != number);
        pages.push_back(Page { epoch, number, events: events.clone() });
        while pages.len() > PAGES {
            pages.pop_front();
        }
        Ok(events)
    }

    /// The newest frames that satisfy a predicate, newest first.
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
            self.first += 1;
            self.bytes -= cost(&oldest);
        }
    }
}

/// Memory of a frame, bytes: the encoded frame, the parsed event, and overhead.
fn cost(published: &Published) -> usize {
    2 * published.frame.bytes.len() + 512
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::feed::subscription::tests::{EPOCH, event, published};

    /// A hub that has published positions 1 to `head`.
    fn hub(head: i64, max_bytes: usize) -> Hub {
        let hub = Hub::new(EPOCH, 0, 1, max_bytes);
        hub.publish((1..=head).map(|position| published(&event(position, "a"))).collect());
        hub
    }

    fn after(hub: &Hub, position: i64) -> Option<Vec<i64>> {
        Some(hub.after(EPOCH, position)?.iter().map(|published| published.id.unwrap().position).collect())
    }

    /// The memory of one frame of these tests.
    fn frame() -> usize {
        cost(&published(&event(1, "a")))
    }

    #[test]
    fn an_empty_ring_starts_behind_its_head() {
        let hub = Hub::new(EPOCH, 7, 3, 1_000_000);
        assert_eq!((after(&hub, 7), after(&hub, 9), after(&hub, 6)), (Some(vec![]), Some(vec![]), None));
        assert!(hub.at(7).is_none() && hub.at(8).is_none());
        assert_eq!((hub.head(), hub.oldest(), hub.end()), (7, 3, EventId { epoch: EPOCH, position: 7 }));
    }

    #[test]
    fn the_oldest_frames_leave_when_the_ring_is_full() {
        let hub = hub(5, 3 * frame());
        assert_eq!((after(&hub, 2), after(&hub, 1)), (Some(vec![3, 4, 5]), None));
        assert!(hub.at(2).is_none() && hub.at(3).is_some() && hub.at(6).is_none());
    }

    #[test]
    fn a_frame_beyond_all_memory_is_published_and_not_kept() {
        let hub = hub(2, frame() - 1);
        assert_eq!((hub.head(), after(&hub, 1), after(&hub, 2)), (2, None, Some(vec![])));
    }

    #[test]
    fn a_reader_gets_a_thousand_frames_at_once() {
        let hub = hub(1_001, 100_000_000);
        assert_eq!(after(&hub, 0).unwrap().len(), 1_000);
        assert_eq!(after(&hub, 1).unwrap().last(), Some(&1_001));
        assert_eq!(after(&hub, 1_000), Some(vec![1_001]));
    }

    #[test]
    fn a_reader_of_another_epoch_gets_nothing() {
        let hub = hub(3, 1_000_000);
        assert!(hub.after(Epoch(7), 0).is_some_and(|frames| frames.is_empty()));
        hub.reset(Epoch(7), 40, 30);
        assert_eq!((after(&hub, 0), hub.epoch(), hub.head(), hub.oldest()), (Some(vec![]), Epoch(7), 40, 30));
        assert!(hub.after(Epoch(7), 39).is_none(), "the ring is empty");
    }

    #[test]
    fn readers_are_told_of_every_publication_and_of_a_reset() {
        let hub = hub(0, 1_000_000);
        let mut told = hub.publications();
        told.mark_unchanged();
        hub.publish(vec![published(&event(1, "a"))]);
        assert!(told.has_changed().unwrap());
        told.mark_unchanged();
        hub.reset(EPOCH, 1, 1);
        assert!(told.has_changed().unwrap());
    }

    #[test]
    fn the_newest_are_counted_after_the_test() {
        let hub = hub(10, 1_000_000);
        let even = hub.newest(3, |published| published.id.is_some_and(|id| id.position % 2 == 0));
        assert_eq!(even.iter().map(|published| published.id.unwrap().position).collect::<Vec<_>>(), [10, 8, 6]);
    }
}
