//! Recurring tasks and actions on many tasks.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Answer, Batch, Command, Name, Outcome, TimeDelta, WriteError, transition};
use crate::{
    clock::Time,
    event::{Event, Kind},
    model::{bulk::BulkAction, schedule::Recurrence},
    store::{
        bulk::{self, Bulk, BulkState, BulkStep},
        schedules::{self, Schedule, ScheduleChange},
    },
};

/// What operators set up, as far as the batch touches it.
#[derive(Default)]
pub(super) struct Operators {
    schedules: BTreeMap<Name, (Option<Schedule>, bool)>,
    bulks: HashMap<Uuid, (Bulk, bool)>,
}

impl Operators {
    pub(super) async fn load(&mut self, conn: &mut PgConnection, commands: &[&Command]) -> sqlx::Result<()> {
        let (mut names, mut ids) = (Vec::new(), Vec::new());
        for command in commands {
            match command {
                Command::Schedule { name, .. } | Command::Fire { name, .. } => names.push(name.as_str()),
                Command::StepBulk(step) => ids.push(step.id),
                Command::CancelBulk { id, .. } => ids.push(*id),
                _ => {}
            }
        }
        if !names.is_empty() {
            for schedule in schedules::lock(conn, &names).await? {
                self.schedules.insert(schedule.name.clone(), (Some(schedule), false));
            }
        }
        if !ids.is_empty() {
            self.bulks = bulk::lock(conn, &ids).await?.into_iter().map(|bulk| (bulk.id, (bulk, false))).collect();
        }
        Ok(())
    }

    pub(super) async fn save(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        for (name, (schedule, _)) in self.schedules.iter().filter(|(_, (_, changed))| *changed) {
            match schedule {
                Some(schedule) => schedules::save(conn, schedule).await?,
                None => schedules::delete(conn, name).await?,
            }
        }
        for (bulk, _) in self.bulks.values().filter(|(_, changed)| *changed) {
            bulk::save(conn, bulk).await?;
        }
        Ok(())
    }
}

/// The first time after a moment that a schedule fires.
fn next(schedule: &Schedule, moment: Time) -> Option<Time> {
    Recurrence::parse(&schedule.cron, &schedule.time_zone).ok()?.after(moment)
}

impl Batch<'_> {
    fn operator_event(&self, action: &str, actor: &str) -> Event {
        let mut event = Event::new(Kind::OperatorAction, self.now);
        event.actor = Some(actor.to_owned());
        event.data.action = Some(action.to_owned());
        event
    }

    pub(super) fn decide_schedule(&mut self, name: &Name, change: &ScheduleChange, actor: &str) -> Outcome {
        let known = self.operators.schedules.get(name).and_then(|(schedule, _)| schedule.clone());
        let no_schedule = || WriteError::NoSchedule(name.clone());
        let (after, action) = match change {
            ScheduleChange::Put(new) => {
                let mut schedule = Schedule::clone(new);
                if let Some(known) = &known {
                    schedule.created_at = known.created_at;
                    (schedule.last_run_at, schedule.last_task_id) = (known.last_run_at, known.last_task_id);
                    schedule.paused_at =
                        known.paused_at.filter(|_| schedule.paused_at.is_some()).or(schedule.paused_at);
                }
                // The same times as before are not missed because something else was edited.
                let same = known.as_ref().is_some_and(|k| k.cron == new.cron && k.time_zone == new.time_zone);
                schedule.next_run_at =
                    known.and_then(|k| k.next_run_at).filter(|_| same).or_else(|| next(&schedule, self.now));
                (Some(schedule), "put_schedule")
            }
            ScheduleChange::Pause => {
                let known = known.ok_or_else(no_schedule)?;
                (Some(Schedule { paused_at: known.paused_at.or(Some(self.now)), ..known }), "pause_schedule")
            }
            ScheduleChange::Resume => {
                let known = known.ok_or_else(no_schedule)?;
                (Some(Schedule { paused_at: None, next_run_at: next(&known, self.now), ..known }), "resume_schedule")
            }
            ScheduleChange::Delete => {
                known.ok_or_else(no_schedule)?;
                (None, "delete_schedule")
            }
        };
        let mut event = self.operator_event(action, actor);
        event.data.schedule = Some(name.to_string());
        self.record(event);
        self.operators.schedules.insert(name.clone(), (after.clone(), true));
        Ok(Answer::Schedule(after.map(Box::new)))
    }

    /// Fires once for each time: whoever holds the row and finds it unmoved. What was missed fires once, late.
    pub(super) fn fire(&mut self, name: &Name, at: Time) -> Outcome {
        let Some((Some(schedule), _)) = self.operators.schedules.get(name) else { return Ok(Answer::Done) };
        if schedule.next_run_at != Some(at) || at > self.now || schedule.paused_at.is_some() {
            return Ok(Answer::Done);
        }
        let mut schedule = schedule.clone();
        schedule.next_run_at = next(&schedule, self.now);
        schedule.last_run_at = Some(at);
        let mut task = schedule.task.clone();
        task.id = Uuid::now_v7();
        let first = self.drafts.len();
        match self.create(std::slice::from_ref(&task)) {
            Ok(Answer::Tasks(tasks)) => {
                schedule.last_task_id = tasks.first().map(|(task, _)| task.id);
                for draft in &mut self.drafts[first..] {
                    if draft.event.event_type == Kind::TaskCreated {
                        let mut event = draft.event.clone();
                        event.data.schedule = Some(name.to_string());
                        *draft = crate::event::Draft::new(event, self.rules.max_event_bytes);
                    }
                }
            }
            // A parent that is gone, say: the schedule goes on, and an operator can see why nothing came.
            Ok(_) => {}
            Err(error) => {
                let mut event = self.operator_event("schedule_failed", "schedule");
                event.data.schedule = Some(name.to_string());
                event.data.reason = Some(error.to_string());
                self.record(event);
            }
        }
        self.operators.schedules.insert(name.clone(), (Some(schedule), true));
        Ok(Answer::Done)
    }

    pub(super) fn begin_bulk(&mut self, bulk: &Bulk) -> Answer {
        let event = self.operator_event(bulk.action.word(), &bulk.actor);
        self.record(event);
        self.operators.bulks.insert(bulk.id, (bulk.clone(), true));
        Answer::Bulk(Box::new(bulk.clone()))
    }

    /// Changes tasks, and begins to do the same below them if any of it could be done.
    pub(super) fn steer(&mut self, changes: &[(Uuid, transition::Command)], actor: &str, family: &Bulk) -> Answer {
        let outcomes = self.change_each(changes, Some(actor));
        if outcomes.iter().any(Result::is_ok) {
            self.begin_bulk(family);
        }
        Answer::Outcomes(outcomes)
    }

    pub(super) fn cancel_bulk(&mut self, id: Uuid, actor: &str) -> Outcome {
        let (mut bulk, _) = self.operators.bulks.get(&id).cloned().ok_or(WriteError::NoBulk(id))?;
        if bulk.state == BulkState::Running {
            self.end_bulk(&mut bulk, BulkState::Cancelled, actor);
        }
        Ok(Answer::Bulk(Box::new(bulk)))
    }

    /// Does one step, if nobody did it before.
    pub(super) fn step_bulk(&mut self, step: &BulkStep) -> Answer {
        let Some((mut bulk, _)) = self.operators.bulks.get(&step.id).cloned() else { return Answer::Done };
        if bulk.state != BulkState::Running || bulk.before != step.from {
            return Answer::Done;
        }
        if let Some(family) = &step.family {
            self.begin_bulk(family);
        }
        for id in &step.ids {
            let actor = bulk.actor.clone();
            // It may have moved on since it was found.
            let wanted = &bulk.filter.statuses;
            let reopened = self.task(*id).is_some_and(|task| task.close_when_done && !task.status.is_finished());
            if reopened && bulk.action == BulkAction::RetryFamily {
                bulk.succeeded += 1;
                continue;
            }
            if !wanted.is_empty() && self.task(*id).is_none_or(|task| !wanted.contains(&task.status)) {
                bulk.failed += 1;
                continue;
            }
            match self.change(*id, bulk.action.command(), Some(&actor)) {
                Ok(_) => bulk.succeeded += 1,
                Err(_) => bulk.failed += 1,
            }
        }
        let pause = bulk.pace_per_second.map_or(0, |pace| 1_000 * step.ids.len() as u64 / u64::from(pace));
        bulk.next_at = self.now + TimeDelta::milliseconds(i64::try_from(pause).unwrap_or_default());
        match step.to {
            Some(place) => {
                bulk.before = place;
                self.operators.bulks.insert(bulk.id, (bulk, true));
            }
            None => {
                let actor = bulk.actor.clone();
                self.end_bulk(&mut bulk, BulkState::Done, &actor);
            }
        }
        Answer::Done
    }

    fn end_bulk(&mut self, bulk: &mut Bulk, state: BulkState, actor: &str) {
        (bulk.state, bulk.finished_at) = (state, Some(self.now));
        let mut event = self.operator_event(bulk.action.word(), actor);
        event.data.reason = Some(if state == BulkState::Done { "done" } else { "cancelled" }.to_owned());
        event.data.matched = Some(bulk.succeeded + bulk.failed);
        event.data.succeeded = Some(bulk.succeeded);
        event.data.failed = Some(bulk.failed);
        self.record(event);
        self.operators.bulks.insert(bulk.id, (bulk.clone(), true));
    }
}
