//! The board as it was: from the checkpoint before a position, folded forward. A few boards are kept, so that going on
//! from one costs only the events in between.

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

/// Boards kept.
const KEEP: usize = 8;
/// Events folded for one look at the most: about a second.
const MOST: i64 = 250_000;

/// Where in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The last event that had happened.
    pub position: i64,
    /// The time.
    pub time: Time,
}

/// Why the board cannot be shown as it was.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// It was before the oldest event that is kept, or before the oldest checkpoint behind that.
    #[error("the log does not reach back so far; the oldest moment that can be shown is position {0}")]
    TooOld(i64),
    /// No checkpoint is near.
    #[error("no checkpoint of the board is near enough to that moment; try one closer to position {0}")]
    TooFar(i64),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Boards of the past. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Past {
    store: Store,
    log: EventLog,
    /// The last used is the last. One at a time folds: two cores carry no more beside the present.
    boards: Arc<Mutex<Kept>>,
}

/// Boards of one epoch of the log.
#[derive(Debug, Default)]
struct Kept {
    epoch: Option<Epoch>,
    boards: VecDeque<Board>,
}

impl Past {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { log: EventLog::new(store.clone()), store, boards: Arc::default() }
    }

    /// The moment of a position; nothing when the log does not hold it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn at_position(&self, position: i64) -> sqlx::Result<Option<Moment>> {
        let recorded = self.log.at(self.store.epoch(), position).await?;
        Ok(recorded.map(|recorded| Moment { position, time: recorded.event.ts }))
    }

    /// The moment of a time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn at_time(&self, time: Time) -> sqlx::Result<Moment> {
        Ok(Moment { position: self.log.position_before(time, true).await?, time })
    }

    /// The board as it was after a position.
    ///
    /// # Errors
    /// When the log or the checkpoints do not reach there, or the database does not answer.
    pub async fn board(&self, position: i64) -> Result<SharedBoard, PastError> {
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
            return Err(PastError::TooOld(first.map_or(oldest, |checkpoint| checkpoint.position)));
        }
        if position - board.position > MOST {
            return Err(PastError::TooFar(board.position));
        }
        self.fold(&mut board, epoch, position).await?;
        // Playing goes on from the board it just had; that one is needed no more.
        if let Some(index) = nearest.filter(|index| board.position - boards[*index].position < 10_000) {
            boards.remove(index);
        }
        boards.push_back(board.clone());
        if boards.len() > KEEP {
            boards.pop_front();
        }
        Ok(Arc::new(RwLock::new(board)))
    }

    async fn fold(&self, board: &mut Board, epoch: Epoch, position: i64) -> Result<(), PastError> {
        while board.position < position {
            let page = self.log.page(epoch, board.position).await?;
            let before = board.position;
            for recorded in page.iter().take_while(|recorded| recorded.id.position <= position) {
                board.apply(&recorded.event).map_err(|error| PastError::TooOld(error.got))?;
            }
            if board.position == before {
                return Err(PastError::TooOld(position));
            }
        }
        Ok(())
    }
}
