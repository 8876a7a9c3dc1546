//! Events for the changes made by a report.

use serde_json::{Value, json};

use super::millis;
use crate::{
    clock::Time,
    model::{
        Name, Status, Task,
        edit::{Changes, EditKind},
        observation::Observation,
        step::{Decision, Step, TaskEvent, create},
        transition::TransitionError,
    },
};

impl Task {
    /// The first report of a task: creates it and moves it to the reported status.
    #[must_use]
    pub fn first_observed(self, observation: &Observation, now: Time) -> (Self, Vec<Step>) {
        let mut after = self;
        after.merge(observation);
        let settled = after.clone();
        // It is created like every task, then transitions.
        let waits = if settled.status == Status::Scheduled { Status::Scheduled } else { Status::Pending };
        let begun = Self {
            status: waits,
            attempt: 0,
            retry_count: 0,
            outcome: None,
            started_at: None,
            finished_at: None,
            result: None,
            error: None,
            lease: None,
            worker_id: None,
            machine_id: None,
            connector_id: None,
            ..settled.clone()
        };
        if matches!(settled.status, Status::Pending | Status::Scheduled) {
            return (settled.clone(), create(&settled));
        }
        let mut steps = create(&begun);
        steps.truncate(1);
        steps.extend(begun.steps_to(&settled, now));
        (settled, steps)
    }

    /// A further report.
    pub(super) fn observe(&self, observation: &Observation, now: Time) -> Decision {
        if self.observed.is_none() {
            return Err(TransitionError::Managed);
        }
        let mut after = self.clone();
        after.merge(observation);
        let steps = self.steps_to(&after, now);
        Ok((after, steps))
    }

    /// Inherits the parent's project, if it has none.
    pub(super) fn inherit(&self, project: &Name) -> Decision {
        let own = self.observed.as_ref().is_none_or(|observed| observed.own_project);
        if own || self.project_id == *project {
            return Ok(self.unchanged());
        }
        let changes = [("project_id".to_owned(), [json!(self.project_id), json!(project)])].into();
        Ok(self.step(TaskEvent::Edited { kind: EditKind::Facts, changes }, |task| task.project_id = project.clone()))
    }

    /// Whether its project is inherited: from its parent, or `default` without one.
    #[must_use]
    pub fn inherits(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| !observed.own_project)
    }

    /// The events that lead from the previous state to the current one.
    fn steps_to(&self, after: &Self, now: Time) -> Vec<Step> {
        let mut between = self.clone();
        let mut steps = Vec::new();
        let same = self.status == after.status && self.attempt == after.attempt;
        // Fields used for counting are in a separate event from long texts, so that they are never truncated.
        for changes in [self.routing_changes(after), self.detail_changes(after)] {
            if changes.is_empty() {
                continue;
            }
            let (reported, step) = between.step(TaskEvent::Edited { kind: EditKind::Facts, changes }, |task| {
                *task = Self {
                    status: task.status,
                    attempt: task.attempt,
                    retry_count: if same { after.retry_count } else { task.retry_count },
                    lease: task.lease.clone(),
                    error: if same { after.error.clone() } else { task.error.clone() },
                    ..after.clone()
                };
            });
            between = reported;
            steps.extend(step);
        }
        if !same {
            steps.extend(between.step(after.initial_event(now), |task| *task = after.clone()).1);
        } else if let (Some(before), Some(lease)) = (&self.lease, &after.lease)
            && before.progress != lease.progress
            && let Some(progress) = lease.progress.clone()
        {
            steps.extend(between.step(TaskEvent::Progressed(progress), |task| *task = after.clone()).1);
        }
        steps
    }

    /// The event for its new status.
    fn initial_event(&self, now: Time) -> TaskEvent {
        let said = self.observed.as_ref().and_then(|seen| seen.duration_ms);
        let ended = self.observed.as_ref().and_then(|seen| seen.ended).map_or(now, |(at, _)| at);
        // The timestamps give the duration; if they are missing, the start was derived from the reported duration.
        let duration_ms = self.started_at.map_or(said.unwrap_or(0), |started| millis(ended - started));
        let error = || self.error.clone().unwrap_or_else(|| "no error was reported".to_owned());
        match self.status {
            Status::Running => {
                let wait = self.enqueued_at.zip(self.started_at).map(|(enqueued, started)| millis(started - enqueued));
                TaskEvent::Started { wait_ms: wait }
            }
            Status::Completed => TaskEvent::Completed { duration_ms, result: self.result.clone() },
            Status::Failed => TaskEvent::Failed { duration_ms, error: error() },
            Status::Retrying => {
                let next_run_at = self.run_at.unwrap_or(ended);
                TaskEvent::RetryScheduled { duration_ms, error: error(), next_run_at }
            }
            Status::Cancelled => TaskEvent::Cancelled { reason: None },
            Status::Scheduled | Status::Blocked | Status::Pending => TaskEvent::Enqueued { reason: None },
        }
    }

    /// Changed routing fields (project, queue, parent and the like).
    fn routing_changes(&self, after: &Self) -> Changes {
        let mut changes = Changes::new();
        let mut compare = |field: &str, old: Value, new: Value| {
            if old != new {
                changes.insert(field.to_owned(), [old, new]);
            }
        };
        compare("project_id", json!(self.project_id), json!(after.project_id));
        compare("task_type", json!(self.task_type), json!(after.task_type));
        compare("queue", json!(self.queue), json!(after.queue));
        compare("parent_task_id", json!(self.parent_task_id), json!(after.parent_task_id));
        compare("phase", json!(self.phase), json!(after.phase));
        compare("priority", json!(self.priority), json!(after.priority));
        changes
    }

    /// Changed other fields of the task, and of its attempt if that is still the same.
    fn detail_changes(&self, after: &Self) -> Changes {
        let mut changes = Changes::new();
        let mut compare = |field: &str, old: Value, new: Value| {
            if old != new {
                changes.insert(field.to_owned(), [old, new]);
            }
        };
        compare("title", json!(self.title), json!(after.title));
        compare("description", json!(self.description), json!(after.description));
        compare("labels", json!(self.labels), json!(after.labels));
        compare("phases", json!(self.phases), json!(after.phases));
        compare("max_attempts", json!(self.max_attempts), json!(after.max_attempts));
        compare("timeout_seconds", json!(self.timeout_seconds), json!(after.timeout_seconds));
        compare("created_at", json!(self.created_at), json!(after.created_at));
        if self.status == after.status && self.attempt == after.attempt {
            compare("worker_id", json!(self.worker_id), json!(after.worker_id));
            compare("connector_id", json!(self.connector_id), json!(after.connector_id));
            compare("started_at", json!(self.started_at), json!(after.started_at));
            compare("finished_at", json!(self.finished_at), json!(after.finished_at));
            compare("retry_count", json!(self.retry_count), json!(after.retry_count));
            compare("error", json!(self.error), json!(after.error));
        }
        changes
    }
}
