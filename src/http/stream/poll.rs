//! The long poll, for clients behind proxies that hold back what streams: the same events, as answers.

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
    start::{Begin, Start},
    wish::{POLLED, Snapshot, Wish},
};
use crate::{
    event::EventId,
    feed::{Delivery, Limit},
    http::{api::snapshot, site::Site},
};

/// How long reading the log for an answer may take.
const READ: Duration = Duration::from_secs(5);

/// One answer of a long poll.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the JSON that is put together from parts already encoded")]
pub(super) struct Polled {
    /// As in `hello`: `live`, `resumed`, `snapshot`, `reset`, `replay`.
    resume: String,
    /// Why the cursor could not be served, with `reset`.
    reason: Option<String>,
    /// The board, as `GET /api/v1/snapshot` gives it, with `snapshot` and `reset`.
    snapshot: Option<serde_json::Value>,
    /// What passed the filters, in order.
    events: Vec<serde_json::Value>,
    /// Give it as `after` in the next call.
    cursor: String,
    /// The end of the log.
    head: String,
    /// True when a replay has reached its end.
    done: bool,
}

/// Answers at once when there is something to tell, else as soon as there is, at the latest after `wait`.
pub(super) async fn answer(site: &Site, wish: &Wish, begin: &Begin, wait: Duration) -> Response {
    let mut after = begin.end(site);
    let (word, reason) = match begin.start {
        Start::After(_, word) => (word, None),
        Start::Gap(reason) => ("reset", Some(reason)),
    };
    let usual = wish.snapshot == Snapshot::Auto && matches!(word, "snapshot" | "reset");
    let wants = wish.replay.from.is_none() && (wish.snapshot == Snapshot::Always || usual);
    let board = if wants { Some(snapshot::json(&site.board).await) } else { None };
    if let Some((id, _)) = &board {
        after = *id;
    }
    let mut delivery = site.deliveries.open(after, &wish.filter, wish.form, false);
    let until = begin.until;
    let limit = Limit { events: Some(wish.max_events.unwrap_or(POLLED).min(POLLED)), until };
    // Who has a board to read, or asked for the end of the log, is not kept waiting.
    let wait = if board.is_some() || reason.is_some() || (wish.requested.is_none() && word == "live") {
        Duration::ZERO
    } else {
        wait
    };
    let lines = collect(site, &mut delivery, limit, Instant::now() + wait).await;
    let id = |position| EventId { epoch: after.epoch, position }.to_string();
    let position = delivery.position();
    let done = until.is_some_and(|until| position >= until);
    let mut rest = json!({
        "resume": word,
        "cursor": id(until.map_or(position, |until| position.min(until))),
        "head": id(site.subscriptions.head().max(position)),
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
    // One event a line: commas between them make it a list.
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

/// Lines of what is there; waits for the first.
async fn collect(site: &Site, delivery: &mut Delivery, mut limit: Limit, deadline: Instant) -> BytesMut {
    let mut lines = BytesMut::new();
    while limit.events != Some(0) {
        // What is there already is taken, also when it has to be read; only at the head of the log is it waited.
        let patience = match (lines.is_empty(), delivery.behind() > 0) {
            (true, true) => deadline.max(Instant::now() + READ),
            (true, false) => deadline,
            (false, _) => Instant::now(),
        };
        let next = std::future::poll_fn(|cx| delivery.poll_next(cx, limit));
        let next = tokio::select! {
            biased;
            next = next => next,
            () = tokio::time::sleep_until(patience) => break,
            () = site.stopping.cancelled() => break,
        };
        let Ok(Some(piece)) = next else { break };
        limit.events = limit.events.map(|left| left - piece.events);
        lines.extend_from_slice(&piece.bytes);
    }
    lines
}
