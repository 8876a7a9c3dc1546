//! The one publisher: reads the log forward, hands each event on once, strictly in order.
//!
//! What this process just committed comes from memory when it is the next position; everything else by a bounded read
//! of the table, which also carries what other servers wrote. The poll is the carrier; wake-ups only shorten it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::{Callbacks, Published, SharedBoard, Subscriptions, hub::Hub};
use crate::{
    board::{self, Board, OutOfOrder},
    event::{Event, envelope::Epoch, frame::Frame},
    store::{
        Store,
        checkpoints::{self, Checkpoint},
        log::{self, Reader, Recorded},
    },
};

/// Poll while someone follows live.
const POLL_READERS: Duration = Duration::from_millis(20);
/// Poll while nobody does.
const POLL_ALONE: Duration = Duration::from_secs(1);
/// Longest pause while the database does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Events handed on at once at most, so that readers of the board get their turn.
const CHUNK: usize = 512;

impl From<Recorded> for Published {
    fn from(recorded: Recorded) -> Self {
        let frame = Frame::event(&recorded.name, &recorded.json, Some(recorded.id));
        Self { id: Some(recorded.id), event: recorded.event, frame, at: std::time::Instant::now() }
    }
}

/// The tailer's own side: run it in a task of its own.
#[derive(Debug)]
pub struct Tailer {
    reader: Reader,
    epoch: Epoch,
    board: SharedBoard,
    hub: Arc<Hub>,
    callbacks: Callbacks,
    committed: mpsc::Receiver<Vec<Recorded>>,
    ephemeral: mpsc::Receiver<Vec<Event>>,
    wakes: Wakes,
}

/// Called with each batch after the board has it; used to wake claims that wait for work.
pub type Wakes = Vec<Wake>;

/// One such call. It must be quick and must not block.
#[derive(Clone)]
pub struct Wake(pub Arc<dyn Fn(&Event) + Send + Sync>);

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wake")
    }
}

/// Why the tailer ended.
#[derive(Debug, thiserror::Error)]
pub enum TailerError {
    /// The log is not what it was: restored, or pruned below the board.
    #[error("the event log was replaced or cut while taskwatch ran; start it again to read it anew: {0}")]
    LogChanged(#[from] OutOfOrder),
}

/// What the tailer is made of, but for what it makes itself.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The log's epoch.
    pub epoch: Epoch,
    /// The board as it was found in a checkpoint.
    pub board: Board,
    /// Memory for recent frames.
    pub ring_bytes: usize,
    /// Hooks.
    pub callbacks: Callbacks,
    /// Wake-ups.
    pub wakes: Wakes,
    /// What this process commits.
    pub committed: mpsc::Receiver<Vec<Recorded>>,
    /// Ephemeral events of this process.
    pub ephemeral: mpsc::Receiver<Vec<Event>>,
}

impl Tailer {
    /// A tailer whose board is up to date: reads everything since the checkpoint before it returns.
    ///
    /// # Errors
    /// When the database does not answer or the log does not fit the board.
    pub async fn start(parts: Parts) -> anyhow::Result<(Self, SharedBoard, Subscriptions)> {
        let Parts { store, epoch, mut board, ring_bytes, callbacks, wakes, committed, ephemeral } = parts;
        let oldest = log::ends(store.pool()).await?.oldest;
        let hub = Arc::new(Hub::new(board.position, oldest, ring_bytes));
        let mut saved = board.position;
        loop {
            let page = log::page(store.pool(), epoch, board.position).await?;
            if page.is_empty() {
                break;
            }
            // A long log was not folded with this version yet: whoever looks at the past needs boards on the way.
            if board.position / checkpoints::SPACING > saved / checkpoints::SPACING {
                let checkpoint = Checkpoint { position: board.position, body: serde_json::to_string(&board)? };
                let at = board.ts.unwrap_or_default();
                checkpoints::save(store.pool(), &checkpoint, board::VERSION, at).await?;
                saved = board.position;
            }
            let page: Vec<_> = page.into_iter().map(Published::from).collect();
            for published in &page {
                board.apply(&published.event)?;
            }
            hub.publish(page);
        }
        let board: SharedBoard = Arc::new(std::sync::RwLock::new(board));
        let subscriptions = Subscriptions::new(hub.clone(), store.clone(), epoch);
        let reader = Reader::new(store);
        let tailer = Self { reader, epoch, board: board.clone(), hub, callbacks, committed, ephemeral, wakes };
        Ok((tailer, board, subscriptions))
    }

    /// Follows the log until the writer of this process has ended.
    ///
    /// # Errors
    /// [`TailerError`] when the log is not the one it began with.
    pub async fn run(mut self) -> Result<(), TailerError> {
        let mut poll = tokio::time::interval(POLL_READERS);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_read = Instant::now();
        let mut pause = POLL_READERS;
        loop {
            tokio::select! {
                batch = self.committed.recv() => match batch {
                    Some(batch) => self.own(batch).await?,
                    None => return Ok(()),
                },
                Some(events) = self.ephemeral.recv() => self.publish_ephemeral(events),
                _ = poll.tick() => {
                    let due = if self.hub.readers() > 0 { pause } else { POLL_ALONE.max(pause) };
                    if last_read.elapsed() < due {
                        continue;
                    }
                    pause = match self.read_gap().await? {
                        Ok(()) => POLL_READERS,
                        Err(error) => {
                            tracing::warn!(%error, "the log cannot be read; trying again");
                            (pause * 2).min(LONGEST_PAUSE)
                        }
                    };
                    last_read = Instant::now();
                }
            }
        }
    }

    /// A batch that this process committed: from memory when it is the next one, else from the table, because another
    /// server's events come first.
    async fn own(&mut self, batch: Vec<Recorded>) -> Result<(), TailerError> {
        let Some(first) = batch.first().map(|recorded| recorded.id.position) else { return Ok(()) };
        let head = self.hub.head();
        if first == head + 1 {
            return self.publish(batch).await;
        }
        if first > head
            && let Err(error) = self.read_gap().await?
        {
            tracing::warn!(%error, "the log cannot be read; trying again");
        }
        Ok(())
    }

    async fn read_gap(&mut self) -> Result<sqlx::Result<()>, TailerError> {
        loop {
            let page = match self.reader.page(self.epoch, self.hub.head()).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            if page.is_empty() {
                self.hub.checked();
                return Ok(Ok(()));
            }
            self.publish(page).await?;
        }
    }

    /// Board first, then wake-ups and hooks, then readers: whoever is told of an event finds it on the board.
    async fn publish(&mut self, batch: Vec<Recorded>) -> Result<(), TailerError> {
        let mut rest = batch.into_iter().map(Published::from).peekable();
        while rest.peek().is_some() {
            let chunk: Vec<_> = rest.by_ref().take(CHUNK).collect();
            {
                let mut board = self.board.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                for published in &chunk {
                    board.apply(&published.event)?;
                }
            }
            for published in &chunk {
                for wake in &self.wakes {
                    (wake.0)(&published.event);
                }
                self.callbacks.fire(&published.event);
            }
            self.hub.publish(chunk);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn publish_ephemeral(&self, events: Vec<Event>) {
        let published: Vec<_> = events
            .into_iter()
            .map(|event| {
                let json = crate::event::truncate::encode(&event);
                Published {
                    id: None,
                    frame: Frame::event(event.event_type.name(), &json, None),
                    event: Arc::new(event),
                    at: std::time::Instant::now(),
                }
            })
            .collect();
        {
            let mut board = self.board.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            for published in &published {
                // Without a position it is always in order.
                let _ = board.apply(&published.event);
            }
        }
        self.hub.publish_ephemeral(published);
    }
}
