//! Schedules: tasks that are created again and again, by a cron expression in a time zone.

use uuid::Uuid;

use super::{Name, recurrence::Recurrence, task::NewTask};
use crate::clock::Time;

/// A recurring task.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its name.
    pub name: Name,
    /// When.
    pub cron: String,
    /// In which time zone.
    pub time_zone: String,
    /// The task to create each time.
    pub task: NewTask,
    /// Since when it does not fire.
    pub paused_at: Option<Time>,
    /// When it fires next.
    pub next_run_at: Option<Time>,
    /// The time it last fired for.
    pub last_run_at: Option<Time>,
    /// The task created then.
    pub last_task_id: Option<Uuid>,
    /// When it was created.
    pub created_at: Time,
}

/// What an operator decides about a schedule.
#[derive(Debug, Clone)]
pub enum ScheduleChange {
    /// It exists, with this content; what it did before is kept.
    Put(Box<Schedule>),
    /// It does not fire.
    Pause,
    /// It fires again.
    Resume,
    /// It goes.
    Delete,
}

impl Schedule {
    /// The first time after a moment that it runs.
    #[must_use]
    pub fn next_run_after(&self, moment: Time) -> Option<Time> {
        Recurrence::parse(&self.cron, &self.time_zone).ok()?.after(moment)
    }
}
