//! Boards saved by this process.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use crate::{
    board,
    clock::Clock,
    event::EventId,
    feed::{self, SharedBoard},
    store::{Store, checkpoints},
};

/// Boards saved by this process.
#[derive(Debug)]
pub struct Checkpoints {
    store: Store,
    board: SharedBoard,
    clock: Clock,
    /// The last event of the last one.
    saved: Mutex<EventId>,
    /// When it was saved, seconds since 1970; 0 before the first.
    saved_at: Arc<AtomicI64>,
}

impl Checkpoints {
    /// None was saved yet.
    #[must_use]
    pub fn new(store: Store, board: SharedBoard, clock: Clock) -> Self {
        let saved = Mutex::new(feed::read(&board).id());
        Self { store, board, clock, saved, saved_at: Arc::default() }
    }

    /// When the last one was saved, seconds since 1970; 0 before the first. Shared: it changes with each.
    #[must_use]
    pub fn saved_at(&self) -> Arc<AtomicI64> {
        self.saved_at.clone()
    }

    /// Saves the board as it is now, unless it has been saved.
    ///
    /// # Errors
    /// Any error of the database.
    pub(super) async fn save(&self) -> anyhow::Result<()> {
        if feed::read(&self.board).id() == *self.saved.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(());
        }
        // A copy, so that nothing waits for the encoding.
        let board = feed::read(&self.board).clone();
        let checkpoint = checkpoints::Checkpoint { position: board.position, body: serde_json::to_string(&board)? };
        let mut conn = self.store.pool().acquire().await?;
        checkpoints::save(&mut conn, &checkpoint, board::VERSION, (board.epoch, self.clock.now())).await?;
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = board.id();
        self.saved_at.store(self.clock.now().timestamp(), Ordering::Relaxed);
        Ok(())
    }
}
