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
            _ => {}
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
