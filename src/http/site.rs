//! What handlers work with. They reach the feed through subscriptions only, never the hub.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{api::snapshot::Snapshots, documents::Documents, limits::Limits};
use crate::{
    clock::Clock,
    config::Settings,
    event::EventId,
    feed::{self, Deliveries, SharedBoard, Subscriptions, ledger::Ledger, past::Past, waiters::Waiters},
    metrics::Metrics,
    page::{Fragments, LivePages},
    store::{EventLog, Store, Writer, search::Horizon},
};

/// Shared by all requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Site(pub Arc<Parts>);

/// The parts of a [`Site`].
#[derive(Debug)]
pub struct Parts {
    /// Settings.
    pub settings: Settings,
    /// What a client may cost.
    pub limits: Limits,
    /// Where it listens, as in `http://127.0.0.1:8080`.
    pub url: String,
    /// To read.
    pub store: Store,
    /// To read events.
    pub event_log: EventLog,
    /// To change.
    pub writer: Writer,
    /// The board.
    pub board: SharedBoard,
    /// Boards of the past.
    pub past: Past,
    /// How far back searches of pages look.
    pub horizon: Horizon,
    /// The feed.
    pub subscriptions: Subscriptions,
    /// Claims that wait.
    pub waiters: Waiters,
    /// The time.
    pub clock: Clock,
    /// The last snapshot.
    pub snapshots: Snapshots,
    /// Rendered pages.
    pub fragments: Fragments,
    /// Pages that are followed live.
    pub live_pages: LivePages,
    /// The API documents.
    pub documents: Documents,
    /// Figures about the program itself.
    pub metrics: Metrics,
    /// Set when the server stops.
    pub stopping: CancellationToken,
    /// Streams that are open, and those that ended.
    pub ledger: Arc<Ledger>,
    /// Events as bytes for streams.
    pub deliveries: Deliveries,
}

impl Site {
    /// The id of the last event on the board. Read before the tables it is a place to follow from: whatever comes later is
    /// an event behind it.
    #[must_use]
    pub fn event_id(&self) -> String {
        self.event_id_at(feed::read(&self.board).position)
    }

    /// The id of the event at a position.
    #[must_use]
    pub fn event_id_at(&self, position: i64) -> String {
        EventId { epoch: self.subscriptions.epoch(), position }.to_string()
    }
}

impl std::ops::Deref for Site {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
