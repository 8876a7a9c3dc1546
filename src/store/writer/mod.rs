//! The one writer: commands from a bounded channel, as many as wait, in one transaction (group commit).
//!
//! There is no timer: the next batch forms while the last one commits. A caller is answered after the commit is
//! durable, never before.

mod connection;
mod line;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};

use line::Line;

pub use super::batch::Rules;
use super::{
    Store,
    batch::{Batch, Memory, Saved},
    command::{Answer, Command, Request, WriteError},
    connect::limited,
    identity::Changed,
    latency::Latency,
    log::{self, Recorded},
    write_failure::{Panicked, in_words, is_fault_of_batch, is_panic, is_taken, is_too_slow},
    writing::Writing,
};
use crate::{clock::Clock, event::envelope::Epoch};

/// Commands that may wait.
const CHANNEL: usize = 8_192;
/// Commands in one transaction.
pub const MAX_BATCH: usize = 512;
/// How long a caller waits for the database before it is told to repeat.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest time of one transaction, and of a connection or a commit alone. The server's own limits are shorter, but a
/// connection whose other end is gone never hears of them.
const TRANSACTION: Duration = Duration::from_secs(45);
const ANSWER: Duration = Duration::from_secs(15);
/// While the database has refused writes for so long, callers are told at once.
const REFUSE_AFTER: Duration = Duration::from_secs(2);
/// A transaction that has waited for so long is looked at.
const DIAGNOSE_AFTER: Duration = Duration::from_secs(2);
/// The database is asked whether it takes writes when nothing was written for so long.
const PROBE: Duration = Duration::from_secs(5);
/// Longest pause between attempts to reach the database.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the writer has done, for `/metrics` and the benchmarks.
#[derive(Debug, Default)]
pub struct WriterCounters {
    /// Commands carried out or refused.
    pub commands: AtomicU64,
    /// Transactions committed.
    pub batches: AtomicU64,
    /// Events appended.
    pub events: AtomicU64,
    /// Transactions that failed and were tried again.
    pub retries: AtomicU64,
    /// Commands that the program failed on.
    pub panics: AtomicU64,
    /// Time of commits.
    pub commits: Latency,
}

/// The way to the writer. Cheap to clone; when all are gone, the writer ends.
#[derive(Debug, Clone)]
pub struct Writer {
    channel: mpsc::Sender<Request>,
    counters: Arc<WriterCounters>,
    writing: Writing,
}

/// The writer's own side: run it in a task of its own.
#[derive(Debug)]
pub struct WriterLoop {
    channel: mpsc::Receiver<Request>,
    line: Line<Request>,
    store: Store,
    clock: Clock,
    rules: Rules,
    epoch: Epoch,
    max_batch: usize,
    conn: Option<PgConnection>,
    known_head: i64,
    memory: Memory,
    writing: Writing,
    committed: mpsc::Sender<Vec<Recorded>>,
    release: mpsc::WeakSender<Request>,
    counters: Arc<WriterCounters>,
}

impl Writer {
    /// A writer and its loop. Committed events are offered to `committed` at once; when that is full they are only
    /// in the log, where the tailer finds them. `max_batch` is [`MAX_BATCH`] but in benchmarks.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        rules: Rules,
        max_batch: usize,
        committed: mpsc::Sender<Vec<Recorded>>,
    ) -> (Self, WriterLoop) {
        let epoch = store.epoch();
        let writing = Writing::new(clock.clone());
        let (sender, channel) = mpsc::channel(CHANNEL);
        let counters = Arc::new(WriterCounters::default());
        let writer = WriterLoop {
            channel,
            line: Line::default(),
            store,
            clock,
            rules,
            epoch,
            max_batch,
            conn: None,
            known_head: 0,
            memory: Memory::default(),
            writing: writing.clone(),
            committed,
            release: sender.downgrade(),
            counters: counters.clone(),
        };
        (Self { channel: sender, counters, writing }, writer)
    }

    /// Hands in a command and waits until its transaction is durable.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written then, but for [`WriteError::Unavailable`], where nobody knows.
    pub async fn write(&self, command: Command) -> Result<Answer, WriteError> {
        if let Some(failing) = self.writing.failing_for(REFUSE_AFTER) {
            return Err(WriteError::NotWriting(failing.reason));
        }
        let (reply, answer) = oneshot::channel();
        self.channel.try_send(Request { command, reply }).map_err(|_| WriteError::Busy)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(WriteError::Unavailable),
        }
    }

    /// Whether the database takes writes.
    #[must_use]
    pub const fn writing(&self) -> &Writing {
        &self.writing
    }

    /// Commands that wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.channel.max_capacity() - self.channel.capacity()
    }

    /// What the writer has done so far.
    #[must_use]
    pub fn counters(&self) -> &WriterCounters {
        &self.counters
    }
}

/// The outcome of a transaction, per command.
type Outcomes = Vec<Result<Answer, WriteError>>;

/// A transaction that only lacks its commit; with its id when there are events.
struct Prepared {
    outcomes: Outcomes,
    xid: Option<String>,
    recorded: Vec<Recorded>,
    queues: Vec<crate::model::Name>,
}

impl WriterLoop {
    /// Writes until every [`Writer`] is gone.
    pub async fn run(mut self) {
        loop {
            while self.line.has_room(self.max_batch)
                && let Ok(request) = self.channel.try_recv()
            {
                self.stand(request);
            }
            let began = Instant::now();
            let batch = self.line.next(self.max_batch, began);
            if !batch.is_empty() {
                self.write(batch).await;
                self.line.took(began.elapsed(), Instant::now());
                continue;
            }
            let probe = tokio::time::sleep(self.until_probe());
            let turn = self.line.turn();
            let turn = async {
                tokio::time::sleep_until(turn?.into()).await;
                Some(())
            };
            tokio::select! {
                received = self.channel.recv() => match received {
                    Some(request) => self.stand(request),
                    None if self.line.is_empty() => return,
                    None => self.line.close(),
                },
                Some(()) = turn => {}
                () = probe => self.probe().await,
            }
        }
    }

    /// Gives a request its place in the line.
    fn stand(&mut self, request: Request) {
        let weight = request.command.weight();
        if let Err(refused) = self.line.push(request, weight, Instant::now()) {
            let _ = refused.reply.send(Err(WriteError::Busy));
        }
    }

    /// Writes a batch; one that the database refuses is cut in halves, down to the command at fault.
    async fn write(&mut self, batch: Vec<Request>) {
        let mut pieces = vec![batch];
        let mut again = 3;
        while let Some(mut piece) = pieces.pop() {
            // A caller that has gone away does not get tasks that no worker would work on.
            piece.retain(|request| !request.reply.is_closed());
            if piece.is_empty() {
                continue;
            }
            match self.persist(&piece).await {
                Ok(outcomes) => self.answer(piece, outcomes),
                // Someone else created the same at the same time: now it is there to be found.
                Err(error) if is_taken(&error) && again > 0 => {
                    again -= 1;
                    pieces.push(piece);
                }
                Err(error) if is_taken(&error) && piece.len() == 1 => {
                    self.answer(piece, vec![Err(WriteError::KeyTaken)]);
                }
                Err(error) if piece.len() > 1 => {
                    tracing::warn!(%error, commands = piece.len(), "a batch was refused; trying it in halves");
                    let second = piece.split_off(piece.len() / 2);
                    pieces.push(second);
                    pieces.push(piece);
                }
                Err(error) if is_panic(&error) => {
                    self.counters.panics.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(command = ?piece[0].command, "the program failed on a command");
                    self.answer(piece, vec![Err(WriteError::Internal)]);
                }
                Err(error) if is_too_slow(&error) => {
                    tracing::error!(command = ?piece[0].command, "a command took too long");
                    self.answer(piece, vec![Err(WriteError::TooSlow)]);
                }
                Err(error) => {
                    tracing::error!(%error, "a command was refused by the database");
                    let outcome = Err(WriteError::Database(error.to_string()));
                    self.answer(piece, vec![outcome]);
                }
            }
        }
    }

    fn answer(&self, piece: Vec<Request>, outcomes: Outcomes) {
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters.commands.fetch_add(piece.len() as u64, Ordering::Relaxed);
        for (request, outcome) in piece.into_iter().zip(outcomes) {
            if let Err(Ok(Answer::Claimed { tasks, .. })) = request.reply.send(outcome) {
                self.give_back(&tasks);
            }
        }
    }

    /// A claim whose caller went away while it was written: its tasks go back at once.
    fn give_back(&self, claimed: &[crate::model::Task]) {
        if claimed.is_empty() {
            return;
        }
        let fences = claimed.iter().filter_map(|task| {
            let fence = crate::model::report::Fence { worker_id: task.worker_id?, attempt: task.attempt };
            Some((task.id, crate::model::transition::Command::Release { fence }))
        });
        let command = Command::Tasks { changes: fences.collect(), actor: None };
        if let Some(sender) = self.release.upgrade() {
            let (reply, answer) = oneshot::channel();
            // The answer is of no interest, but a closed channel would make the writer skip the command.
            tokio::spawn(answer);
            let _ = sender.try_send(Request { command, reply });
        }
    }

    /// Carries the batch through, over as many connections as it takes. Fails only when the database says that the
    /// batch itself is wrong.
    async fn persist(&mut self, batch: &[Request]) -> sqlx::Result<Outcomes> {
        let mut pause = Duration::from_millis(20);
        loop {
            self.writing.begins();
            let attempted = self.attempt(batch).await;
            self.writing.ends();
            let error = match attempted {
                Ok(outcomes) => {
                    self.writing.succeeds();
                    return Ok(outcomes);
                }
                Err(error) => error,
            };
            if is_fault_of_batch(&error) {
                return Err(error);
            }
            self.conn = None;
            self.writing.fails(&in_words(&error));
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, commands = batch.len(), "the database did not take a batch; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if batch.iter().all(|request| request.reply.is_closed()) {
                return Ok(Vec::new());
            }
        }
    }

    async fn attempt(&mut self, batch: &[Request]) -> sqlx::Result<Outcomes> {
        if self.epoch != self.store.epoch() {
            // Read anew by the tailer; the connection may lead to the server that was left.
            self.conn = None;
        }
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let commands: Vec<_> = batch.iter().map(|request| &request.command).collect();
        let prepared = self.prepare_watched(&mut conn, &commands).await;
        let Prepared { outcomes, xid, recorded, queues } = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // What the database refused costs its own answer, not the connection with all its statements.
                if error.as_database_error().is_some()
                    && is_fault_of_batch(&error)
                    && limited(ANSWER, async { sqlx::query!("ROLLBACK").execute(&mut conn).await }).await.is_ok()
                {
                    self.conn = Some(conn);
                }
                return Err(error);
            }
        };
        let began = Instant::now();
        let committed = limited(ANSWER, async { sqlx::query!("COMMIT").execute(&mut conn).await }).await;
        self.counters.commits.add(began.elapsed());
        let Some(xid) = xid else {
            committed?;
            self.conn = Some(conn);
            return Ok(outcomes);
        };
        match committed {
            Ok(_) => self.conn = Some(conn),
            Err(error) => {
                drop(conn);
                if !self.took_place(&xid, &recorded).await {
                    return Err(error);
                }
            }
        }
        self.memory.queues.extend(queues);
        self.known_head = recorded.last().map_or(self.known_head, |last| last.id.position);
        self.counters.events.fetch_add(recorded.len() as u64, Ordering::Relaxed);
        // A full channel is no loss: the tailer reads the log.
        let _ = self.committed.try_send(recorded);
        Ok(outcomes)
    }

    /// As [`Self::prepare`], bounded; a panic is an error of the batch. What keeps it waiting is looked up.
    async fn prepare_watched(&mut self, conn: &mut PgConnection, commands: &[&Command]) -> sqlx::Result<Prepared> {
        let (writing, store) = (self.writing.clone(), self.store.clone());
        let prepare = AssertUnwindSafe(self.prepare(conn, commands)).catch_unwind();
        let mut prepare = std::pin::pin!(limited(TRANSACTION, async {
            prepare.await.unwrap_or_else(|_| Err(sqlx::Error::Configuration(Box::new(Panicked))))
        }));
        match tokio::time::timeout(DIAGNOSE_AFTER, &mut prepare).await {
            Ok(prepared) => prepared,
            Err(_) => tokio::join!(prepare, writing.diagnose(store.pool())).0,
        }
    }

    /// Everything of a transaction but its commit.
    async fn prepare(&mut self, conn: &mut PgConnection, commands: &[&Command]) -> sqlx::Result<Prepared> {
        // A head that was read before the lock was taken would not do, whatever the database's default is (law 2).
        sqlx::query!("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *conn).await?;
        let now = self.clock.now();
        let mut loaded = Batch::load(conn, &mut self.memory, &self.rules, commands, now).await?;
        let outcomes: Outcomes = commands.iter().map(|command| loaded.apply(command)).collect();
        let Saved { drafts, queues } = loaded.save(conn, &self.memory).await?;
        if drafts.is_empty() {
            return Ok(Prepared { outcomes, xid: None, recorded: Vec::new(), queues });
        }
        // Last thing before commit: the lock of the log, then, in a new statement, its head (law 2).
        let locked = log::lock(conn, self.known_head).await?;
        if locked.epoch != self.epoch || locked.head < self.known_head {
            let changed = if locked.epoch == self.epoch {
                Changed::Lost(self.known_head)
            } else {
                Changed::Epoch { known: self.epoch, found: locked.epoch }
            };
            let text = changed.to_string();
            self.store.identity().suspect(changed);
            return Err(sqlx::Error::Protocol(text));
        }
        let recorded = log::append(conn, self.epoch, locked.head, drafts).await?;
        Ok(Prepared { outcomes, xid: Some(locked.xid), recorded, queues })
    }
}
