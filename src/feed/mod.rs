//! From the log to everyone who watches: the tailer reads it once per process (law 3), callbacks and the board take
//! each event, the hub keeps encoded frames, subscriptions follow at their own pace (law 7).

pub mod callbacks;
mod class;
pub mod delivery;
mod hub;
pub mod ledger;
pub mod pack;
pub mod past;
pub mod subscription;
pub mod tailer;
pub mod waiters;

use std::{
    sync::{Arc, RwLock},
    time::Instant,
};

use crate::{
    board::Board,
    event::{Event, EventId, frame::Frame},
};

pub use callbacks::{Callbacks, Hook};
pub use class::Limit;
pub use delivery::{Deliveries, Delivery};
pub use subscription::{Subscription, Subscriptions};
pub use tailer::Tailer;

/// The board that everyone reads. Locks are held for a fold or a rendering, never over an await.
pub type SharedBoard = Arc<RwLock<Board>>;

/// An event as it is handed to readers: what it says, and its frame, encoded once.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its id; `None` on ephemeral events.
    pub id: Option<EventId>,
    /// What happened.
    pub event: Arc<Event>,
    /// Its frame.
    pub frame: Frame,
    /// When it was handed in here.
    pub at: Instant,
}

/// Reads the board. A panic while someone held it cannot leave it half changed, so poison is ignored.
pub fn read(board: &SharedBoard) -> std::sync::RwLockReadGuard<'_, Board> {
    board.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
