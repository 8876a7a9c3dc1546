//! The error codes: one table. [`ErrorCode`], the API document and `docs/api.md` are made from it.

use axum::http::StatusCode;
use serde::{Serialize, Serializer};

/// Which calls may answer with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every call.
    All,
    /// Calls with a body.
    Body,
    /// Calls that change something.
    Changes,
    /// Calls that document it themselves.
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
    ($($status:literal $variant:ident $code:literal $scope:ident: $meaning:literal => $action:literal;)+) => {
        /// Every code, by status.
        pub const ROWS: &[Row] = &[$(Row {
            code: $code,
            status: $status,
            scope: Scope::$scope,
            meaning: $meaning,
            action: $action,
        }),+];

        /// The code of a [`Problem`](super::problem::Problem); each has one HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)+
        }
    };
}

impl ErrorCode {
    /// Its row: the variants and the rows have the same order.
    #[must_use]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The code as sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().code
    }

    /// The HTTP status of a problem with this code.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

codes! {
    400 InvalidJson "invalid_json" Body: "The body is not JSON." => "Correct the body.";
    400 IncompleteBody "incomplete_body" Body: "The connection ended before the end of the body." => "Send it again.";
    400 InvalidId "invalid_id" All: "The ID in the path is not a UUID." => "Correct the path.";
    400 InvalidName "invalid_name" All: "The name in the path is invalid." => "Correct the path.";
    400 InvalidFilter "invalid_filter" All: "A filter is unknown or its value is invalid; `errors` names it." => "Correct the query.";
    400 InvalidParameter "invalid_parameter" All: "A query parameter or header is unknown or invalid; `errors` names it." => "Correct the query.";
    400 InvalidHost "invalid_host" All: "The Host header is missing, repeated or invalid." => "Send one Host header.";
    400 IdempotencyKeyUnsupported "idempotency_key_unsupported" Some: "This call does not support Idempotency-Key." => "Leave the header out.";
    400 IfMatchUnsupported "if_match_unsupported" Changes: "This call does not support If-Match." => "Leave the header out.";
    403 CrossSite "cross_site" Changes: "The request was sent by a page of another site." => "Send it from a program, or from pages of this server.";
    404 NotFound "not_found" Some: "Nothing exists at this URL." => "Look at /openapi.json.";
    404 TaskNotFound "task_not_found" Some: "The task does not exist." => "Do not retry.";
    404 WorkerNotFound "worker_not_found" Some: "The worker does not exist." => "Register the worker with POST /api/v1/workers.";
    404 QueueNotFound "queue_not_found" Some: "The queue does not exist." => "Do not retry.";
    404 ScheduleNotFound "schedule_not_found" Some: "The schedule does not exist." => "Create it with PUT.";
    404 BulkNotFound "bulk_not_found" Some: "The bulk action does not exist." => "Do not retry.";
    404 LiveDisabled "live_disabled" Some: "Live updates are disabled." => "Poll the page.";
    405 MethodNotAllowed "method_not_allowed" Some: "The URL does not support this method; Allow names those it does." => "Use another method.";
    406 NotAcceptable "not_acceptable" Some: "The media type in Accept is not available." => "Ask for text/event-stream or application/x-ndjson.";
    408 BodyTimeout "body_timeout" Body: "The body did not arrive within 30 seconds." => "Send it again.";
    409 IdTaken "id_taken" Changes: "A task with this id was created by another request, or was deleted and left children." => "Use a new id.";
    409 UniqueKeyTaken "unique_key_taken" Changes: "An unfinished task has the same unique_key." => "Wait until that task is finished.";
    409 WorkerStopped "worker_stopped" Changes: "The worker has stopped." => "Register it again.";
    409 TaskObserved "task_observed" Changes: "The task is run and reported by another system." => "Change it in that system.";
    409 TaskManaged "task_managed" Changes: "The task is managed by taskwatch; POST /api/v1/events cannot report it." => "Report with POST /api/v1/tasks/{id}/…";
    409 WorkerManaged "worker_managed" Changes: "The worker is registered with taskwatch; POST /api/v1/events cannot report it." => "Send heartbeats as the worker.";
    409 TaskIsParent "task_is_parent" Changes: "The parent task closes with its children." => "Act on its children.";
    409 IllegalTransition "illegal_transition" Changes: "The status of the task does not allow this." => "Read the task; do not retry.";
    409 LeaseLost "lease_lost" Changes: "The worker no longer holds this attempt of the task." => "Stop working on it.";
    409 TaskCancelled "task_cancelled" Changes: "The task was cancelled." => "Stop working on it.";
    409 NoTaskAvailable "no_task_available" Some: "The queue has no pending task (test client)." => "Create a task first.";
    410 CursorExpired "cursor_expired" Some: "The log no longer holds the events after the cursor." => "Read a snapshot and continue from its event_id.";
    412 TaskChanged "task_changed" Some: "The task has changed since the version named by If-Match." => "Read the task again.";
    413 BodyTooLarge "body_too_large" Body: "The body is too large." => "Split the request.";
    414 UrlTooLong "url_too_long" Some: "The URL is longer than 8 KiB." => "Shorten the query.";
    415 UnsupportedMediaType "unsupported_media_type" Body: "The Content-Type is not supported." => "Send application/json or application/x-ndjson.";
    415 UnsupportedEncoding "unsupported_encoding" Body: "The Content-Encoding is not supported." => "Send the body uncompressed.";
    421 UnknownHost "unknown_host" All: "The Host header names an unknown host." => "Use the IP address, or add the name to --allowed-hosts.";
    422 InvalidBody "invalid_body" Body: "The body is empty or holds too many objects." => "Send 1 to 1000 objects.";
    422 InvalidField "invalid_field" Body: "A field is missing, unknown or invalid; `errors` names it." => "Correct the field.";
    422 DependencyCycle "dependency_cycle" Some: "The dependencies form a cycle." => "Correct depends_on.";
    422 DependenciesTooDeep "dependencies_too_deep" Changes: "Too many dependencies to check them for a cycle." => "Depend on fewer tasks, or on their parent task.";
    422 ParentsTooDeep "parents_too_deep" Changes: "Parent tasks nested deeper than 32 levels." => "Nest fewer levels.";
    422 ParentCycle "parent_cycle" Changes: "The task would be its own ancestor." => "Correct parent_task_id.";
    422 TooManyConnectors "too_many_connectors" Changes: "The worker would have more than 64 connectors." => "Report fewer connectors.";
    422 IdempotencyKeyReused "idempotency_key_reused" Some: "The Idempotency-Key was used with another body." => "Use a new key for a new request.";
    431 HeadersTooLarge "headers_too_large" Some: "The headers are larger than 16 KiB." => "Send fewer or shorter headers.";
    500 Internal "internal" All: "Internal error; see the server log." => "Report a bug with the request_id.";
    500 NotCommitted "not_committed" Changes: "The database rejected the write; see the server log." => "Report a bug with the request_id.";
    503 Busy "busy" Changes: "The write queue is full." => "Retry after Retry-After seconds.";
    503 DatabaseUnavailable "database_unavailable" All: "Database timeout; a change may have been committed." => "Retry after Retry-After seconds, with the same id or Idempotency-Key.";
    503 NotWriting "not_writing" Changes: "The database accepts no writes; `detail` gives the reason." => "Retry after Retry-After seconds.";
    503 CommandTooSlow "command_too_slow" Changes: "The write took longer than 30 s." => "Split the request.";
    503 LogChanged "log_changed" Some: "The event log was replaced and is being reloaded." => "Retry later.";
    503 SearchTooSlow "search_too_slow" Some: "The search timed out." => "Add filters.";
    503 TooManyBodies "too_many_bodies" Body: "Too many request bodies are being received." => "Retry after Retry-After seconds.";
    503 TooManyUnread "too_many_unread" Some: "Too many responses have not been read by their clients." => "Read the responses.";
    503 TooManyConnections "too_many_connections" Some: "Too many connections are open, in all or from one IP address." => "Close some, or reconnect later.";
    503 Behind "behind" Some: "The server has not caught up with the event log." => "Retry later.";
    503 Stopping "stopping" Some: "The server is shutting down." => "Reconnect.";
    503 TooManyStreams "too_many_streams" Some: "The stream limit is reached." => "Retry later.";
    503 TooManyStreamsPerAddress "too_many_streams_per_address" Some: "The stream limit of one IP address is reached." => "Close a stream, or retry later.";
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
        assert!(ROWS.iter().all(|row| StatusCode::from_u16(row.status).is_ok()));
    }

    #[test]
    fn a_variant_has_its_own_row() {
        assert_eq!(ErrorCode::InvalidJson.as_str(), "invalid_json");
        assert_eq!(ErrorCode::TooManyStreamsPerAddress.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_code_is_a_word_and_says_what_to_do() {
        for row in ROWS {
            assert!(row.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", row.code);
            assert!(row.meaning.ends_with('.') && row.action.ends_with(['.', '…']), "{}", row.code);
            assert!((400..600).contains(&row.status), "{}", row.code);
        }
    }
}
