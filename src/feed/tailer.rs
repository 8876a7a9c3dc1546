//! The single publisher: reads the log forward and publishes each event exactly once, strictly in order.
//!
//! Events that this process committed come from memory if they are next in order; everything else comes from a bounded
//! read of the table, which includes events of other servers. Polling guarantees delivery; wake-ups only reduce
//! latency.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sqlx::PgConnection;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::{Callbacks, Published, SharedBoard, Subscriptions, hub::Hub};
use crate::{
    board::OutOfOrder,
    clock::Time,
    event::{Event, Kind, envelope::Epoch, frame::Frame},
    store::{
        EventLog, Store,
        event_log::{LogReader, Recorded, gap},
        rebuild::{self, RebuildError, Rebuilt},
    },
};

/// Poll interval with live readers.
const POLL_READERS: Duration = Duration::from_millis(20);
/// Poll interval without live readers.
const POLL_ALONE: Duration = Duration::from_secs(1);
/// Maximum delay between retries while the database is unavailable.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Interval of the check of the log's identity and of the database clock.
const CHECK: Duration = Duration::from_secs(1);
/// A read that takes longer marks the database as unreachable.
const SLOW_READ: Duration = Duration::from_secs(2);
/// Timeout of one attempt to reload the log.
const RELOAD: Duration = Duration::from_secs(120);
/// Maximum number of events published at once, so that readers of the board can acquire its lock in between.
const CHUNK_EVENTS: usize = 512;

impl From<Recorded> for Published {
    fn from(recorded: Recorded) -> Self {
        let frame = Frame::event(&recorded.name, &recorded.json, Some(recorded.id));
        Self { id: Some(recorded.id), event: recorded.event, frame, at: std::time::Instant::now() }
    }
}

/// The tailer; run it as a separate task.
#[derive(Debug)]
pub struct Tailer {
    store: Store,
    log: EventLog,
    reader: LogReader,
    board: SharedBoard,
    hub: Arc<Hub>,
    callbacks: Callbacks,
    committed: mpsc::Receiver<Vec<Recorded>>,
    ephemeral: mpsc::Receiver<Vec<Event>>,
    wakes: Wakes,
    /// Consecutive failed reads.
    failures: u32,
}

/// Callbacks for each event, invoked after the board has applied it; used to wake waiting claims.
pub type Wakes = Vec<Wake>;

/// One such callback. It must return quickly and must not block.
#[derive(Clone)]
pub struct Wake(pub Arc<dyn Fn(&Event) + Send + Sync>);

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wake")
    }
}

/// Inputs of the tailer.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Memory for recent frames, bytes.
    pub ring_bytes: usize,
    /// Hooks.
    pub callbacks: Callbacks,
    /// Wake-up callbacks.
    pub wakes: Wakes,
    /// Events committed by this process.
    pub committed: mpsc::Receiver<Vec<Recorded>>,
    /// Ephemeral events of this process.
    pub ephemeral: mpsc::Receiver<Vec<Event>>,
}

/// Why publishing stopped.
#[derive(Debug, thiserror::Error)]
enum Halt {
    /// Any error of the database; the next position stays the same.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The log does not continue what was published: it has to be reloaded.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

impl Tailer {
    /// Creates a tailer with an up-to-date board.
    ///
    /// # Errors
    /// The database fails or its content is invalid.
    pub async fn start(parts: Parts) -> anyhow::Result<(Self, SharedBoard, Subscriptions)> {
        let Parts { store, ring_bytes, callbacks, wakes, committed, ephemeral } = parts;
        let hub = Arc::new(Hub::new(store.epoch(), 0, 1, ring_bytes));
        let board = SharedBoard::default();
        let log = EventLog::new(store.clone());
        let subscriptions = Subscriptions::new(hub.clone(), log.clone());
        let reader = log.reader();
        let tailer =
            Self { store, log, reader, board: board.clone(), hub, callbacks, committed, ephemeral, wakes, failures: 0 };
        let mut conn = tailer.store.connect().await?;
        tailer.load(&mut conn, tailer.store.epoch()).await?;
        Ok((tailer, board, subscriptions))
    }

    /// Rebuilds the board and the ring from the log. Readers of another epoch have to start over.
    async fn load(&self, conn: &mut PgConnection, epoch: Epoch) -> Result<(), RebuildError> {
        let Rebuilt { board: made, newest, oldest } = rebuild::rebuild(conn, epoch).await?;
        let head = made.position;
        let first = newest.first().map_or(head, |recorded| recorded.id.position - 1);
        let last = newest.last().map(|recorded| (head, Bytes::from(recorded.json.clone())));
        // Both under the board's lock: a reader that takes a snapshot continues in the same epoch.
        let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
        *board = made;
        self.hub.reset(epoch, first, oldest);
        self.hub.publish(newest.into_iter().map(Published::from).collect());
        self.store.identity().accept(epoch, last);
        drop(board);
        Ok(())
    }

    /// Follows the log until the writer of this process has stopped. If the log was replaced, or has lost its newest
    /// events, it is reloaded, as often as necessary.
    pub async fn run(mut self) {
        let mut poll = tokio::time::interval(POLL_READERS);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut suspicions = self.store.identity().suspicions();
        let mut last_read = Instant::now();
        let mut last_check = Instant::now();
        let mut pause = POLL_READERS;
        loop {
            tokio::select! {
                batch = self.committed.recv() => match batch {
                    Some(batch) => if let Err(halt) = self.own(batch).await {
                        self.halted(&halt).await;
                    },
                    None => return,
                },
                Some(events) = self.ephemeral.recv() => self.publish_ephemeral(events),
                Ok(()) = suspicions.changed() => self.reload(false).await,
                _ = poll.tick() => {
                    let due = if self.hub.readers() > 0 { pause } else { POLL_ALONE.max(pause) };
                    if last_read.elapsed() < due {
                        continue;
                    }
                    let checks = last_check.elapsed() >= CHECK;
                    if checks {
                        last_check = Instant::now();
                    }
                    pause = match self.read(checks).await {
                        Ok(()) => POLL_READERS,
                        Err(halt) => {
                            self.halted(&halt).await;
                            (pause * 2).min(LONGEST_PAUSE)
                        }
                    };
                    last_read = Instant::now();
                }
            }
        }
    }

    async fn halted(&mut self, halt: &Halt) {
        match halt {
            Halt::Database(error) => {
                tracing::warn!(%error, "event log unreadable; retrying");
                // A single broken connection does not mean that the database is down.
                self.failures += 1;
                if self.failures > 1 {
                    self.store.set_reachable(false);
                }
            }
            Halt::OutOfOrder(error) => {
                tracing::error!(%error, "event log does not continue what was published; reloading it");
                self.reload(true).await;
            }
        }
    }

    /// Reloads the log, with retries until it succeeds; only if the log has changed, unless `anyway` is set.
    async fn reload(&mut self, anyway: bool) {
        let mut pause = POLL_READERS;
        let began = Instant::now();
        // A closed channel means that the server is shutting down.
        while !self.committed.is_closed() {
            match tokio::time::timeout(RELOAD, self.try_reload(anyway)).await {
                Ok(Ok(None)) => {
                    tracing::info!("event log unchanged after all");
                    return;
                }
                Ok(Ok(Some(epoch))) => {
                    let (head, took) = (self.hub.head(), began.elapsed());
                    tracing::error!(%epoch, head, ?took, "event log reloaded with a new epoch; all clients restart");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "event log cannot be reloaded; retrying");
                }
                Err(_) => tracing::warn!("reloading the event log timed out; retrying"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_reload(&mut self, anyway: bool) -> anyhow::Result<Option<Epoch>> {
        self.reader = self.log.reader();
        let mut conn = self.store.connect_unchecked().await?;
        let identity = self.store.identity().clone();
        let epoch = match identity.ensure_epoch(&mut conn).await {
            Ok(epoch) => epoch,
            // A restore may have installed the schema of an older version.
            Err(error) if is_missing(&error) => {
                conn = self.store.connect_unchecked().await?;
                anyhow::ensure!(Store::has_log(&mut conn).await?, error);
                self.store.migrate(&mut conn).await?;
                identity.ensure_epoch(&mut conn).await?
            }
            Err(error) => return Err(error.into()),
        };
        if epoch == self.hub.epoch() && !anyway {
            // Another server only appeared to be inconsistent for a moment, such as a lagging standby.
            identity.trust();
            return Ok(None);
        }
        self.load(&mut conn, epoch).await?;
        self.store.set_reachable(true);
        self.wake_all();
        Ok(Some(epoch))
    }

    /// Makes waiting claims look again: the events that would have woken them may have been skipped.
    fn wake_all(&self) {
        let board = self.board.read().unwrap_or_else(PoisonError::into_inner);
        for name in board.queues.0.keys() {
            let mut event = Event::new(Kind::QueueResumed, Time::UNIX_EPOCH);
            event.queue = Some(name.clone());
            self.wakes.iter().for_each(|wake| (wake.0)(&event));
        }
    }

    /// Publishes a batch committed by this process: from memory if it is next in order, otherwise from the table,
    /// because events of another server come first.
    async fn own(&mut self, batch: Vec<Recorded>) -> Result<(), Halt> {
        let Some(first) = batch.first().map(|recorded| recorded.id) else { return Ok(()) };
        let end = self.hub.end();
        // The batch belongs to an ended epoch, or to one not yet known: the log decides.
        if first.epoch != end.epoch {
            return self.read(true).await;
        }
        if first.position == end.position + 1 {
            return self.publish(batch).await;
        }
        // Events of another server come first, or the batch has already been read from the table.
        if first.position > end.position { self.read(false).await } else { Ok(()) }
    }

    /// Publishes events of the log that are not published yet; with `checks`, verifies that it is the same log.
    async fn read(&mut self, checks: bool) -> Result<(), Halt> {
        if checks {
            let head = self.reader.check().await?;
            let here = self.hub.head();
            self.failures = 0;
            self.store.set_reachable(true);
            if head > here {
                self.read_gap(Some(head)).await?;
            }
        }
        self.read_gap(None).await
    }

    /// Continues reading after the last published event; at least up to `to`, which is known to be in the log.
    async fn read_gap(&mut self, to: Option<i64>) -> Result<(), Halt> {
        loop {
            let end = self.hub.end();
            let slow = tokio::time::sleep(SLOW_READ);
            let read = self.reader.page(end.epoch, end.position);
            let mut page = {
                let mut read = std::pin::pin!(read);
                tokio::select! {
                    read = &mut read => read?,
                    () = slow => {
                        // Pages need not wait for a database that does not respond.
                        self.store.set_reachable(false);
                        let page = read.await?;
                        self.store.set_reachable(true);
                        page
                    }
                }
            };
            if page.is_empty() {
                // Positions are dense: a missing one below the end of the log is lost, and readers must not wait for
                // it.
                match to.filter(|to| *to > end.position) {
                    Some(to) if end.position + 1 >= self.hub.oldest() => page = gap(end.epoch, end.position, to),
                    Some(_) | None => {
                        self.hub.checked();
                        return Ok(());
                    }
                }
            }
            self.publish(page).await?;
        }
    }

    /// Order: board, then wake-ups and hooks, then readers, so that a receiver of an event finds it on the board.
    async fn publish(&mut self, batch: Vec<Recorded>) -> Result<(), Halt> {
        let mut rest = batch.into_iter().map(Published::from).peekable();
        while rest.peek().is_some() {
            let chunk: Vec<_> = rest.by_ref().take(CHUNK_EVENTS).collect();
            {
                let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
                for published in &chunk {
                    rebuild::fold(&mut board, &published.event)?;
                }
            }
            for published in &chunk {
                for wake in &self.wakes {
                    (wake.0)(&published.event);
                }
                self.callbacks.fire(&published.event);
            }
            if let Some((id, json)) = chunk.last().and_then(|last| Some((last.id?, last.frame.shared_json()))) {
                self.store.identity().remember(id.position, json);
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
            let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
            for published in &published {
                // Events without a position are always in order.
                let _ = board.apply(&published.event);
            }
        }
        self.hub.publish_ephemeral(published);
    }
}

/// Whether an object that the current schema defines is missing.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // Undefined table, function, column.
    code.is_some_and(|code| ["42P01", "42883", "42703"].contains(&&*code))
}
