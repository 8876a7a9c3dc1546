//! Long polling, for clients behind proxies that buffer streams: the same events, as responses.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use serde_json::json;
use tokio::time::Instant;

use super::{
    request::{POLLED, Snapshot, StreamRequest},
    resume::{Begin, Start},
};
use crate::{
    event::EventId,
    feed::{self, ByteReader, Limit},
    http::{api::snapshot, state::AppState},
};

/// Timeout of reading the log for a response.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// One response of a long poll.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the JSON that is put together from parts already encoded")]
pub(super) struct LongPollResponse {
    /// Start mode, as in `hello`: `live`, `resumed`, `snapshot`, `reset`, `replay`.
    resume: String,
    /// With `reset`: why the cursor could not be served.
    reason: Option<String>,
    /// With `snapshot` and `reset`: the current state, as in `GET /api/v1/snapshot`.
    snapshot: Option<serde_json::Value>,
    /// Matching events, in order.
    events: Vec<serde_json::Value>,
    /// Pass it as `after` in the next call.
    cursor: String,
    /// Head of the log.
    head: String,
    /// True when a replay has reached its end.
    done: bool,
}

/// Responds as soon as there is anything to send, at the latest after `wait`.
pub(super) async fn answer(state: &AppState, request: &StreamRequest, begin: &Begin, wait: Duration) -> Response {
    let mut after = begin.end(state);
    let (word, reason) = match begin.start {
        Start::After(_, word) => (word, None),
        Start::Gap(reason) => ("reset", Some(reason)),
    };
    let usual = request.snapshot == Snapshot::Auto && matches!(word, "snapshot" | "reset");
    let wants = request.replay.from.is_none() && (request.snapshot == Snapshot::Always || usual);
    let board = wants.then(|| feed::narrowed(&state.board, &request.filter.projects()));
    let board = if let Some(board) = board { Some(snapshot::json(&board).await) } else { None };
    if let Some((id, _)) = &board {
        after = *id;
    }
    let mut reader = state.byte_readers.open(after, &request.filter, request.form, false);
    let until = begin.until;
    let limit = Limit { events: Some(request.max_events.unwrap_or(POLLED).min(POLLED)), until };
    // A client that gets a snapshot, or asked only for the head, does not have to wait.
    let wait = if board.is_some() || reason.is_some() || (request.requested.is_none() && word == "live") {
        Duration::ZERO
    } else {
        wait
    };
    let lines = collect(state, &mut reader, limit, Instant::now() + wait).await;
    let id = |position| EventId { epoch: after.epoch, position }.to_string();
    let position = reader.position();
    let done = until.is_some_and(|until| position >= until);
    let mut rest = json!({
        "resume": word,
        "cursor": id(until.map_or(position, |until| position.min(until))),
        "head": id(state.subscriptions.head().max(position)),
        "done": done,
    });
    if let Some(reason) = reason {
        rest["reason"] = reason.into();
    }
    let rest = rest.to_string();
    let mut body = BytesMut::from(rest.trim_end_matches('}'));
    if let Some((_, board)) = board {
        body.extend_from_slice(b",\"snapshot\":");
        body.extend_from_slice(board.as_bytes());
    }
    body.extend_from_slice(b",\"events\":[");
    // One event per line, joined by commas to a JSON array.
    for (number, line) in lines.as_ref().split(|byte: &u8| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        if number > 0 {
            body.extend_from_slice(b",");
        }
        body.extend_from_slice(line);
    }
    body.extend_from_slice(b"]}");
    let mut response = Body::from(body.freeze()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Collects the available lines; waits for the first one.
async fn collect(state: &AppState, reader: &mut ByteReader, mut limit: Limit, deadline: Instant) -> BytesMut {
    let mut lines = BytesMut::new();
    while limit.events != Some(0) {
        // Available events are taken, even if they have to be read from the log; wait only at the head.
        let patience = match (lines.is_empty(), reader.behind() > 0) {
            (true, true) => deadline.max(Instant::now() + READ_TIMEOUT),
            (true, false) => deadline,
            (false, _) => Instant::now(),
        };
        let next = std::future::poll_fn(|cx| reader.poll_next(cx, limit));
        let next = tokio::select! {
            biased;
            next = next => next,
            () = tokio::time::sleep_until(patience) => break,
            () = state.stopping.cancelled() => break,
        };
        let Ok(Some(piece)) = next else { break };
        limit.events = limit.events.map(|left| left - piece.events);
        lines.extend_from_slice(&piece.bytes);
    }
    lines
}
