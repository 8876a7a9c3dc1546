//! The single writer: commands from a bounded channel, all queued ones in one transaction (group commit).
//!
//! There is no timer: the next batch accumulates while the previous one commits. A caller is answered only after the
//! commit is durable.

mod connection;
mod line;
mod pending;
mod run;
mod transaction;

use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::mpsc;

use line::Line;
use pending::Job;
pub(in crate::store) use pending::Pending;
pub use run::WriterLoop;

use super::{Store, WriteError, latency::Latency, ready_queue::ScanStart, recorded::Recorded, writing::Writing};
use crate::{
    clock::Clock,
    command::{Command, WriterPolicy},
};

/// Channel capacity, commands.
const CHANNEL_COMMANDS: usize = 8_192;
/// Maximum number of commands per transaction.
pub const MAX_BATCH: usize = 512;
/// How long a caller waits for the database before it gets [`WriteError::Unavailable`] and has to retry.
const CALLER_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout of one transaction, and of a connect or a commit alone. The server's own timeouts are shorter, but they do
/// not help on a dead connection.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(45);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Once writes have failed for this long, callers are refused immediately.
const REFUSE_AFTER: Duration = Duration::from_secs(2);
/// A transaction that has waited for this long is diagnosed.
const DIAGNOSE_AFTER: Duration = Duration::from_secs(2);
/// After this long without a write, the database is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum delay between attempts to reconnect.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Counters of the writer, for `/metrics` and the benchmarks.
#[derive(Debug, Default)]
pub struct WriterCounters {
    /// Commands applied or refused.
    pub commands: AtomicU64,
    /// Transactions committed.
    pub batches: AtomicU64,
    /// Events appended.
    pub events: AtomicU64,
    /// Transactions that failed and were retried.
    pub retries: AtomicU64,
    /// Commands that panicked.
    pub panics: AtomicU64,
    /// Latency of commits.
    pub commits: Latency,
}

/// Handle of the writer. Cheap to clone; the writer stops when all handles are dropped.
#[derive(Debug, Clone)]
pub struct Writer {
    channel: mpsc::Sender<Box<dyn Pending>>,
    counters: Arc<WriterCounters>,
    writing: Writing,
}

impl Writer {
    /// Creates a writer and its loop. Committed events are offered to `committed` immediately; if the channel is full,
    /// they are only in the log, where the tailer finds them. `max_batch` is [`MAX_BATCH`] except in benchmarks.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        policy: WriterPolicy,
        max_batch: usize,
        committed: mpsc::Sender<Vec<Recorded>>,
    ) -> (Self, WriterLoop) {
        let epoch = store.epoch();
        let writing = Writing::new(clock.clone());
        let (sender, channel) = mpsc::channel(CHANNEL_COMMANDS);
        let counters = Arc::new(WriterCounters::default());
        let writer = WriterLoop {
            channel,
            line: Line::default(),
            store,
            clock,
            policy,
            epoch,
            max_batch,
            conn: None,
            known_head: 0,
            scan: ScanStart::default(),
            known_queues: HashSet::new(),
            writing: writing.clone(),
            committed,
            undo: sender.downgrade(),
            counters: counters.clone(),
        };
        (Self { channel: sender, counters, writing }, writer)
    }

    /// Submits a command and waits until its transaction is durable.
    ///
    /// # Errors
    /// [`WriteError`]: nothing was written, except for [`WriteError::Unavailable`], where the outcome is unknown.
    pub async fn run<C: Command>(&self, command: C) -> Result<C::Answer, WriteError> {
        if let Some(failing) = self.writing.failing_for(REFUSE_AFTER) {
            return Err(WriteError::NotWriting(failing.reason));
        }
        let (job, answer) = Job::new(command);
        self.channel.try_send(job).map_err(|_| WriteError::Busy)?;
        match tokio::time::timeout(CALLER_TIMEOUT, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(WriteError::Unavailable),
        }
    }

    /// Whether the database accepts writes.
    #[must_use]
    pub const fn writing(&self) -> &Writing {
        &self.writing
    }

    /// Number of queued commands.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.channel.max_capacity() - self.channel.capacity()
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &WriterCounters {
        &self.counters
    }
}

/// What became of a batch that the database did not refuse.
enum Persisted {
    /// It is durable.
    Durable,
    /// Nothing was written: every caller has gone away while the database was.
    Abandoned,
}
