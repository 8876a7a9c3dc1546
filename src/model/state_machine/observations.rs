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
        let error = || self.error.clone().unwrap_or_else(|| "no error message".to_owned());
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use uuid::Uuid;

    use crate::model::{
        observation::{Facts, ObservedKind},
        report::Progress,
        state_machine::tests::{at, pending},
        transition::Transition,
    };

    fn first(observation: &Observation) -> (Task, Vec<TaskEvent>) {
        let blank = Task::placeholder(Uuid::nil(), None, at(0));
        let (task, steps) = blank.first_observed(observation, at(90));
        assert!(steps.windows(2).all(|pair| pair[1].old_status == Some(pair[0].after.status)));
        (task, steps.into_iter().map(|step| step.event).collect())
    }

    fn next(task: &Task, observation: &Observation) -> (Task, Vec<TaskEvent>) {
        let (task, steps) = task.decide(Transition::Observe(Box::new(observation.clone())), at(90)).unwrap();
        (task, steps.into_iter().map(|step| step.event).collect())
    }

    fn report(happened: ObservedKind, seconds: i64) -> Observation {
        Observation::new(happened, at(seconds))
    }

    #[test]
    fn a_task_known_from_its_end_is_created_first() {
        let waiting = [TaskEvent::Created, TaskEvent::Enqueued { reason: None }];
        assert_eq!(first(&report(ObservedKind::Created, 1)).1, waiting);
        assert_eq!(first(&report(ObservedKind::Enqueued, 1)).1, waiting);
        let started = [TaskEvent::Created, TaskEvent::Started { wait_ms: None }];
        assert_eq!(first(&report(ObservedKind::Started, 1)).1, started);
        let completed = Observation { duration_ms: Some(700), ..report(ObservedKind::Completed, 1) };
        assert_eq!(first(&completed).1, [TaskEvent::Created, TaskEvent::Completed { duration_ms: 700, result: None }]);
        assert_eq!(
            first(&report(ObservedKind::Cancelled, 1)).1,
            [TaskEvent::Created, TaskEvent::Cancelled { reason: None }]
        );
        let facts = Facts { run_at: Some(at(500)), ..Facts::default() };
        let scheduled = Observation { facts, ..report(ObservedKind::Created, 1) };
        assert_eq!(first(&scheduled).1, [TaskEvent::Created], "it is not pending yet");
    }

    #[test]
    fn waits_and_durations_are_measured_by_the_reporters_clock() {
        let (task, _) = first(&report(ObservedKind::Enqueued, 10));
        let (task, events) = next(&task, &report(ObservedKind::Started, 13));
        assert_eq!(events, [TaskEvent::Started { wait_ms: Some(3_000) }]);
        let (_, events) = next(&task, &Observation { duration_ms: Some(1), ..report(ObservedKind::Completed, 20) });
        assert_eq!(events, [TaskEvent::Completed { duration_ms: 7_000, result: None }]);
        let (task, _) = first(&report(ObservedKind::Created, 0));
        let (task, _) = next(&task, &report(ObservedKind::Enqueued, 10));
        let (_, events) = next(&task, &report(ObservedKind::Started, 4));
        assert_eq!(events, [TaskEvent::Started { wait_ms: Some(0) }], "clocks may disagree");
    }

    #[test]
    fn an_end_without_an_error_says_so() {
        let (_, events) = first(&report(ObservedKind::Failed, 5));
        let error = "no error message".to_owned();
        assert_eq!(events[1], TaskEvent::Failed { duration_ms: 0, error: error.clone() });
        let facts = Facts { run_at: Some(at(70)), ..Facts::default() };
        let (_, events) = first(&Observation { facts, ..report(ObservedKind::Retried, 5) });
        assert_eq!(events[1], TaskEvent::RetryScheduled { duration_ms: 0, error: error.clone(), next_run_at: at(70) });
        let (_, events) = first(&report(ObservedKind::Retried, 5));
        assert_eq!(events[1], TaskEvent::RetryScheduled { duration_ms: 0, error, next_run_at: at(5) });
    }

    #[test]
    fn what_is_counted_by_is_told_apart_from_what_may_be_cut() {
        let (task, _) = first(&report(ObservedKind::Created, 1));
        let facts = Facts {
            queue: Some(Name::literal("slow")),
            phase: Some(Name::literal("load")),
            title: Some("long".repeat(2_000)),
            ..Facts::default()
        };
        let (after, events) = next(&task, &Observation { facts, ..report(ObservedKind::Started, 2) });
        let fields = |event: &TaskEvent| match event {
            TaskEvent::Edited { changes, .. } => changes.keys().cloned().collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        assert_eq!([fields(&events[0]), fields(&events[1])], [vec!["phase", "queue"], vec!["title"]]);
        assert_eq!(events[2], TaskEvent::Started { wait_ms: None });
        assert_eq!(after.status, Status::Running);
    }

    #[test]
    fn progress_is_an_event_only_when_it_changed() {
        let progress = |percent: f64, seconds| {
            let progress = Some(Progress { percent: Some(percent), ..Progress::default() });
            Observation { progress, ..report(ObservedKind::Progressed, seconds) }
        };
        let (task, _) = first(&report(ObservedKind::Started, 1));
        let (task, events) = next(&task, &progress(40.0, 5));
        let forty = Progress { percent: Some(40.0), ..Progress::default() };
        assert_eq!(events, [TaskEvent::Progressed(forty)]);
        assert_eq!(next(&task, &progress(40.0, 6)).1, []);
        assert_eq!(next(&task, &progress(10.0, 2)).1, [], "older progress than the one known");
    }

    #[test]
    fn a_managed_task_cannot_be_reported() {
        let refused = pending().decide(Transition::Observe(Box::new(report(ObservedKind::Completed, 5))), at(9));
        assert_eq!(refused, Err(TransitionError::Managed));
    }

    #[test]
    fn a_task_without_a_project_takes_that_of_its_parent() {
        let (task, _) = first(&report(ObservedKind::Created, 1));
        let shop = || Transition::Inherit(Name::literal("shop"));
        assert!(task.inherits());
        let (after, steps) = task.decide(shop(), at(9)).unwrap();
        assert_eq!((after.project_id.as_str(), steps.len()), ("shop", 1));
        assert_eq!(after.decide(shop(), at(9)).unwrap().1.len(), 0);
        let facts = Facts { project_id: Some(Name::literal("own")), ..Facts::default() };
        let (own, _) = first(&Observation { facts, ..report(ObservedKind::Created, 1) });
        assert!(!own.inherits() && !pending().inherits());
        assert_eq!(own.decide(shop(), at(9)).unwrap().1.len(), 0, "it has a project of its own");
    }
}
