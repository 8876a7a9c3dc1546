//! What operators do that is not about one task.

use super::words::words;

words! {
    /// `data.action` of `operator_action`.
    OperatorAction {
        /// Limits of a queue were set.
        LimitQueue = "limit_queue",
        /// A schedule was created or replaced.
        PutSchedule = "put_schedule",
        /// A schedule was paused.
        PauseSchedule = "pause_schedule",
        /// A schedule was resumed.
        ResumeSchedule = "resume_schedule",
        /// A schedule was deleted.
        DeleteSchedule = "delete_schedule",
        /// A schedule could not create its task.
        ScheduleFailed = "schedule_failed",
        /// A bulk action that cancels started or ended.
        BulkCancel = "bulk_cancel",
        /// A bulk action that retries started or ended.
        BulkRetry = "bulk_retry",
        /// A bulk action that deletes started or ended.
        BulkDelete = "bulk_delete",
        /// A bulk action that edits started or ended.
        BulkEdit = "bulk_edit",
    }
}
