//! One stream: a body that passes frames to its connection as fast as the connection accepts them, and no faster.

mod lifetime;

use std::{
    collections::{BTreeSet, VecDeque},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use chrono::TimeDelta;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::{
    task::coop,
    time::{Instant, Sleep},
};

use super::{
    Cut,
    pace::{Next, Pace},
    request::{Snapshot, StreamRequest},
    resume::{Begin, Start},
    retry_ms,
};
use crate::{
    clock::Time,
    event::{EventId, Filter, envelope::rfc3339, frame::Form},
    feed::{
        ByteReader, Limit,
        byte_reader::Gone,
        gzip::{self, Gzipped},
        stream_registry::{CloseReason, LimitReached, StreamSlot},
    },
    http::{api::snapshot::Frames, state::AppState},
    model::Name,
};

/// How long the last frame may take to be sent before the connection is aborted.
const LEAVE: Duration = Duration::from_millis(50);
/// Interval at which a paced replay checks for shutdown.
const LOOK_UP: Duration = Duration::from_secs(1);
/// Lag from which on `lagging` is sent, and interval of repeating it.
const LAGGING: TimeDelta = TimeDelta::seconds(10);
/// Heartbeats report failing writes after this time.
const NOT_WRITING: Duration = Duration::from_secs(2);
/// Heartbeats report that the log cannot be read after this time.
const STALE: Duration = Duration::from_secs(3);
/// At shutdown, streams are closed at random over at most this time.
const DRAIN: Duration = Duration::from_millis(2_500);
/// Share of each stream in that time.
const DRAIN_EACH: Duration = Duration::from_micros(500);

/// A stream's body.
pub(in crate::http) struct Reader {
    pub(super) state: AppState,
    pub(super) form: Form,
    gzip: bool,
    /// Projects of its snapshots; none means all.
    pub(super) projects: BTreeSet<Name>,
    /// Whether to send a snapshot when the log changes.
    pub(super) snapshot: Snapshot,
    pub(super) gap_is_error: bool,
    /// The snapshot for a restart, while it is being encoded.
    pub(super) restarting: Option<Pin<Box<dyn Future<Output = Frames> + Send>>>,
    heartbeat: Duration,
    /// Frames to send before anything else, already encoded.
    pub(super) first: VecDeque<First>,
    pub(super) events: ByteReader,
    pub(super) limit: Limit,
    pub(super) pace: Option<Pace>,
    /// Fires when the next heartbeat, the end, or the next event of a paced replay is due.
    timer: Pin<Box<Sleep>>,
    /// The waker is registered with the timer.
    armed: bool,
    beat_at: Instant,
    end_at: Option<(Instant, CloseReason)>,
    draining: bool,
    /// The reader was up to date at least once.
    caught_up: bool,
    told_lagging: Option<Time>,
    end: Option<End>,
    pub(super) slot: Option<StreamSlot>,
}

pub(super) enum First {
    Own(Bytes),
    Shared(Arc<Gzipped>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    /// Waits until the last frame is sent: hyper drops unwritten data when a body fails.
    Leaving,
}

impl Reader {
    /// Prepares the first frames: `hello`, then `reset` and a snapshot if applicable. Returns also the start mode in
    /// `hello`.
    pub(super) async fn open(
        state: &AppState,
        request: &StreamRequest,
        begin: &Begin,
        slot: StreamSlot,
    ) -> (Self, &'static str) {
        let oldest = state.subscriptions.oldest();
        let (mut after, word, reset) = match begin.start {
            Start::After(position, word) => (EventId { epoch: begin.epoch, position }, word, None),
            Start::Gap(reason) => (begin.end(state), "reset", Some(reason)),
        };
        let usual = request.snapshot == Snapshot::Auto && matches!(word, "snapshot" | "reset");
        let wants = request.replay.from.is_none() && (request.snapshot == Snapshot::Always || usual);
        let projects = request.filter.projects();
        let word = if wants && reset.is_none() { "snapshot" } else { word };
        let snapshot =
            if wants { Some(state.snapshots.frames(&state.board, request.form, &projects).await) } else { None };
        if let Some(snapshot) = &snapshot {
            after = snapshot.id;
        }
        let id = |position| EventId { epoch: after.epoch, position }.to_string();
        let head = id(state.subscriptions.head().max(after.position));
        let mut hello = json!({
            "resume": word,
            "requested": request.requested,
            "head": head,
            "oldest": id(oldest),
            "heartbeat_ms": request.heartbeat.as_millis() as u64,
            "server_version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(until) = begin.until {
            hello["until"] = id(until).into();
        }
        let mut reader = Self::new(state, request, after, &request.filter);
        let start_id = (!wants).then_some(after);
        reader.push("hello", &hello, start_id, Some(fastrand::u32(1_000..=4_000)));
        if let Some(reason) = reset {
            let reset = json!({ "reason": reason, "requested": request.requested, "oldest": id(oldest), "head": head });
            reader.push("reset", &reset, None, None);
        }
        reader.first.extend(snapshot.iter().flat_map(|snapshot| snapshot.frames.iter().cloned().map(First::Shared)));
        reader.limit = Limit { events: request.max_events, until: begin.until };
        reader.pace = request.replay.speed.map(Pace::new);
        slot.follows(reader.events.progress());
        reader.slot = Some(slot);
        (reader, word)
    }

    /// A stream that only reports the exceeded limit and when to reconnect.
    pub(super) fn refused(state: &AppState, request: &StreamRequest, full: LimitReached) -> (Self, &'static str) {
        // Without its filter, so that rejected clients create no shared streams.
        let mut reader = Self::new(state, request, state.subscriptions.end(), &Filter::default());
        reader.push("bye", &json!({ "reason": full.as_str() }), None, Some(retry_ms(state)));
        reader.abort_after_bye();
        (reader, "refused")
    }

    fn new(state: &AppState, request: &StreamRequest, after: EventId, filter: &Filter) -> Self {
        let beat_at = Instant::now() + jittered(request.heartbeat);
        let age = Duration::from_secs(state.settings.stream_max_age_seconds.into());
        let mut reader = Self {
            state: state.clone(),
            form: request.form,
            gzip: request.gzip,
            projects: filter.projects(),
            snapshot: request.snapshot,
            gap_is_error: request.gap_is_error,
            restarting: None,
            heartbeat: request.heartbeat,
            first: VecDeque::new(),
            events: state.byte_readers.open(after, filter, request.form, request.gzip),
            limit: Limit::default(),
            pace: None,
            timer: Box::pin(tokio::time::sleep_until(beat_at)),
            armed: false,
            beat_at,
            end_at: (!age.is_zero()).then(|| (Instant::now() + jittered(age), CloseReason::Rotation)),
            draining: false,
            caught_up: false,
            told_lagging: None,
            end: None,
            slot: None,
        };
        reader.arm_timer();
        if request.gzip {
            reader.first.push_back(First::Own(Bytes::from_static(gzip::HEADER)));
        }
        reader
    }

    /// A frame for this reader only.
    pub(super) fn control(&self, name: &str, data: &Value, id: Option<EventId>, retry_ms: Option<u32>) -> Bytes {
        let frame = self.form.control(name, data, id, retry_ms);
        if self.gzip { gzip::stored(&frame) } else { frame }
    }

    fn push(&mut self, name: &str, data: &Value, id: Option<EventId>, retry_ms: Option<u32>) {
        let frame = self.control(name, data, id, retry_ms);
        self.first.push_back(First::Own(frame));
    }

    /// The last position examined, as an event ID.
    pub(super) fn id(&self) -> EventId {
        let before = self.pace.as_ref().and_then(Pace::before);
        let position = before.unwrap_or_else(|| self.events.position());
        let position = self.limit.until.map_or(position, |until| position.min(until));
        EventId { epoch: self.events.epoch(), position }
    }

    /// Returns bytes to send, and counts them.
    pub(super) fn emit(&self, events: u64, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(slot) = &self.slot {
            slot.sent(events, bytes.len());
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// A heartbeat: a real event with the last position examined, so that the cursor of a filtered reader never
    /// expires.
    fn heartbeat(&self) -> Bytes {
        let (id, head) = (self.id(), self.state.subscriptions.head());
        let behind = (head - id.position).max(0);
        let mut data =
            json!({ "ts": rfc3339(self.state.clock.now()), "position": id.position, "head": head, "behind": behind });
        if let Some(since) = stale_since(&self.state) {
            data["stale_since"] = rfc3339(since).into();
        }
        if let Some(failing) = self.state.writer.writing().failing_for(NOT_WRITING) {
            data["not_writing_since"] = rfc3339(failing.since).into();
        }
        self.control("heartbeat", &data, Some(id), None)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.limit.events == Some(0) {
            return Poll::Ready(Next::Done);
        }
        let Some(pace) = &mut self.pace else {
            return self.events.poll_next(cx, self.limit).map(Next::from);
        };
        let due = pace.due();
        let polled = pace.poll_next(cx, &mut self.events, self.limit);
        if pace.due() != due {
            self.arm_timer();
        }
        polled
    }

    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let piece = match self.poll_next(cx) {
            Poll::Ready(Next::Piece(piece)) => piece,
            Poll::Ready(Next::Done) => {
                let close = self.finish(CloseReason::Finished);
                return self.emit(0, close);
            }
            Poll::Ready(Next::Gone(Gone::Pruned)) => {
                let bye = self.finish(CloseReason::TooOld);
                return self.emit(0, bye);
            }
            Poll::Ready(Next::Gone(Gone::Changed)) => return self.poll_restart(cx),
            Poll::Pending => {
                self.caught_up |= self.pace.is_none() && self.events.behind() == 0;
                return Poll::Pending;
            }
        };
        if let Some(left) = &mut self.limit.events {
            *left -= piece.events;
        }
        if let (Some(since), Some(slot)) = (piece.since, &self.slot) {
            slot.delayed(piece.events, since.elapsed());
        }
        match self.lagging(piece.ts) {
            Some(lagging) => {
                self.first.push_back(First::Own(piece.bytes));
                self.emit(piece.events, lagging)
            }
            None => self.emit(piece.events, piece.bytes),
        }
    }

    /// Tells a reader that was up to date that it lags; events are delivered late, never dropped.
    fn lagging(&mut self, ts: Time) -> Option<Bytes> {
        let now = self.state.clock.now();
        if !self.caught_up || now - ts < LAGGING || self.told_lagging.is_some_and(|told| now - told < LAGGING) {
            return None;
        }
        self.told_lagging = Some(now);
        Some(self.control("lagging", &json!({ "behind": self.events.behind() }), None, None))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        match this.first.pop_front() {
            Some(First::Own(bytes)) => return this.emit(0, bytes),
            Some(First::Shared(packed)) if this.gzip => return this.emit(0, packed.gzip()),
            Some(First::Shared(packed)) => return this.emit(0, packed.plain.clone()),
            None => {}
        }
        match this.end {
            Some(End::Clean) => return Poll::Ready(None),
            Some(End::Leaving) => {
                ready!(this.timer.as_mut().poll(cx));
                this.end = Some(End::Clean);
                return Poll::Ready(Some(Err(Cut)));
            }
            None => {}
        }
        loop {
            // The same task always polls a body, so the waker is registered once each time the timer is set. Without
            // tokio's coop budget: a poll refused because of it would not register the waker.
            let is_due = if this.armed {
                this.timer.is_elapsed()
            } else {
                pin!(coop::unconstrained(this.timer.as_mut())).poll(cx).is_ready()
            };
            this.armed = !is_due;
            if is_due {
                match this.on_timer() {
                    Some(frame) => return this.emit(0, frame),
                    None => continue,
                }
            }
            let polled = this.poll_events(cx);
            // Checked after the reader registered its waker, so that a shutdown in between is not missed.
            if polled.is_pending() && !this.draining && this.state.byte_readers.draining() {
                this.drain();
            }
            if polled.is_ready() || this.armed {
                return polled;
            }
        }
    }
}

/// Since when the log could not be read; `None` while it can.
fn stale_since(state: &AppState) -> Option<Time> {
    let age = state.subscriptions.age();
    (age > STALE).then(|| state.clock.now() - TimeDelta::from_std(age).unwrap_or_default())
}

/// A duration ±10%, so that readers do not send heartbeats in lockstep.
pub(super) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}
