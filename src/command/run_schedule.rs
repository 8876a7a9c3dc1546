//! Running a schedule: its task is created once for each time, by the server that holds the row and finds it unmoved.

use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::{clock::Time, model::Name};

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
                let mut event = workspace.operator_event("schedule_failed", "schedule");
                event.data.schedule = Some(self.name.to_string());
                event.data.reason = Some(error.to_string());
                workspace.record(event);
            }
        }
        workspace.schedules.insert(self.name.clone(), Entry::changed(Some(schedule)));
        Ok(())
    }
}
