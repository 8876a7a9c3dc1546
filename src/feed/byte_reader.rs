//! Delivery of the feed to streams: bytes ready to write, shared by all readers of a [`SharedStream`].
//!
//! An idle feed delivers an event immediately. Under load wake-ups are coalesced to one every few milliseconds, with an
//! interval that grows with the number of readers, which bounds the share of CPU spent on waking. The writer, the
//! tailer and the ring do not depend on it.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Published,
    hub::Hub,
    progress::{NO_NUMBER, ReaderProgress},
    shared_stream::{Chunk, Found, Limit, SharedStream},
};
use crate::{
    clock::Time,
    event::{EventId, Filter, envelope::Epoch, frame::Form},
    store::EventLog,
};

/// Pause between two wake-ups, per reader: a wake-up and a write take 5 to 8 µs, so readers use at most half a core.
const PAUSE_EACH: Duration = Duration::from_micros(20);
/// Upper bound of that pause.
const PAUSE: Duration = Duration::from_millis(50);
/// Memory for the cached chunks of all streams, bytes; each stream gets at least [`MIN_STREAM_BYTES`].
const CHUNK_CACHE_BYTES: usize = 64 * 1024 * 1024;
const MIN_STREAM_BYTES: usize = 128 * 1024;
const MAX_STREAM_BYTES: usize = 2 * 1024 * 1024;
/// A stream without readers is kept for as long as clients may take to reconnect.
const IDLE_STREAM_TTL: Duration = Duration::from_secs(20);
/// Maximum number of streams kept without readers.
const MAX_IDLE_STREAMS: usize = 64;
/// Streams served before the task yields.
const STREAMS_PER_YIELD: usize = 64;
/// Delay before a failed read of the log is retried.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Opens [`ByteReader`] readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ByteReaders(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hub: Arc<Hub>,
    log: EventLog,
    streams: Mutex<HashMap<Key, Kept>>,
    draining: AtomicBool,
}

/// Key of a stream: the log's epoch, the filter in canonical form, and the format.
type Key = (u32, String, Form);

#[derive(Debug)]
struct Kept {
    stream: Arc<SharedStream>,
    used: Instant,
}

/// One reader of the feed.
pub struct ByteReader {
    parts: Arc<Shared>,
    stream: Arc<SharedStream>,
    /// Its waker slot in the stream.
    place: usize,
    progress: Arc<ReaderProgress>,
    gzip: bool,
    reading: Option<Reading>,
}

/// Resolves to `None` if the epoch has ended or the read panicked.
type Reading = Pin<Box<dyn Future<Output = Option<Arc<Chunk>>> + Send>>;

/// The next bytes for a reader.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Bytes to write unchanged.
    pub bytes: Bytes,
    /// Number of events in them.
    pub events: u64,
    /// When its oldest event was published in this process; `None` while the reader catches up from older events.
    pub since: Option<Instant>,
    /// Timestamp of its first event.
    pub ts: Time,
}

/// Why the next event cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// It was removed by retention.
    #[error("the log no longer contains the next event (retention)")]
    Pruned,
    /// The log was replaced or lost its newest events: the epoch has ended.
    #[error("the log has another epoch")]
    Changed,
}

impl ByteReaders {
    pub(super) fn new(hub: Arc<Hub>, log: EventLog) -> Self {
        Self(Arc::new(Shared { hub, log, streams: Mutex::default(), draining: AtomicBool::new(false) }))
    }

    /// Opens a reader after an event, with a filter and a format, optionally compressed as part of a gzip body. If the
    /// event's epoch has ended, the first poll returns [`Gone::Changed`].
    #[must_use]
    pub fn open(&self, after: EventId, filter: &Filter, form: Form, gzip: bool) -> ByteReader {
        let EventId { epoch, position: after } = after;
        let key = (epoch.0, filter.canonical(), form);
        let stream = {
            let mut streams = self.0.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let stream = || Arc::new(SharedStream::new(epoch, filter.clone(), form, self.0.hub.head()));
            let kept = streams.entry(key).or_insert_with(|| Kept { stream: stream(), used: Instant::now() });
            kept.used = Instant::now();
            kept.stream.clone()
        };
        self.0.hub.reader_came();
        let place = stream.enter();
        let (cursor, number) = (AtomicI64::new(after), AtomicU64::new(NO_NUMBER));
        let progress = Arc::new(ReaderProgress { stream: Arc::downgrade(&stream), cursor, number });
        ByteReader { parts: self.0.clone(), stream, place, progress, gzip, reading: None }
    }

    /// Opens a reader with the settings of another one, after an event of another epoch.
    #[must_use]
    pub fn reopen(&self, delivery: &ByteReader, after: EventId) -> ByteReader {
        self.open(after, &delivery.stream.filter, delivery.stream.form, delivery.gzip)
    }

    /// Number of cached streams.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Rows of the log read for readers that lag behind the ring.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        self.0.hub.rows_read()
    }

    /// Lag of a position: events, and the age in milliseconds of the oldest of them, `None` if that event is no longer
    /// in memory.
    #[must_use]
    pub fn lag(&self, position: i64) -> (i64, Option<u64>) {
        let behind = (self.0.hub.head() - position).max(0);
        if behind == 0 {
            return (0, Some(0));
        }
        let since = self.0.hub.at(position + 1).map(|published| published.at.elapsed());
        (behind, since.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The server is shutting down: streams must end.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Notifies all readers that the server is shutting down.
    fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        let mut wake = Vec::new();
        for stream in self.all() {
            stream.wake_all(&mut wake);
        }
        wake.into_iter().for_each(Waker::wake);
    }

    /// Drops the streams of ended epochs and collects the wakers of their readers.
    fn retire(&self, wake: &mut Vec<Waker>) {
        let epoch = self.0.hub.epoch();
        let mut streams = self.0.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|_, kept| {
            let current = kept.stream.epoch == epoch;
            if !current {
                kept.stream.wake_all(wake);
            }
            current
        });
    }

    fn all(&self) -> Vec<Arc<SharedStream>> {
        let mut streams = self.0.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle = Vec::new();
        streams.retain(|_, kept| {
            if Arc::strong_count(&kept.stream) > 1 {
                kept.used = Instant::now();
                return true;
            }
            let keep = kept.used.elapsed() < IDLE_STREAM_TTL;
            if keep {
                idle.push(kept.used);
            }
            keep
        });
        if idle.len() > MAX_IDLE_STREAMS {
            idle.sort_unstable();
            let since = idle[idle.len() - MAX_IDLE_STREAMS];
            streams.retain(|_, kept| Arc::strong_count(&kept.stream) > 1 || kept.used >= since);
        }
        streams.values().map(|kept| kept.stream.clone()).collect()
    }

    /// Passes published events to the streams and wakes their readers, also during shutdown. Never returns.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let hub = self.0.hub.clone();
        let (mut publications, mut ephemeral) = (hub.publications(), hub.ephemeral());
        let mut wake = Vec::new();
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                // Cannot fail: the hub owns the sender.
                _ = publications.changed() => {}
                first = ephemeral.recv() => batch.extend(first),
                () = stopping.cancelled(), if !self.draining() => {
                    self.drain();
                    continue;
                }
            }
            let begun = Instant::now();
            while let Ok(more) = ephemeral.try_recv() {
                batch.push(more);
            }
            let events: Vec<Published> = batch.iter().flat_map(|batch| batch.iter().cloned()).collect();
            self.retire(&mut wake);
            let head = hub.head();
            let streams = self.all();
            let most = (CHUNK_CACHE_BYTES / streams.len().max(1)).clamp(MIN_STREAM_BYTES, MAX_STREAM_BYTES);
            for (number, stream) in streams.into_iter().enumerate() {
                stream.extend(&hub, head, &events, most, &mut wake);
                if wake.len() > 100 || number % STREAMS_PER_YIELD == STREAMS_PER_YIELD - 1 {
                    wake.drain(..).for_each(Waker::wake);
                    tokio::task::yield_now().await;
                }
            }
            wake.drain(..).for_each(Waker::wake);
            let readers = u32::try_from(hub.readers()).unwrap_or(u32::MAX);
            let pause = PAUSE_EACH.saturating_mul(readers).min(PAUSE);
            let rest = pause.saturating_sub(begun.elapsed());
            // Shorter pauses are not worth a timer.
            if rest >= Duration::from_micros(500) {
                tokio::time::sleep(rest).await;
            }
        }
    }
}

impl ByteReader {
    /// The last position examined.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.progress.position()
    }

    /// The epoch it delivers.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.stream.epoch
    }

    /// Shared handle to its progress.
    #[must_use]
    pub fn progress(&self) -> Arc<ReaderProgress> {
        self.progress.clone()
    }

    fn cursor(&self) -> i64 {
        self.progress.cursor.load(Ordering::Relaxed)
    }

    /// Lag in published events.
    #[must_use]
    pub fn behind(&self) -> i64 {
        (self.parts.hub.head() - self.position()).max(0)
    }

    /// Polls for the next bytes within a limit; `None` once `until` is reached.
    ///
    /// # Errors
    /// [`Gone`] if retention overtook the reader, or the log changed.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, limit: Limit) -> Poll<Result<Option<Piece>, Gone>> {
        loop {
            if self.stream.epoch != self.parts.hub.epoch() {
                return Poll::Ready(Err(Gone::Changed));
            }
            if limit.until.is_some_and(|until| self.cursor() >= until) {
                return Poll::Ready(Ok(None));
            }
            if let Some(reading) = &mut self.reading {
                let page = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                let Some(page) = page else { return Poll::Ready(Err(Gone::Changed)) };
                // The page is empty, or retention removed its beginning during the read.
                if page.to <= self.cursor() || page.after > self.cursor() {
                    return Poll::Ready(Err(Gone::Pruned));
                }
                if let Some(piece) = self.take(&page, limit, None) {
                    return Poll::Ready(Ok(Some(piece)));
                }
                continue;
            }
            match self.stream.next(self.cursor(), self.progress.number(), cx.waker(), self.place) {
                Found::Chunk(chunk, number) => {
                    if let Some(piece) = self.take(&chunk, limit, Some(number)) {
                        return Poll::Ready(Ok(Some(piece)));
                    }
                }
                Found::Nothing(tail, upcoming) => {
                    self.progress.advance(tail, Some(upcoming));
                    if limit.until.is_none_or(|until| self.cursor() < until) {
                        // The epoch may have ended before the reader registered its waker.
                        if self.stream.epoch != self.parts.hub.epoch() {
                            continue;
                        }
                        return Poll::Pending;
                    }
                }
                Found::Behind => {
                    self.progress.advance(i64::MIN, None);
                    if self.cursor() + 1 < self.parts.hub.oldest() {
                        return Poll::Ready(Err(Gone::Pruned));
                    }
                    self.reading = Some(self.read());
                }
            }
        }
    }

    /// Extracts what the reader needs from a chunk (with its number) or from a page, and advances its progress.
    fn take(&mut self, chunk: &Chunk, limit: Limit, number: Option<u64>) -> Option<Piece> {
        let (live, next) = (number.is_some(), number.map(|number| number + 1));
        // A chunk of only ephemeral events is empty in positions: `after` equals `to`.
        let from = if live && chunk.after >= self.cursor() { i64::MIN } else { self.cursor() };
        let Some(slice) = chunk.after(from, limit) else {
            self.progress.advance(chunk.to, next);
            return None;
        };
        if limit.events.is_some_and(|most| slice.events as u64 == most) {
            // The chunk may contain more.
            self.progress.advance(slice.last, None);
        } else {
            self.progress.advance(chunk.to, next);
        }
        let bytes = if self.gzip { chunk.gzip(&slice) } else { slice.bytes };
        Some(Piece { bytes, events: slice.events as u64, since: live.then_some(chunk.since), ts: slice.ts })
    }

    /// Reads the page after the cursor; retries until it succeeds.
    fn read(&self) -> Reading {
        let (parts, stream, cursor) = (self.parts.clone(), self.stream.clone(), self.cursor());
        // A separate tokio task: the locks it takes must not depend on whether this reader's connection is polled.
        let reading = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                if stream.epoch != parts.hub.epoch() {
                    return None;
                }
                match stream.page(&parts.hub, &parts.log, cursor).await {
                    Ok(page) => return Some(page),
                    Err(error) => {
                        tracing::warn!(%error, "stream cannot read the log; retrying");
                        tokio::time::sleep(READ_AGAIN).await;
                    }
                }
            }
        }));
        Box::pin(async move { reading.await.ok().flatten() })
    }
}

impl std::fmt::Debug for ByteReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteReader").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Drop for ByteReader {
    fn drop(&mut self) {
        self.stream.leave(self.place);
        self.parts.hub.reader_left();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::feed::subscription::tests::{EPOCH, event, of_queue, published, subscriptions};

    const ALL: Limit = Limit { events: None, until: None };

    /// Readers of a feed with positions 1 to `head`: odd ones of queue `a`, even ones of `b`.
    async fn readers(head: i64) -> ByteReaders {
        let readers = subscriptions(&[]).await.byte_readers();
        publish(&readers, 1..=head);
        readers
    }

    fn publish(readers: &ByteReaders, positions: impl IntoIterator<Item = i64>) {
        let queue = |position: i64| if position % 2 == 0 { "b" } else { "a" };
        let events = positions.into_iter().map(|position| published(&event(position, queue(position))));
        readers.0.hub.publish(events.collect());
    }

    /// The streams take what was published.
    fn pass(readers: &ByteReaders) {
        let mut wake = Vec::new();
        readers.retire(&mut wake);
        for stream in readers.all() {
            stream.extend(&readers.0.hub, readers.0.hub.head(), &[], MAX_STREAM_BYTES, &mut wake);
        }
        wake.into_iter().for_each(Waker::wake);
    }

    fn open(readers: &ByteReaders, after: i64, filter: &Filter) -> ByteReader {
        readers.open(EventId { epoch: EPOCH, position: after }, filter, Form::default(), false)
    }

    /// The positions of the next piece; `None` while the reader waits.
    fn poll(reader: &mut ByteReader, limit: Limit) -> Option<Result<Vec<i64>, Gone>> {
        match reader.poll_next(&mut Context::from_waker(Waker::noop()), limit) {
            Poll::Pending => None,
            Poll::Ready(Err(gone)) => Some(Err(gone)),
            Poll::Ready(Ok(piece)) => {
                let text = piece.map(|piece| String::from_utf8(piece.bytes.to_vec()).unwrap()).unwrap_or_default();
                let ids = text.lines().filter_map(|line| line.strip_prefix("id: 5c1f09ae-"));
                Some(Ok(ids.map(|position| position.parse().unwrap()).collect()))
            }
        }
    }

    #[tokio::test]
    async fn a_reader_gets_what_is_published_after_it_came() {
        let readers = readers(3).await;
        let mut reader = open(&readers, 3, &Filter::default());
        assert_eq!(poll(&mut reader, ALL), None);
        publish(&readers, 4..=5);
        assert_eq!((poll(&mut reader, ALL), reader.behind()), (None, 2), "not passed on yet");
        pass(&readers);
        assert_eq!(poll(&mut reader, ALL), Some(Ok(vec![4, 5])));
        assert_eq!((poll(&mut reader, ALL), reader.position(), reader.behind()), (None, 5, 0));
    }

    #[tokio::test]
    async fn what_does_not_match_moves_the_position() {
        let readers = readers(0).await;
        let mut reader = open(&readers, 0, &of_queue("b"));
        publish(&readers, 1..=5);
        pass(&readers);
        assert_eq!(poll(&mut reader, ALL), Some(Ok(vec![2, 4])));
        assert_eq!((poll(&mut reader, ALL), reader.position()), (None, 5));
    }

    #[tokio::test]
    async fn a_limit_of_events_is_never_passed_and_nothing_is_lost() {
        let readers = readers(0).await;
        let mut reader = open(&readers, 0, &Filter::default());
        publish(&readers, 1..=5);
        pass(&readers);
        let two = Limit { events: Some(2), until: None };
        let pieces: Vec<_> = std::iter::from_fn(|| poll(&mut reader, two)).collect();
        assert_eq!(pieces, [Ok(vec![1, 2]), Ok(vec![3, 4]), Ok(vec![5])]);
    }

    #[tokio::test]
    async fn a_range_ends_at_its_last_position() {
        let readers = readers(0).await;
        let mut reader = open(&readers, 0, &Filter::default());
        publish(&readers, 1..=5);
        pass(&readers);
        let until = |until| Limit { events: None, until: Some(until) };
        assert_eq!(poll(&mut reader, until(3)), Some(Ok(vec![1, 2, 3])));
        assert_eq!(poll(&mut reader, until(3)), Some(Ok(vec![])), "the end");
        let mut other = open(&readers, 5, &Filter::default());
        assert_eq!(poll(&mut other, until(5)), Some(Ok(vec![])), "it has all of it");
    }

    #[tokio::test]
    async fn readers_of_the_same_filter_and_form_share_a_stream() {
        let readers = readers(0).await;
        let same = [open(&readers, 0, &of_queue("a,b")), open(&readers, 9, &of_queue("b,a,a"))];
        assert_eq!(readers.streams(), 1, "however it is spelt, wherever they are");
        let other = open(&readers, 0, &of_queue("a"));
        let gzip = readers.reopen(&other, EventId { epoch: EPOCH, position: 3 });
        assert_eq!((readers.streams(), gzip.position(), gzip.epoch()), (2, 3, EPOCH));
        drop(same);
        pass(&readers);
        assert_eq!(readers.streams(), 2, "its clients may come back");
    }

    #[tokio::test]
    async fn another_epoch_ends_every_reader_of_the_old_one() {
        let readers = readers(2).await;
        let mut reader = open(&readers, 2, &Filter::default());
        assert_eq!(poll(&mut reader, ALL), None);
        readers.0.hub.reset(Epoch(7), 40, 1);
        assert_eq!(poll(&mut reader, ALL), Some(Err(Gone::Changed)));
        pass(&readers);
        assert_eq!(readers.streams(), 0);
        let mut late = open(&readers, 2, &Filter::default());
        assert_eq!(poll(&mut late, ALL), Some(Err(Gone::Changed)), "one that resumes from it too");
        let mut again = readers.reopen(&late, EventId { epoch: Epoch(7), position: 40 });
        assert_eq!(poll(&mut again, ALL), None);
    }

    #[tokio::test]
    async fn a_reader_behind_what_retention_left_is_told_so() {
        let readers = readers(0).await;
        readers.0.hub.reset(EPOCH, 40, 30);
        let mut reader = open(&readers, 28, &Filter::default());
        assert_eq!(poll(&mut reader, ALL), Some(Err(Gone::Pruned)));
    }

    #[tokio::test]
    async fn lag_is_counted_in_events_and_timed_while_they_are_in_memory() {
        let readers = readers(5).await;
        assert_eq!((readers.lag(5), readers.lag(99)), ((0, Some(0)), (0, Some(0))));
        assert_eq!(readers.lag(3).0, 2);
        assert!(readers.lag(3).1.is_some());
        readers.0.hub.reset(EPOCH, 40, 1);
        assert_eq!(readers.lag(3), (37, None));
        publish(&readers, [41]);
        assert!(readers.lag(40).1.is_some(), "the first event that it lacks is in memory");
    }

    #[tokio::test]
    async fn a_compressed_piece_is_the_same_text() {
        use std::io::Read as _;
        let readers = readers(0).await;
        let mut reader = readers.open(EventId { epoch: EPOCH, position: 0 }, &Filter::default(), Form::default(), true);
        publish(&readers, 1..=3);
        pass(&readers);
        let polled = reader.poll_next(&mut Context::from_waker(Waker::noop()), ALL);
        let Poll::Ready(Ok(Some(piece))) = polled else { panic!("{polled:?}") };
        let body = [crate::feed::gzip::HEADER, &piece.bytes[..]].concat();
        let mut text = vec![0; (1..=3).map(|position| published(&event(position, "a")).frame.bytes.len()).sum()];
        flate2::read::GzDecoder::new(&body[..]).read_exact(&mut text).unwrap();
        assert!(text.starts_with(b"event: task_created\n") && text.ends_with(b"id: 5c1f09ae-3\n\n"));
        assert_eq!(piece.events, 3);
    }
}
