//! The task state machine. Every change of a task's state is decided here and nowhere else.

use chrono::TimeDelta;

use super::{
    Status, Task,
    lease::{Claimant, Lease, StallReason, StalledPolicy, backoff},
    report::{Fence, Json, Progress},
    task::Outcome,
};
use crate::clock::Time;

/// What someone wants of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A worker takes it.
    Claim {
        /// Who.
        by: Claimant,
        /// End of the lease.
        lease_until: Time,
    },
    /// A worker tells how far it is.
    Progress {
        /// Its fence.
        fence: Fence,
        /// How far.
        progress: Progress,
        /// New end of the lease.
        lease_until: Time,
    },
    /// A worker is alive and still has it.
    Extend {
        /// Its fence.
        fence: Fence,
        /// New end of the lease.
        lease_until: Time,
    },
    /// A worker is done.
    Complete {
        /// Its fence.
        fence: Fence,
        /// What came out.
        result: Option<Json>,
    },
    /// A worker could not do it.
    Fail {
        /// Its fence.
        fence: Fence,
        /// Why.
        error: String,
        /// Another attempt may help.
        retryable: bool,
        /// 0.0–1.0, spreads the next attempt.
        jitter: f64,
    },
    /// A worker gives it back untouched; the attempt does not count against `max_attempts`.
    Release {
        /// Its fence.
        fence: Fence,
    },
    /// Its time has come.
    Due,
    /// Its lease, worker or time is lost. Decided again here, because the lease may have been extended since.
    Stall {
        /// What was lost.
        reason: StallReason,
        /// What to do about it.
        policy: StalledPolicy,
    },
    /// Someone stops it.
    Cancel {
        /// Why, in their words.
        reason: Option<String>,
    },
    /// Someone wants a finished task to run again.
    Retry,
    /// Someone removes it.
    Delete,
    /// Its first child was created.
    BecomeParent,
}

/// What happened to a task, with what belongs to that alone.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskEvent {
    /// It exists.
    Created,
    /// It may be claimed.
    Enqueued {
        /// Why, when it is not new.
        reason: Option<&'static str>,
    },
    /// An attempt began.
    Started,
    /// An attempt went on.
    Progressed(Progress),
    /// Done.
    Completed {
        /// Time of the attempt.
        duration_ms: u64,
        /// What came out.
        result: Option<Json>,
    },
    /// The attempt failed, another follows.
    Retried {
        /// Time of the attempt.
        duration_ms: u64,
        /// Why it failed.
        error: String,
        /// When the next may start.
        next_run_at: Time,
    },
    /// Given up.
    Failed {
        /// Time of the attempt.
        duration_ms: u64,
        /// Why.
        error: String,
    },
    /// The attempt was lost.
    Stalled(StallReason),
    /// Stopped by someone.
    Cancelled {
        /// Why.
        reason: Option<String>,
    },
    /// Removed.
    Deleted,
    /// It groups other tasks from now on.
    BecameParent,
}

/// One thing that happened, with the state before it and the task after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The state before; `None` when the task did not exist.
    pub old_status: Option<Status>,
    /// The task after.
    pub after: Task,
    /// What happened.
    pub event: TaskEvent,
}

/// Why a command was not carried out. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The table of states has no such arrow.
    #[error("a {status} task cannot be {wanted}")]
    Illegal {
        /// Where it stands.
        status: Status,
        /// What was wanted, as a participle.
        wanted: &'static str,
    },
    /// The report names an attempt or a worker that no longer holds the task.
    #[error(
        "attempt {attempt} of this worker no longer holds the task (it is {status}, attempt {current}); stop working on it"
    )]
    Fenced {
        /// The attempt named.
        attempt: u32,
        /// The latest attempt.
        current: u32,
        /// Where the task stands.
        status: Status,
    },
    /// The task was cancelled while the worker had it.
    #[error("the task was cancelled; stop working on it")]
    Cancelled,
}

/// What became of a task: the steps in order; none when there was nothing to change.
pub type Decision = Result<(Task, Vec<Step>), Refusal>;

/// The steps of a task that comes into being.
#[must_use]
pub fn create(task: Task) -> Vec<Step> {
    let status = task.status;
    let enqueued = Step { old_status: Some(status), after: task.clone(), event: TaskEvent::Enqueued { reason: None } };
    let mut steps = vec![Step { old_status: None, after: task, event: TaskEvent::Created }];
    if status == Status::Pending {
        steps.push(enqueued);
    }
    steps
}

impl Task {
    /// Decides a command: the task afterwards and what happened, or why not. Changes nothing by itself.
    ///
    /// # Errors
    /// [`Refusal`] when the table of states does not allow it or the fence does not hold.
    pub fn decide(&self, command: Command, now: Time) -> Decision {
        match command {
            Command::Claim { by, lease_until } => self.claim(by, lease_until, now),
            Command::Progress { fence, progress, lease_until } => self.progress(fence, progress, lease_until, now),
            Command::Extend { fence, lease_until } => self.extend(fence, lease_until, now),
            Command::Complete { fence, result } => self.complete(fence, result, now),
            Command::Fail { fence, error, retryable, jitter } => self.fail(fence, error, retryable, jitter, now),
            Command::Release { fence } => self.release(fence, now),
            Command::Due => self.due(now),
            Command::Stall { reason, policy } => self.stall(reason, policy, now),
            Command::Cancel { reason } => self.cancel(reason, now),
            Command::Retry => self.retry(now),
            Command::Delete => Ok(self.step(TaskEvent::Deleted, |_| {})),
            Command::BecomeParent if self.is_parent => Ok(self.unchanged()),
            Command::BecomeParent => Ok(self.step(TaskEvent::BecameParent, |task| task.is_parent = true)),
        }
    }

    fn claim(&self, by: Claimant, lease_until: Time, now: Time) -> Decision {
        if self.status != Status::Pending {
            return self.illegal("claimed");
        }
        Ok(self.step(TaskEvent::Started, |task| {
            task.status = Status::Running;
            task.attempt += 1;
            task.outcome = None;
            task.worker_id = Some(by.worker_id);
            task.machine_id = Some(by.machine_id);
            task.started_at = Some(now);
            task.lease = Some(Lease { expires_at: lease_until, progress: None, stalled: false });
        }))
    }

    fn progress(&self, fence: Fence, progress: Progress, lease_until: Time, now: Time) -> Decision {
        let lease = self.held(fence)?;
        if lease.progress.as_ref() == Some(&progress) {
            return self.extend(fence, lease_until, now);
        }
        let extended = Lease {
            expires_at: lease.expires_at.max(lease_until),
            progress: Some(progress.clone()),
            stalled: self.stays_stalled(lease, now),
        };
        Ok(self.step(TaskEvent::Progressed(progress), |task| task.lease = Some(extended)))
    }

    fn extend(&self, fence: Fence, lease_until: Time, now: Time) -> Decision {
        let lease = self.held(fence)?;
        let extended = Lease {
            expires_at: lease.expires_at.max(lease_until),
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
            let next_run_at = now + backoff(self.retry_count + 1, jitter);
            let event = TaskEvent::Retried { duration_ms, error: error.clone(), next_run_at };
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
        Ok(self.step(TaskEvent::Enqueued { reason: Some("released") }, |task| {
            task.end_attempt(Outcome::Released);
            task.enqueue(now);
        }))
    }

    fn due(&self, now: Time) -> Decision {
        match self.status {
            Status::Scheduled | Status::Retrying if self.run_at.is_none_or(|at| at <= now) => {
                Ok(self.step(TaskEvent::Enqueued { reason: Some("due") }, |task| task.enqueue(now)))
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
            StallReason::LeaseExpired => lease.expires_at <= now,
            StallReason::WorkerLost => true,
            StallReason::TimeLimit => self.deadline().is_some_and(|deadline| deadline <= now),
        };
        if !lost || lease.stalled {
            return Ok(self.unchanged());
        }
        let stalled = TaskEvent::Stalled(reason);
        if policy == StalledPolicy::Report {
            let reported = Lease { stalled: true, ..lease.clone() };
            return Ok(self.step(stalled, |task| task.lease = Some(reported)));
        }
        let (between, mut steps) = self.step(stalled, |_| {});
        let (after, then) = if policy == StalledPolicy::Retry && self.has_attempts_left() {
            between.step(TaskEvent::Enqueued { reason: Some("stalled") }, |task| {
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
        Ok(self.step(TaskEvent::Cancelled { reason }, |task| {
            if task.status == Status::Running {
                task.end_attempt(Outcome::Cancelled);
            }
            task.status = Status::Cancelled;
            task.finished_at = Some(now);
        }))
    }

    fn retry(&self, now: Time) -> Decision {
        if !self.status.is_finished() {
            return self.illegal("retried");
        }
        Ok(self.step(TaskEvent::Enqueued { reason: Some("retried") }, |task| {
            task.retry_count = 0;
            task.finished_at = None;
            task.result = None;
            task.error = None;
            task.enqueue(now);
        }))
    }

    /// A sign of life ends a stall, unless it was for the time limit: that stays passed, and is reported once.
    fn stays_stalled(&self, lease: &Lease, now: Time) -> bool {
        lease.stalled && self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The end of the running attempt's time limit.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        Some(self.started_at? + TimeDelta::seconds(i64::from(self.timeout_seconds?)))
    }

    /// The lease, if this report's worker and attempt still hold the task.
    fn held(&self, fence: Fence) -> Result<&Lease, Refusal> {
        let same = self.worker_id == Some(fence.worker_id) && self.attempt == fence.attempt;
        match &self.lease {
            Some(lease) if same && self.status == Status::Running => Ok(lease),
            _ if same && self.outcome == Some(Outcome::Cancelled) => Err(Refusal::Cancelled),
            _ => Err(Refusal::Fenced { attempt: fence.attempt, current: self.attempt, status: self.status }),
        }
    }

    /// The same report came before: same worker, same attempt, same outcome.
    fn repeats(&self, fence: Fence, outcome: Outcome) -> bool {
        self.outcome == Some(outcome) && self.worker_id == Some(fence.worker_id) && self.attempt == fence.attempt
    }

    const fn has_attempts_left(&self) -> bool {
        self.retry_count + 1 < self.max_attempts
    }

    fn attempt_ms(&self, now: Time) -> u64 {
        let elapsed = self.started_at.map_or(TimeDelta::zero(), |started| now - started);
        u64::try_from(elapsed.num_milliseconds()).unwrap_or_default()
    }

    fn end_attempt(&mut self, outcome: Outcome) {
        self.lease = None;
        self.outcome = Some(outcome);
    }

    fn enqueue(&mut self, now: Time) {
        self.status = Status::Pending;
        self.run_at = None;
        self.enqueued_at = Some(now);
    }

    fn step(&self, event: TaskEvent, change: impl FnOnce(&mut Self)) -> (Self, Vec<Step>) {
        let mut after = self.clone();
        change(&mut after);
        let step = Step { old_status: Some(self.status), after: after.clone(), event };
        (after, vec![step])
    }

    fn unchanged(&self) -> (Self, Vec<Step>) {
        (self.clone(), Vec::new())
    }

    const fn illegal(&self, wanted: &'static str) -> Decision {
        Err(Refusal::Illegal { status: self.status, wanted })
    }
}
