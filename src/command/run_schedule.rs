//! Running a schedule: its task is created once for each time, by the server that holds the row and finds it unmoved.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::{
    clock::Time,
    model::{Name, operator::OperatorAction},
};

/// Runs a schedule for one time. Missed times are made up by one run, late.
#[derive(Debug, Clone)]
pub struct RunSchedule {
    /// The schedule.
    pub name: Name,
    /// The time that it runs for.
    pub at: Time,
    /// Id of the task to create.
    pub task_id: Uuid,
    /// Parent of the task to create.
    pub parent_task_id: Option<Uuid>,
    /// Unique key of the task to create.
    pub unique_key: Option<String>,
}

impl Command for RunSchedule {
    type Answer = ();

    fn locks(&self, locks: &mut LockSet) {
        locks.schedules.insert(self.name.clone());
        locks.parents.extend(self.parent_task_id);
        locks.keys.extend(self.unique_key.clone());
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        let now = workspace.now;
        let known = workspace.schedules.get(&self.name).and_then(|entry| entry.row.as_ref());
        let is_due = |at: Time| at == self.at && at <= now;
        let Some(known) = known.filter(|known| known.paused_at.is_none() && known.next_run_at.is_some_and(is_due))
        else {
            return Ok(());
        };
        let mut schedule = known.clone();
        schedule.next_run_at = schedule.next_run_after(now);
        schedule.last_run_at = Some(self.at);
        let mut task = schedule.task.clone();
        task.id = self.task_id;
        match workspace.create(std::slice::from_ref(&task), Some(&self.name)) {
            Ok(tasks) => schedule.last_task_id = tasks.first().map(|created| created.task.id),
            // A deleted parent, say: the schedule continues, and an operator can see why no task was created.
            Err(error) => {
                let mut event = workspace.operator_event(OperatorAction::ScheduleFailed, "schedule");
                event.data.schedule = Some(self.name.to_string());
                event.data.reason = Some(error.to_string());
                workspace.record(event);
            }
        }
        workspace.schedules.insert(self.name.clone(), Entry::changed(Some(schedule)));
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        command::{
            change_schedule::tests::{change, schedule},
            rows::{Rows, id},
        },
        model::schedule::ScheduleChange,
    };

    fn run(rows: &mut Rows, at: Time, number: u128) {
        let name = Name::literal("s");
        rows.run(&RunSchedule { name, at, task_id: id(number), parent_task_id: None, unique_key: None }).unwrap();
    }

    fn put(rows: &mut Rows) -> Time {
        let hourly = schedule(rows, "0 * * * *");
        change(rows, ScheduleChange::Put(Box::new(hourly))).unwrap().unwrap().next_run_at.unwrap()
    }

    #[test]
    fn a_run_creates_one_task_however_often_it_is_asked_for() {
        let mut rows = Rows::new();
        let at = put(&mut rows);
        rows.now = at;
        run(&mut rows, at, 1);
        assert_eq!(rows.events[0].data.schedule.as_deref(), Some("s"));
        run(&mut rows, at, 2);
        assert_eq!(rows.tasks.len(), 1);
        assert_eq!(rows.schedules["s"].last_task_id, Some(id(1)));
    }

    #[test]
    fn missed_runs_are_made_up_once() {
        let mut rows = Rows::new();
        let at = put(&mut rows);
        rows.passes(10 * 3_600);
        run(&mut rows, at, 1);
        assert!(rows.schedules["s"].next_run_at.is_some_and(|next| next > rows.now));
    }

    #[test]
    fn it_does_not_run_early_or_while_paused() {
        let mut rows = Rows::new();
        let at = put(&mut rows);
        run(&mut rows, at, 1);
        change(&mut rows, ScheduleChange::Pause).unwrap();
        rows.now = at;
        run(&mut rows, at, 1);
        assert!(rows.tasks.is_empty());
    }

    #[test]
    fn a_task_that_cannot_be_created_is_said_and_the_schedule_continues() {
        let mut rows = Rows::new();
        let mut orphan = schedule(&rows, "0 * * * *");
        orphan.task.parent_task_id = Some(id(9));
        let put = change(&mut rows, ScheduleChange::Put(Box::new(orphan))).unwrap().unwrap();
        let at = put.next_run_at.unwrap();
        rows.now = at;
        run(&mut rows, at, 1);
        assert_eq!(rows.events[0].data.action.as_deref(), Some("schedule_failed"));
        assert!(rows.schedules["s"].next_run_at > Some(at));
    }

    #[test]
    fn a_unique_key_lets_no_second_task_begin_before_the_first_has_finished() {
        let mut rows = Rows::new();
        let mut keyed = schedule(&rows, "0 * * * *");
        keyed.task.unique_key = Some("k".to_owned());
        let first = change(&mut rows, ScheduleChange::Put(Box::new(keyed))).unwrap().unwrap().next_run_at.unwrap();
        let run_keyed = |rows: &mut Rows, at, number| {
            let unique_key = Some("k".to_owned());
            let run =
                RunSchedule { name: Name::literal("s"), at, task_id: id(number), parent_task_id: None, unique_key };
            rows.run(&run).unwrap();
        };
        rows.now = first;
        run_keyed(&mut rows, first, 1);
        let second = rows.schedules["s"].next_run_at.unwrap();
        rows.now = second;
        run_keyed(&mut rows, second, 2);
        assert_eq!((rows.tasks.len(), rows.schedules["s"].last_run_at), (1, Some(second)));
        assert_eq!(rows.schedules["s"].last_task_id, Some(id(1)), "the task that the run found");
    }

    #[test]
    fn only_the_run_that_is_due_counts() {
        let mut rows = Rows::new();
        let at = put(&mut rows);
        rows.now = at + chrono::TimeDelta::hours(1);
        for other in [at - chrono::TimeDelta::hours(1), at + chrono::TimeDelta::hours(1), rows.now] {
            run(&mut rows, other, 1);
        }
        assert!(rows.tasks.is_empty());
        change(&mut rows, ScheduleChange::Delete).unwrap();
        run(&mut rows, at, 1);
        assert!(rows.tasks.is_empty(), "and none of a schedule that was deleted");
    }

    #[test]
    fn a_run_says_which_time_it_was_for() {
        let mut rows = Rows::new();
        let at = put(&mut rows);
        rows.now = at + chrono::TimeDelta::minutes(90);
        run(&mut rows, at, 7);
        let ran = &rows.schedules["s"];
        assert_eq!((ran.last_run_at, ran.next_run_at), (Some(at), Some(at + chrono::TimeDelta::hours(2))));
        assert_eq!(rows.tasks[&id(7)].created_at, rows.now);
    }
}
