//! Timers and the end of a stream: heartbeats, maximum age, shutdown.

use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::{DRAIN, DRAIN_EACH, End, LEAVE, LOOK_UP, Reader, jittered};
use crate::{
    feed::stream_registry::CloseReason,
    http::stream::{pace::Pace, retry_ms},
};

impl Reader {
    /// The last frame. Its ID is the last position examined, so that nothing is examined twice.
    pub(in crate::http) fn finish(&mut self, close_reason: CloseReason) -> Bytes {
        if let Some(slot) = &self.slot {
            slot.ends(close_reason);
        }
        if close_reason == CloseReason::Finished {
            let reason = if self.limit.events == Some(0) { "max_events" } else { "replayed" };
            self.end = Some(End::Clean);
            return self.control("close", &json!({ "reason": reason }), Some(self.id()), None);
        }
        self.abort_after_bye();
        let retry = Some(retry_ms(&self.state));
        self.control("bye", &json!({ "reason": close_reason.as_str() }), Some(self.id()), retry)
    }

    pub(super) fn abort_after_bye(&mut self) {
        self.end = Some(End::Leaving);
        self.timer.as_mut().reset(Instant::now() + LEAVE);
        self.armed = false;
    }

    /// Sets the timer to whatever is due next.
    pub(super) fn arm_timer(&mut self) {
        let now = Instant::now();
        let due = self.pace.as_ref().and_then(Pace::due);
        // While an event is delayed nothing else wakes the stream, so it checks periodically for shutdown.
        let due = due.filter(|due| *due > now).map(|due| due.min(now + LOOK_UP));
        let end = self.end_at.map(|(at, _)| at);
        let next = [due, end].into_iter().flatten().fold(self.beat_at, Instant::min);
        self.timer.as_mut().reset(next);
        self.armed = false;
    }

    /// Handles the timer; returns a frame to send, if any.
    pub(super) fn on_timer(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        if let Some((_, close_reason)) = self.end_at.filter(|(at, _)| *at <= now) {
            return Some(self.finish(close_reason));
        }
        let beats = self.beat_at <= now;
        if beats {
            self.beat_at = now + jittered(self.heartbeat);
        }
        self.arm_timer();
        beats.then(|| self.heartbeat())
    }

    /// Shutdown: this stream ends at a random time, so that clients do not all reconnect at once.
    pub(super) fn drain(&mut self) {
        let streams = u32::try_from(self.state.stream_registry.open()).unwrap_or(u32::MAX);
        let spread = DRAIN_EACH.saturating_mul(streams).min(DRAIN);
        self.draining = true;
        self.end_at = Some((Instant::now() + spread.mul_f64(fastrand::f64()), CloseReason::Drain));
        self.arm_timer();
    }
}
