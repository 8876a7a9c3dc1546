//! One worker: status, what it runs, tasks that stalled on it and where they are now, its latest tasks and events.

use std::sync::Arc;

use askama::Template;
use uuid::Uuid;

use super::tasks::as_of;
use crate::page::{Content, PageError, Params, View, format};
use crate::{
    board::{running::RunningTask, workers::LastSeen},
    event::{Event, filter::PROJECT},
    feed,
    model::{
        Task,
        task_query::{Condition, TaskQuery},
        worker::WorkerStatus,
    },
    store::search,
};

/// Maximum number of running tasks listed.
const RUNNING: usize = 50;
/// Maximum number of its latest tasks.
const TASKS: i64 = 50;
/// Maximum number of events listed.
const EVENTS: usize = 50;

#[derive(Template)]
#[template(path = "worker.html")]
struct WorkerPage {
    id: Uuid,
    /// What is known of it; `None` if only tasks name it.
    seen: Option<LastSeen>,
    running: Vec<(Uuid, RunningTask)>,
    more_running: usize,
    /// Tasks that stalled on it, as they are now.
    stalled: Vec<Task>,
    tasks: Vec<Task>,
    events: Vec<Arc<Event>>,
}

pub(super) async fn render(view: &View, params: &Params) -> Result<Content, PageError> {
    let missing = || PageError::NotFound("Worker not found. Stopped and lost workers are kept for a while.".to_owned());
    let id = params.id.ok_or_else(missing)?;
    let (seen, running, events) = {
        let board = feed::read(&view.board);
        let events = board.recent.events.iter().filter(|event| event.worker_id == Some(id));
        let mut running: Vec<_> = board.running.of_worker(id).map(|(id, task)| (*id, task.clone())).collect();
        running.sort_by_key(|(id, task)| (task.started_at, *id));
        (board.workers.0.get(&id).cloned(), running, events.take(EVENTS).cloned().collect())
    };
    let query = TaskQuery { limit: TASKS, ..TaskQuery::default() };
    let mut of_worker = query.having("worker_id", Condition::Ids([id].into()));
    let projects = params.filter.projects();
    if !projects.is_empty() {
        of_worker = of_worker.having(PROJECT, Condition::Names(projects.clone()));
    }
    let mut tasks = search::page(view.store.read_permit(&of_worker).await?.pool(), &of_worker).await?.tasks;
    let pool = view.store.pool();
    let wanted: Vec<_> = seen.iter().flat_map(|seen| &seen.stalled).copied().collect();
    let mut stalled = if wanted.is_empty() { Vec::new() } else { search::some(pool, &wanted).await? };
    if let Some(moment) = params.at {
        tasks = as_of(view, tasks, moment).await?;
        stalled = as_of(view, stalled, moment).await?;
    }
    stalled.retain(|task| projects.is_empty() || projects.contains(&task.project_id));
    if seen.is_none() && tasks.is_empty() && projects.is_empty() {
        return Err(missing());
    }
    let more_running = running.len().saturating_sub(RUNNING);
    let running: Vec<_> = running.into_iter().take(RUNNING).collect();
    let page = WorkerPage { id, seen, running, more_running, stalled, tasks, events };
    Content::new(page.title(), &page)
}

impl WorkerPage {
    /// Its name, or what is left of its ID.
    fn name(&self) -> String {
        self.seen.as_ref().map_or_else(|| format::short(&self.id), |seen| seen.name.to_string())
    }

    fn title(&self) -> String {
        match self.seen.as_ref().map(|seen| seen.status) {
            Some(status @ (WorkerStatus::Lost | WorkerStatus::Stopped)) => format!("({status}) Worker {}", self.name()),
            _ => format!("Worker {}", self.name()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        model::Status,
        page::golden::{board, check_template, events_of, id, task},
    };

    #[test]
    fn the_page_of_a_worker_is_as_it_was() {
        let board = board();
        let running = board.running.0.iter().map(|(id, task)| (*id, task.clone())).collect();
        let page = WorkerPage {
            id: id(50),
            seen: board.workers.0.get(&id(50)).cloned(),
            running,
            more_running: 3,
            stalled: vec![task(5, Status::Pending)],
            tasks: vec![task(1, Status::Completed), task(2, Status::Failed)],
            events: events_of(3),
        };
        assert_eq!(page.title(), format!("Worker {}", board.workers.0[&id(50)].name));
        check_template("worker", &page);
        let unknown = WorkerPage { seen: None, stalled: Vec::new(), ..page };
        assert_eq!(unknown.title(), format!("Worker {}", format::short(&id(50))));
        assert!(unknown.render().unwrap().contains("no longer known"));
    }
}
