//! A stream is shared by all readers with the same filter and format. The filter is evaluated, the bytes are encoded and
//! (on demand) compressed once per stream; each reader costs one wake-up and one write.
//!
//! A stream caches its newest chunks. A reader that keeps up takes the next chunk. One that lags behind the cache, or
//! joins with an older cursor, reads pages; pages are cut at fixed positions, so that readers at the same position
//! share them too.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Instant,
};

use bytes::{Bytes, BytesMut};

use super::{Published, gzip::Gzipped, hub::Hub};
use crate::{
    clock::Time,
    event::{Filter, envelope::Epoch, frame::Form},
    store::EventLog,
};

/// A chunk is closed at this size, bytes: it bounds what a slow reader keeps in memory and the size of one write.
const CHUNK_BYTES: usize = 64 * 1024;
/// Positions per page. Small, so that a page is about one chunk; must divide the page size of the log.
const PAGE_POSITIONS: i64 = 125;
/// Pages cached per stream.
const MAX_CACHED_PAGES: usize = 16;

/// State shared by all readers of a stream.
#[derive(Debug)]
pub(super) struct SharedStream {
    /// The log's epoch; the stream is dropped when it changes.
    pub(super) epoch: Epoch,
    pub(super) filter: Filter,
    pub(super) form: Form,
    state: Mutex<State>,
    pages: tokio::sync::Mutex<VecDeque<Arc<Chunk>>>,
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
    /// Number of the first chunk in `chunks`; chunks are numbered consecutively over the lifetime of the stream.
    first: u64,
    /// The last position examined.
    tail: i64,
    readers: Readers,
}

/// Waker slots, one per reader.
#[derive(Debug, Default)]
struct Readers {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A run of encoded frames.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Covers the positions after this one (exclusive) …
    pub(super) after: i64,
    /// … up to this one (inclusive).
    pub(super) to: i64,
    body: Gzipped,
    marks: Vec<Mark>,
    /// When its oldest event was published in this process; for a page: when it was read.
    pub(super) since: Instant,
}

/// End of one frame within a chunk.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Position of the event; for an ephemeral event, that of the preceding stored event.
    position: i64,
    /// Ephemeral: the event has no position; it sorts after `position`.
    ephemeral: bool,
    end: usize,
    /// Timestamp of the event.
    ts: Time,
}

/// What a reader still accepts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limit {
    /// Maximum number of events.
    pub events: Option<u64>,
    /// Last position (inclusive).
    pub until: Option<i64>,
}

/// Part of a chunk.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) bytes: Bytes,
    pub(super) events: usize,
    /// The slice is the whole chunk, so its compressed form can be shared.
    whole: bool,
    /// Position of the last frame in it.
    pub(super) last: i64,
    /// Timestamp of the first event.
    pub(super) ts: Time,
}

/// Result of looking up the next chunk.
pub(super) enum Found {
    /// The chunk and its number.
    Chunk(Arc<Chunk>, u64),
    /// The reader is up to date at this position; the next chunk will have this number.
    Nothing(i64, u64),
    /// The reader lags behind the cached chunks.
    Behind,
}

impl Chunk {
    /// The frames after a position, within a limit; `None` if there are none.
    pub(super) fn after(&self, position: i64, limit: Limit) -> Option<Slice> {
        let seen = |mark: &Mark| mark.position < position || (mark.position == position && !mark.ephemeral);
        let skip = if position <= self.after { 0 } else { self.marks.partition_point(seen) };
        let most = limit.events.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let within = limit.until.map_or(self.marks.len(), |until| self.marks.partition_point(|m| m.position <= until));
        let end = skip.saturating_add(most).min(within);
        let (first, last) = (self.marks.get(skip)?, self.marks.get(end.checked_sub(1).filter(|last| *last >= skip)?)?);
        let begin = skip.checked_sub(1).map_or(0, |before| self.marks[before].end);
        Some(Slice {
            bytes: self.body.plain.slice(begin..last.end),
            events: end - skip,
            whole: skip == 0 && end == self.marks.len(),
            last: last.position,
            ts: first.ts,
        })
    }

    /// A slice of this chunk, compressed.
    pub(super) fn gzip(&self, slice: &Slice) -> Bytes {
        if slice.whole { self.body.gzip() } else { super::gzip::block(&slice.bytes) }
    }
}

impl SharedStream {
    pub(super) fn new(epoch: Epoch, filter: Filter, form: Form, tail: i64) -> Self {
        let state = State { chunks: VecDeque::new(), bytes: 0, first: 0, tail, readers: Readers::default() };
        Self { epoch, filter, form, state: Mutex::new(state), pages: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last position examined for this stream.
    pub(super) fn tail(&self) -> i64 {
        self.state().tail
    }

    /// Appends the hub's events up to `head` and the `ephemeral` ones; evicts chunks beyond `max_bytes`. Collects the
    /// wakers of the readers to wake.
    pub(super) fn extend(
        &self,
        hub: &Hub,
        head: i64,
        ephemeral: &[Published],
        max_bytes: usize,
        wake: &mut Vec<Waker>,
    ) {
        loop {
            let tail = self.tail();
            let events = if tail < head { hub.after(self.epoch, tail) } else { Some(Vec::new()) };
            let Some(events) = events else {
                // The ring no longer has them: readers read pages up to that position.
                let mut state = self.state();
                state.first += state.chunks.len() as u64 + 1;
                state.chunks.clear();
                state.bytes = 0;
                state.tail = head;
                state.readers.take(wake);
                return;
            };
            let more = !events.is_empty() && events.last().and_then(|p| p.id).is_some_and(|id| id.position < head);
            let last = if more { &[] } else { ephemeral };
            let chunks = self.chunks(tail, events.iter().chain(last));
            let mut state = self.state();
            if let Some(id) = events.last().and_then(|published| published.id) {
                state.tail = id.position;
            }
            let anything = !chunks.is_empty();
            for chunk in chunks {
                state.bytes += chunk.body.plain.len();
                state.chunks.push_back(Arc::new(chunk));
            }
            while state.bytes > max_bytes && state.chunks.len() > 1 {
                if let Some(old) = state.chunks.pop_front() {
                    state.bytes -= old.body.plain.len();
                    state.first += 1;
                }
            }
            if anything {
                state.readers.take(wake);
            }
            if !more {
                return;
            }
        }
    }

    /// Chunks of the events that match the filter; empty if none match.
    fn chunks<'a>(&self, after: i64, events: impl Iterator<Item = &'a Published>) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut open = Open::new(after);
        for published in events {
            let position = published.id.map_or(open.to, |id| id.position);
            if self.filter.matches(&published.event) {
                if open.bytes.len() + published.frame.bytes.len() > CHUNK_BYTES && !open.marks.is_empty() {
                    let to = open.to;
                    chunks.extend(std::mem::replace(&mut open, Open::new(to)).close());
                }
                open.put(self.form, published, position);
            }
            open.to = position;
        }
        chunks.extend(open.close());
        chunks
    }

    /// The next chunk for a reader: by chunk number, or by its position if it has no number yet.
    pub(super) fn next(&self, cursor: i64, number: Option<u64>, waker: &Waker, place: usize) -> Found {
        let mut state = self.state();
        let number = match number {
            Some(number) => number,
            None => {
                let kept_after = state.chunks.front().map_or(state.tail, |chunk| chunk.after);
                if cursor < kept_after {
                    return Found::Behind;
                }
                let skip = state.chunks.partition_point(|chunk| chunk.to <= cursor);
                state.first + skip as u64
            }
        };
        let Some(index) = number.checked_sub(state.first) else { return Found::Behind };
        match usize::try_from(index).ok().and_then(|index| state.chunks.get(index)) {
            Some(chunk) => Found::Chunk(chunk.clone(), number),
            None => {
                state.readers.wait(place, waker);
                Found::Nothing(state.tail, state.first + state.chunks.len() as u64)
            }
        }
    }

    /// The page that contains the next position, up to the last position the stream has examined.
    ///
    /// # Errors
    /// The log has to be read and the database fails.
    pub(super) async fn page(&self, hub: &Hub, log: &EventLog, cursor: i64) -> sqlx::Result<Arc<Chunk>> {
        let mut pages = self.pages.lock().await;
        if let Some(page) = pages.iter().find(|page| page.after <= cursor && cursor < page.to) {
            return Ok(page.clone());
        }
        let after = (cursor / PAGE_POSITIONS * PAGE_POSITIONS).max(hub.oldest() - 1);
        // Not beyond what the stream has examined: later events are in its chunks.
        let end =
            (cursor / PAGE_POSITIONS * PAGE_POSITIONS).saturating_add(PAGE_POSITIONS).min(self.tail().max(cursor));
        let mut events = hub.read_after(log, self.epoch, after).await?;
        if events.last().and_then(|last| last.id).is_none_or(|last| last.position <= cursor) {
            events = hub.read_after(log, self.epoch, cursor).await?;
        }
        let positions = |published: &&Published| published.id.map_or(0, |id| id.position);
        let begin = events.first().as_ref().map_or(cursor, positions) - 1;
        let mut open = Open::new(after.max(begin));
        let within = |published: &&Published| (open.after + 1..=end).contains(&positions(published));
        for published in events.iter().filter(within).collect::<Vec<_>>() {
            open.to = positions(&published);
            if self.filter.matches(&published.event) {
                let position = open.to;
                open.put(self.form, published, position);
            }
        }
        let page = Arc::new(open.whole());
        pages.retain(|kept| kept.to <= page.after || kept.after >= page.to);
        pages.push_back(page.clone());
        let size = |pages: &VecDeque<Arc<Chunk>>| pages.iter().map(|page| page.body.plain.len()).sum::<usize>();
        while pages.len() > 1 && (pages.len() > MAX_CACHED_PAGES || size(&pages) > MAX_CACHED_PAGES * CHUNK_BYTES) {
            pages.pop_front();
        }
        Ok(page)
    }

    /// The last position examined, if the chunk with this number does not exist yet.
    pub(super) fn in_step(&self, number: u64) -> Option<i64> {
        let state = self.state();
        (number >= state.first + state.chunks.len() as u64).then_some(state.tail)
    }

    /// Allocates a waker slot for a reader.
    pub(super) fn enter(&self) -> usize {
        self.state().readers.enter()
    }

    /// Frees the slot of a reader.
    pub(super) fn leave(&self, place: usize) {
        self.state().readers.forget(place);
    }

    /// Wakes all readers.
    pub(super) fn wake_all(&self, wake: &mut Vec<Waker>) {
        self.state().readers.take(wake);
    }
}

/// A chunk under construction.
struct Open {
    after: i64,
    to: i64,
    bytes: BytesMut,
    marks: Vec<Mark>,
    since: Instant,
}

impl Open {
    fn new(after: i64) -> Self {
        Self { after, to: after, bytes: BytesMut::new(), marks: Vec::new(), since: Instant::now() }
    }

    fn put(&mut self, form: Form, published: &Published, position: i64) {
        if self.marks.is_empty() {
            self.since = published.at;
        }
        form.put(&mut self.bytes, &published.frame, &published.event);
        let (ephemeral, end) = (published.id.is_none(), self.bytes.len());
        self.marks.push(Mark { position, ephemeral, end, ts: published.event.ts });
        self.to = position;
    }

    fn close(self) -> Option<Chunk> {
        (!self.marks.is_empty()).then(|| self.whole())
    }

    fn whole(self) -> Chunk {
        let Self { after, to, bytes, marks, since } = self;
        Chunk { after, to, body: Gzipped::new(bytes.freeze()), marks, since }
    }
}

impl Readers {
    fn enter(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }

    fn wait(&mut self, place: usize, waker: &Waker) {
        let slot = &mut self.wakers[place];
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    fn forget(&mut self, place: usize) {
        self.wakers[place] = None;
        self.free.push(place);
    }

    fn take(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(self.wakers.iter_mut().filter_map(Option::take));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feed::subscription::tests::{EPOCH, event, heartbeat, of_queue, published};

    const ALL: Limit = Limit { events: None, until: None };

    fn hub(head: i64, max_bytes: usize) -> Hub {
        let hub = Hub::new(EPOCH, 0, 1, max_bytes);
        publish(&hub, 1..=head);
        hub
    }

    /// Odd positions are of queue `a`, even ones of `b`.
    fn publish(hub: &Hub, positions: impl IntoIterator<Item = i64>) {
        let queue = |position: i64| if position % 2 == 0 { "b" } else { "a" };
        hub.publish(positions.into_iter().map(|position| published(&event(position, queue(position)))).collect());
    }

    fn stream(filter: Filter) -> SharedStream {
        SharedStream::new(EPOCH, filter, Form::default(), 0)
    }

    /// The stream takes what the hub has; returns the number of wakers.
    fn extend(stream: &SharedStream, hub: &Hub, ephemeral: &[Published], max_bytes: usize) -> usize {
        let mut wake = Vec::new();
        stream.extend(hub, hub.head(), ephemeral, max_bytes, &mut wake);
        wake.len()
    }

    fn next(stream: &SharedStream, cursor: i64, number: Option<u64>) -> Found {
        stream.next(cursor, number, Waker::noop(), 0)
    }

    /// The positions whose frames are in some bytes.
    fn positions(bytes: &[u8]) -> Vec<i64> {
        let text = std::str::from_utf8(bytes).unwrap();
        let ids = text.lines().filter_map(|line| line.strip_prefix("id: 5c1f09ae-"));
        ids.map(|position| position.parse().unwrap()).collect()
    }

    /// A chunk after position 10 with an event at each of these; `None` is one without a position.
    fn chunk(marks: &[Option<i64>]) -> Chunk {
        let mut open = Open::new(10);
        for position in marks {
            match position {
                Some(position) => open.put(Form::default(), &published(&event(*position, "a")), *position),
                None => {
                    let to = open.to;
                    open.put(Form::default(), &heartbeat(), to);
                }
            }
        }
        open.whole()
    }

    #[test]
    fn a_reader_gets_what_comes_after_its_position() {
        let chunk = chunk(&[Some(12), Some(15), Some(16)]);
        for (position, expected) in [
            (0, &[12, 15, 16][..]),
            (10, &[12, 15, 16]),
            (12, &[15, 16]),
            (13, &[15, 16]),
            (15, &[16]),
            (16, &[]),
            (99, &[]),
        ] {
            let found = chunk.after(position, ALL).map(|slice| positions(&slice.bytes)).unwrap_or_default();
            assert_eq!(found, expected, "{position}");
        }
    }

    #[test]
    fn a_limit_cuts_at_the_end() {
        let chunk = chunk(&[Some(12), Some(15), Some(16)]);
        let cut = |events, until| chunk.after(12, Limit { events, until }).map(|slice| positions(&slice.bytes));
        assert_eq!((cut(Some(1), None), cut(Some(9), None)), (Some(vec![15]), Some(vec![15, 16])));
        assert_eq!((cut(None, Some(15)), cut(None, Some(14))), (Some(vec![15]), None));
        assert_eq!((cut(Some(0), None), cut(Some(u64::MAX), Some(i64::MAX))), (None, Some(vec![15, 16])));
    }

    #[test]
    fn an_event_without_a_position_follows_the_one_before_it() {
        let chunk = chunk(&[Some(12), None, Some(13)]);
        assert_eq!(chunk.after(12, ALL).unwrap().events, 2, "who has 12 has not seen the heartbeat");
        assert_eq!(chunk.after(13, ALL).map(|slice| slice.events), None);
        assert_eq!(chunk.after(11, Limit { until: Some(12), ..ALL }).unwrap().events, 2);
    }

    #[test]
    fn only_a_whole_chunk_shares_its_compressed_bytes() {
        let chunk = chunk(&[Some(12), Some(13)]);
        let whole = chunk.after(0, ALL).unwrap();
        assert_eq!(chunk.gzip(&whole).as_ptr(), chunk.gzip(&whole).as_ptr());
        let part = chunk.after(12, ALL).unwrap();
        assert!(whole.whole && !part.whole);
    }

    proptest! {
        /// However a reader cuts a chunk, it gets every event once and in order.
        #[test]
        fn pieces_of_a_chunk_are_the_chunk(gaps in prop::collection::vec(1_i64..4, 1..12), most in 1_u64..5) {
            let mut position = 10;
            let all: Vec<_> = gaps.iter().map(|gap| { position += gap; position }).collect();
            let chunk = chunk(&all.iter().copied().map(Some).collect::<Vec<_>>());
            let (mut cursor, mut got) = (10, Vec::new());
            while let Some(slice) = chunk.after(cursor, Limit { events: Some(most), until: None }) {
                prop_assert!(slice.events as u64 <= most && slice.last > cursor);
                got.extend(positions(&slice.bytes));
                cursor = slice.last;
            }
            prop_assert_eq!(got, all);
        }
    }

    #[test]
    fn a_chunk_covers_also_what_did_not_match() {
        let (stream, hub) = (stream(of_queue("a")), hub(6, 1_000_000));
        assert_eq!(extend(&stream, &hub, &[], 1_000_000), 0, "nobody waits");
        let Found::Chunk(chunk, number) = next(&stream, 0, None) else { panic!("there is a chunk") };
        assert_eq!((chunk.after, chunk.to, number), (0, 6, 0));
        assert_eq!(positions(&chunk.body.plain), [1, 3, 5]);
        assert_eq!(stream.tail(), 6);
    }

    #[test]
    fn what_matches_nothing_is_no_chunk_and_wakes_nobody() {
        let (stream, hub) = (stream(of_queue("c")), hub(6, 1_000_000));
        let place = stream.enter();
        assert!(matches!(stream.next(0, None, Waker::noop(), place), Found::Nothing(0, 0)));
        assert_eq!(extend(&stream, &hub, &[], 1_000_000), 0);
        assert!(matches!(next(&stream, 6, None), Found::Nothing(6, 0)), "and yet it was examined");
    }

    #[test]
    fn a_reader_that_waits_is_woken_once() {
        let (stream, hub) = (stream(Filter::default()), hub(0, 1_000_000));
        let place = stream.enter();
        for _ in 0..3 {
            assert!(matches!(stream.next(0, None, Waker::noop(), place), Found::Nothing(0, 0)));
        }
        publish(&hub, [1]);
        assert_eq!(extend(&stream, &hub, &[], 1_000_000), 1);
        publish(&hub, [2]);
        assert_eq!(extend(&stream, &hub, &[], 1_000_000), 0, "it has not looked since");
    }

    #[test]
    fn a_reader_that_left_is_not_woken_and_its_place_is_used_again() {
        let (stream, hub) = (stream(Filter::default()), hub(0, 1_000_000));
        let places = [stream.enter(), stream.enter()];
        for place in places {
            stream.next(0, None, Waker::noop(), place);
        }
        stream.leave(places[0]);
        publish(&hub, [1]);
        assert_eq!(extend(&stream, &hub, &[], 1_000_000), 1);
        assert_eq!((stream.enter(), stream.enter()), (places[0], 2));
    }

    #[test]
    fn old_chunks_leave_and_their_readers_are_behind() {
        let (stream, hub) = (stream(Filter::default()), hub(0, 1_000_000));
        for position in 1..=4 {
            publish(&hub, [position]);
            extend(&stream, &hub, &[], 1);
        }
        assert!(matches!(next(&stream, 0, None), Found::Behind));
        assert!(matches!(next(&stream, 0, Some(2)), Found::Behind), "the newest is always kept");
        let Found::Chunk(chunk, number) = next(&stream, 3, None) else { panic!("it is there") };
        assert_eq!((chunk.to, number), (4, 3));
        assert_eq!((stream.in_step(3), stream.in_step(4)), (None, Some(4)));
    }

    #[test]
    fn a_stream_that_the_ring_left_behind_goes_on_at_the_head() {
        let (stream, hub) = (stream(Filter::default()), hub(0, 1));
        let place = stream.enter();
        stream.next(0, None, Waker::noop(), place);
        publish(&hub, 1..=5);
        assert_eq!(extend(&stream, &hub, &[], 1_000_000), 1, "readers read pages");
        assert_eq!(stream.tail(), 5);
        assert!(matches!(next(&stream, 0, None), Found::Behind));
        assert!(matches!(next(&stream, 5, Some(0)), Found::Behind), "numbers of lost chunks are not used again");
        assert!(matches!(next(&stream, 5, None), Found::Nothing(5, 1)));
    }

    #[test]
    fn heartbeats_come_after_the_events_of_their_time() {
        let (stream, hub) = (stream(Filter::default()), hub(2, 1_000_000));
        extend(&stream, &hub, &[heartbeat()], 1_000_000);
        let Found::Chunk(chunk, _) = next(&stream, 0, None) else { panic!("there is a chunk") };
        assert_eq!((chunk.marks.len(), chunk.to), (3, 2));
        extend(&stream, &hub, &[heartbeat()], 1_000_000);
        let Found::Chunk(chunk, 1) = next(&stream, 2, Some(1)) else { panic!("there is another") };
        assert_eq!((chunk.after, chunk.to), (2, 2));
    }

    #[test]
    fn a_chunk_closes_before_it_is_too_large() {
        let large = |position: i64| {
            let mut event = (*event(position, "a")).clone();
            event.error = Some("x".repeat(40_000));
            published(&Arc::new(event))
        };
        let chunks = stream(Filter::default()).chunks(0, [large(1), large(2), large(3)].iter());
        let covered: Vec<_> = chunks.iter().map(|chunk| (chunk.after, chunk.to)).collect();
        assert_eq!(covered, [(0, 1), (1, 2), (2, 3)]);
        let small: Vec<_> = (1..=3).map(|position| published(&event(position, "a"))).collect();
        assert_eq!(stream(Filter::default()).chunks(0, small.iter()).len(), 1);
    }
}
