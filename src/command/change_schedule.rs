//! Creating, changing, pausing, resuming and deleting a schedule.

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::{
    clock::Time,
    model::{
        Name,
        operator::OperatorAction,
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
            ScheduleChange::Put(new) => (Some(put(known.as_ref(), new, now)), OperatorAction::PutSchedule),
            ScheduleChange::Pause => {
                let known = existing()?;
                (Some(Schedule { paused_at: known.paused_at.or(Some(now)), ..known }), OperatorAction::PauseSchedule)
            }
            ScheduleChange::Resume => {
                let known = existing()?;
                let next_run_at = known.next_run_after(now);
                (Some(Schedule { paused_at: None, next_run_at, ..known }), OperatorAction::ResumeSchedule)
            }
            ScheduleChange::Delete => {
                existing()?;
                (None, OperatorAction::DeleteSchedule)
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
pub(super) mod tests {
    use super::*;
    use crate::command::rows::{Rows, new_task};

    pub(in crate::command) fn schedule(rows: &Rows, cron: &str) -> Schedule {
        Schedule {
            name: Name::literal("s"),
            cron: cron.to_owned(),
            time_zone: "UTC".to_owned(),
            task: new_task(1),
            paused_at: None,
            next_run_at: None,
            last_run_at: None,
            last_task_id: None,
            created_at: rows.now,
        }
    }

    pub(in crate::command) fn change(rows: &mut Rows, change: ScheduleChange) -> Result<Option<Schedule>, Refusal> {
        rows.run(&ChangeSchedule { name: Name::literal("s"), change, actor: "ops".to_owned() })
    }

    #[test]
    fn a_due_run_is_not_missed_because_something_else_was_edited() {
        let mut rows = Rows::new();
        let hourly = schedule(&rows, "0 * * * *");
        let first = change(&mut rows, ScheduleChange::Put(Box::new(hourly.clone()))).unwrap().unwrap().next_run_at;
        rows.passes(7_200);
        let mut edited = hourly.clone();
        edited.task.title = Some("other".to_owned());
        let kept = change(&mut rows, ScheduleChange::Put(Box::new(edited))).unwrap().unwrap();
        assert_eq!((kept.next_run_at, kept.created_at), (first, hourly.created_at));
        let daily = schedule(&rows, "0 0 * * *");
        let moved = change(&mut rows, ScheduleChange::Put(Box::new(daily))).unwrap().unwrap();
        assert!(moved.next_run_at.is_some_and(|at| at > rows.now));
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        let mut rows = Rows::new();
        for missing in [ScheduleChange::Pause, ScheduleChange::Resume, ScheduleChange::Delete] {
            assert_eq!(change(&mut rows, missing).unwrap_err(), Refusal::NoSchedule(Name::literal("s")));
        }
    }

    #[test]
    fn a_resumed_schedule_does_not_make_up_for_its_pause() {
        let mut rows = Rows::new();
        let hourly = schedule(&rows, "0 * * * *");
        change(&mut rows, ScheduleChange::Put(Box::new(hourly))).unwrap();
        change(&mut rows, ScheduleChange::Pause).unwrap();
        rows.passes(86_400);
        let resumed = change(&mut rows, ScheduleChange::Resume).unwrap().unwrap();
        assert!(resumed.paused_at.is_none() && resumed.next_run_at.is_some_and(|at| at > rows.now));
        change(&mut rows, ScheduleChange::Delete).unwrap();
        assert!(rows.schedules.is_empty());
        assert_eq!(rows.events[0].data.action.as_deref(), Some("delete_schedule"));
    }
}
