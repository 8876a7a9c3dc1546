//! The writer's loop: which commands are written next, and how a failed batch is handled.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::{Job, Line, Pending, Persisted, WriterCounters};
use crate::{
    clock::Clock,
    command::{Refusal, WriterPolicy, change_tasks::ChangeTasks},
    event::envelope::Epoch,
    model::Name,
    store::{
        Store, WriteError,
        ready_queue::ScanStart,
        recorded::Recorded,
        write_failure::{is_panic, is_taken, is_too_slow},
        writing::Writing,
    },
};

/// Maximum retries of a batch that conflicts with IDs or unique keys taken concurrently by another server.
const MAX_RETRIES_OF_TAKEN: u32 = 3;

/// The writer's loop; run it as a separate task.
#[derive(Debug)]
pub struct WriterLoop {
    pub(super) channel: mpsc::Receiver<Box<dyn Pending>>,
    pub(super) line: Line<Box<dyn Pending>>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) policy: WriterPolicy,
    pub(super) epoch: Epoch,
    pub(super) max_batch: usize,
    pub(super) conn: Option<PgConnection>,
    pub(super) known_head: i64,
    pub(super) scan: ScanStart,
    /// Queues that already have a row.
    pub(super) known_queues: HashSet<Name>,
    pub(super) writing: Writing,
    pub(super) committed: mpsc::Sender<Vec<Recorded>>,
    pub(super) undo: mpsc::WeakSender<Box<dyn Pending>>,
    pub(super) counters: Arc<WriterCounters>,
}

impl WriterLoop {
    /// Runs until every [`super::Writer`] is dropped.
    pub async fn run(mut self) {
        loop {
            while self.line.has_room(self.max_batch)
                && let Ok(command) = self.channel.try_recv()
            {
                self.queue(command);
            }
            let began = Instant::now();
            let batch = self.line.next(self.max_batch, began);
            if !batch.is_empty() {
                self.write(batch).await;
                self.line.took(began.elapsed(), Instant::now());
                continue;
            }
            let probe = tokio::time::sleep(self.until_probe());
            let turn = self.line.held_back_until();
            let turn = async {
                tokio::time::sleep_until(turn?.into()).await;
                Some(())
            };
            tokio::select! {
                received = self.channel.recv() => match received {
                    Some(command) => self.queue(command),
                    None if self.line.is_empty() => return,
                    None => self.line.close(),
                },
                Some(()) = turn => {}
                () = probe => self.probe().await,
            }
        }
    }

    fn queue(&mut self, command: Box<dyn Pending>) {
        let weight = command.weight();
        if let Err(refused) = self.line.push(command, weight, Instant::now()) {
            refused.fail(WriteError::Busy);
        }
    }

    /// Writes a batch; one that the database rejects is bisected down to the command at fault.
    async fn write(&mut self, batch: Vec<Box<dyn Pending>>) {
        let mut pieces = vec![batch];
        let mut retries = 0;
        while let Some(mut piece) = pieces.pop() {
            // A caller that has gone away must not get tasks that no worker would run.
            piece.retain(|command| !command.is_abandoned());
            if piece.is_empty() {
                continue;
            }
            match self.persist(&mut piece).await {
                Ok(Persisted::Durable) => self.answer(piece),
                // What a failed attempt decided must not be undone: it was not written.
                Ok(Persisted::Abandoned) => {}
                // Another server created the same ID or key concurrently: on retry it is found.
                Err(error) if is_taken(&error) && retries < MAX_RETRIES_OF_TAKEN => {
                    retries += 1;
                    pieces.push(piece);
                }
                Err(error) if is_taken(&error) && piece.len() == 1 => self.fail(piece, &Refusal::KeyTaken.into()),
                Err(error) if piece.len() > 1 => {
                    tracing::warn!(%error, commands = piece.len(), "batch rejected; bisecting");
                    let second = piece.split_off(piece.len() / 2);
                    pieces.push(second);
                    pieces.push(piece);
                }
                Err(error) if is_panic(&error) => {
                    self.counters.panics.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(command = ?piece[0], "command panicked");
                    self.fail(piece, &WriteError::Internal);
                }
                Err(error) if is_too_slow(&error) => {
                    tracing::error!(command = ?piece[0], "command timed out");
                    self.fail(piece, &WriteError::TooSlow);
                }
                Err(error) => {
                    tracing::error!(%error, "command rejected by the database");
                    self.fail(piece, &WriteError::Database(error.to_string()));
                }
            }
        }
    }

    fn count(&self, piece: &[Box<dyn Pending>]) {
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters.commands.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }

    fn answer(&self, piece: Vec<Box<dyn Pending>>) {
        self.count(&piece);
        for undo in piece.into_iter().filter_map(|command| command.answer()) {
            self.undo(undo);
        }
    }

    fn fail(&self, piece: Vec<Box<dyn Pending>>, error: &WriteError) {
        self.count(&piece);
        piece.into_iter().for_each(|command| command.fail(error.clone()));
    }

    /// Submits the command that undoes one whose caller went away during the write.
    fn undo(&self, command: ChangeTasks) {
        if let Some(sender) = self.undo.upgrade() {
            let (job, answer) = Job::new(command);
            // The answer is ignored, but a command without a receiver would count as abandoned.
            tokio::spawn(answer);
            let _ = sender.try_send(job);
        }
    }
}
