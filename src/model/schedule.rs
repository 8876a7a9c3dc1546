//! Schedules: create tasks periodically, by a cron expression in a time zone.

use uuid::Uuid;

use super::{Name, recurrence::Recurrence, task::NewTask};
use crate::clock::Time;

/// A schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its name.
    pub name: Name,
    /// Cron expression.
    pub cron: String,
    /// IANA time zone.
    pub time_zone: String,
    /// Template of the task created by each run.
    pub task: NewTask,
    /// When it was paused; `None` if it is active.
    pub paused_at: Option<Time>,
    /// Time of the next run.
    pub next_run_at: Option<Time>,
    /// Scheduled time of the last run.
    pub last_run_at: Option<Time>,
    /// Task created by the last run.
    pub last_task_id: Option<Uuid>,
    /// Time of creation.
    pub created_at: Time,
}

/// A change of a schedule by an operator.
#[derive(Debug, Clone)]
pub enum ScheduleChange {
    /// Create or replace it; its run history is kept.
    Put(Box<Schedule>),
    /// Pause it.
    Pause,
    /// Resume it.
    Resume,
    /// Delete it.
    Delete,
}

impl Schedule {
    /// The first run after a moment.
    #[must_use]
    pub fn next_run_after(&self, moment: Time) -> Option<Time> {
        Recurrence::parse(&self.cron, &self.time_zone).ok()?.after(moment)
    }
}
