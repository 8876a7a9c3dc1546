//! Observed tasks: another system runs and reports them. Reports may be duplicated, late and out of order; the state of
//! a task depends only on the set of its reports, never on their order of arrival.
//!
//! Rules: the highest attempt wins; within an attempt its end beats its start, and the latest end beats earlier ones,
//! by the reporter's timestamps; each descriptive field is last-writer-wins by timestamp, with the greater value as
//! tie-breaker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Name, Priority, Status,
    report::{Json, Progress},
};
use crate::clock::Time;

/// Type of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedKind {
    /// The task was created.
    Created,
    /// The task became pending.
    Enqueued,
    /// An attempt started.
    Started,
    /// An attempt made progress.
    Progressed,
    /// An attempt failed and will be retried.
    Retried,
    /// The task was cancelled.
    Cancelled,
    /// The task failed.
    Failed,
    /// The task completed.
    Completed,
}

/// One report on a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Type of the report.
    pub happened: ObservedKind,
    /// Timestamp by the reporter's clock.
    pub at: Time,
    /// Attempt number; 1 if absent.
    pub attempt: Option<u32>,
    /// Its ID in the reporting system, if that is not a UUID.
    pub external_id: Option<String>,
    /// Descriptive fields.
    pub facts: Facts,
    /// Worker and machine.
    pub worker: Option<(Uuid, Name)>,
    /// The connector it uses.
    pub connector_id: Option<Name>,
    /// Progress.
    pub progress: Option<Progress>,
    /// Result.
    pub result: Option<Json>,
    /// Error of the attempt.
    pub error: Option<String>,
    /// Duration of the attempt, if known to the reporter.
    pub duration_ms: Option<u64>,
}

/// Descriptive fields of a report; absent fields stay unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Project.
    pub project_id: Option<Name>,
    /// Task type.
    pub task_type: Option<Name>,
    /// Its queue.
    pub queue: Option<Name>,
    /// Parent task.
    pub parent_task_id: Option<Uuid>,
    /// Its phase.
    pub phase: Option<Name>,
    /// Title.
    pub title: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// Priority, 0–9.
    pub priority: Option<Priority>,
    /// Labels.
    pub labels: Option<BTreeMap<Name, String>>,
    /// Phases of its children.
    pub phases: Option<Vec<Name>>,
    /// Maximum number of attempts.
    pub max_attempts: Option<u32>,
    /// Timeout of one attempt, seconds.
    pub timeout_seconds: Option<u32>,
    /// Payload.
    pub payload: Option<Json>,
    /// Earliest start.
    pub run_at: Option<Time>,
}

/// Merged state of all reports of a task, with timestamps: sufficient to merge any further report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Timestamp of the earliest report.
    pub(super) first: Option<Time>,
    /// Descriptive fields, each with the timestamp of its latest value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) said: BTreeMap<String, Time>,
    /// Latest report that it became pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) enqueued: Option<Time>,
    /// Latest report that it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cancelled: Option<Time>,
    /// Of the latest attempt: earliest start,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) started: Option<Time>,
    /// latest sign of progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progressed: Option<Time>,
    /// latest end,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<(Time, ObservedKind)>,
    /// and duration, if reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) duration_ms: Option<u64>,
    /// Latest progress, kept while it is not running,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<Progress>,
    /// and latest error, kept while it is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// The project was reported for the task itself, not inherited from its parent.
    #[serde(default)]
    pub(super) own_project: bool,
    /// It was failed for lack of reports: timestamp of the latest report before that, and when it was failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) given_up: Option<(Time, Time)>,
}

impl Observed {
    /// Last-writer-wins by timestamp, with the greater value as tie-breaker.
    pub(super) fn merge<T: PartialEq + Serialize>(
        &mut self,
        field: &str,
        slot: &mut T,
        word: Option<T>,
        at: Time,
    ) -> bool {
        let Some(word) = word else { return false };
        let newer = match self.said.get(field) {
            None => true,
            Some(said) if *said == at => text(&word) > text(slot),
            Some(said) => at > *said,
        };
        if newer {
            self.said.insert(field.to_owned(), at);
            *slot = word;
        }
        newer
    }

    /// When the latest attempt ended, by the reporter's clock.
    #[must_use]
    pub fn ended_at(&self) -> Option<Time> {
        self.ended.map(|(at, _)| at)
    }

    /// The status that results from the merged reports.
    pub(super) fn status(&self, scheduled: bool) -> Status {
        let end = match self.ended {
            Some((_, ObservedKind::Completed)) => Some(Status::Completed),
            Some((_, ObservedKind::Failed)) => Some(Status::Failed),
            Some((at, _)) if self.enqueued.is_some_and(|enqueued| enqueued > at) => Some(Status::Pending),
            Some(_) => Some(Status::Retrying),
            None => None,
        };
        let latest = self.ended.map(|(at, _)| at).max(self.started).max(self.progressed);
        if self.cancelled.is_some() && self.cancelled >= latest {
            return Status::Cancelled;
        }
        match end {
            Some(status) => status,
            None if self.started.is_some() || self.progressed.is_some() => Status::Running,
            None if scheduled && self.enqueued.is_none() => Status::Scheduled,
            None => Status::Pending,
        }
    }
}

/// A value as text, for comparison as a tie-breaker.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Observation {
    /// A report that says only what happened, and when.
    #[must_use]
    pub fn new(happened: ObservedKind, at: Time) -> Self {
        Self {
            happened,
            at,
            attempt: None,
            external_id: None,
            facts: Facts::default(),
            worker: None,
            connector_id: None,
            progress: None,
            result: None,
            error: None,
            duration_ms: None,
        }
    }

    /// The attempt concerned: 1 if the report names none, 0 if it is about the task itself.
    pub(super) fn attempt(&self) -> u32 {
        match self.happened {
            ObservedKind::Created | ObservedKind::Enqueued | ObservedKind::Cancelled => self.attempt.unwrap_or(0),
            ObservedKind::Started
            | ObservedKind::Progressed
            | ObservedKind::Retried
            | ObservedKind::Failed
            | ObservedKind::Completed => self.attempt.unwrap_or(1).max(1),
        }
    }
}

impl Observed {
    /// Timestamp of the latest report, by the reporter's clock.
    pub(super) fn last_sign(&self) -> Option<Time> {
        let ended = self.ended.map(|(at, _)| at);
        let told = [self.first, self.enqueued, self.cancelled, self.started, self.progressed, ended];
        self.said.values().copied().chain(told.into_iter().flatten()).max()
    }

    /// When it was failed for lack of reports; `None` if a newer report has arrived.
    pub(super) fn given_up(&self) -> Option<Time> {
        let (sign, at) = self.given_up?;
        (self.last_sign() <= Some(sign)).then_some(at)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_report_of_an_attempt_without_a_number_is_of_the_first() {
        for happened in
            [ObservedKind::Started, ObservedKind::Progressed, ObservedKind::Retried, ObservedKind::Completed]
        {
            let attempt = |attempt| Observation { attempt, ..Observation::new(happened, at(0)) }.attempt();
            assert_eq!([None, Some(0), Some(1), Some(7)].map(attempt), [1, 1, 1, 7], "{happened:?}");
        }
        for happened in [ObservedKind::Created, ObservedKind::Enqueued, ObservedKind::Cancelled] {
            let attempt = |attempt| Observation { attempt, ..Observation::new(happened, at(0)) }.attempt();
            assert_eq!([None, Some(0), Some(7)].map(attempt), [0, 0, 7], "{happened:?}");
        }
    }

    #[test]
    fn the_last_sign_is_the_latest_report_of_any_kind() {
        assert_eq!(Observed::default().last_sign(), None);
        let told = [
            Observed { first: Some(at(9)), ..Observed::default() },
            Observed { enqueued: Some(at(9)), ..Observed::default() },
            Observed { cancelled: Some(at(9)), ..Observed::default() },
            Observed { started: Some(at(9)), ..Observed::default() },
            Observed { progressed: Some(at(9)), ..Observed::default() },
            Observed { ended: Some((at(9), ObservedKind::Retried)), ..Observed::default() },
            Observed { said: [("title".to_owned(), at(9))].into(), ..Observed::default() },
        ];
        for observed in told {
            assert_eq!(observed.last_sign(), Some(at(9)), "{observed:?}");
            let both = Observed { first: Some(observed.first.map_or(at(3), |first| first)), ..observed };
            assert_eq!(both.last_sign(), Some(at(9)));
        }
    }

    #[test]
    fn a_task_stays_given_up_until_something_newer_is_reported() {
        let observed = Observed { started: Some(at(9)), given_up: Some((at(9), at(500))), ..Observed::default() };
        assert_eq!(observed.given_up(), Some(at(500)));
        assert_eq!(Observed { progressed: Some(at(9)), ..observed.clone() }.given_up(), Some(at(500)));
        assert_eq!(Observed { progressed: Some(at(10)), ..observed }.given_up(), None);
    }

    #[test]
    fn what_was_never_reported_is_not_stored() {
        let text = serde_json::to_string(&Observed::default()).unwrap();
        assert_eq!(text, r#"{"first":null,"own_project":false}"#);
        assert_eq!(serde_json::from_str::<Observed>("{\"first\":null}").unwrap(), Observed::default());
    }

    proptest! {
        /// The last word on a field does not depend on the order in which words arrive.
        #[test]
        fn the_last_word_counts_in_any_order(
            (words, shuffled) in proptest::collection::vec(("[abc]{1,2}", 0_i64..4), 1..8)
                .prop_flat_map(|words| (Just(words.clone()), Just(words).prop_shuffle()))
        ) {
            let merged = |words: &[(String, i64)]| {
                let (mut observed, mut slot) = (Observed::default(), String::new());
                for (word, seconds) in words {
                    observed.merge("title", &mut slot, Some(word.clone()), at(*seconds));
                    observed.merge("title", &mut slot, None, at(99));
                }
                (slot, observed)
            };
            let latest = words.iter().map(|(word, seconds)| (*seconds, word.clone())).max().unwrap();
            prop_assert_eq!(merged(&words).0, latest.1);
            prop_assert_eq!(merged(&words), merged(&shuffled));
        }
    }
}
