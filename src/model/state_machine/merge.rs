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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use ObservedKind::{Cancelled, Completed, Created, Enqueued, Failed, Progressed, Retried, Started};
    use proptest::prelude::*;

    use crate::model::{
        observation::Facts, report::Progress, state_machine::tests::at, step::Step, transition::Transition,
    };

    fn report(happened: ObservedKind, seconds: i64) -> Observation {
        Observation::new(happened, at(seconds))
    }

    fn of_attempt(happened: ObservedKind, seconds: i64, attempt: u32) -> Observation {
        Observation { attempt: Some(attempt), ..report(happened, seconds) }
    }

    fn told(reports: &[Observation]) -> Task {
        let (first, rest) = reports.split_first().unwrap();
        let (task, _) = Task::placeholder(Uuid::nil(), None, at(1_000)).first_observed(first, at(1_000));
        rest.iter().fold(task, |task, report| hear(&task, report).0)
    }

    fn hear(task: &Task, report: &Observation) -> (Task, Vec<Step>) {
        task.decide(Transition::Observe(Box::new(report.clone())), at(1_000)).unwrap()
    }

    #[test]
    fn the_reports_of_an_attempt_say_where_the_task_stands() {
        for (reports, status) in [
            (vec![report(Created, 0)], Status::Pending),
            (vec![report(Created, 0), report(Enqueued, 1)], Status::Pending),
            (vec![report(Started, 2)], Status::Running),
            (vec![report(Progressed, 2)], Status::Running),
            (vec![report(Started, 2), report(Completed, 9)], Status::Completed),
            (vec![report(Started, 2), report(Failed, 9)], Status::Failed),
            (vec![report(Started, 2), report(Retried, 9)], Status::Retrying),
            (vec![report(Retried, 9), report(Enqueued, 10)], Status::Pending),
            (vec![report(Retried, 9), report(Enqueued, 9)], Status::Retrying),
            (vec![report(Retried, 9), of_attempt(Started, 11, 2)], Status::Running),
            (vec![report(Cancelled, 1)], Status::Cancelled),
        ] {
            assert_eq!(told(&reports).status, status, "{reports:?}");
        }
    }

    #[test]
    fn an_end_beats_a_start_that_is_said_to_be_later() {
        let task = told(&[report(Completed, 5), report(Started, 8)]);
        assert_eq!((task.status, task.started_at, task.finished_at), (Status::Completed, Some(at(5)), Some(at(5))));
    }

    #[test]
    fn the_latest_end_of_an_attempt_counts() {
        assert_eq!(told(&[report(Completed, 9), report(Failed, 5)]).status, Status::Completed);
        assert_eq!(told(&[report(Completed, 5), report(Failed, 9)]).status, Status::Failed);
        assert_eq!(
            told(&[report(Failed, 5), report(Completed, 5)]).status,
            Status::Completed,
            "of two at once: success"
        );
    }

    #[test]
    fn the_highest_attempt_counts_and_forgets_the_one_before() {
        let failed = Observation {
            error: Some("disk full".to_owned()),
            worker: Some((Uuid::from_u128(100), Name::literal("m"))),
            ..report(Retried, 5)
        };
        let task = told(&[failed, of_attempt(Started, 9, 2)]);
        assert_eq!((task.attempt, task.retry_count, task.status), (2, 1, Status::Running));
        assert_eq!((task.worker_id, task.machine_id.clone(), task.error.clone()), (None, None, None));
        let late = hear(&task, &report(Completed, 20));
        assert_eq!((late.0.status, late.1.len()), (Status::Running, 0), "the first attempt is over, whatever it says");
    }

    #[test]
    fn a_cancellation_counts_unless_the_attempt_went_on_after_it() {
        assert_eq!(told(&[report(Started, 2), report(Cancelled, 5)]).status, Status::Cancelled);
        assert_eq!(told(&[report(Completed, 5), report(Cancelled, 5)]).status, Status::Cancelled);
        assert_eq!(told(&[report(Cancelled, 5), report(Completed, 6)]).status, Status::Completed);
        assert_eq!(told(&[report(Cancelled, 5), report(Progressed, 6)]).status, Status::Running);
        let task = told(&[report(Created, 0), report(Cancelled, 4), report(Cancelled, 3)]);
        assert_eq!((task.finished_at, task.outcome, task.attempt), (Some(at(4)), Some(Outcome::Cancelled), 0));
    }

    #[test]
    fn a_missing_start_follows_from_the_duration() {
        let completed = |duration_ms| Observation { duration_ms, ..report(Completed, 20) };
        assert_eq!(told(&[completed(Some(5_000))]).started_at, Some(at(15)));
        assert_eq!(told(&[completed(None)]).started_at, None);
        assert_eq!(told(&[completed(Some(u64::MAX))]).started_at, None, "no time is that long ago");
        assert_eq!(told(&[completed(Some(5_000)), report(Started, 12)]).started_at, Some(at(12)));
        for both in [[Some(1), Some(9_000)], [Some(9_000), Some(1)]] {
            assert_eq!(told(&both.map(completed)).started_at, Some(at(11)), "the longer of two");
        }
    }

    #[test]
    fn the_latest_word_on_a_field_counts_and_of_two_at_once_the_greater() {
        let titled = |title: &str, seconds| {
            let facts = Facts { title: Some(title.to_owned()), ..Facts::default() };
            Observation { facts, ..report(Created, seconds) }
        };
        let title = |reports: &[Observation]| told(reports).title.unwrap();
        assert_eq!(title(&[titled("new", 5), titled("old", 4)]), "new");
        assert_eq!(title(&[titled("a", 5), titled("b", 5)]), "b");
        assert_eq!(title(&[titled("b", 5), titled("a", 5)]), "b");
        assert_eq!(title(&[titled("a", 5), report(Completed, 9)]), "a", "what is not said stays");
    }

    #[test]
    fn an_error_is_kept_but_a_completed_task_shows_none() {
        let failed = Observation { error: Some("disk full".to_owned()), ..report(Failed, 5) };
        let task = told(&[failed, report(Completed, 9)]);
        assert_eq!((task.status, task.error.clone()), (Status::Completed, None));
        assert_eq!(hear(&task, &report(Failed, 10)).0.error.as_deref(), Some("disk full"));
    }

    #[test]
    fn a_task_with_a_time_is_scheduled_until_it_is_enqueued() {
        let facts = Facts { run_at: Some(at(500)), ..Facts::default() };
        let created = Observation { facts, ..report(Created, 0) };
        assert_eq!(told(std::slice::from_ref(&created)).status, Status::Scheduled);
        assert_eq!(told(&[created.clone(), report(Enqueued, 1)]).status, Status::Pending);
        assert_eq!(told(&[created, report(Started, 1)]).status, Status::Running);
    }

    #[test]
    fn the_task_is_as_old_as_its_oldest_report() {
        let task = told(&[report(Started, 9), report(Created, 3), report(Enqueued, 4), report(Enqueued, 5)]);
        assert_eq!((task.created_at, task.enqueued_at, task.started_at), (at(3), Some(at(5)), Some(at(9))));
        assert_eq!(told(&[report(Started, 9), report(Started, 7), report(Started, 8)]).started_at, Some(at(7)));
    }

    fn any_report() -> impl Strategy<Value = Observation> {
        let kinds = [Created, Enqueued, Started, Progressed, Retried, Cancelled, Failed, Completed];
        let happened = proptest::sample::select(kinds.to_vec());
        let of_attempt = (
            proptest::option::of(0_u64..9_000),
            proptest::option::of("[ab]"),
            proptest::option::of((0_u128..2, proptest::sample::select(vec!["m", "n"]))),
            proptest::option::of(0_u32..3),
        );
        let facts = (proptest::option::of("[ab]"), proptest::option::of(0_i64..3), proptest::option::of(0_u128..2));
        (happened, 0_i64..5, proptest::option::of(0_u32..4), of_attempt, facts).prop_map(
            |(happened, seconds, attempt, (duration_ms, error, worker, percent), (title, run_at, parent))| {
                Observation {
                    attempt,
                    duration_ms,
                    error,
                    worker: worker.map(|(worker, machine)| (Uuid::from_u128(worker), Name::literal(machine))),
                    progress: percent.map(|percent| Progress { percent: Some(percent.into()), ..Progress::default() }),
                    facts: Facts {
                        project_id: title.as_ref().map(|title| Name::new(title).unwrap()),
                        title,
                        run_at: run_at.map(at),
                        parent_task_id: parent.map(Uuid::from_u128),
                        ..Facts::default()
                    },
                    ..report(happened, seconds)
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

        #[test]
        fn reports_in_any_order_give_the_same_task(
            (reports, shuffled) in proptest::collection::vec(any_report(), 1..8)
                .prop_flat_map(|reports| (Just(reports.clone()), Just(reports).prop_shuffle()))
        ) {
            prop_assert_eq!(told(&reports), told(&shuffled));
        }

        #[test]
        fn a_report_repeated_at_any_time_changes_nothing(
            reports in proptest::collection::vec(any_report(), 1..8),
            which in any::<proptest::sample::Index>(),
        ) {
            let task = told(&reports);
            let (same, steps) = hear(&task, &reports[which.index(reports.len())]);
            prop_assert_eq!(same, task);
            prop_assert!(steps.is_empty());
        }

        /// The events lead from each status to the next without a gap, and end where the task stands.
        #[test]
        fn the_events_of_reports_lead_to_the_task(reports in proptest::collection::vec(any_report(), 1..8)) {
            let blank = Task::placeholder(Uuid::nil(), None, at(1_000));
            let (mut task, mut steps) = blank.first_observed(&reports[0], at(1_000));
            for report in &reports[1..] {
                let (after, more) = hear(&task, report);
                (task, steps) = (after, steps.into_iter().chain(more).collect());
            }
            prop_assert_eq!(steps[0].old_status, None);
            for pair in steps.windows(2) {
                prop_assert_eq!(pair[1].old_status, Some(pair[0].after.status));
            }
            let last = &steps.last().unwrap().after;
            prop_assert_eq!((last.status, last.attempt, &last.title), (task.status, task.attempt, &task.title));
            prop_assert_eq!(task.lease.is_some(), task.status == Status::Running);
            prop_assert_eq!(task.finished_at.is_some(), task.status.is_finished());
        }

        /// What is merged so far survives being stored: a report after a restart has the same effect.
        #[test]
        fn merged_reports_can_be_stored(reports in proptest::collection::vec(any_report(), 1..6), next in any_report()) {
            let task = told(&reports);
            let stored = serde_json::to_string(&task.observed).unwrap();
            let loaded = Task { observed: serde_json::from_str(&stored).unwrap(), ..task.clone() };
            prop_assert_eq!(hear(&loaded, &next).0, hear(&task, &next).0);
        }
    }
}
