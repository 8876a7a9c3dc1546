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
            Transition::Expire(_) => self.illegal("removed by retention"),
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    use crate::model::{Name, NewTask, lease::Backoff};

    /// Seconds after some moment.
    pub(super) fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    /// A task with three attempts.
    pub(super) fn new_task() -> NewTask {
        NewTask { max_attempts: 3, ..NewTask::plain(Uuid::from_u128(1), Name::literal("mail"), Name::literal("q")) }
    }

    /// Pending since second 0.
    pub(super) fn pending() -> Task {
        new_task().into_task(None, false, at(0))
    }

    fn claimed(task: &Task, now: Time) -> Task {
        let by = Claimant { worker_id: Uuid::from_u128(100), machine_id: Name::literal("m"), connector_id: None };
        task.decide(Transition::Claim { by, lease_until: now + TimeDelta::seconds(60) }, now).unwrap().0
    }

    /// Claimed in second 10, with a lease until second 70.
    pub(super) fn running() -> Task {
        claimed(&pending(), at(10))
    }

    /// A running task that ended in this way, in second 20.
    pub(super) fn finished(status: Status) -> Task {
        let end = match status {
            Status::Completed => Transition::Complete { fence: fence(1), result: None },
            Status::Failed => fail(1, false),
            _ => Transition::Cancel { reason: None },
        };
        running().decide(end, at(20)).unwrap().0
    }

    const fn fence(attempt: u32) -> Fence {
        Fence { worker_id: Uuid::from_u128(100), attempt }
    }

    fn fail(attempt: u32, retryable: bool) -> Transition {
        Transition::Fail { fence: fence(attempt), error: "disk full".to_owned(), retryable, jitter: 0.0 }
    }

    fn stall(reason: StallReason, policy: StalledPolicy) -> Transition {
        Transition::Stall { reason, policy }
    }

    fn reports(fence: Fence, lease_until: Time) -> [Transition; 5] {
        [
            Transition::Progress { fence, progress: Progress::default(), lease_until },
            Transition::Extend { fence, lease_until },
            Transition::Complete { fence, result: None },
            Transition::Fail { fence, error: String::new(), retryable: true, jitter: 0.5 },
            Transition::Release { fence },
        ]
    }

    #[test]
    fn only_a_pending_task_can_be_claimed() {
        let claim = || {
            let by = Claimant { worker_id: Uuid::from_u128(100), machine_id: Name::literal("m"), connector_id: None };
            Transition::Claim { by, lease_until: at(60) }
        };
        for status in Status::ALL {
            let decision = Task { status, ..pending() }.decide(claim(), at(1));
            assert_eq!(decision.is_ok(), status == Status::Pending, "{status}");
        }
        let observed = Task { observed: Some(Box::default()), ..pending() };
        assert_eq!(
            observed.decide(claim(), at(1)).unwrap_err(),
            TransitionError::Illegal { status: Status::Pending, wanted: "claimed" }
        );
    }

    #[test]
    fn a_claim_starts_the_next_attempt_and_measures_the_wait() {
        let by = Claimant {
            worker_id: Uuid::from_u128(100),
            machine_id: Name::literal("m"),
            connector_id: Some(Name::literal("smtp")),
        };
        let waiting = Task { attempt: 4, outcome: Some(Outcome::Released), ..pending() };
        let (task, steps) = waiting.decide(Transition::Claim { by, lease_until: at(70) }, at(10)).unwrap();
        assert_eq!(steps[0].event, TaskEvent::Started { wait_ms: Some(10_000) });
        assert_eq!((task.attempt, task.outcome, task.started_at), (5, None, Some(at(10))));
        assert_eq!(task.connector_id, Some(Name::literal("smtp")));
        assert_eq!(task.lease.unwrap().expires_at, Some(at(70)));
    }

    #[test]
    fn a_clock_that_went_back_makes_no_negative_duration() {
        let task = claimed(&pending(), at(-30));
        assert_eq!(task.started_at, Some(at(-30)));
        let (_, steps) = task.decide(fail(1, false), at(-40)).unwrap();
        assert!(matches!(steps[0].event, TaskEvent::Failed { duration_ms: 0, .. }), "{:?}", steps[0].event);
        assert_eq!(millis(TimeDelta::milliseconds(-1)), 0);
    }

    #[test]
    fn a_report_needs_the_worker_and_the_attempt_of_the_lease() {
        let second = Task { attempt: 2, ..running() };
        let other = Fence { worker_id: Uuid::from_u128(101), attempt: 2 };
        for wrong in [fence(1), fence(3), fence(0), other] {
            for report in reports(wrong, at(100)) {
                let refused = second.decide(report.clone(), at(20)).unwrap_err();
                let right = TransitionError::Fenced { attempt: wrong.attempt, current: 2, status: Status::Running };
                assert_eq!(refused, right, "{report:?}");
            }
        }
        for report in reports(fence(2), at(100)) {
            assert!(second.decide(report.clone(), at(20)).is_ok(), "{report:?}");
        }
    }

    #[test]
    fn the_worker_of_a_cancelled_task_is_told_to_stop() {
        let cancelled = finished(Status::Cancelled);
        for report in reports(fence(1), at(100)) {
            assert_eq!(cancelled.decide(report, at(30)).unwrap_err(), TransitionError::Cancelled);
        }
        let never_claimed = pending().decide(Transition::Cancel { reason: None }, at(1)).unwrap().0;
        let report = Transition::Complete { fence: fence(0), result: None };
        assert!(matches!(never_claimed.decide(report, at(2)), Err(TransitionError::Fenced { .. })));
    }

    #[test]
    fn a_report_never_shortens_a_lease() {
        for report in reports(fence(1), at(30)).into_iter().take(2) {
            let task = running().decide(report, at(20)).unwrap().0;
            assert_eq!(task.lease.unwrap().expires_at, Some(at(70)));
        }
        for report in reports(fence(1), at(90)).into_iter().take(2) {
            let task = running().decide(report, at(20)).unwrap().0;
            assert_eq!(task.lease.unwrap().expires_at, Some(at(90)));
        }
    }

    #[test]
    fn the_same_progress_again_only_extends_the_lease() {
        let progress = Progress { percent: Some(40.0), ..Progress::default() };
        let report = |lease_until| Transition::Progress { fence: fence(1), progress: progress.clone(), lease_until };
        let (task, steps) = running().decide(report(at(80)), at(20)).unwrap();
        assert_eq!(steps[0].event, TaskEvent::Progressed(progress.clone()));
        let (task, steps) = task.decide(report(at(90)), at(30)).unwrap();
        assert_eq!((steps.len(), task.lease.clone().unwrap().expires_at), (0, Some(at(90))));
        assert_eq!(task.lease.unwrap().progress, Some(progress), "a heartbeat keeps the progress");
    }

    #[test]
    fn an_end_reported_twice_changes_nothing_and_another_end_is_refused() {
        let complete = || Transition::Complete { fence: fence(1), result: None };
        let (completed, _) = running().decide(complete(), at(20)).unwrap();
        assert_eq!(completed.decide(complete(), at(30)).unwrap(), (completed.clone(), vec![]));
        assert!(matches!(completed.decide(fail(1, true), at(30)), Err(TransitionError::Fenced { .. })));
        let (released, _) = running().decide(Transition::Release { fence: fence(1) }, at(20)).unwrap();
        let again = released.decide(Transition::Release { fence: fence(1) }, at(30)).unwrap();
        assert_eq!(again, (released.clone(), vec![]));
        assert!(matches!(released.decide(complete(), at(30)), Err(TransitionError::Fenced { .. })));
        let retrying = running().decide(fail(1, true), at(20)).unwrap().0;
        assert_eq!(retrying.decide(fail(1, true), at(30)).unwrap().1.len(), 0);
    }

    #[test]
    fn a_task_is_retried_until_no_attempt_is_left() {
        let mut task = pending();
        for (attempt, status) in [(1, Status::Retrying), (2, Status::Retrying), (3, Status::Failed)] {
            task = claimed(&task, at(100));
            task = task.decide(fail(attempt, true), at(110)).unwrap().0;
            assert_eq!((task.status, task.attempt, task.error.as_deref()), (status, attempt, Some("disk full")));
            if status == Status::Retrying {
                task = task.decide(Transition::Due, at(1_000)).unwrap().0;
            }
        }
        assert_eq!((task.retry_count, task.finished_at, task.lease), (2, Some(at(110)), None));
        let hopeless = running().decide(fail(1, false), at(20)).unwrap().0;
        assert_eq!((hopeless.status, hopeless.retry_count), (Status::Failed, 0), "no retry would help");
    }

    #[test]
    fn the_next_attempt_comes_after_the_backoff() {
        let backoff = Backoff { initial_seconds: 8, max_seconds: 10 };
        for (retry_count, jitter, wait) in [(0, 0.0, 4), (0, 1.0, 8), (1, 0.0, 5), (1, 1.0, 10)] {
            let task = Task { backoff, retry_count, ..running() };
            let failed = Transition::Fail { fence: fence(1), error: String::new(), retryable: true, jitter };
            let (task, steps) = task.decide(failed, at(20)).unwrap();
            assert_eq!(task.run_at, Some(at(20 + wait)), "retry {retry_count}, jitter {jitter}");
            let TaskEvent::RetryScheduled { duration_ms, next_run_at, .. } = steps[0].event else {
                panic!("{steps:?}")
            };
            assert_eq!((duration_ms, Some(next_run_at)), (10_000, task.run_at));
        }
    }

    #[test]
    fn a_released_attempt_does_not_count_as_a_failure() {
        let last = Task { retry_count: 2, ..running() };
        let (task, steps) = last.decide(Transition::Release { fence: fence(1) }, at(20)).unwrap();
        assert_eq!(steps[0].event, TaskEvent::Enqueued { reason: Some(EventReason::Released) });
        assert_eq!((task.status, task.retry_count, task.enqueued_at), (Status::Pending, 2, Some(at(20))));
        assert_eq!((task.attempt, task.finished_at, task.error), (1, None, None));
    }

    #[test]
    fn a_task_is_due_at_its_time_and_not_before() {
        for status in [Status::Scheduled, Status::Retrying] {
            let waits = Task { status, run_at: Some(at(50)), ..pending() };
            assert_eq!(waits.decide(Transition::Due, at(49)).unwrap(), (waits.clone(), vec![]));
            let (task, steps) = waits.decide(Transition::Due, at(50)).unwrap();
            assert_eq!((task.status, task.run_at, task.enqueued_at), (Status::Pending, None, Some(at(50))));
            assert_eq!(steps[0].event, TaskEvent::Enqueued { reason: Some(EventReason::Due) });
        }
        for status in Status::ALL.into_iter().filter(|status| !matches!(status, Status::Scheduled | Status::Retrying)) {
            let refused = Task { status, ..pending() }.decide(Transition::Due, at(50)).unwrap_err();
            assert_eq!(refused, TransitionError::Illegal { status, wanted: "made due" });
        }
    }

    #[test]
    fn a_lease_holds_until_it_expires() {
        let early = stall(StallReason::LeaseExpired, StalledPolicy::Retry);
        let before = at(70) - TimeDelta::milliseconds(1);
        assert_eq!(running().decide(early.clone(), before).unwrap().1.len(), 0);
        let (task, steps) = running().decide(early, at(70)).unwrap();
        let events: Vec<_> = steps.into_iter().map(|step| step.event).collect();
        let enqueued = TaskEvent::Enqueued { reason: Some(EventReason::Stalled) };
        assert_eq!(events, [TaskEvent::Stalled(StallReason::LeaseExpired), enqueued]);
        assert_eq!((task.status, task.retry_count, task.outcome), (Status::Pending, 1, Some(Outcome::Stalled)));
        assert_eq!(task.error.as_deref(), Some("lease expired"));
    }

    #[test]
    fn the_policy_says_what_becomes_of_a_stalled_task() {
        let last = Task { retry_count: 2, ..running() };
        let parent = Task { auto_complete: true, ..running() };
        let observed = Task { observed: Some(Box::default()), ..running() };
        for (task, policy, status) in [
            (&running(), StalledPolicy::Retry, Status::Pending),
            (&last, StalledPolicy::Retry, Status::Failed),
            (&running(), StalledPolicy::Fail, Status::Failed),
            (&running(), StalledPolicy::Report, Status::Running),
            (&parent, StalledPolicy::Fail, Status::Running),
            (&observed, StalledPolicy::Retry, Status::Running),
        ] {
            let (after, steps) = task.decide(stall(StallReason::WorkerLost, policy), at(15)).unwrap();
            assert_eq!(after.status, status, "{policy:?}");
            assert_eq!(steps[0].event, TaskEvent::Stalled(StallReason::WorkerLost));
            assert_eq!(after.finished_at.is_some(), status == Status::Failed);
            assert_eq!(after.lease.is_some_and(|lease| lease.stalled), status == Status::Running, "{policy:?}");
        }
    }

    #[test]
    fn a_stall_is_reported_once_until_a_report_ends_it() {
        let expire = || stall(StallReason::LeaseExpired, StalledPolicy::Report);
        let stalled = running().decide(expire(), at(70)).unwrap().0;
        assert_eq!(stalled.decide(expire(), at(80)).unwrap().1.len(), 0);
        let extend = Transition::Extend { fence: fence(1), lease_until: at(150) };
        let alive = stalled.decide(extend, at(90)).unwrap().0;
        assert_eq!(alive.decide(expire(), at(149)).unwrap().1.len(), 0);
        assert_eq!(alive.decide(expire(), at(150)).unwrap().1.len(), 1);
    }

    #[test]
    fn a_time_limit_stays_exceeded_whatever_is_reported() {
        let limit = || stall(StallReason::TimeLimit, StalledPolicy::Report);
        let task = Task { timeout_seconds: Some(30), ..running() };
        assert_eq!(task.deadline(), Some(at(40)));
        assert_eq!(task.decide(limit(), at(39)).unwrap().1.len(), 0);
        let late = task.decide(limit(), at(40)).unwrap().0;
        let extend = Transition::Extend { fence: fence(1), lease_until: at(500) };
        let late = late.decide(extend, at(45)).unwrap().0;
        assert_eq!(late.decide(limit(), at(50)).unwrap().1.len(), 0, "it was said already");
        assert_eq!(running().deadline(), None);
        assert_eq!(running().decide(limit(), at(1_000_000)).unwrap().1.len(), 0, "no limit, no stall");
    }

    #[test]
    fn only_a_running_task_stalls_and_a_managed_one_never_for_want_of_news() {
        for status in Status::ALL.into_iter().filter(|status| *status != Status::Running) {
            let decision =
                Task { status, ..running() }.decide(stall(StallReason::WorkerLost, StalledPolicy::Fail), at(15));
            assert_eq!(decision.unwrap_err(), TransitionError::Illegal { status, wanted: "declared stalled" });
        }
        let silent = stall(StallReason::NoReport, StalledPolicy::Fail);
        assert_eq!(running().decide(silent, at(1_000_000)).unwrap().1.len(), 0);
    }

    #[test]
    fn an_unfinished_task_can_be_cancelled_once() {
        let cancel = || Transition::Cancel { reason: Some("no longer wanted".to_owned()) };
        for status in [Status::Scheduled, Status::Blocked, Status::Pending, Status::Retrying] {
            let (task, steps) = Task { status, ..pending() }.decide(cancel(), at(5)).unwrap();
            assert_eq!((task.status, task.finished_at, task.outcome), (Status::Cancelled, Some(at(5)), None));
            assert_eq!(steps[0].event, TaskEvent::Cancelled { reason: Some("no longer wanted".to_owned()) });
            assert_eq!(task.decide(cancel(), at(6)).unwrap(), (task.clone(), vec![]));
        }
        assert_eq!(finished(Status::Cancelled).outcome, Some(Outcome::Cancelled));
        for status in [Status::Completed, Status::Failed] {
            let refused = finished(status).decide(cancel(), at(30)).unwrap_err();
            assert_eq!(refused.to_string(), format!("a {status} task cannot be cancelled"));
        }
        let observed = Task { observed: Some(Box::default()), ..running() };
        assert_eq!(observed.decide(cancel(), at(30)).unwrap_err(), TransitionError::Observed { wanted: "cancelled" });
    }

    #[test]
    fn retention_takes_only_what_finished_before_its_time() {
        let task = finished(Status::Completed);
        assert!(task.decide(Transition::Expire(at(20)), at(90)).is_err());
        let (_, steps) = task.decide(Transition::Expire(at(21)), at(90)).unwrap();
        assert_eq!(steps[0].event, TaskEvent::Deleted);
        assert!(running().decide(Transition::Expire(at(1_000)), at(1_001)).is_err(), "unfinished tasks have no age");
    }

    fn asked() -> impl Strategy<Value = Transition> {
        let policy = prop_oneof![Just(StalledPolicy::Retry), Just(StalledPolicy::Fail), Just(StalledPolicy::Report)];
        let reason =
            prop_oneof![Just(StallReason::LeaseExpired), Just(StallReason::WorkerLost), Just(StallReason::TimeLimit)];
        let report = (0_u32..4, 0_usize..5, 0_i64..400)
            .prop_map(|(attempt, which, until)| reports(fence(attempt), at(until))[which].clone());
        prop_oneof![
            3 => Just(()).prop_map(|()| {
                let by = Claimant { worker_id: Uuid::from_u128(100), machine_id: Name::literal("m"), connector_id: None };
                Transition::Claim { by, lease_until: at(60) }
            }),
            4 => report,
            2 => Just(Transition::Due),
            1 => (reason, policy).prop_map(|(reason, policy)| stall(reason, policy)),
            1 => Just(Transition::Cancel { reason: None }),
            1 => Just(Transition::Retry),
            1 => Just(Transition::RetryBlocked),
        ]
    }

    proptest! {
        /// Whatever is asked, a task holds together, and its events tell without a gap how it came there.
        #[test]
        fn whatever_is_asked_a_task_stays_sound(asks in proptest::collection::vec((asked(), 0_i64..40), 0..30)) {
            let mut task = Task { timeout_seconds: Some(60), ..pending() };
            let mut now = 0;
            for (ask, passes) in asks {
                now += passes;
                let Ok((after, steps)) = task.decide(ask, at(now)) else { continue };
                let mut status = task.status;
                for step in &steps {
                    prop_assert_eq!(step.old_status, Some(status));
                    status = step.after.status;
                }
                prop_assert_eq!(after.status, status);
                prop_assert_eq!(after.lease.is_some(), after.status == Status::Running);
                prop_assert_eq!(after.finished_at.is_some(), after.status.is_finished());
                prop_assert!(after.retry_count < after.max_attempts && after.attempt >= task.attempt);
                prop_assert_eq!(after.fingerprint().is_some(), after.status == Status::Failed);
                task = after;
            }
        }
    }
}
