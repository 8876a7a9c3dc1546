//! What a batch has to write where: tasks before and after, sorted into the tables that they touch.

use uuid::Uuid;

use super::batch::TaskEntry;
use crate::model::{Status, Task, lease::Lease};

/// What has to be written where.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub(super) inserted: Vec<&'a Task>,
    pub(super) updated: Vec<&'a Task>,
    pub(super) deleted: Vec<Uuid>,
    pub(super) ready: Vec<&'a Task>,
    pub(super) unready: Vec<Uuid>,
    pub(super) leased: Vec<(&'a Task, Uuid, &'a Lease)>,
    pub(super) unleased: Vec<Uuid>,
}

impl<'a> Rows<'a> {
    /// Sorts one task in; `taken` tells that a claim took its row out of `ready` already.
    pub(super) fn sort(&mut self, id: Uuid, entry: &'a TaskEntry, taken: bool) {
        match (&entry.before, &entry.after) {
            (None, Some(after)) => self.inserted.push(after),
            (Some(before), Some(after)) if row_changed(before, after) => self.updated.push(after),
            (Some(_), None) => self.deleted.push(id),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let in_line = |task: &Option<Task>| task.as_ref().is_some_and(|task| task.status == Status::Pending);
        match (in_line(&entry.before) && !taken, &entry.after) {
            (false, Some(after)) if after.status == Status::Pending => self.ready.push(after),
            (true, Some(after)) if after.status == Status::Pending => {}
            (true, _) => self.unready.push(id),
            (false, _) => {}
        }
        let held = entry.before.as_ref().and_then(|task| Some((task.attempt, task.lease.as_ref()?)));
        let holds = entry.after.as_ref().and_then(|task| Some((task, task.worker_id?, task.lease.as_ref()?)));
        match (held, holds) {
            (Some((attempt, lease)), Some((task, ..)))
                if attempt == task.attempt && Some(lease) == task.lease.as_ref() => {}
            (_, Some(holds)) => self.leased.push(holds),
            (Some(_), None) => self.unleased.push(id),
            (None, None) => {}
        }
    }
}

/// The state machine touched something that is a column of `tasks` (a lease is not).
fn row_changed(before: &Task, after: &Task) -> bool {
    before.status != after.status
        || before.attempt != after.attempt
        || before.outcome != after.outcome
        || before.retry_count != after.retry_count
        || before.is_parent != after.is_parent
        || before.run_at != after.run_at
        || before.enqueued_at != after.enqueued_at
}
