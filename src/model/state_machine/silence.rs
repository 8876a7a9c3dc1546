//! Observed tasks without further reports. After a while they end as stalled; a report newer than all earlier ones
//! revives them, an older one has no effect.

use super::millis;
use crate::{
    clock::Time,
    model::{
        Status, Task,
        lease::StallReason,
        step::{Decision, TaskEvent},
        task::Outcome,
        transition::TransitionError,
    },
};

impl Task {
    /// Marks it as ended for lack of reports.
    pub(super) fn end_in_silence(&mut self, at: Time) {
        self.status = Status::Failed;
        self.finished_at = Some(at);
        self.outcome = Some(Outcome::Stalled);
        self.error = Some(StallReason::NoReport.sentence().to_owned());
        self.lease = None;
    }

    /// Fails an unfinished observed task whose last report is before `before`.
    pub(super) fn give_up(&self, before: Time, now: Time) -> Decision {
        let Some(seen) = &self.observed else { return Err(TransitionError::Managed) };
        let Some(sign) = seen.last_sign().filter(|sign| *sign < before && !self.status.is_finished()) else {
            return Ok(self.unchanged());
        };
        let (between, mut steps) = self.step(TaskEvent::Stalled(StallReason::NoReport), |_| {});
        let duration_ms = self.started_at.map_or(0, |started| millis(sign - started));
        let error = StallReason::NoReport.sentence().to_owned();
        let (after, then) = between.step(TaskEvent::Failed { duration_ms, error }, |task| {
            if let Some(seen) = &mut task.observed {
                seen.given_up = Some((sign, now));
            }
            task.end_in_silence(now);
        });
        steps.extend(then);
        Ok((after, steps))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::model::{
        observation::{Observation, ObservedKind},
        transition::Transition,
    };
    use chrono::TimeDelta;
    use uuid::Uuid;

    #[test]
    fn silence_ends_a_task_and_news_bring_it_back() {
        let start = Time::from_timestamp(1_000_000_000, 0).unwrap();
        let later = start + TimeDelta::days(8);
        let hear = |task: &Task, happened, at| {
            task.decide(Transition::Observe(Box::new(Observation::new(happened, at))), later).unwrap()
        };
        let (task, _) = Task::placeholder(Uuid::nil(), None, start)
            .first_observed(&Observation::new(ObservedKind::Started, start), start);
        let (same, steps) = task.decide(Transition::GiveUp(start), later).unwrap();
        assert_eq!((same.status, steps.len()), (Status::Running, 0));
        let (given_up, steps) = task.decide(Transition::GiveUp(later), later).unwrap();
        assert_eq!(
            (given_up.status, given_up.finished_at, given_up.lease.clone()),
            (Status::Failed, Some(later), None)
        );
        assert_eq!(steps.len(), 2);
        // The same report again has no effect; neither does giving up again.
        let (same, steps) = hear(&given_up, ObservedKind::Started, start);
        assert_eq!((same.status, same.finished_at, steps.len()), (Status::Failed, Some(later), 0));
        assert_eq!(given_up.decide(Transition::GiveUp(later), later).unwrap().1.len(), 0);
        // A newer report does, and so does an end, however old.
        assert_eq!(hear(&given_up, ObservedKind::Progressed, later).0.status, Status::Running);
        assert_eq!(hear(&given_up, ObservedKind::Completed, start).0.status, Status::Completed);
    }

    #[test]
    fn only_unfinished_tasks_of_other_systems_are_given_up() {
        let start = Time::from_timestamp(1_000_000_000, 0).unwrap();
        let told = |happened| {
            Task::placeholder(Uuid::nil(), None, start).first_observed(&Observation::new(happened, start), start).0
        };
        let later = start + TimeDelta::days(8);
        for happened in [ObservedKind::Completed, ObservedKind::Failed, ObservedKind::Cancelled] {
            assert_eq!(told(happened).decide(Transition::GiveUp(later), later).unwrap().1.len(), 0, "{happened:?}");
        }
        for happened in [ObservedKind::Created, ObservedKind::Enqueued, ObservedKind::Started, ObservedKind::Retried] {
            let (task, _) = told(happened).decide(Transition::GiveUp(later), later).unwrap();
            assert_eq!((task.status, task.outcome), (Status::Failed, Some(Outcome::Stalled)), "{happened:?}");
        }
        let managed = Task { observed: None, ..told(ObservedKind::Started) };
        assert_eq!(managed.decide(Transition::GiveUp(later), later), Err(TransitionError::Managed));
    }

    #[test]
    fn a_task_given_up_lasted_until_its_last_report() {
        let start = Time::from_timestamp(1_000_000_000, 0).unwrap();
        let blank = Task::placeholder(Uuid::nil(), None, start);
        let (task, _) = blank.first_observed(&Observation::new(ObservedKind::Started, start), start);
        let progress = Observation::new(ObservedKind::Progressed, start + TimeDelta::seconds(90));
        let (task, _) = task.decide(Transition::Observe(Box::new(progress)), start).unwrap();
        let later = start + TimeDelta::days(8);
        let (_, steps) = task.decide(Transition::GiveUp(later), later).unwrap();
        assert_eq!(steps[0].event, TaskEvent::Stalled(StallReason::NoReport));
        let TaskEvent::Failed { duration_ms, error } = &steps[1].event else { panic!("{:?}", steps[1].event) };
        assert_eq!((*duration_ms, error.as_str()), (90_000, "not reported for too long"));
    }
}
