//! Running tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{moved, name_or_dash};
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{Name, Status, report::WorkCounts},
};

/// All running tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Running(pub BTreeMap<Uuid, RunningTask>);

/// One running task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningTask {
    /// Project.
    pub project_id: Name,
    /// Task type.
    pub task_type: Name,
    /// Its queue.
    pub queue: Name,
    /// Title.
    pub title: Option<String>,
    /// Parent task.
    pub parent_task_id: Option<Uuid>,
    /// Its phase.
    pub phase: Option<Name>,
    /// Worker.
    pub worker_id: Option<Uuid>,
    /// Attempt number.
    pub attempt: u32,
    /// Start of the attempt.
    pub started_at: Time,
    /// Progress in percent, 0–100.
    pub percent: Option<f64>,
    /// Progress message of the worker.
    pub message: Option<String>,
    /// Progress in work units.
    pub counts: Option<WorkCounts>,
    /// Stall reason, if the policy is to report stalls only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
}

impl Running {
    pub(super) fn apply(&mut self, event: &Event) {
        let Some(id) = event.task_id else { return };
        match (event.event_type, moved(event)) {
            (Kind::TaskStarted, _) => {
                self.0.insert(id, RunningTask::new(event));
            }
            (Kind::TaskProgress, _) => {
                if let Some(task) = self.0.get_mut(&id) {
                    task.percent = event.data.percent.or(task.percent);
                    task.message = event.message.clone().or_else(|| task.message.take());
                    task.counts = event.counts.or(task.counts);
                    task.stalled = None;
                }
            }
            (Kind::TaskStalled, None) => {
                if let Some(task) = self.0.get_mut(&id) {
                    task.stalled.clone_from(&event.message);
                }
            }
            (_, Some((_, to))) if to != Some(Status::Running) => {
                self.0.remove(&id);
            }
            _ => {
                // Reports may tell the project of a task later than its start.
                let told = event.project_id.as_ref().filter(|_| event.data.changes.is_some());
                if let (Some(task), Some(project)) = (self.0.get_mut(&id), told) {
                    task.project_id.clone_from(project);
                }
            }
        }
    }

    /// Running tasks of a worker.
    pub fn of_worker(&self, worker_id: Uuid) -> impl Iterator<Item = (&Uuid, &RunningTask)> {
        self.0.iter().filter(move |(_, task)| task.worker_id == Some(worker_id))
    }
}

impl RunningTask {
    fn new(event: &Event) -> Self {
        Self {
            project_id: name_or_dash(event.project_id.as_ref()),
            task_type: name_or_dash(event.task_type.as_ref()),
            queue: name_or_dash(event.queue.as_ref()),
            title: event.data.title.clone(),
            parent_task_id: event.parent_task_id,
            phase: event.phase.clone(),
            worker_id: event.worker_id,
            attempt: event.attempt.unwrap_or(1),
            started_at: event.ts,
            percent: None,
            message: None,
            counts: None,
            stalled: None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn event(kind: Kind, number: u128, from: Option<Status>, to: Option<Status>) -> Event {
        let mut event = Event::new(kind, Time::from_timestamp(1_000, 0).unwrap());
        event.task_id = Some(Uuid::from_u128(number));
        (event.old_status, event.status) = (from, to);
        event
    }

    const RUNNING: Option<Status> = Some(Status::Running);

    /// Task 1 runs.
    fn started() -> Running {
        let mut running = Running::default();
        running.apply(&event(Kind::TaskStarted, 1, Some(Status::Pending), RUNNING));
        running
    }

    fn the_task(running: &Running) -> &RunningTask {
        &running.0[&Uuid::from_u128(1)]
    }

    #[test]
    fn every_status_but_running_ends_it() {
        for to in Status::ALL.into_iter().map(Some).chain([None]) {
            let mut running = started();
            let kind = if to.is_some() { Kind::TaskUpdated } else { Kind::TaskDeleted };
            running.apply(&event(kind, 1, RUNNING, to));
            assert_eq!(running.0.is_empty(), to != RUNNING, "{to:?}");
        }
    }

    #[test]
    fn an_edit_of_a_running_task_does_not_end_it() {
        let mut running = started();
        running.apply(&event(Kind::TaskUpdated, 1, RUNNING, RUNNING));
        running.apply(&event(Kind::TaskStalled, 1, RUNNING, RUNNING));
        assert_eq!(running.0.len(), 1);
    }

    #[test]
    fn another_attempt_starts_from_nothing() {
        let mut running = started();
        let mut progress = event(Kind::TaskProgress, 1, RUNNING, RUNNING);
        (progress.data.percent, progress.message) = (Some(99.0), Some("nearly".to_owned()));
        running.apply(&progress);
        let mut again = event(Kind::TaskStarted, 1, Some(Status::Pending), RUNNING);
        again.attempt = Some(2);
        running.apply(&again);
        let task = the_task(&running);
        assert_eq!((task.attempt, task.percent, task.message.as_deref()), (2, None, None));
    }

    #[test]
    fn a_report_of_progress_ends_a_stall() {
        let mut running = started();
        let stalled = Event { message: Some("no report".to_owned()), ..event(Kind::TaskStalled, 1, RUNNING, RUNNING) };
        running.apply(&stalled);
        assert_eq!(the_task(&running).stalled.as_deref(), Some("no report"));
        running.apply(&event(Kind::TaskProgress, 1, RUNNING, RUNNING));
        assert_eq!(the_task(&running).stalled, None);
    }

    #[test]
    fn a_stall_that_ends_the_attempt_is_no_running_task() {
        let mut running = started();
        running.apply(&event(Kind::TaskStalled, 1, RUNNING, Some(Status::Pending)));
        assert!(running.0.is_empty());
    }

    #[test]
    fn progress_of_a_task_that_does_not_run_is_ignored() {
        let mut running = started();
        for kind in [Kind::TaskProgress, Kind::TaskStalled] {
            running.apply(&event(kind, 2, RUNNING, RUNNING));
        }
        running.apply(&Event { task_id: None, ..event(Kind::TaskStarted, 1, None, RUNNING) });
        assert_eq!(running, started());
    }

    #[test]
    fn an_event_without_names_shows_a_dash() {
        let running = started();
        let task = the_task(&running);
        assert_eq!([&task.project_id, &task.task_type, &task.queue], [&Name::literal("-"); 3]);
        assert_eq!(task.attempt, 1);
    }

    #[test]
    fn tasks_of_a_worker_are_those_and_no_others() {
        let mut running = Running::default();
        for (number, worker) in [(1, Some(7)), (2, Some(8)), (3, Some(7)), (4, None)] {
            let mut started = event(Kind::TaskStarted, number, Some(Status::Pending), RUNNING);
            started.worker_id = worker.map(Uuid::from_u128);
            running.apply(&started);
        }
        let of = |worker| running.of_worker(Uuid::from_u128(worker)).map(|(id, _)| id.as_u128()).collect::<Vec<_>>();
        assert_eq!((of(7), of(8), of(9)), (vec![1, 3], vec![2], vec![]));
    }
}
