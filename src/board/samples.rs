//! What the tests of the board begin with: a time, a running task, a worker, a board after some events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::TimeDelta;

use super::{Board, running::RunningTask, workers::LastSeen};
use crate::{
    clock::Time,
    event::Event,
    model::{Name, worker::WorkerStatus},
};

/// Seconds since 1970 at which the stories begin: a full hour, so that a bucket of every range begins.
pub(super) const START: i64 = 1_800_000_000;

/// So many seconds after the start.
pub(super) fn at(seconds: i64) -> Time {
    Time::UNIX_EPOCH + TimeDelta::seconds(START + seconds)
}

/// A task that has just started.
pub(super) fn running() -> RunningTask {
    RunningTask {
        project_id: Name::literal("p"),
        task_type: Name::literal("mail"),
        queue: Name::literal("mails"),
        title: None,
        parent_task_id: None,
        phase: None,
        worker_id: None,
        attempt: 1,
        started_at: at(0),
        percent: None,
        message: None,
        counts: None,
        stalled: None,
    }
}

/// A worker that has just sent a heartbeat.
pub(super) fn worker(status: WorkerStatus) -> LastSeen {
    LastSeen {
        name: Name::literal("w1"),
        machine_id: Name::literal("rack"),
        queues: Vec::new(),
        took_from: BTreeSet::new(),
        version: None,
        status,
        since: at(0),
        started_at: at(0),
        completed: 0,
        failed: 0,
        stalled: std::collections::VecDeque::new(),
        connectors: BTreeMap::new(),
        last_seen_at: Some(at(0)),
    }
}

/// A board after some events, which get their positions here.
pub(super) fn folded(events: impl IntoIterator<Item = Event>) -> Board {
    let mut board = Board::default();
    for mut event in events {
        event.position = Some(board.position + 1);
        board.apply(&Arc::new(event)).expect("the positions are dense");
    }
    board
}
