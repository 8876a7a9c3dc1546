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
    /// Figures.
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
    TaskCreated = "task_created", TasksStatus, durable, Quiet, "A task was created.",
        ["depends_on", "external_id", "max_attempts", "phases", "reported_at", "run_at", "schedule", "title"];
    TaskEnqueued = "task_enqueued", TasksStatus, durable, Quiet, "A task may be claimed.",
        ["fingerprint", "reason", "reported_at"];
    TaskStarted = "task_started", TasksStatus, durable, Busy, "A worker began an attempt.",
        ["fingerprint", "phases", "reported_at", "title", "wait_ms"];
    TaskProgress = "task_progress", TasksProgress, durable, Busy, "A worker told how far it is.",
        ["fingerprint", "percent", "reported_at"];
    TaskCompleted = "task_completed", TasksStatus, durable, Good, "A task is done.",
        ["fingerprint", "reported_at", "result", "title"];
    TaskRetry = "task_retry", TasksStatus, durable, Warn, "An attempt failed; another follows.",
        ["fingerprint", "next_run_at", "old_fingerprint", "reported_at", "title"];
    TaskFailed = "task_failed", TasksStatus, durable, Bad, "A task was given up.",
        ["fingerprint", "old_fingerprint", "reported_at", "title"];
    TaskStalled = "task_stalled", TasksStatus, durable, Warn, "An attempt was lost with its lease, its worker or its time.",
        ["reason"];
    TaskCancelled = "task_cancelled", TasksStatus, durable, Warn, "Someone stopped a task.",
        ["fingerprint", "reason", "reported_at"];
    TaskDeleted = "task_deleted", TasksStatus, durable, Quiet, "Someone removed a task.",
        ["fingerprint"];
    TaskUpdated = "task_updated", TasksEdits, durable, Quiet, "A task's own facts changed.",
        ["changes", "children", "fingerprint", "old_fingerprint", "phases", "reason", "title"];
    TaskPriorityChanged = "task_priority_changed", TasksEdits, durable, Quiet, "Someone changed a task's priority.",
        ["changes", "title"];
    TaskAssigned = "task_assigned", TasksEdits, durable, Quiet, "Someone else is responsible for a task.",
        ["changes", "title"];
    TaskCollaboratorsUpdated = "task_collaborators_updated", TasksEdits, durable, Quiet, "Other people work on a task.",
        ["changes", "title"];
    TaskWatchersUpdated = "task_watchers_updated", TasksEdits, durable, Quiet, "Other people watch a task.",
        ["changes", "title"];
    TaskDependencyAdded = "task_dependency_added", TasksEdits, durable, Quiet, "A task waits for more tasks.",
        ["changes", "title"];
    TaskDependencyRemoved = "task_dependency_removed", TasksEdits, durable, Quiet, "A task waits for fewer tasks.",
        ["changes", "title"];
    WorkerStarted = "worker_started", Workers, durable, Good, "A worker registered.",
        ["name", "queues", "status", "version"];
    WorkerHeartbeat = "worker_heartbeat", Workers, ephemeral, Quiet, "A worker is alive.",
        [];
    WorkerStatusChanged = "worker_status_changed", Workers, durable, Quiet, "A worker does something else now.",
        ["name", "old_status", "status"];
    WorkerStopped = "worker_stopped", Workers, durable, Warn, "A worker left or was lost.",
        ["name", "old_status", "reason", "status"];
    ConnectorStatusChanged = "connector_status_changed", Connectors, durable, Quiet, "A connector does something else now.",
        ["old_status", "status", "unreported_since"];
    PhaseStarted = "phase_started", Phases, durable, Busy, "The first task of a parent's phase began.",
        ["children"];
    PhaseCompleted = "phase_completed", Phases, durable, Good, "All tasks of a parent's phase are finished.",
        ["children"];
    QueuePaused = "queue_paused", Queues, durable, Warn, "An operator stopped handing out the tasks of a queue.",
        ["changes"];
    QueueResumed = "queue_resumed", Queues, durable, Good, "An operator let the tasks of a queue be handed out again.",
        ["changes"];
    OperatorAction = "operator_action", Queues, durable, Quiet, "An operator did something that is not about one task.",
        ["action", "changes", "failed", "matched", "reason", "schedule", "succeeded"];
    QueueDepthUpdate = "queue_depth_update", Queues, ephemeral, Quiet, "How long a queue is, and since when its oldest task waits.",
        ["depth", "oldest_enqueued_at"];
    TasksStuck = "tasks_stuck", Stats, ephemeral, Warn, "Tasks that wait for what can never come, or none any more.",
        ["matched", "stuck"];
    StatsSnapshot = "stats_snapshot", Stats, ephemeral, Quiet, "The figures of the overview.",
        ["stats"];
}

/// What is known of a kind that is not in the table.
const UNKNOWN: Row = Row {
    name: "unknown",
    topic: Topic::Unknown,
    durable: true,
    tone: Tone::Quiet,
    sentence: "Something that only a newer version of taskwatch knows.",
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
            .ok_or_else(|| format!("'{name}' is not an event type"))
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
