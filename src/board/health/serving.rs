//! Which workers serve which queues.

use std::collections::HashMap;

use crate::{
    board::Board,
    model::{Name, worker::WorkerStatus},
};

/// Number of workers per queue, computed once for all queues.
#[derive(Debug)]
pub struct Serving<'a> {
    /// Workers that listed no queues and claimed nothing may serve any queue.
    any: usize,
    by_queue: HashMap<&'a Name, usize>,
}

impl<'a> Serving<'a> {
    /// Workers that claim new tasks.
    #[must_use]
    pub fn taking(board: &'a Board) -> Self {
        Self::of(board, |status| status.is_online() && status != WorkerStatus::Draining)
    }

    /// Workers that are expected to send heartbeats.
    #[must_use]
    pub fn online(board: &'a Board) -> Self {
        Self::of(board, WorkerStatus::is_online)
    }

    fn of(board: &'a Board, counts: impl Fn(WorkerStatus) -> bool) -> Self {
        let mut serving = Self { any: 0, by_queue: HashMap::new() };
        for worker in board.workers.0.values().filter(|worker| counts(worker.status)) {
            serving.any += usize::from(worker.serves_any());
            for queue in worker.serves() {
                *serving.by_queue.entry(queue).or_default() += 1;
            }
        }
        serving
    }

    /// Number of workers that serve a queue.
    #[must_use]
    pub fn at(&self, queue: &Name) -> usize {
        self.any + self.by_queue.get(queue).copied().unwrap_or_default()
    }
}
