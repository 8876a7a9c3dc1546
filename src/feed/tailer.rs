//! The one publisher: reads the log forward, hands each event on once, strictly in order.
//!
//! What this process just committed comes from memory when it is the next position; everything else by a bounded read
//! of the table, which also carries what other servers wrote. The poll is the carrier; wake-ups only shorten it.

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

/// Poll while someone follows live.
const POLL_READERS: Duration = Duration::from_millis(20);
/// Poll while nobody does.
const POLL_ALONE: Duration = Duration::from_secs(1);
/// Longest pause while the database does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the log's identity and the database's clock are looked at.
const CHECK: Duration = Duration::from_secs(1);
/// A read that takes longer tells that the database does not answer.
const SLOW_READ: Duration = Duration::from_secs(2);
/// Longest time of one attempt to read the log anew.
const RELOAD: Duration = Duration::from_secs(120);
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
    store: Store,
    log: EventLog,
    reader: LogReader,
    board: SharedBoard,
    hub: Arc<Hub>,
    callbacks: Callbacks,
    committed: mpsc::Receiver<Vec<Recorded>>,
    ephemeral: mpsc::Receiver<Vec<Event>>,
    wakes: Wakes,
    /// Reads that failed in a row.
    failures: u32,
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

/// What the tailer is made of, but for what it makes itself.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
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

/// Why the next events cannot be published yet.
#[derive(Debug, thiserror::Error)]
enum Halt {
    /// The database does not answer; what is next stays next.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The log does not continue what was published: it has to be read anew.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

impl Tailer {
    /// A tailer whose board is up to date.
    ///
    /// # Errors
    /// When the database does not answer or cannot be read.
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

    /// Makes the board and the ring what the log says now. Whoever follows another epoch has to begin anew.
    async fn load(&self, conn: &mut PgConnection, epoch: Epoch) -> Result<(), RebuildError> {
        let Rebuilt { board: made, newest, oldest } = rebuild::rebuild(conn, epoch).await?;
        let head = made.position;
        let first = newest.first().map_or(head, |recorded| recorded.id.position - 1);
        let last = newest.last().map(|recorded| (head, Bytes::from(recorded.json.clone())));
        // Both under the board's lock: who takes a snapshot continues it in the same epoch.
        let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
        *board = made;
        self.hub.reset(epoch, first, oldest);
        self.hub.publish(newest.into_iter().map(Published::from).collect());
        self.store.identity().accept(epoch, last);
        drop(board);
        Ok(())
    }

    /// Follows the log until the writer of this process has ended. A log that was replaced, or has lost its newest
    /// events, is read anew, as often as it takes.
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
                tracing::warn!(%error, "the log cannot be read; trying again");
                // One broken connection says nothing about the database.
                self.failures += 1;
                if self.failures > 1 {
                    self.store.set_reachable(false);
                }
            }
            Halt::OutOfOrder(error) => {
                tracing::error!(%error, "the log does not continue what was published; it is read anew");
                self.reload(true).await;
            }
        }
    }

    /// Reads the log anew, until that succeeds; only when it has changed, unless there is another reason.
    async fn reload(&mut self, anyway: bool) {
        let mut pause = POLL_READERS;
        let began = Instant::now();
        // Without a writer the server is ending.
        while !self.committed.is_closed() {
            match tokio::time::timeout(RELOAD, self.try_reload(anyway)).await {
                Ok(Ok(None)) => {
                    tracing::info!("the event log is the known one after all");
                    return;
                }
                Ok(Ok(Some(epoch))) => {
                    let (head, took) = (self.hub.head(), began.elapsed());
                    tracing::error!(%epoch, head, ?took, "the event log was read anew; all readers begin again");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "the log cannot be read anew yet; trying again");
                }
                Err(_) => tracing::warn!("reading the log anew takes too long; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_reload(&mut self, anyway: bool) -> anyhow::Result<Option<Epoch>> {
        self.reader = self.log.reader();
        let mut conn = self.store.connect_unchecked().await?;
        let identity = self.store.identity().clone();
        let epoch = match identity.settle(&mut conn).await {
            Ok(epoch) => epoch,
            // A restore may have brought the schema of an older version.
            Err(error) if is_missing(&error) => {
                conn = self.store.connect_unchecked().await?;
                anyhow::ensure!(Store::has_log(&mut conn).await?, error);
                self.store.migrate(&mut conn).await?;
                identity.settle(&mut conn).await?
            }
            Err(error) => return Err(error.into()),
        };
        if epoch == self.hub.epoch() && !anyway {
            // Another server looked worse for a moment, such as a standby that lags.
            identity.trust();
            return Ok(None);
        }
        self.load(&mut conn, epoch).await?;
        self.store.set_reachable(true);
        self.wake_all();
        Ok(Some(epoch))
    }

    /// Claims that wait look again: what they were to be woken by may have been passed over.
    fn wake_all(&self) {
        let board = self.board.read().unwrap_or_else(PoisonError::into_inner);
        for name in board.queues.0.keys() {
            let mut event = Event::new(Kind::QueueResumed, Time::UNIX_EPOCH);
            event.queue = Some(name.clone());
            self.wakes.iter().for_each(|wake| (wake.0)(&event));
        }
    }

    /// A batch that this process committed: from memory when it is the next one, else from the table, because another
    /// server's events come first.
    async fn own(&mut self, batch: Vec<Recorded>) -> Result<(), Halt> {
        let Some(first) = batch.first().map(|recorded| recorded.id) else { return Ok(()) };
        let end = self.hub.end();
        // A batch of an epoch that is over, or of one that is not known yet: the log says which.
        if first.epoch != end.epoch {
            return self.read(true).await;
        }
        if first.position == end.position + 1 {
            return self.publish(batch).await;
        }
        // Another server's events come first, or the batch was read from the table already.
        if first.position > end.position { self.read(false).await } else { Ok(()) }
    }

    /// Publishes what is in the log and was not published yet; when asked to, makes sure that it is the same log.
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

    /// Reads on from what was published; up to `to` at least, which is known to be in the log.
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
                        // Pages need not wait for the same database.
                        self.store.set_reachable(false);
                        let page = read.await?;
                        self.store.set_reachable(true);
                        page
                    }
                }
            };
            if page.is_empty() {
                // Positions are dense: what is not there below the end of the log is lost, and readers must not wait for it.
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

    /// Board first, then wake-ups and hooks, then readers: whoever is told of an event finds it on the board.
    async fn publish(&mut self, batch: Vec<Recorded>) -> Result<(), Halt> {
        let mut rest = batch.into_iter().map(Published::from).peekable();
        while rest.peek().is_some() {
            let chunk: Vec<_> = rest.by_ref().take(CHUNK).collect();
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
                // Without a position it is always in order.
                let _ = board.apply(&published.event);
            }
        }
        self.hub.publish_ephemeral(published);
    }
}

/// Something that the schema of this version has is not there.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // Undefined table, function, column.
    code.is_some_and(|code| ["42P01", "42883", "42703"].contains(&&*code))
}
