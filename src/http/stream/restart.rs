//! A stream whose log was replaced or lost its newest events.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;
use serde_json::json;

use super::{
    Cut,
    reader::{First, Reader},
    request::Snapshot,
};
use crate::{event::EventId, feed::stream_registry::CloseReason, http::api::snapshot::Frames};

impl Reader {
    /// The log was replaced or lost its newest events: sends `reset`, then a snapshot if requested. A client that wants
    /// an error status, or that reads a range, has to reconnect for that.
    pub(super) fn poll_restart(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = if self.gap_is_error || self.pace.is_some() || self.limit.until.is_some() {
            self.finish(CloseReason::LogChanged)
        } else if self.snapshot == Snapshot::Never {
            self.restarts(None)
        } else {
            let (state, form, projects) = (self.state.clone(), self.form, self.projects.clone());
            let encoding = async move { state.snapshots.frames(&state.board, form, &projects).await };
            let encoded = self.restarting.get_or_insert_with(|| Box::pin(encoding)).as_mut();
            let snapshot = ready!(encoded.poll(cx));
            self.restarting = None;
            self.restarts(Some(&snapshot))
        };
        self.emit(0, frame)
    }

    /// The `reset` frame of a restart; the snapshot follows it.
    fn restarts(&mut self, snapshot: Option<&Frames>) -> Bytes {
        let requested = self.id().to_string();
        let end = self.state.subscriptions.end();
        let after = snapshot.map_or(end, |snapshot| snapshot.id);
        self.events = self.state.byte_readers.reopen(&self.events, after);
        if let Some(slot) = &self.slot {
            slot.follows(self.events.progress());
        }
        let oldest = EventId { epoch: after.epoch, position: self.state.subscriptions.oldest() };
        let head = EventId { epoch: after.epoch, position: end.position.max(after.position) };
        let reset = json!({ "reason": "epoch", "requested": requested, "oldest": oldest.to_string(), "head": head.to_string() });
        let frame = self.control("reset", &reset, snapshot.is_none().then_some(after), None);
        let shared = snapshot.into_iter().flat_map(|snapshot| snapshot.frames.iter().cloned());
        self.first.extend(shared.map(First::Shared));
        frame
    }
}
