//! The task state machine: the only place that decides status changes of a task.

mod children;
mod dependencies;
mod edits;
mod fingerprints;
mod merge;
mod observations;
mod retry;
mod silence;

use chrono::TimeDelta;

use crate::clock::Time;
use crate::model::{
    Status, Task,
    lease::{Claimant, Lease, StallReason, StalledPolicy},
    report::{Fence, Json, Progress},
    step::{Decision, EventReason, Step, TaskEvent},
    task::Outcome,
    transition::{Transition, TransitionError},
};

impl Task {
    /// Decides a transition: the resulting task and its steps, or why it is refused. Changes nothing itself.
    ///
    /// # Errors
    /// [`TransitionError`] if the status does not allow the transition or the fence is invalid.
    pub fn decide(&self, command: Transition, now: Time) -> Decision {
        match command {
            Transition::Claim { by, lease_until } => self.claim(by, lease_until, now),
            Transition::Progress { fence, progress, lease_until } => self.progress(fence, progress, lease_until, now),
            Transition::Extend { fence, lease_until } => self.extend(fence, lease_until, now),
            Transition::Complete { fence, result } => self.complete(fence, result, now),
            Transition::Fail { fence, error, retryable, jitter } => self.fail(fence, error, retryable, jitter, now),
            Transition::Release { fence } => self.release(fence, now),
            Transition::Due => self.due(now),
            Transition::Stall { reason, policy } => self.stall(reason, policy, now),
            Transition::Cancel { reason } => self.cancel(reason, now),
            Transition::Retry => self.retry(false, now),
            Transition::RetryBlocked => self.retry(true, now),
            Transition::Reopen => self.reopen(now),
            Transition::Delete => Ok(self.step(TaskEvent::Deleted, |_| {})),
            Transition::Expire(before) if self.finished_at.is_some_and(|at| at < before) => {
                Ok(self.step(TaskEvent::Deleted, |_| {}))
            }
            Transition::Expire(_) => self.illegal("removed for its age"),
            Transition::BecomeParent { .. } if self.is_parent => Ok(self.unchanged()),
            Transition::BecomeParent { children } => Ok(self.become_parent(children)),
            Transition::GainDependent => Ok((Self { has_dependents: true, ..self.clone() }, Vec::new())),
            Transition::Depend(dependencies) => self.depend(dependencies, now),
            Transition::Children(children) => self.follow(&children, now),
            Transition::Edit(edit) => self.edit(*edit),
            Transition::Observe(observation) => self.observe(&observation, now),
            Transition::Inherit(project) => self.inherit(&project),
            Transition::LeavePhase => Ok(self.leave_phase()),
            Transition::GiveUp(before) => self.give_up(before, now),
        }
    }

    fn claim(&self, by: Claimant, lease_until: Time, now: Time) -> Decision {
        if self.status != Status::Pending || self.observed.is_some() {
            return self.illegal("claimed");
        }
        let wait_ms = self.enqueued_at.map(|since| millis(now - since));
        Ok(self.step(TaskEvent::Started { wait_ms }, |task| {
            task.status = Status::Running;
            task.attempt += 1;
            task.outcome = None;
            task.worker_id = Some(by.worker_id);
            task.machine_id = Some(by.machine_id);
            task.connector_id = by.connector_id;
            task.started_at = Some(now);
            task.lease = Some(Lease { expires_at: Some(lease_until), progress: None, stalled: false });
        }))
    }

    fn progress(&self, fence: Fence, progress: Progress, lease_until: Time, now: Time) -> Decision {
        let lease = self.held(fence)?;
        if lease.progress.as_ref() == Some(&progress) {
            return self.extend(fence, lease_until, now);
        }
        let extended = Lease {
            expires_at: lease.expires_at.max(Some(lease_until)),
            progress: Some(progress.clone()),
            stalled: self.stays_stalled(lease, now),
        };
        Ok(self.step(TaskEvent::Progressed(progress), |task| task.lease = Some(extended)))
    }

    fn extend(&self, fence: Fence, lease_until: Time, now: Time) -> Decision {
        let lease = self.held(fence)?;
        let extended = Lease {
            expires_at: lease.expires_at.max(Some(lease_until)),
            progress: lease.progress.clone(),
            stalled: self.stays_stalled(lease, now),
        };
        let mut task = self.clone();
        task.lease = Some(extended);
        Ok((task, Vec::new()))
    }

    fn complete(&self, fence: Fence, result: Option<Json>, now: Time) -> Decision {
        if self.repeats(fence, Outcome::Completed) {
            return Ok(self.unchanged());
        }
        self.held(fence)?;
        let event = TaskEvent::Completed { duration_ms: self.attempt_ms(now), result: result.clone() };
        Ok(self.step(event, |task| {
            task.end_attempt(Outcome::Completed);
            task.status = Status::Completed;
            task.finished_at = Some(now);
            task.result = result;
            task.error = None;
        }))
    }

    fn fail(&self, fence: Fence, error: String, retryable: bool, jitter: f64, now: Time) -> Decision {
        if self.repeats(fence, Outcome::Failed) {
            return Ok(self.unchanged());
        }
        self.held(fence)?;
        let duration_ms = self.attempt_ms(now);
        if retryable && self.has_attempts_left() {
            let next_run_at = now + self.backoff.wait(self.retry_count + 1, jitter);
            let event = TaskEvent::RetryScheduled { duration_ms, error: error.clone(), next_run_at };
            return Ok(self.step(event, |task| {
                task.end_attempt(Outcome::Failed);
                task.status = Status::Retrying;
                task.retry_count += 1;
                task.run_at = Some(next_run_at);
                task.error = Some(error);
            }));
        }
        Ok(self.step(TaskEvent::Failed { duration_ms, error: error.clone() }, |task| {
            task.end_attempt(Outcome::Failed);
            task.status = Status::Failed;
            task.finished_at = Some(now);
            task.error = Some(error);
        }))
    }

    fn release(&self, fence: Fence, now: Time) -> Decision {
        if self.repeats(fence, Outcome::Released) {
            return Ok(self.unchanged());
        }
        self.held(fence)?;
        Ok(self.step(TaskEvent::Enqueued { reason: Some(EventReason::Released) }, |task| {
            task.end_attempt(Outcome::Released);
            task.enqueue(now);
        }))
    }

    fn due(&self, now: Time) -> Decision {
        match self.status {
            Status::Scheduled | Status::Retrying if self.run_at.is_none_or(|at| at <= now) => {
                Ok(self.step(TaskEvent::Enqueued { reason: Some(EventReason::Due) }, |task| task.enqueue(now)))
            }
            Status::Scheduled | Status::Retrying => Ok(self.unchanged()),
            Status::Blocked
            | Status::Pending
            | Status::Running
            | Status::Completed
            | Status::Failed
            | Status::Cancelled => self.illegal("made due"),
        }
    }

    fn stall(&self, reason: StallReason, policy: StalledPolicy, now: Time) -> Decision {
        let Some(lease) = self.lease.as_ref().filter(|_| self.status == Status::Running) else {
            return self.illegal("declared stalled");
        };
        let lost = match reason {
            StallReason::LeaseExpired => lease.expires_at.is_some_and(|at| at <= now),
            StallReason::WorkerLost => true,
            StallReason::TimeLimit => self.deadline().is_some_and(|deadline| deadline <= now),
            StallReason::NoReport => false,
        };
        if !lost || lease.stalled {
            return Ok(self.unchanged());
        }
        let stalled = TaskEvent::Stalled(reason);
        // The task cannot be given to another worker here.
        if policy == StalledPolicy::Report || self.observed.is_some() || self.auto_complete {
            let reported = Lease { stalled: true, ..lease.clone() };
            return Ok(self.step(stalled, |task| task.lease = Some(reported)));
        }
        let (between, mut steps) = self.step(stalled, |_| {});
        let (after, then) = if policy == StalledPolicy::Retry && self.has_attempts_left() {
            between.step(TaskEvent::Enqueued { reason: Some(EventReason::Stalled) }, |task| {
                task.end_attempt(Outcome::Stalled);
                task.retry_count += 1;
                task.error = Some(reason.sentence().to_owned());
                task.enqueue(now);
            })
        } else {
            let error = reason.sentence().to_owned();
            between.step(TaskEvent::Failed { duration_ms: self.attempt_ms(now), error: error.clone() }, |task| {
                task.end_attempt(Outcome::Stalled);
                task.status = Status::Failed;
                task.finished_at = Some(now);
                task.error = Some(error);
            })
        };
        steps.extend(then);
        Ok((after, steps))
    }

    fn cancel(&self, reason: Option<String>, now: Time) -> Decision {
        if self.status == Status::Cancelled {
            return Ok(self.unchanged());
        }
        if self.status.is_finished() {
            return self.illegal("cancelled");
        }
        self.is_ours("cancelled")?;
        Ok(self.step(TaskEvent::Cancelled { reason }, |task| {
            if task.status == Status::Running {
                task.end_attempt(Outcome::Cancelled);
            }
            task.status = Status::Cancelled;
            task.finished_at = Some(now);
        }))
    }

    /// Fails for an observed task: taskwatch does not control it.
    pub(super) fn is_ours(&self, wanted: &'static str) -> Result<(), TransitionError> {
        if self.observed.is_some() { Err(TransitionError::Observed { wanted }) } else { Ok(()) }
    }

    /// A report ends a stall, except for a timeout: that remains exceeded, and is reported only once.
    fn stays_stalled(&self, lease: &Lease, now: Time) -> bool {
        lease.stalled && self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// When the running attempt times out.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        Some(self.started_at? + TimeDelta::seconds(i64::from(self.timeout_seconds?)))
    }

    /// The lease, if the worker and attempt of the fence still hold it.
    fn held(&self, fence: Fence) -> Result<&Lease, TransitionError> {
        let same = self.worker_id == Some(fence.worker_id) && self.attempt == fence.attempt;
        self.is_ours("reported by a worker")?;
        match &self.lease {
            Some(lease) if same && self.status == Status::Running => Ok(lease),
            _ if same && self.outcome == Some(Outcome::Cancelled) => Err(TransitionError::Cancelled),
            _ => Err(TransitionError::Fenced { attempt: fence.attempt, current: self.attempt, status: self.status }),
        }
    }

    /// Whether this is a repeated report: same worker, same attempt, same outcome.
    fn repeats(&self, fence: Fence, outcome: Outcome) -> bool {
        self.outcome == Some(outcome) && self.worker_id == Some(fence.worker_id) && self.attempt == fence.attempt
    }

    const fn has_attempts_left(&self) -> bool {
        self.retry_count + 1 < self.max_attempts
    }

    pub(super) fn attempt_ms(&self, now: Time) -> u64 {
        self.started_at.map_or(0, |started| millis(now - started))
    }

    pub(super) fn end_attempt(&mut self, outcome: Outcome) {
        self.lease = None;
        self.outcome = Some(outcome);
    }

    pub(super) fn enqueue(&mut self, now: Time) {
        self.status = Status::Pending;
        self.run_at = None;
        self.enqueued_at = Some(now);
    }

    pub(super) fn step(&self, event: TaskEvent, change: impl FnOnce(&mut Self)) -> (Self, Vec<Step>) {
        let mut after = self.clone();
        change(&mut after);
        let fingerprints = self.fingerprint_change(&after, &event);
        let step = Step { old_status: Some(self.status), after: after.clone(), fingerprints, event };
        (after, vec![step])
    }

    pub(super) fn unchanged(&self) -> (Self, Vec<Step>) {
        (self.clone(), Vec::new())
    }

    const fn illegal(&self, wanted: &'static str) -> Decision {
        Err(TransitionError::Illegal { status: self.status, wanted })
    }
}

/// A duration in whole milliseconds, never negative.
pub(super) fn millis(span: TimeDelta) -> u64 {
    u64::try_from(span.num_milliseconds()).unwrap_or_default()
}
