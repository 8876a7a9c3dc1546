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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::{
        clock::Time,
        event::{Event, Kind},
        model::Status,
    };

    /// Registers a worker, with the queues that it declares.
    fn register(board: &mut Board, number: u128, status: WorkerStatus, queues: &[&'static str]) {
        let mut event = Event::new(Kind::WorkerStarted, Time::UNIX_EPOCH);
        event.position = Some(board.position + 1);
        event.worker_id = Some(Uuid::from_u128(number));
        event.data.status = Some(Name::literal(status.as_str()));
        event.data.queues = Some(queues.iter().map(|queue| Name::literal(queue)).collect());
        board.apply(&Arc::new(event)).unwrap();
    }

    /// A worker claims a task of a queue.
    fn claims(board: &mut Board, worker: u128, queue: &'static str) {
        let mut event = Event::new(Kind::TaskStarted, Time::UNIX_EPOCH);
        event.position = Some(board.position + 1);
        (event.task_id, event.worker_id) = (Some(Uuid::max()), Some(Uuid::from_u128(worker)));
        (event.queue, event.status) = (Some(Name::literal(queue)), Some(Status::Running));
        board.apply(&Arc::new(event)).unwrap();
    }

    fn at(serving: &Serving<'_>, queue: &'static str) -> usize {
        serving.at(&Name::literal(queue))
    }

    #[test]
    fn nobody_serves_without_workers() {
        assert_eq!(at(&Serving::taking(&Board::default()), "a"), 0);
    }

    #[test]
    fn a_worker_serves_what_it_declared_and_nothing_else() {
        let mut board = Board::default();
        register(&mut board, 1, WorkerStatus::Idle, &["a", "b", "a"]);
        register(&mut board, 2, WorkerStatus::Active, &["b"]);
        let serving = Serving::taking(&board);
        assert_eq!([at(&serving, "a"), at(&serving, "b"), at(&serving, "c")], [1, 2, 0]);
    }

    #[test]
    fn a_worker_that_declares_nothing_may_serve_all_until_it_claims() {
        let mut board = Board::default();
        register(&mut board, 1, WorkerStatus::Idle, &[]);
        assert_eq!(at(&Serving::taking(&board), "whatever"), 1);
        claims(&mut board, 1, "a");
        let serving = Serving::taking(&board);
        assert_eq!([at(&serving, "a"), at(&serving, "whatever")], [1, 0]);
    }

    #[test]
    fn a_claim_beside_the_declared_queues_counts_once() {
        let mut board = Board::default();
        register(&mut board, 1, WorkerStatus::Idle, &["a"]);
        for queue in ["a", "b", "b"] {
            claims(&mut board, 1, queue);
        }
        let serving = Serving::taking(&board);
        assert_eq!([at(&serving, "a"), at(&serving, "b")], [1, 1]);
    }

    #[test]
    fn a_draining_worker_is_online_and_claims_nothing() {
        let mut board = Board::default();
        for (number, status) in (0..).zip(WorkerStatus::ALL.iter().copied()) {
            register(&mut board, number, status, &["a"]);
        }
        assert_eq!(at(&Serving::taking(&board), "a"), 3, "starting, idle, active");
        assert_eq!(at(&Serving::online(&board), "a"), 4, "and draining");
    }
}
