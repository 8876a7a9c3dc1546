//! `GET /events`: the log as Server-Sent Events.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde_json::json;
use tokio::time::Instant;

use super::{
    problem::Problem,
    site::{OpenStream, Site},
};
use crate::{
    event::{EventId, Filter, envelope::rfc3339, frame},
    feed::{Published, Subscription},
};

/// Parameters that are no filters.
pub const PARAMETERS: [&str; 9] =
    ["last_event_id", "lastEventId", "after", "snapshot", "on_gap", "heartbeat", "max_events", "names", "format"];
/// A cursor ahead of this server may come from one that is ahead of it for a moment.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Pause before the log is read again after it did not answer.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Time for the last frame to leave before the connection is cut.
const LEAVE: Duration = Duration::from_millis(50);

/// Where a reader wants to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cursor {
    Absent,
    Now,
    Earliest,
    At(EventId),
    Malformed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    Auto,
    Always,
    Never,
}

#[derive(Debug)]
struct Wish {
    filter: Filter,
    cursor: Cursor,
    requested: Option<String>,
    snapshot: Snapshot,
    gap_is_error: bool,
    heartbeat: Duration,
    max_events: Option<u64>,
    names: bool,
}

/// What a cursor comes to.
enum Start {
    /// Behind this position; the word for `hello`.
    After(i64, &'static str),
    /// It cannot be served: why.
    Gap(&'static str),
}

/// Follow the log: every event that passes the filters, in order, without a gap.
#[utoipa::path(get, path = "/events", tag = "watching",
    params(
        ("topics" = Option<String>, Query), ("types" = Option<String>, Query), ("project_id" = Option<String>, Query),
        ("parent_task_id" = Option<String>, Query), ("task_id" = Option<String>, Query), ("task_type" = Option<String>, Query),
        ("phase" = Option<String>, Query), ("queue" = Option<String>, Query), ("worker_id" = Option<String>, Query),
        ("machine_id" = Option<String>, Query), ("connector_id" = Option<String>, Query), ("status" = Option<String>, Query),
        ("priority" = Option<String>, Query), ("stats_only" = Option<bool>, Query),
        ("Last-Event-ID" = Option<String>, Header, description = "Continue behind this event"),
        ("after" = Option<String>, Query, description = "The same in the URL: an event id, `earliest` or `now`"),
        ("snapshot" = Option<String>, Query, description = "`auto` (when there is no usable cursor), `always`, `never`"),
        ("on_gap" = Option<String>, Query, description = "`reset` (told in the stream) or `error` (410)"),
        ("heartbeat" = Option<u32>, Query, minimum = 5, maximum = 60), ("max_events" = Option<u64>, Query, minimum = 1),
        ("names" = Option<u8>, Query, description = "`0` leaves `event:` out"),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", description = "Frames `hello`, `snapshot` … `snapshot_end`, one per event, `heartbeat`, `reset`, `bye`, `close`"),
        (status = 400, description = "A parameter is wrong", body = Problem), (status = 406, description = "Another media type was asked for", body = Problem), (status = 410, description = "The log cannot be continued from there", body = Problem),
    ))]
pub(super) async fn events(
    State(site): State<Site>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    acceptable(&headers)?;
    let wish = Wish::read(&site, &headers, &pairs)?;
    let Some(place) = site.open_stream() else {
        // A refusal by status would end a browser's EventSource for good.
        let refused = stream::unfold(Some(bye(&site, "limit")), |frame| async {
            match frame {
                Some(frame) => Some((Ok(frame), None)),
                None => {
                    tokio::time::sleep(LEAVE).await;
                    Some((Err(Cut), None))
                }
            }
        });
        return Ok(respond(&site, "refused", Body::from_stream(refused)));
    };
    let start = begin(&site, &wish).await;
    if let Start::Gap(reason) = start
        && wish.gap_is_error
    {
        let detail = format!("the log cannot be continued from there ({reason}); start from a snapshot");
        return Err(Problem::new(StatusCode::GONE, "gap", detail));
    }
    let (reader, resume) = Reader::open(site.clone(), wish, &start, place);
    let body = stream::unfold(reader, |mut reader| async move { reader.next().await.map(|item| (item, reader)) });
    Ok(respond(&site, resume, Body::from_stream(body)))
}

fn respond(site: &Site, resume: &'static str, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("events-resume", HeaderValue::from_static(resume));
    headers.insert("events-head", HeaderValue::from(site.subscriptions.head()));
    response
}

fn acceptable(headers: &HeaderMap) -> Result<(), Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let takes = |kind: &str| ["text/event-stream", "text/*", "*/*"].contains(&kind);
    if accept.split(',').any(|kind| takes(kind.split(';').next().unwrap_or_default().trim())) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_acceptable",
        "this address sends text/event-stream; ask with Accept: text/event-stream",
    ))
}

impl Wish {
    fn read(site: &Site, headers: &HeaderMap, pairs: &[(String, String)]) -> Result<Self, Problem> {
        let bad =
            |field: &str, detail: &str| Problem::field(StatusCode::BAD_REQUEST, "invalid_parameter", field, detail);
        let filter = Filter::from_query(pairs, &PARAMETERS)?;
        let value = |name: &str| {
            pairs.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
        };
        let header =
            headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?")).filter(|value| !value.is_empty());
        let requested = header.or_else(|| ["last_event_id", "lastEventId", "after"].into_iter().find_map(value));
        let cursor = match requested {
            None => Cursor::Absent,
            Some("now") => Cursor::Now,
            Some("earliest") => Cursor::Earliest,
            Some(text) => text.parse().map_or(Cursor::Malformed, Cursor::At),
        };
        let snapshot = match value("snapshot").unwrap_or("auto") {
            "auto" => Snapshot::Auto,
            "always" | "true" => Snapshot::Always,
            "never" | "false" => Snapshot::Never,
            _ => return Err(bad("snapshot", "must be auto, always or never")),
        };
        let gap_is_error = match value("on_gap").unwrap_or("reset") {
            "reset" => false,
            "error" => true,
            _ => return Err(bad("on_gap", "must be reset or error")),
        };
        let names = match value("names").unwrap_or("1") {
            "1" => true,
            "0" => false,
            _ => return Err(bad("names", "must be 0 or 1")),
        };
        if value("format").is_some_and(|format| format != "native") {
            return Err(bad("format", "must be native"));
        }
        let heartbeat = match value("heartbeat") {
            None => site.settings.stream_heartbeat_seconds,
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| (5..=60).contains(seconds))
                .ok_or_else(|| bad("heartbeat", "must be a whole number of seconds from 5 to 60"))?,
        };
        let max_events = value("max_events")
            .map(|text| {
                text.parse().ok().filter(|n| *n > 0).ok_or_else(|| bad("max_events", "must be a whole number from 1"))
            })
            .transpose()?;
        Ok(Self {
            filter,
            cursor,
            // Only what cannot break a frame or a log is repeated.
            requested: requested.map(|text| text.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()),
            snapshot,
            gap_is_error,
            heartbeat: Duration::from_secs(heartbeat.into()),
            max_events,
            names,
        })
    }
}

async fn begin(site: &Site, wish: &Wish) -> Start {
    let subscriptions = &site.subscriptions;
    match wish.cursor {
        Cursor::Absent if wish.snapshot == Snapshot::Never => Start::After(subscriptions.head(), "live"),
        Cursor::Absent => Start::After(subscriptions.head(), "snapshot"),
        Cursor::Now => Start::After(subscriptions.head(), "live"),
        Cursor::Earliest => Start::After(subscriptions.oldest() - 1, "resumed"),
        Cursor::Malformed => Start::Gap("malformed"),
        Cursor::At(id) if id.epoch != subscriptions.epoch() => Start::Gap("epoch"),
        Cursor::At(id) => {
            let deadline = Instant::now() + CATCH_UP;
            while id.position > subscriptions.head() {
                if Instant::now() > deadline {
                    return Start::Gap("ahead");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if id.position + 1 < subscriptions.oldest() {
                return Start::Gap("too_old");
            }
            Start::After(id.position, "resumed")
        }
    }
}

/// Ends a body without its last chunk, so that every client comes back (some take a clean end for the end of all).
#[derive(Debug, thiserror::Error)]
#[error("the stream is cut on purpose, so that the client comes back")]
pub(super) struct Cut;

/// One stream: what is to be sent at once, then the subscription.
struct Reader {
    site: Site,
    wish: Wish,
    first: VecDeque<Bytes>,
    subscription: Subscription,
    beat_at: Instant,
    sent: u64,
    ending: Option<End>,
    _place: OpenStream,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Clean,
    Cut,
}

impl Reader {
    /// Prepares the first frames: `hello` at once, then `reset` and a snapshot when there are any.
    fn open(site: Site, wish: Wish, start: &Start, place: OpenStream) -> (Self, &'static str) {
        let subscriptions = site.subscriptions.clone();
        let epoch = subscriptions.epoch();
        let oldest = subscriptions.oldest();
        let (mut after, word, reset) = match start {
            Start::After(position, word) => (*position, *word, None),
            Start::Gap(reason) => (subscriptions.head(), "reset", Some(*reason)),
        };
        let wants = wish.snapshot == Snapshot::Always
            || (wish.snapshot == Snapshot::Auto && matches!(word, "snapshot" | "reset"));
        let word = if wants && reset.is_none() { "snapshot" } else { word };
        let mut snapshot_frames = Vec::new();
        if wants {
            let snapshot = site.snapshots.frames(&site.board, epoch);
            after = snapshot.position;
            snapshot_frames = snapshot.frames.to_vec();
        }
        let head = subscriptions.head().max(after);
        let hello = json!({
            "resume": word,
            "requested": wish.requested,
            "head": EventId { epoch, position: head }.to_string(),
            "oldest": EventId { epoch, position: oldest }.to_string(),
            "heartbeat_ms": wish.heartbeat.as_millis() as u64,
            "server_version": env!("CARGO_PKG_VERSION"),
        });
        let start_id = (!wants).then_some(EventId { epoch, position: after });
        let mut first = VecDeque::from([frame::named("hello", &hello.to_string(), start_id, Some(retry_ms(&site)))]);
        if let Some(reason) = reset {
            let reset = json!({
                "reason": reason,
                "requested": wish.requested,
                "oldest": EventId { epoch, position: oldest }.to_string(),
                "head": EventId { epoch, position: head }.to_string(),
            });
            first.push_back(frame::named("reset", &reset.to_string(), None, None));
        }
        first.extend(snapshot_frames);
        let subscription = subscriptions.follow(after, wish.filter.clone());
        let beat_at = Instant::now() + jittered(wish.heartbeat);
        (Self { site, wish, first, subscription, beat_at, sent: 0, ending: None, _place: place }, word)
    }

    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        match self.ending {
            Some(End::Clean) => return None,
            Some(End::Cut) => {
                self.ending = Some(End::Clean);
                // hyper drops what it has not written yet when a body fails, so the last frame gets time to leave.
                tokio::time::sleep(LEAVE).await;
                return Some(Err(Cut));
            }
            None => {}
        }
        if let Some(frame) = self.first.pop_front() {
            return Some(Ok(self.named_or_not(frame)));
        }
        loop {
            let stopping = self.site.stopping.clone();
            tokio::select! {
                biased;
                () = stopping.cancelled() => {
                    self.ending = Some(End::Cut);
                    return Some(Ok(self.named_or_not(bye(&self.site, "drain"))));
                }
                () = tokio::time::sleep_until(self.beat_at) => {
                    self.beat_at = Instant::now() + jittered(self.wish.heartbeat);
                    return Some(Ok(self.named_or_not(self.heartbeat())));
                }
                next = self.subscription.next() => match next {
                    Ok(next) if next.events.is_empty() => {}
                    Ok(next) => return Some(Ok(self.encode(next.events))),
                    Err(error) => {
                        tracing::warn!(%error, "a stream cannot read the log; it tries again");
                        tokio::time::sleep(READ_AGAIN).await;
                    }
                }
            }
        }
    }

    /// Frames in one piece, so that they leave in one write.
    fn encode(&mut self, mut events: Vec<Published>) -> Bytes {
        if let Some(max) = self.wish.max_events {
            events.truncate(usize::try_from(max - self.sent).unwrap_or(usize::MAX));
            self.sent += events.len() as u64;
            if self.sent >= max {
                self.ending = Some(End::Clean);
            }
        }
        let close = self.ending.is_some().then(|| frame::named("close", "{\"reason\":\"max_events\"}", None, None));
        let frames = events.into_iter().map(|published| published.frame).chain(close);
        let frames: Vec<_> = frames.map(|frame| self.named_or_not(frame)).collect();
        if let [only] = frames.as_slice() {
            return only.clone();
        }
        let mut joined = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        for frame in frames {
            joined.extend_from_slice(&frame);
        }
        joined.freeze()
    }

    /// Without its first line when the reader does not want names. No copy: the line is skipped.
    fn named_or_not(&self, frame: Bytes) -> Bytes {
        match frame.iter().position(|byte| *byte == b'\n') {
            Some(end) if !self.wish.names && frame.starts_with(b"event: ") => frame.slice(end + 1..),
            _ => frame,
        }
    }

    /// A real event with the last position examined, so that a filtered reader never falls out of the log.
    fn heartbeat(&self) -> Bytes {
        let position = self.subscription.position();
        let behind = self.subscription.behind();
        let data = json!({ "ts": rfc3339(self.site.clock.now()), "position": position, "head": position + behind, "behind": behind });
        let id = EventId { epoch: self.site.subscriptions.epoch(), position };
        frame::named("heartbeat", &data.to_string(), Some(id), None)
    }
}

/// 10 % around a duration, so that readers do not beat in step.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// When a client should come back: spread, and wider the more there are.
fn retry_ms(site: &Site) -> u32 {
    let clients = u32::try_from(site.streams.load(std::sync::atomic::Ordering::Relaxed)).unwrap_or(u32::MAX);
    fastrand::u32(1_000..=4_000 + clients.min(10_000))
}

fn bye(site: &Site, reason: &str) -> Bytes {
    frame::named("bye", &json!({ "reason": reason }).to_string(), None, Some(retry_ms(site)))
}
