//! The kinds of event: ONE table. Documents, filters, OpenAPI, pages and tests read it.
//!
//! To add a kind, add its row here and emit it where it happens.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a subscriber asks for when it does not want to name kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A task changed its state.
    TasksStatus,
    /// A running task moved on.
    TasksProgress,
    /// Someone edited a task.
    TasksEdits,
    /// Workers came, went or changed.
    Workers,
    /// Connectors changed.
    Connectors,
    /// Phases of parent tasks began or ended.
    Phases,
    /// Queues changed.
    Queues,
    /// Statistics.
    Stats,
    /// Kinds that are not in the table.
    Unknown,
}

impl Topic {
    /// The word used in URLs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TasksStatus => "tasks:status",
            Self::TasksProgress => "tasks:progress",
            Self::TasksEdits => "tasks:edits",
            Self::Workers => "workers",
            Self::Connectors => "connectors",
            Self::Phases => "phases",
            Self::Queues => "queues",
            Self::Stats => "stats",
            Self::Unknown => "unknown",
        }
    }
}

/// How a page colours a kind, always beside a word and a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing to see.
    Quiet,
    /// Tasks are being processed.
    Busy,
    /// Something ended well.
    Good,
    /// Look at it.
    Warn,
    /// Something ended badly.
    Bad,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// `event_type` in JSON and `event:` in a frame.
    pub name: &'static str,
    /// The topic it belongs to.
    pub topic: Topic,
    /// Stored with a position, or ephemeral: not stored, no position, can be computed again.
    pub durable: bool,
    /// How it looks.
    pub tone: Tone,
    /// What it tells people.
    pub sentence: &'static str,
    /// The fields of `data` it may carry.
    pub data: &'static [&'static str],
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $topic:ident, $durable:ident, $tone:ident, $sentence:literal, [$($data:literal),*];)+) => {
        /// The kind of an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $sentence] $kind,)+
            /// A kind of a newer version of this program. It is handed on and takes part in nothing.
            Unknown,
        }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Its row.
            #[must_use]
            pub const fn row(self) -> &'static Row {
                match self {
                    $(Self::$kind => &Row {
                        name: $name,
                        topic: Topic::$topic,
                        durable: kinds!(@$durable),
                        tone: Tone::$tone,
                        sentence: $sentence,
                        data: &[$($data),*],
                    },)+
                    Self::Unknown => &UNKNOWN,
                }
            }
        }
    };
    (@durable) => { true };
    (@ephemeral) => { false };
}

kinds! {
    TaskCreated = "task_created", TasksStatus, durable, Quiet, "Task created.",
        ["depends_on", "external_id", "max_attempts", "phases", "reported_at", "run_at", "schedule", "title"];
    TaskEnqueued = "task_enqueued", TasksStatus, durable, Quiet, "Task is pending.",
        ["fingerprint", "reason", "reported_at"];
    TaskStarted = "task_started", TasksStatus, durable, Busy, "Attempt started.",
        ["fingerprint", "phases", "reported_at", "title", "wait_ms"];
    TaskProgress = "task_progress", TasksProgress, durable, Busy, "Progress reported.",
        ["fingerprint", "percent", "reported_at"];
    TaskCompleted = "task_completed", TasksStatus, durable, Good, "Task completed.",
        ["fingerprint", "reported_at", "result", "title"];
    TaskRetry = "task_retry", TasksStatus, durable, Warn, "Attempt failed; retry scheduled.",
        ["fingerprint", "next_run_at", "old_fingerprint", "reported_at", "title"];
    TaskFailed = "task_failed", TasksStatus, durable, Bad, "Task failed permanently.",
        ["fingerprint", "old_fingerprint", "reported_at", "title"];
    TaskStalled = "task_stalled", TasksStatus, durable, Warn, "Attempt lost: lease expired, worker lost or timeout.",
        ["reason"];
    TaskCancelled = "task_cancelled", TasksStatus, durable, Warn, "Task cancelled.",
        ["fingerprint", "reason", "reported_at"];
    TaskDeleted = "task_deleted", TasksStatus, durable, Quiet, "Task deleted.",
        ["fingerprint"];
    TaskUpdated = "task_updated", TasksEdits, durable, Quiet, "Task attributes changed.",
        ["changes", "children", "fingerprint", "old_fingerprint", "phases", "reason", "title"];
    TaskPriorityChanged = "task_priority_changed", TasksEdits, durable, Quiet, "Priority changed.",
        ["changes", "title"];
    TaskAssigned = "task_assigned", TasksEdits, durable, Quiet, "Assignee changed.",
        ["changes", "title"];
    TaskCollaboratorsUpdated = "task_collaborators_updated", TasksEdits, durable, Quiet, "Collaborators changed.",
        ["changes", "title"];
    TaskWatchersUpdated = "task_watchers_updated", TasksEdits, durable, Quiet, "Watchers changed.",
        ["changes", "title"];
    TaskDependencyAdded = "task_dependency_added", TasksEdits, durable, Quiet, "Dependencies added.",
        ["changes", "title"];
    TaskDependencyRemoved = "task_dependency_removed", TasksEdits, durable, Quiet, "Dependencies removed.",
        ["changes", "title"];
    WorkerStarted = "worker_started", Workers, durable, Good, "Worker registered.",
        ["name", "queues", "status", "version"];
    WorkerHeartbeat = "worker_heartbeat", Workers, ephemeral, Quiet, "Worker heartbeat.",
        [];
    WorkerStatusChanged = "worker_status_changed", Workers, durable, Quiet, "Worker status changed.",
        ["name", "old_status", "status"];
    WorkerStopped = "worker_stopped", Workers, durable, Warn, "Worker stopped or lost.",
        ["name", "old_status", "reason", "status"];
    ConnectorStatusChanged = "connector_status_changed", Connectors, durable, Quiet, "Connector status changed.",
        ["old_status", "status", "unreported_since"];
    PhaseStarted = "phase_started", Phases, durable, Busy, "First task of a phase started.",
        ["children"];
    PhaseCompleted = "phase_completed", Phases, durable, Good, "All tasks of a phase finished.",
        ["children"];
    QueuePaused = "queue_paused", Queues, durable, Warn, "Queue paused.",
        ["changes", "reason"];
    QueueResumed = "queue_resumed", Queues, durable, Good, "Queue resumed.",
        ["changes"];
    OperatorAction = "operator_action", Queues, durable, Quiet, "Operator action (bulk action, schedule change, queue limits).",
        ["action", "changes", "failed", "matched", "reason", "schedule", "succeeded"];
    QueueDepthUpdate = "queue_depth_update", Queues, ephemeral, Quiet, "Queue backlog and age of its oldest pending task.",
        ["depth", "oldest_enqueued_at"];
    TasksStuck = "tasks_stuck", Stats, ephemeral, Warn, "Number of tasks that can never run (0: none any more).",
        ["matched", "stuck"];
    StatsSnapshot = "stats_snapshot", Stats, ephemeral, Quiet, "Headline metrics.",
        ["stats"];
}

/// What is known of a kind that is not in the table.
const UNKNOWN: Row = Row {
    name: "unknown",
    topic: Topic::Unknown,
    durable: true,
    tone: Tone::Quiet,
    sentence: "Unknown event type (written by a newer version).",
    data: &[],
};

impl Kind {
    /// `event_type` in JSON and `event:` in a frame.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .chain([&Self::Unknown])
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("unknown event type '{name}'"))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::event::{
        envelope::Data,
        filter::{ROWS, TOPICS},
    };

    #[test]
    fn every_type_is_read_by_its_name() {
        for kind in Kind::ALL.iter().copied().chain([Kind::Unknown]) {
            assert_eq!(kind.name().parse(), Ok(kind));
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<Kind>(&json).unwrap(), kind);
        }
    }

    #[test]
    fn a_name_is_exact() {
        for text in ["", "Task_created", "task_created ", "task-created", "task_creat", "task_created\0"] {
            assert_eq!(text.parse::<Kind>(), Err(format!("unknown event type '{text}'")));
        }
    }

    #[test]
    fn names_are_unique_and_of_small_letters() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).chain(["unknown"]).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len() + 1);
    }

    #[test]
    fn a_type_carries_known_fields_in_order() {
        for kind in Kind::ALL {
            let fields = kind.row().data;
            assert!(fields.iter().all(|field| Data::FIELDS.contains(field)), "{kind}: {fields:?}");
            assert!(fields.windows(2).all(|pair| pair[0] < pair[1]), "{kind}: {fields:?}");
        }
    }

    #[test]
    fn every_field_belongs_to_some_type() {
        for field in Data::FIELDS {
            assert!(Kind::ALL.iter().any(|kind| kind.row().data.contains(field)), "{field}");
        }
    }

    #[test]
    fn what_can_be_computed_again_is_not_stored() {
        let ephemeral: Vec<_> = Kind::ALL.iter().filter(|kind| !kind.row().durable).map(|kind| kind.name()).collect();
        assert_eq!(ephemeral, ["worker_heartbeat", "queue_depth_update", "tasks_stuck", "stats_snapshot"]);
    }

    #[test]
    fn every_topic_is_a_word_of_the_filter() {
        for kind in Kind::ALL {
            let topic = kind.row().topic;
            let of_word = TOPICS.iter().find(|(word, _)| *word == topic.as_str()).map(|(_, topics)| *topics);
            assert_eq!(of_word, Some(&[topic][..]), "{kind}");
        }
        assert!(TOPICS.iter().all(|(_, topics)| !topics.contains(&Topic::Unknown)));
        let help = ROWS.iter().find(|row| row.name == "topics").unwrap().help;
        assert!(TOPICS.iter().all(|(word, _)| help.contains(word)), "{help}");
    }

    #[test]
    fn sentences_are_sentences() {
        for kind in Kind::ALL.iter().chain([&Kind::Unknown]) {
            let sentence = kind.row().sentence;
            assert!(sentence.ends_with('.') && sentence.starts_with(char::is_uppercase), "{sentence}");
        }
    }

    #[test]
    fn failures_look_bad_and_success_looks_good() {
        let tones =
            [Kind::TaskFailed, Kind::TaskRetry, Kind::TaskCompleted, Kind::TaskStarted].map(|kind| kind.row().tone);
        assert_eq!(tones, [Tone::Bad, Tone::Warn, Tone::Good, Tone::Busy]);
    }
}
