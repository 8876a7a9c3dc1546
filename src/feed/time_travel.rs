//! Time travel: the board at an earlier position, folded forward from the nearest checkpoint before it. Recently used
//! boards are cached, so that a later position costs only the events in between.

use std::{
    collections::VecDeque,
    sync::{Arc, RwLock},
};

use tokio::sync::Mutex;

use super::SharedBoard;
use crate::{
    board::{self, Board},
    clock::Time,
    event::envelope::Epoch,
    store::{EventLog, Store, checkpoints},
};

/// Number of cached boards.
const MAX_CACHED_BOARDS: usize = 8;
/// Maximum number of events folded per request: about one second.
const MAX_EVENTS_FOLDED: i64 = 250_000;

/// A point in time of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Position of the last event at that time.
    pub position: i64,
    /// The time.
    pub time: Time,
}

/// Why a historical board cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TimeTravelError {
    /// The position is before the oldest event that is kept, or before the oldest checkpoint after that.
    #[error("outside retention; the oldest available position is {0}")]
    TooOld(i64),
    /// No checkpoint is close enough.
    #[error("no snapshot close enough to that time; try near position {0}")]
    TooFar(i64),
    /// Any error of the database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Cached historical boards. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TimeTravel {
    store: Store,
    log: EventLog,
    /// Most recently used last. The lock serialises folding: two cores have no capacity for more next to live work.
    boards: Arc<Mutex<Kept>>,
}

/// Cached boards of one epoch of the log.
#[derive(Debug, Default)]
struct Kept {
    epoch: Option<Epoch>,
    boards: VecDeque<Board>,
}

impl TimeTravel {
    /// An empty cache.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { log: EventLog::new(store.clone()), store, boards: Arc::default() }
    }

    /// The moment of a position; `None` if the log does not contain it.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn at_position(&self, position: i64) -> sqlx::Result<Option<Moment>> {
        let recorded = self.log.at(self.store.epoch(), position).await?;
        Ok(recorded.map(|recorded| Moment { position, time: recorded.event.ts }))
    }

    /// The moment of a time.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn at_time(&self, time: Time) -> sqlx::Result<Moment> {
        Ok(Moment { position: self.log.position_before(time, true).await?, time })
    }

    /// The board at a position.
    ///
    /// # Errors
    /// The log or the checkpoints do not reach back that far, or any error of the database.
    pub async fn board(&self, position: i64) -> Result<SharedBoard, TimeTravelError> {
        let mut kept = self.boards.lock().await;
        let epoch = self.store.epoch();
        if kept.epoch != Some(epoch) {
            *kept = Kept { epoch: Some(epoch), boards: VecDeque::new() };
        }
        let boards = &mut kept.boards;
        let known = boards.iter().enumerate().filter(|(_, board)| board.position <= position);
        let nearest = known.max_by_key(|(_, board)| board.position).map(|(index, _)| index);
        let mut board = nearest.map(|index| boards[index].clone()).unwrap_or_default();
        let checkpoint = checkpoints::newest(self.store.pool(), board::VERSION, position).await?;
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.position > board.position) {
            board = serde_json::from_str(&checkpoint.body).map_err(|error| sqlx::Error::Decode(error.into()))?;
        }
        let oldest = self.log.ends().await?.oldest;
        if board.position + 1 < oldest {
            let first = checkpoints::oldest_since(self.store.pool(), board::VERSION, oldest - 1).await?;
            return Err(TimeTravelError::TooOld(first.map_or(oldest, |checkpoint| checkpoint.position)));
        }
        if position - board.position > MAX_EVENTS_FOLDED {
            return Err(TimeTravelError::TooFar(board.position));
        }
        self.fold(&mut board, epoch, position).await?;
        // A replay continues from the board it last received, which is then no longer needed.
        if let Some(index) = nearest.filter(|index| board.position - boards[*index].position < 10_000) {
            boards.remove(index);
        }
        boards.push_back(board.clone());
        if boards.len() > MAX_CACHED_BOARDS {
            boards.pop_front();
        }
        Ok(Arc::new(RwLock::new(board)))
    }

    async fn fold(&self, board: &mut Board, epoch: Epoch, position: i64) -> Result<(), TimeTravelError> {
        while board.position < position {
            let page = self.log.page(epoch, board.position).await?;
            let before = board.position;
            for recorded in page.iter().take_while(|recorded| recorded.id.position <= position) {
                board.apply(&recorded.event).map_err(|error| TimeTravelError::TooOld(error.got))?;
            }
            if board.position == before {
                return Err(TimeTravelError::TooOld(position));
            }
        }
        Ok(())
    }
}
