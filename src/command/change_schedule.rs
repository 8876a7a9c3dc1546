//! Creating, changing, pausing, resuming and deleting a schedule.

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::{
    clock::Time,
    model::{
        Name,
        schedule::{Schedule, ScheduleChange},
    },
};

/// An operator changes a schedule.
#[derive(Debug, Clone)]
pub struct ChangeSchedule {
    /// The schedule.
    pub name: Name,
    /// How it is changed.
    pub change: ScheduleChange,
    /// Who asked.
    pub actor: String,
}

impl Command for ChangeSchedule {
    /// The schedule as it is now; `None` when it was deleted.
    type Answer = Option<Schedule>;

    fn locks(&self, locks: &mut LockSet) {
        locks.schedules.insert(self.name.clone());
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<Option<Schedule>, Refusal> {
        let now = workspace.now;
        let known = workspace.schedules.get(&self.name).and_then(|entry| entry.row.clone());
        let existing = || known.clone().ok_or_else(|| Refusal::NoSchedule(self.name.clone()));
        let (after, action) = match &self.change {
            ScheduleChange::Put(new) => (Some(put(known.as_ref(), new, now)), "put_schedule"),
            ScheduleChange::Pause => {
                let known = existing()?;
                (Some(Schedule { paused_at: known.paused_at.or(Some(now)), ..known }), "pause_schedule")
            }
            ScheduleChange::Resume => {
                let known = existing()?;
                let next_run_at = known.next_run_after(now);
                (Some(Schedule { paused_at: None, next_run_at, ..known }), "resume_schedule")
            }
            ScheduleChange::Delete => {
                existing()?;
                (None, "delete_schedule")
            }
        };
        let mut event = workspace.operator_event(action, &self.actor);
        event.data.schedule = Some(self.name.to_string());
        workspace.record(event);
        workspace.schedules.insert(self.name.clone(), Entry::changed(after.clone()));
        Ok(after)
    }
}

/// A schedule with new content; what it did before is kept.
fn put(known: Option<&Schedule>, new: &Schedule, now: Time) -> Schedule {
    let mut schedule = new.clone();
    let Some(known) = known else {
        schedule.next_run_at = schedule.next_run_after(now);
        return schedule;
    };
    schedule.created_at = known.created_at;
    (schedule.last_run_at, schedule.last_task_id) = (known.last_run_at, known.last_task_id);
    schedule.paused_at = known.paused_at.filter(|_| new.paused_at.is_some()).or(new.paused_at);
    // A run that is due is not missed because something else was edited.
    let same_times = known.cron == new.cron && known.time_zone == new.time_zone;
    schedule.next_run_at = known.next_run_at.filter(|_| same_times).or_else(|| schedule.next_run_after(now));
    schedule
}
