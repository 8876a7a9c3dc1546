//! `GET /events`: the event log as Server-Sent Events, as lines of JSON, or as responses of a long poll.

mod body;
mod pace;
mod poll;
mod reader;
mod request;
mod restart;
mod resume;

use axum::{
    extract::{Extension, Query, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};

pub use request::PARAMETERS;
pub(super) use request::takes_gzip;

pub(super) use body::Outgoing;

use self::{body::with_stream, reader::Reader, request::StreamRequest, resume::Start};
use utoipa_axum::routes;

use super::{caller, codes::ErrorCode, problem::Problem, query, state::AppState};
use crate::{
    event::{EventId, frame::Wire},
    feed::stream_registry::{CloseReason, Peer, Purpose, StreamInfo},
    http::routes::Routes,
    model::access::Scope,
};

/// Aborts a body without its last chunk, so that every client reconnects (some treat a clean end as final).
#[derive(Debug, thiserror::Error)]
#[error("the stream is cut on purpose, so that the client comes back")]
pub(super) struct Cut;

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Read, routes!(events))]
}

/// Subscribe to the event log: all matching events, in order, without gaps.
#[utoipa::path(get, path = "/events", operation_id = "streamEvents", tag = "monitoring",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event ID"),
        ("after" = Option<String>, Query, description = "Same as Last-Event-ID: an event ID, `earliest` or `now`"),
        ("snapshot" = Option<String>, Query, description = "`auto` (when there is no usable cursor), `always`, `never`"),
        ("on_gap" = Option<String>, Query, description = "When the cursor is unusable: `reset` (a frame, then a snapshot) or `error` (410)"),
        ("heartbeat" = Option<u32>, Query, minimum = 5, maximum = 60, description = "Heartbeat interval, seconds"),
        ("max_events" = Option<u64>, Query, minimum = 1, description = "Stop after this many events"),
        ("names" = Option<u8>, Query, description = "`0` = omit `event:` lines"),
        ("format" = Option<String>, Query, description = "`native` or `cloudevents` (1.0, structured)"),
        ("from" = Option<String>, Query, description = "Replay from: position, event ID or time"),
        ("until" = Option<String>, Query, description = "Replay until (inclusive); omit to continue live"),
        ("speed" = Option<String>, Query, description = "Replay speed: `max` or a multiplier"),
        ("poll" = Option<u8>, Query, description = "`1` = long poll, answered with JSON"),
        ("wait" = Option<u32>, Query, maximum = 55, description = "Long-poll timeout, seconds"),
    ),
    responses(
        (status = 200, description = "Frames `hello`, `snapshot` … `snapshot_end`, one per event, `heartbeat`, `lagging`, `reset`, `bye`, `close`; as `application/x-ndjson` the same, one JSON object a line; with `poll=1` one JSON object", content(
            (String = "text/event-stream"), (String = "application/x-ndjson"), (poll::LongPollResponse = "application/json"),
        )),
        (status = 400, description = "Invalid parameter", body = Problem), (status = 406, description = "Not acceptable", body = Problem), (status = 410, description = "Gone: cannot resume from this position", body = Problem),
    ))]
pub(super) async fn events(
    State(state): State<AppState>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let request = StreamRequest::read(&state, &headers, &pairs)?;
    let peer = peer.map(|Extension(peer)| peer);
    let begin = resume::begin(&state, &request).await?;
    if let Start::Gap(reason) = begin.start
        && request.gap_is_error
    {
        return Err(gap(&state, reason));
    }
    let info = StreamInfo {
        purpose: if request.wait.is_some() { Purpose::Poll } else { Purpose::Events },
        address: caller::address(&state.settings, peer.as_ref(), &headers),
        user_agent: caller::user_agent(&headers),
        query: query::shown(&pairs).into(),
        form: request.form,
        gzip: request.gzip,
    };
    let entered = state.stream_registry.enter(info, begin.position(&state), peer.as_ref());
    if let Some(wait) = request.wait {
        let slot = entered.map_err(|full| {
            let detail = "stream limit reached; retry later";
            Problem::new(full.into(), detail)
        })?;
        let answer = poll::answer(&state, &request, &begin, wait).await;
        slot.ends(CloseReason::Finished);
        return Ok(answer);
    }
    let (body, word) = match entered {
        Ok(slot) => Reader::open(&state, &request, &begin, slot).await,
        // An error status would stop a browser's EventSource permanently.
        Err(full) => Reader::refused(&state, &request, full),
    };
    Ok(respond(&state, word, &request, body))
}

fn respond(state: &AppState, resume: &'static str, request: &StreamRequest, reader: Reader) -> Response {
    let mut response = with_stream(reader);
    let headers = response.headers_mut();
    let media =
        if request.form.wire == Wire::Lines { "application/x-ndjson" } else { "text/event-stream; charset=utf-8" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("events-resume", HeaderValue::from_static(resume));
    headers.insert("events-head", HeaderValue::from(state.subscriptions.head()));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if request.gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The error for a cursor that cannot be served, if the client prefers a status.
fn gap(state: &AppState, reason: &str) -> Problem {
    let epoch = state.subscriptions.epoch();
    let id = |position| EventId { epoch, position };
    let detail = format!(
        "cannot resume ({reason}): the log covers {} to {}; start from a snapshot",
        id(state.subscriptions.oldest()),
        id(state.subscriptions.head())
    );
    Problem::new(ErrorCode::CursorExpired, detail)
}

/// Reconnect delay, milliseconds: randomised, over a range that grows with the number of streams.
pub(super) fn retry_ms(state: &AppState) -> u32 {
    let clients = u32::try_from(state.stream_registry.open()).unwrap_or(u32::MAX);
    fastrand::u32(1_000..=4_000 + clients.min(4_000))
}
