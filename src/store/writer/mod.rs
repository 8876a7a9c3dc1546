//! The one writer: commands from a bounded channel, as many as wait, in one transaction (group commit).
//!
//! There is no timer: the next batch forms while the last one commits. A caller is answered after the commit is
//! durable, never before.

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

use super::{Store, WriteError, latency::Latency, ready::ScanStart, recorded::Recorded, writing::Writing};
use crate::{
    clock::Clock,
    command::{Command, WriterPolicy},
};

/// Commands that may wait.
const CHANNEL_COMMANDS: usize = 8_192;
/// Commands in one transaction.
pub const MAX_BATCH: usize = 512;
/// How long a caller waits for the database before it is asked to repeat.
const CALLER_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time of one transaction, and of a connection or a commit alone. The server's own limits are shorter, but a
/// connection whose other end is gone never hears of them.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(45);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Once the database has refused writes for so long, callers are refused at once.
const REFUSE_AFTER: Duration = Duration::from_secs(2);
/// A transaction that has waited for so long is looked at.
const DIAGNOSE_AFTER: Duration = Duration::from_secs(2);
/// The database is asked whether it takes writes when nothing was written for so long.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest pause between attempts to reach the database.
const MAX_PAUSE: Duration = Duration::from_secs(1);

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
    channel: mpsc::Sender<Box<dyn Pending>>,
    counters: Arc<WriterCounters>,
    writing: Writing,
}

impl Writer {
    /// A writer and its loop. Committed events are offered to `committed` at once; when that is full they are only
    /// in the log, where the tailer finds them. `max_batch` is [`MAX_BATCH`] but in benchmarks.
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

    /// Hands in a command and waits until its transaction is durable.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written then, but for [`WriteError::Unavailable`], where that is not known.
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
