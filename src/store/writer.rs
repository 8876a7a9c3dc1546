//! The one writer: commands from a bounded channel, as many as wait, in one transaction (group commit).
//!
//! There is no timer: the next batch forms while the last one commits. A caller is answered after the commit is
//! durable, never before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};

pub use super::batch::Rules;
use super::{
    Store,
    batch::{Batch, Memory, Saved},
    command::{Answer, Command, Request, WriteError},
    connect::limited,
    latency::Latency,
    log::{self, Recorded},
};
use crate::{clock::Clock, event::envelope::Epoch};

/// Commands that may wait.
const CHANNEL: usize = 8_192;
/// Commands in one transaction.
pub const MAX_BATCH: usize = 512;
/// Rows in one transaction, about.
const MAX_WEIGHT: usize = 4_096;
/// How long a caller waits for the database before it is told to repeat.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest time of one transaction, and of a connection or a commit alone. The server's own limits are shorter, but a
/// connection whose other end is gone never hears of them.
const TRANSACTION: Duration = Duration::from_secs(45);
const ANSWER: Duration = Duration::from_secs(15);
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
    /// Time of commits.
    pub commits: Latency,
}

/// The way to the writer. Cheap to clone; when all are gone, the writer ends.
#[derive(Debug, Clone)]
pub struct Writer {
    channel: mpsc::Sender<Request>,
    counters: Arc<WriterCounters>,
}

/// The writer's own side: run it in a task of its own.
#[derive(Debug)]
pub struct WriterLoop {
    channel: mpsc::Receiver<Request>,
    waiting: Vec<Request>,
    store: Store,
    clock: Clock,
    rules: Rules,
    epoch: Epoch,
    max_batch: usize,
    conn: Option<PgConnection>,
    known_head: i64,
    memory: Memory,
    log_changed: bool,
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
        epoch: Epoch,
        max_batch: usize,
        committed: mpsc::Sender<Vec<Recorded>>,
    ) -> (Self, WriterLoop) {
        let (sender, channel) = mpsc::channel(CHANNEL);
        let counters = Arc::new(WriterCounters::default());
        let writer = WriterLoop {
            channel,
            waiting: Vec::new(),
            store,
            clock,
            rules,
            epoch,
            max_batch,
            conn: None,
            known_head: 0,
            memory: Memory::default(),
            log_changed: false,
            committed,
            release: sender.downgrade(),
            counters: counters.clone(),
        };
        (Self { channel: sender, counters }, writer)
    }

    /// Hands in a command and waits until its transaction is durable.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written then, but for [`WriteError::Unavailable`], where nobody knows.
    pub async fn write(&self, command: Command) -> Result<Answer, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.channel.try_send(Request { command, reply }).map_err(|_| WriteError::Busy)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(WriteError::Unavailable),
        }
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

/// The log was replaced or lost its newest events while taskwatch ran (restored, or failed over to a server that lagged).
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the event log was replaced or lost its newest events while taskwatch ran; start it again to read it anew")]
pub struct LogChanged;

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
    ///
    /// # Errors
    /// [`LogChanged`] when the log is not the one it began with; nothing is written then.
    pub async fn run(mut self) -> Result<(), LogChanged> {
        loop {
            if self.waiting.is_empty() && self.channel.recv_many(&mut self.waiting, self.max_batch).await == 0 {
                return Ok(());
            }
            while self.waiting.len() < self.max_batch {
                let Ok(request) = self.channel.try_recv() else { break };
                self.waiting.push(request);
            }
            let mut weight = 0;
            let fits = self.waiting.iter().take(self.max_batch).take_while(|request| {
                let first = weight == 0;
                weight += request.command.weight();
                first || weight <= MAX_WEIGHT
            });
            let rest = self.waiting.split_off(fits.count());
            let batch = std::mem::replace(&mut self.waiting, rest);
            self.write(batch).await;
            if self.log_changed {
                return Err(LogChanged);
            }
        }
    }

    /// Writes a batch; one that the database refuses is cut in halves, down to the command at fault.
    async fn write(&mut self, batch: Vec<Request>) {
        let mut pieces = vec![batch];
        let mut again = 3;
        while let Some(mut piece) = pieces.pop() {
            // Whoever has gone away does not get tasks that nobody would work on.
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
            let error = match self.attempt(batch).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(error) => error,
            };
            if self.log_changed {
                tracing::error!("{LogChanged}");
                return Ok(batch.iter().map(|_| Err(WriteError::Unavailable)).collect());
            }
            if is_fault_of_batch(&error) {
                return Err(error);
            }
            self.conn = None;
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, commands = batch.len(), "the database did not take a batch; trying again");
            if batch.iter().all(|request| request.reply.is_closed()) {
                return Ok(Vec::new());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&mut self, batch: &[Request]) -> sqlx::Result<Outcomes> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let commands: Vec<_> = batch.iter().map(|request| &request.command).collect();
        let prepared = limited(TRANSACTION, self.prepare(&mut conn, &commands)).await?;
        let Prepared { outcomes, xid, recorded, queues } = prepared;
        let began = std::time::Instant::now();
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
        if locked.head < self.known_head {
            self.log_changed = true;
            return Err(sqlx::Error::Protocol(LogChanged.to_string()));
        }
        let recorded = log::append(conn, self.epoch, locked.head, drafts).await?;
        Ok(Prepared { outcomes, xid: Some(locked.xid), recorded, queues })
    }

    /// Asks until the database knows what became of a commit that it did not answer.
    async fn took_place(&mut self, xid: &str, recorded: &[Recorded]) -> bool {
        let Some(first) = recorded.first() else { return false };
        let mut pause = Duration::from_millis(20);
        loop {
            if self.log_changed {
                return false;
            }
            if let Ok(mut conn) = self.connect().await
                && let Ok(Some(settled)) = limited(ANSWER, log::settled(&mut conn, xid, first)).await
            {
                self.conn = Some(conn);
                return settled;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A connection of the writer's own. Whatever goes wrong here is not the fault of a batch.
    async fn connect(&mut self) -> sqlx::Result<PgConnection> {
        let connected = limited(ANSWER, self.prepared_connection()).await;
        let (conn, epoch) = connected.map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?;
        if epoch != self.epoch {
            self.log_changed = true;
            return Err(sqlx::Error::Protocol(LogChanged.to_string()));
        }
        Ok(conn)
    }

    async fn prepared_connection(&self) -> sqlx::Result<(PgConnection, Epoch)> {
        let mut conn = self.store.connect().await?;
        // A writer that hangs must not keep the log's lock: Postgres ends it. What is acknowledged is durable, whatever
        // the database's default is. Its statements go to rows by their keys; plans are made once, when the tables may
        // still be empty, and must not be full scans then.
        sqlx::query!(
            "SELECT set_config('idle_in_transaction_session_timeout', '10s', false) AS idle,
                    set_config('lock_timeout', '10s', false) AS lock,
                    set_config('statement_timeout', '30s', false) AS statement,
                    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                        ELSE current_setting('synchronous_commit') END, false) AS durable,
                    set_config('plan_cache_mode', 'force_generic_plan', false) AS plans,
                    set_config('enable_seqscan', 'off', false) AS scans,
                    set_config('enable_hashjoin', 'off', false) AS hashes,
                    set_config('enable_mergejoin', 'off', false) AS merges"
        )
        .fetch_one(&mut conn)
        .await?;
        let epoch = log::epoch(&mut conn).await?;
        Ok((conn, epoch))
    }
}

/// A task with this id or unique key exists.
fn is_taken(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    matches!(constraint, Some("tasks_unique" | "tasks_pkey"))
}

/// True for errors that the same batch would meet again: bad data (22), broken constraints (23), and other classes that
/// are about the statement. Connection losses, shutdowns, deadlocks and time-outs are not.
fn is_fault_of_batch(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // 40: serialisation and deadlock, 53: out of resources, 55: lock not available, 57: shutdown and cancel,
            // 58: system error, 08: connection, 25P03: idle in transaction.
            !["40", "53", "55", "57", "58", "08", "25"].iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Encode(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. } => true,
        _ => false,
    }
}
