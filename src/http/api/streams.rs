//! The stream registry as JSON.

use std::{net::IpAddr, sync::atomic::Ordering};

use axum::{Json as Out, extract::State};
use serde::Serialize;
use utoipa_axum::routes;

use crate::{
    clock::Time,
    event::{
        EventId,
        frame::{Format, Wire},
    },
    feed::stream_registry::{CloseReason, Purpose, Row},
    http::{routes::Routes, state::AppState},
    model::access::Scope,
};

/// A stream client.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct StreamRecord {
    /// Sequence number since the server started.
    id: u64,
    purpose: Purpose,
    #[schema(value_type = String)]
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    user_agent: Option<Box<str>>,
    /// Query string: filters and other parameters.
    #[schema(value_type = String)]
    query: Box<str>,
    /// `named`, `unnamed` (Server-Sent Events without `event:`) or `lines`.
    #[schema(value_type = String)]
    wire: Wire,
    /// `native` or `cloudevents`.
    #[schema(value_type = String)]
    format: Format,
    /// Compressed with gzip.
    gzip: bool,
    #[schema(value_type = String, format = DateTime)]
    opened_at: Time,
    /// ID of the last event examined for it.
    cursor: String,
    /// Lag in events.
    behind: i64,
    /// Lag in milliseconds; absent if the oldest of these events is no longer in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_ms: Option<u64>,
    /// Events sent.
    events: u64,
    /// Bytes sent, after compression.
    bytes: u64,
    /// Always 0: slow clients are served late, never skipped.
    dropped: u64,
}

/// A closed stream.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct EndedRecord {
    #[serde(flatten)]
    stream: StreamRecord,
    close_reason: CloseReason,
    #[schema(value_type = String, format = DateTime)]
    ended_at: Time,
}

/// All streams of this server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct StreamList {
    /// Head of the log.
    head: String,
    /// Oldest first.
    open: Vec<StreamRecord>,
    /// The last hundred closed streams, newest first.
    ended: Vec<EndedRecord>,
    /// Events sent since the server started, over all streams.
    events: u64,
    bytes: u64,
    /// Streams rejected because of a limit.
    refused: u64,
}

fn record(state: &AppState, row: &Row, open: bool) -> StreamRecord {
    let epoch = state.subscriptions.epoch();
    let cursor = row.position();
    let (behind, behind_ms) = if open { state.byte_readers.lag(cursor) } else { (0, None) };
    StreamRecord {
        id: row.id,
        purpose: row.info.purpose,
        address: row.info.address,
        user_agent: row.info.user_agent.clone(),
        query: row.info.query.clone(),
        wire: row.info.form.wire,
        format: row.info.form.format,
        gzip: row.info.gzip,
        opened_at: row.opened_at,
        cursor: EventId { epoch, position: cursor }.to_string(),
        behind,
        behind_ms,
        events: row.events.load(Ordering::Relaxed),
        bytes: row.bytes.load(Ordering::Relaxed),
        dropped: 0,
    }
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Read, routes!(streams))]
}

/// Connected and recently closed stream clients.
#[utoipa::path(get, path = "/api/v1/streams", operation_id = "listStreams", tag = "monitoring", responses((status = 200, description = "OK", body = StreamList)))]
pub(super) async fn streams(State(state): State<AppState>) -> Out<StreamList> {
    let (open, ended) = state.stream_registry.rows();
    let ended = ended.iter().map(|ended| EndedRecord {
        stream: record(&state, &ended.row, false),
        close_reason: ended.close_reason,
        ended_at: ended.ended_at,
    });
    let counters = &state.stream_registry.counters;
    Out(StreamList {
        head: EventId { epoch: state.subscriptions.epoch(), position: state.subscriptions.head() }.to_string(),
        open: open.iter().map(|row| record(&state, row, true)).collect(),
        ended: ended.collect(),
        events: counters.events.load(Ordering::Relaxed),
        bytes: counters.bytes.load(Ordering::Relaxed),
        refused: counters.refused.load(Ordering::Relaxed),
    })
}
