//! The settings that decisions depend on.

use chrono::TimeDelta;

use crate::model::lease::StalledPolicy;

/// The settings that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct WriterPolicy {
    /// Length of a lease: a claim expires after this time without a report or a heartbeat.
    pub lease: TimeDelta,
    /// How long a worker may be silent before it is lost.
    pub worker_ttl: TimeDelta,
    /// How long a connector may go unreported before its status is unknown.
    pub connector_stale: TimeDelta,
    /// What happens to stalled tasks.
    pub stalled_policy: StalledPolicy,
    /// Largest stored event, bytes.
    pub max_event_bytes: usize,
}
