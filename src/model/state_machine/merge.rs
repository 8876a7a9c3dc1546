//! Merges reports of other systems into a task: the result depends only on the set of reports, never on their order.

use uuid::Uuid;

use crate::{
    clock::Time,
    model::{
        Name, Status, Task,
        lease::Lease,
        observation::{Observation, Observed, ObservedKind},
        task::{NewTask, Outcome},
    },
};

impl Task {
    /// An observed task before its first report.
    #[must_use]
    pub fn placeholder(id: Uuid, inherited: Option<&Name>, now: Time) -> Self {
        let new = NewTask {
            project_id: inherited.cloned(),
            ..NewTask::plain(id, Name::literal("unknown"), Name::literal("default"))
        };
        Self { observed: Some(Box::default()), enqueued_at: None, ..new.into_task(None, false, now) }
    }

    /// Merges a report.
    pub(super) fn merge(&mut self, report: &Observation) {
        let mut observed = self.observed.take().unwrap_or_default();
        self.merge_fields(&mut observed, report);
        let attempt = report.attempt();
        if attempt > self.attempt {
            self.attempt = attempt;
            (observed.started, observed.progressed, observed.ended) = (None, None, None);
            (observed.duration_ms, observed.progress, observed.error) = (None, None, None);
            let of_attempt = ["worker_id", "connector_id", "result", "error", "progress"];
            observed.said.retain(|field, _| !of_attempt.contains(&field.as_str()));
            (self.worker_id, self.machine_id, self.connector_id) = (None, None, None);
            (self.result, self.lease) = (None, None);
        }
        if attempt == self.attempt {
            self.merge_attempt(&mut observed, report);
        }
        match report.happened {
            ObservedKind::Cancelled => observed.cancelled = observed.cancelled.max(Some(report.at)),
            ObservedKind::Enqueued => observed.enqueued = observed.enqueued.max(Some(report.at)),
            _ => {}
        }
        self.recompute(&observed);
        self.observed = Some(observed);
    }

    fn merge_fields(&mut self, observed: &mut Observed, report: &Observation) {
        let (facts, at) = (report.facts.clone(), report.at);
        observed.first = Some(observed.first.map_or(at, |first| first.min(at)));
        observed.own_project |= facts.project_id.is_some();
        observed.merge("project_id", &mut self.project_id, facts.project_id, at);
        observed.merge("task_type", &mut self.task_type, facts.task_type, at);
        observed.merge("queue", &mut self.queue, facts.queue, at);
        observed.merge("parent_task_id", &mut self.parent_task_id, facts.parent_task_id.map(Some), at);
        observed.merge("phase", &mut self.phase, facts.phase.map(Some), at);
        observed.merge("title", &mut self.title, facts.title.map(Some), at);
        observed.merge("description", &mut self.description, facts.description.map(Some), at);
        observed.merge("priority", &mut self.priority, facts.priority, at);
        observed.merge("labels", &mut self.labels, facts.labels, at);
        observed.merge("phases", &mut self.phases, facts.phases, at);
        observed.merge("max_attempts", &mut self.max_attempts, facts.max_attempts, at);
        observed.merge("timeout_seconds", &mut self.timeout_seconds, facts.timeout_seconds.map(Some), at);
        observed.merge("payload", &mut self.payload, facts.payload.map(Some), at);
        observed.merge("run_at", &mut self.run_at, facts.run_at.map(Some), at);
        self.external_id = self.external_id.take().or_else(|| report.external_id.clone());
    }

    fn merge_attempt(&mut self, observed: &mut Observed, report: &Observation) {
        let at = report.at;
        if let Some((worker, machine)) = &report.worker {
            let mut on = (self.worker_id, self.machine_id.take());
            observed.merge("worker_id", &mut on, Some((Some(*worker), Some(machine.clone()))), at);
            (self.worker_id, self.machine_id) = on;
        }
        observed.merge("connector_id", &mut self.connector_id, report.connector_id.clone().map(Some), at);
        observed.merge("result", &mut self.result, report.result.clone().map(Some), at);
        let (mut error, mut progress) = (observed.error.take(), observed.progress.take());
        observed.merge("error", &mut error, report.error.clone().map(Some), at);
        observed.merge("progress", &mut progress, report.progress.clone().map(Some), at);
        (observed.error, observed.progress) = (error, progress);
        match report.happened {
            ObservedKind::Started => observed.started = Some(observed.started.map_or(at, |started| started.min(at))),
            ObservedKind::Progressed => observed.progressed = observed.progressed.max(Some(at)),
            ObservedKind::Completed | ObservedKind::Failed | ObservedKind::Retried => {
                let end = Some((at, report.happened));
                if end > observed.ended {
                    observed.ended = end;
                    observed.duration_ms = report.duration_ms;
                } else if end == observed.ended {
                    observed.duration_ms = observed.duration_ms.max(report.duration_ms);
                }
            }
            ObservedKind::Created | ObservedKind::Enqueued | ObservedKind::Cancelled => {}
        }
    }

    /// Recomputes everything that derives from the merged reports.
    fn recompute(&mut self, observed: &Observed) {
        let status = observed.status(self.run_at.is_some());
        self.status = status;
        self.created_at = observed.first.unwrap_or(self.created_at);
        self.enqueued_at = observed.enqueued;
        // Ignore a start that is reported to be after the end.
        let ended = observed.ended.map(|(at, _)| at);
        let reported = observed.started.filter(|started| ended.is_none_or(|ended| *started <= ended));
        self.started_at = reported.or_else(|| {
            let duration = chrono::TimeDelta::milliseconds(i64::try_from(observed.duration_ms?).ok()?);
            ended?.checked_sub_signed(duration)
        });
        if self.started_at.is_none() && observed.started.is_some() {
            self.started_at = ended;
        }
        self.finished_at = match status {
            Status::Cancelled => observed.cancelled,
            Status::Completed | Status::Failed => observed.ended.map(|(at, _)| at),
            _ => None,
        };
        self.outcome = match observed.ended {
            _ if status == Status::Cancelled => Some(Outcome::Cancelled),
            Some((_, ObservedKind::Completed)) => Some(Outcome::Completed),
            Some(_) => Some(Outcome::Failed),
            None => None,
        };
        self.error = observed.error.clone().filter(|_| status != Status::Completed);
        let again = observed.ended.is_some_and(|(_, end)| end == ObservedKind::Retried);
        self.retry_count = self.attempt.saturating_sub(1) + u32::from(again);
        // An observed task has no lease expiry: its worker is not tracked by heartbeats.
        let lease = Lease { expires_at: None, progress: observed.progress.clone(), stalled: false };
        self.lease = (status == Status::Running).then_some(lease);
        if let Some(at) = observed.given_up().filter(|_| !status.is_finished()) {
            self.end_in_silence(at);
        }
    }
}
