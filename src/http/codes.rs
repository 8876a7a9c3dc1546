//! The error codes: ONE table. The API document and the README list it; a test holds it against the source.

/// Which calls may answer with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every call.
    All,
    /// Calls with a body.
    Body,
    /// Calls that change something.
    Changes,
    /// Calls that say so themselves.
    Some,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// `code` of a problem; does not change between versions.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Where it occurs.
    pub scope: Scope,
    /// What it means.
    pub meaning: &'static str,
    /// What a client should do.
    pub action: &'static str,
}

macro_rules! codes {
    ($($status:literal $code:literal $scope:ident: $meaning:literal => $action:literal;)+) => {
        /// Every code, by status.
        pub const ROWS: &[Row] = &[$(Row {
            code: $code,
            status: $status,
            scope: Scope::$scope,
            meaning: $meaning,
            action: $action,
        }),+];
    };
}

codes! {
    400 "invalid_json" Body: "The body is not JSON." => "Correct the body.";
    400 "incomplete_body" Body: "The connection ended within the body." => "Send it again.";
    400 "invalid_id" All: "The id in the path is not an id." => "Correct the path.";
    400 "invalid_name" All: "The name in the path is not a name." => "Correct the path.";
    400 "invalid_filter" All: "A filter is unknown or its value is invalid; `errors` names it." => "Correct the query.";
    400 "invalid_parameter" All: "A query parameter or header is unknown or invalid; `errors` names it." => "Correct the query.";
    400 "invalid_host" All: "The request names no Host, several, or one that is none." => "Send one Host header.";
    400 "idempotency_key_unsupported" Some: "This call does not support Idempotency-Key." => "Leave the header out.";
    400 "if_match_unsupported" Changes: "This call does not support If-Match." => "Leave the header out.";
    403 "cross_site" Changes: "A page of another site made the browser send this." => "Call it from a program, or from pages of this server.";
    404 "not_found" Some: "There is nothing at this URL." => "Look at /openapi.json.";
    404 "task_not_found" Some: "There is no such task." => "Do not repeat it.";
    404 "worker_not_found" Some: "There is no such worker." => "Register the worker with POST /api/v1/workers.";
    404 "queue_not_found" Some: "There is no such queue." => "Do not repeat it.";
    404 "schedule_not_found" Some: "There is no such schedule." => "Create it with PUT.";
    404 "bulk_not_found" Some: "There is no such bulk action." => "Do not repeat it.";
    404 "live_off" Some: "Live updates of pages are switched off." => "Poll the page.";
    405 "method_not_allowed" Some: "The URL does not support this method; Allow names those it does." => "Use another method.";
    406 "not_acceptable" Some: "The media type in Accept is not available." => "Ask for text/event-stream or application/x-ndjson.";
    408 "slow_body" Body: "The body did not arrive within 30 seconds." => "Send it again.";
    409 "id_taken" Changes: "A task with this id was created by another request." => "Use a new id.";
    409 "unique_key_taken" Changes: "Another live task has the same unique_key." => "Wait until that task is finished.";
    409 "worker_stopped" Changes: "The worker has left." => "Register it again.";
    409 "task_observed" Changes: "Another system runs the task; taskwatch only watches it." => "Change it there.";
    409 "task_managed" Changes: "taskwatch runs the task; it cannot be reported by POST /api/v1/events." => "Claim it and report as its worker.";
    409 "worker_managed" Changes: "taskwatch runs the worker; it cannot be reported by POST /api/v1/events." => "Report as the worker.";
    409 "task_is_group" Changes: "The task only groups others." => "Change its children.";
    409 "illegal_transition" Changes: "The status of the task does not allow this." => "Read the task; do not repeat it.";
    409 "lease_lost" Changes: "The worker no longer holds this attempt of the task." => "Stop working on it.";
    409 "task_cancelled" Changes: "The task was cancelled." => "Stop working on it.";
    409 "nothing_to_claim" Some: "The test client found no task to claim." => "Create one first.";
    410 "gap" Some: "The log no longer holds the events after the cursor." => "Read a snapshot and continue from its event_id.";
    412 "task_changed" Some: "The task is not the one that If-Match names." => "Read the task again and decide anew.";
    413 "too_large" Body: "The body is too large." => "Send less in one request.";
    414 "url_too_long" Some: "The URL is longer than 8 KiB." => "Send less in the query.";
    415 "unsupported_media_type" Body: "The Content-Type is not supported." => "Send application/json or application/x-ndjson.";
    415 "unsupported_encoding" Body: "The Content-Encoding is not supported." => "Send the body uncompressed.";
    421 "unknown_host" All: "The server is not known under this host name." => "Use its address, or add the name to --allowed-hosts.";
    422 "invalid_body" Body: "The body is empty or holds too many objects." => "Send 1 to 1000 objects.";
    422 "invalid_field" Body: "A field is missing, unknown or invalid; `errors` names it." => "Correct the field.";
    422 "dependency_cycle" Some: "The tasks would wait for each other in a ring." => "Correct depends_on.";
    422 "dependencies_too_deep" Changes: "Too many tasks wait for each other to look for a ring among them." => "Depend on fewer tasks, or on a group of them.";
    422 "parents_too_deep" Changes: "Parents and children would be nested in more than 32 levels." => "Nest fewer levels.";
    422 "parent_cycle" Changes: "A task would be among its own parents." => "Correct parent_task_id.";
    422 "too_many_connectors" Changes: "The worker would have more than 64 connectors." => "Report fewer connectors.";
    422 "idempotency_key_reused" Some: "The Idempotency-Key was used with another body." => "Use a new key for a new request.";
    431 "headers_too_large" Some: "The headers are larger than 16 KiB." => "Send fewer or shorter headers.";
    500 "internal" All: "The server made a mistake; its log says more." => "Report it with the request_id.";
    500 "not_stored" Changes: "The database refused to store this; the log of the server says why." => "Report it with the request_id.";
    503 "busy" Changes: "More waits to be written than the server can take on." => "Repeat it after Retry-After seconds.";
    503 "database_unavailable" All: "The database did not answer in time; a change may have been stored." => "Repeat it after Retry-After seconds, with the same id or Idempotency-Key.";
    503 "not_writing" Changes: "The database takes no writes at the moment; `detail` says why." => "Repeat it after Retry-After seconds.";
    503 "command_too_slow" Changes: "The database needed more than 30 s for this call." => "Ask for less at once.";
    503 "log_changed" Some: "The event log was replaced and is being read anew." => "Wait.";
    503 "search_too_slow" Some: "The search took too long." => "Narrow it by filters.";
    503 "too_many_bodies" Body: "Too many request bodies are being received." => "Repeat it after Retry-After seconds.";
    503 "too_many_unread" Some: "Too many answers wait to be read." => "Read the answers.";
    503 "too_many_connections" Some: "Too many connections are open, in all or from one IP address." => "Close some, or connect again later.";
    503 "behind" Some: "The board is behind the event log." => "Wait.";
    503 "stopping" Some: "The server is stopping." => "Connect again.";
    503 "too_many_streams" Some: "All places for streams are taken." => "Repeat it later.";
    503 "too_many_streams_of_this_address" Some: "All places for streams of one IP address are taken." => "Close a stream, or repeat it later.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_sorted_by_status() {
        let codes: BTreeSet<_> = ROWS.iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), ROWS.len());
        assert!(ROWS.is_sorted_by_key(|row| row.status));
    }
}
