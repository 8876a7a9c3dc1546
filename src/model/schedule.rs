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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_that_cannot_be_read_has_no_next_run() {
        let schedule = |cron: &str, time_zone: &str| Schedule {
            name: Name::literal("s"),
            cron: cron.to_owned(),
            time_zone: time_zone.to_owned(),
            task: NewTask::plain(Uuid::nil(), Name::literal("t"), Name::literal("q")),
            paused_at: None,
            next_run_at: None,
            last_run_at: None,
            last_task_id: None,
            created_at: Time::UNIX_EPOCH,
        };
        let next =
            |cron: &str, zone: &str| schedule(cron, zone).next_run_after(Time::UNIX_EPOCH).map(|at| at.timestamp());
        assert_eq!(next("0 * * * *", "UTC"), Some(3_600), "after a moment, not at it");
        assert_eq!(next("0 6 * * *", "Asia/Kolkata"), Some(1_800));
        for (cron, zone) in [("", "UTC"), ("0 * * * *", "Mars/Base"), ("0 0 30 2 *", "UTC")] {
            assert_eq!(next(cron, zone), None, "{cron} {zone}");
        }
    }
}
