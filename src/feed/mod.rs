//! From the log to all readers: the tailer reads it once per process (law 3), callbacks and the board receive each
//! event, the hub keeps encoded frames, and subscriptions read at their own pace (law 7).

pub mod byte_reader;
pub mod callbacks;
pub mod claim_waiters;
pub mod gzip;
mod hub;
pub mod progress;
mod shared_stream;
pub mod stream_registry;
pub mod subscription;
pub mod tailer;
pub mod time_travel;

use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
    time::Instant,
};

use crate::{
    board::Board,
    event::{Event, EventId, frame::Frame},
    model::Name,
};

pub use byte_reader::{ByteReader, ByteReaders};
pub use callbacks::{Callbacks, Hook};
pub use shared_stream::Limit;
pub use subscription::{Subscription, Subscriptions};
pub use tailer::Tailer;

/// The board shared by all readers. Its lock is held for a fold or a rendering, never across an await.
pub type SharedBoard = Arc<RwLock<Board>>;

/// An event as readers receive it: parsed, and as a frame encoded once.
#[derive(Debug, Clone)]
pub struct Published {
    /// Event ID; `None` for ephemeral events.
    pub id: Option<EventId>,
    /// The parsed event.
    pub event: Arc<Event>,
    /// The encoded frame.
    pub frame: Frame,
    /// When it was published in this process.
    pub at: Instant,
}

/// The board of some projects; the shared one itself if none is named.
#[must_use]
pub fn narrowed(board: &SharedBoard, projects: &BTreeSet<Name>) -> SharedBoard {
    if projects.is_empty() {
        return board.clone();
    }
    Arc::new(RwLock::new(read(board).narrowed(projects)))
}

/// Locks the board for reading. A panic while the lock is held cannot leave it half changed, so poison is ignored.
pub fn read(board: &SharedBoard) -> std::sync::RwLockReadGuard<'_, Board> {
    board.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
