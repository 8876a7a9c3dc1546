//! Machines, their workers, their connectors.

use std::collections::BTreeMap;

use askama::Template;
use uuid::Uuid;

use super::{Content, PageError, Params, View};
use crate::{
    board::{Board, running::RunningTask, workers::Seen},
    feed,
    model::{Name, worker::WorkerStatus},
};

#[derive(Template)]
#[template(path = "workers.html")]
struct Workers {
    machines: BTreeMap<Name, Vec<Row>>,
    left: Vec<Row>,
    online: usize,
    heartbeat_seconds: u32,
    url: String,
}

struct Row {
    id: Uuid,
    seen: Seen,
    tasks: Vec<(Uuid, RunningTask)>,
}

pub(super) fn render(view: &View, _: &Params) -> Result<Content, PageError> {
    let (rows, online) = {
        let board = feed::read(&view.board);
        (rows(&board), board.workers.online())
    };
    // Who left in order is no news; who was lost is.
    let (left, present): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.seen.status == WorkerStatus::Stopped);
    let mut machines: BTreeMap<Name, Vec<Row>> = BTreeMap::new();
    for row in present {
        machines.entry(row.seen.machine_id.clone()).or_default().push(row);
    }
    let page = Workers { machines, left, online, heartbeat_seconds: view.heartbeat_seconds, url: view.url.clone() };
    Ok(Content { title: format!("({online} online) Workers"), html: page.render()? })
}

fn rows(board: &Board) -> Vec<Row> {
    let row = |(id, seen): (&Uuid, &Seen)| {
        let tasks = board.running.of_worker(*id).map(|(id, task)| (*id, task.clone())).collect();
        Row { id: *id, seen: seen.clone(), tasks }
    };
    let mut rows: Vec<_> = board.workers.0.iter().map(row).collect();
    rows.sort_by(|a, b| {
        let key = |row: &Row| (!row.seen.status.is_online(), row.seen.name.clone(), row.id);
        key(a).cmp(&key(b))
    });
    rows
}
