//! What a form has just done: a line below the header of the page that follows.

use crate::model::words::words;

words! {
    /// What was done; a word in the URL of the next page.
    Done {
        /// A task was retried.
        Retried = "retried",
        /// A task was cancelled.
        Cancelled = "cancelled",
        /// A task was deleted.
        Deleted = "deleted",
        /// A task was edited.
        Saved = "saved",
        /// A queue was paused.
        Paused = "paused",
        /// A queue was resumed.
        Resumed = "resumed",
        /// Limits of a queue were set.
        Limited = "limited",
        /// A schedule was saved.
        ScheduleSaved = "schedule_saved",
        /// A schedule was paused.
        SchedulePaused = "schedule_paused",
        /// A schedule was resumed.
        ScheduleResumed = "schedule_resumed",
        /// A schedule was deleted.
        ScheduleDeleted = "schedule_deleted",
    }
}

impl Done {
    /// The line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Retried => "Task queued for retry",
            Self::Cancelled => "Task cancelled",
            Self::Deleted => "Task deleted",
            Self::Saved => "Changes saved",
            Self::Paused => "Queue paused",
            Self::Resumed => "Queue resumed",
            Self::Limited => "Limits saved",
            Self::ScheduleSaved => "Schedule saved",
            Self::SchedulePaused => "Schedule paused",
            Self::ScheduleResumed => "Schedule resumed",
            Self::ScheduleDeleted => "Schedule deleted",
        }
    }
}
