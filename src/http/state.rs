//! Shared state of the handlers. They access the feed only through subscriptions, never the hub.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{api::snapshot::Snapshots, documents::Documents, limits::Limits};
use crate::{
    clock::Clock,
    config::Settings,
    event::EventId,
    feed::{
        self, ByteReaders, SharedBoard, Subscriptions, claim_waiters::ClaimWaiters, stream_registry::StreamRegistry,
        time_travel::TimeTravel,
    },
    metrics::Metrics,
    page::{Fragments, LivePages, summary},
    store::{EventLog, Store, Writer},
};

/// Shared by all requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState(pub Arc<Parts>);

/// Fields of a [`AppState`].
#[derive(Debug)]
pub struct Parts {
    /// Settings.
    pub settings: Settings,
    /// Resource limits of clients.
    pub limits: Limits,
    /// URL of the server, as in `http://127.0.0.1:8080`.
    pub url: String,
    /// For reading.
    pub store: Store,
    /// For reading events.
    pub event_log: EventLog,
    /// For writing.
    pub writer: Writer,
    /// The board.
    pub board: SharedBoard,
    /// Historical boards.
    pub time_travel: TimeTravel,
    /// The feed.
    pub subscriptions: Subscriptions,
    /// Waiting claims.
    pub claim_waiters: ClaimWaiters,
    /// The clock.
    pub clock: Clock,
    /// The last snapshot.
    pub snapshots: Snapshots,
    /// Cache of rendered pages.
    pub fragments: Fragments,
    /// What the frame of every page tells.
    pub frames: summary::Frames,
    /// Followed live pages.
    pub live_pages: LivePages,
    /// The API documents.
    pub documents: Documents,
    /// Metrics of the process.
    pub metrics: Metrics,
    /// Cancelled at shutdown.
    pub stopping: CancellationToken,
    /// The stream registry.
    pub stream_registry: Arc<StreamRegistry>,
    /// Delivery of events to streams.
    pub byte_readers: ByteReaders,
}

impl AppState {
    /// ID of the last event on the board. If it is read before the tables, it is safe to continue from: any later
    /// change is an event after it.
    #[must_use]
    pub fn event_id(&self) -> String {
        self.event_id_at(feed::read(&self.board).position)
    }

    /// ID of the event at a position.
    #[must_use]
    pub fn event_id_at(&self, position: i64) -> String {
        EventId { epoch: self.subscriptions.epoch(), position }.to_string()
    }
}

impl std::ops::Deref for AppState {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
