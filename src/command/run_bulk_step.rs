//! One step of a bulk action.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Command, LockSet, Refusal, Workspace, workspace::Entry};
use crate::model::bulk::{Bulk, BulkAction, BulkState, BulkStep};

/// Runs one step of a bulk action, unless another server did it before.
#[derive(Debug, Clone)]
pub struct RunBulkStep(pub BulkStep);

impl Command for RunBulkStep {
    type Answer = ();

    fn locks(&self, locks: &mut LockSet) {
        locks.bulks.insert(self.0.id);
        locks.tasks.extend(&self.0.ids);
        locks.retried.extend(self.0.ids.iter().filter(|_| self.0.retries));
    }

    fn weight(&self) -> usize {
        self.0.ids.len()
    }

    fn dependency_roots(&self, workspace: &Workspace) -> Vec<Uuid> {
        let retried = self.0.ids.iter().filter(|_| self.0.retries);
        retried.filter(|id| workspace.has_dependencies(**id)).copied().collect()
    }

    fn apply(&self, workspace: &mut Workspace) -> Result<(), Refusal> {
        let step = &self.0;
        let Some(mut bulk) = workspace.bulks.get(&step.id).map(|entry| entry.row.clone()) else { return Ok(()) };
        if bulk.state != BulkState::Running || bulk.before != step.from {
            return Ok(());
        }
        if let Some(family) = &step.family {
            workspace.create_bulk(family);
        }
        for id in &step.ids {
            if workspace.run_bulk(&bulk, *id) {
                bulk.succeeded += 1;
            } else {
                bulk.failed += 1;
            }
        }
        let pause = bulk.max_per_second.map_or(0, |pace| 1_000 * step.ids.len() as u64 / u64::from(pace));
        bulk.next_at = workspace.now + TimeDelta::milliseconds(i64::try_from(pause).unwrap_or_default());
        match step.to {
            Some(place) => {
                bulk.before = place;
                workspace.bulks.insert(bulk.id, Entry::changed(bulk));
            }
            None => {
                let actor = bulk.actor.clone();
                workspace.end_bulk(&mut bulk, BulkState::Done, &actor);
            }
        }
        Ok(())
    }
}

impl Workspace {
    /// Does to one task what the action does; whether that could be done. The task may have changed since it was found.
    fn run_bulk(&mut self, bulk: &Bulk, id: Uuid) -> bool {
        let reopened = self.task(id).is_some_and(|task| task.auto_complete && !task.status.is_finished());
        if reopened && bulk.action == BulkAction::RetryFamily {
            return true;
        }
        if let Some(statuses) = bulk.filter.statuses()
            && self.task(id).is_none_or(|task| !statuses.contains(&task.status))
        {
            return false;
        }
        self.change(id, bulk.action.transition(), Some(&bulk.actor)).is_ok()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        command::rows::after,
        model::{lease::StallReason, task::NewTask, transition::Transition},
    };
    use crate::{
        command::{
            cancel_bulk::CancelBulk,
            create_bulk::CreateBulk,
            rows::{Rows, id, new_task},
        },
        model::{Status, task_query::TaskQuery},
    };

    fn begin(rows: &mut Rows, query: TaskQuery) -> Bulk {
        let action = BulkAction::Cancel { reason: None };
        let bulk = Bulk::new(id(50), action, query, "ops".to_owned(), rows.now);
        let bulk = Bulk { max_per_second: Some(2), ..bulk };
        rows.run(&CreateBulk(Box::new(bulk.clone()))).unwrap();
        bulk
    }

    fn step(bulk: &Bulk, numbers: &[u128], is_last: bool, rows: &Rows) -> RunBulkStep {
        let to = (!is_last).then_some((rows.now, id(1)));
        let ids = numbers.iter().copied().map(id).collect();
        RunBulkStep(BulkStep { id: bulk.id, from: bulk.before, ids, retries: false, family: None, to })
    }

    #[test]
    fn a_step_is_done_once_and_keeps_the_pace() {
        let mut rows = Rows::new();
        rows.create([new_task(1), new_task(2), new_task(3)]);
        let bulk = begin(&mut rows, TaskQuery::default());
        let first = step(&bulk, &[3, 2], false, &rows);
        rows.run(&first).unwrap();
        rows.run(&first).unwrap();
        assert!(rows.events.is_empty(), "another server was faster");
        let stored = rows.bulks[&bulk.id].clone();
        assert_eq!((stored.succeeded, stored.next_at), (2, rows.now + TimeDelta::seconds(1)));
        rows.run(&step(&stored, &[1], true, &rows)).unwrap();
        let ended = &rows.bulks[&bulk.id];
        assert_eq!((ended.state, ended.succeeded, ended.finished_at), (BulkState::Done, 3, Some(rows.now)));
        assert_eq!(rows.events.last().unwrap().data.succeeded, Some(3));
    }

    #[test]
    fn what_changed_since_it_was_found_counts_as_failed() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let bulk = begin(&mut rows, TaskQuery::default().in_status([Status::Failed]));
        rows.run(&step(&bulk, &[1, 9], true, &rows)).unwrap();
        assert_eq!((rows.bulks[&bulk.id].failed, rows.status(1)), (2, Status::Pending));
    }

    #[test]
    fn a_cancelled_action_does_no_more() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let bulk = begin(&mut rows, TaskQuery::default());
        let cancel = CancelBulk { id: bulk.id, actor: "ops".to_owned() };
        assert_eq!(rows.run(&cancel).unwrap().state, BulkState::Cancelled);
        rows.run(&step(&bulk, &[1], true, &rows)).unwrap();
        assert_eq!(rows.status(1), Status::Pending);
        let unknown = CancelBulk { id: id(51), actor: "ops".to_owned() };
        assert_eq!(rows.run(&unknown).unwrap_err(), Refusal::NoBulk(id(51)));
    }

    fn begin_with(rows: &mut Rows, action: BulkAction) -> Bulk {
        let bulk = Bulk::new(id(50), action, TaskQuery::default(), "ops".to_owned(), rows.now);
        rows.run(&CreateBulk(Box::new(bulk.clone()))).unwrap();
        bulk
    }

    #[test]
    fn without_a_pace_the_next_step_is_due_at_once() {
        let mut rows = Rows::new();
        rows.create([new_task(1), new_task(2)]);
        let bulk = begin_with(&mut rows, BulkAction::Cancel { reason: None });
        rows.run(&step(&bulk, &[2], false, &rows)).unwrap();
        assert_eq!(rows.bulks[&bulk.id].next_at, rows.now);
    }

    #[test]
    fn a_step_of_many_tasks_pauses_as_long_as_its_pace_says() {
        for (pace, tasks, millis) in [(1, 3, 3_000), (3, 1, 333), (10_000, 3, 0), (u32::MAX, 3, 0)] {
            let mut rows = Rows::new();
            rows.create((1..=tasks).map(new_task));
            let action = BulkAction::Cancel { reason: None };
            let bulk = Bulk::new(id(50), action, TaskQuery::default(), "ops".to_owned(), rows.now);
            let bulk = Bulk { max_per_second: Some(pace), ..bulk };
            rows.run(&CreateBulk(Box::new(bulk.clone()))).unwrap();
            rows.run(&step(&bulk, &(1..=tasks).collect::<Vec<_>>(), false, &rows)).unwrap();
            assert_eq!(rows.bulks[&bulk.id].next_at, rows.now + TimeDelta::milliseconds(millis), "{pace} a second");
        }
    }

    #[test]
    fn a_step_without_tasks_may_be_the_last() {
        let mut rows = Rows::new();
        let bulk = begin_with(&mut rows, BulkAction::Delete);
        rows.run(&step(&bulk, &[], true, &rows)).unwrap();
        let ended = &rows.bulks[&bulk.id];
        assert_eq!((ended.state, ended.succeeded, ended.failed), (BulkState::Done, 0, 0));
        assert_eq!(rows.kinds(), ["operator_action"]);
    }

    #[test]
    fn a_step_of_an_action_that_was_deleted_does_nothing() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let bulk = begin_with(&mut rows, BulkAction::Delete);
        rows.bulks.clear();
        rows.run(&step(&bulk, &[1], true, &rows)).unwrap();
        assert_eq!((rows.tasks.len(), rows.events.len()), (1, 0));
    }

    #[test]
    fn tasks_that_are_retried_together_wait_for_each_other_again() {
        let mut rows = Rows::new();
        rows.create([new_task(1), after(2, &[1])]);
        for number in [2, 1] {
            rows.change(number, Transition::Cancel { reason: None }).unwrap();
        }
        let bulk = begin_with(&mut rows, BulkAction::Retry);
        let RunBulkStep(both) = step(&bulk, &[1, 2], true, &rows);
        rows.run(&RunBulkStep(BulkStep { retries: true, ..both })).unwrap();
        assert_eq!((rows.status(1), rows.status(2)), (Status::Pending, Status::Blocked));
    }

    #[test]
    fn a_retry_of_a_family_counts_an_open_parent_as_done() {
        let mut rows = Rows::new();
        rows.create([NewTask { auto_complete: true, ..new_task(1) }, new_task(2)]);
        let bulk = Bulk::of_family(id(50), &BulkAction::Retry, vec![id(9)], "ops".to_owned(), rows.now);
        rows.run(&CreateBulk(Box::new(bulk.clone()))).unwrap();
        rows.run(&step(&bulk, &[1, 2], true, &rows)).unwrap();
        let ended = &rows.bulks[&bulk.id];
        assert_eq!((ended.succeeded, ended.failed), (1, 1), "the other one is not finished");
    }

    #[test]
    fn the_children_of_a_step_get_an_action_of_their_own() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let bulk = begin_with(&mut rows, BulkAction::Delete);
        let family = Bulk::of_family(id(51), &bulk.action, vec![id(1)], "ops".to_owned(), rows.now);
        let RunBulkStep(first) = step(&bulk, &[1], true, &rows);
        rows.run(&RunBulkStep(BulkStep { family: Some(Box::new(family)), ..first })).unwrap();
        assert_eq!((rows.bulks[&id(51)].state, rows.tasks.len()), (BulkState::Running, 0));
    }

    #[test]
    fn who_asked_for_the_action_did_each_of_its_changes() {
        let mut rows = Rows::new();
        rows.create([new_task(1)]);
        let bulk =
            begin_with(&mut rows, BulkAction::Cancel { reason: Some(StallReason::WorkerLost.as_str().to_owned()) });
        rows.run(&step(&bulk, &[1], true, &rows)).unwrap();
        let cancelled = &rows.events[0];
        assert_eq!((cancelled.actor.as_deref(), cancelled.data.reason.as_deref()), (Some("ops"), Some("worker_lost")));
    }
}
