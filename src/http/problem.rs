//! Errors as RFC 9457 problem details, with a stable `code` and the invalid fields.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::codes::ErrorCode;
use crate::{
    command::Refusal, event::filter::BadFilter, feed::stream_registry::LimitReached,
    model::transition::TransitionError, store::WriteError,
};

/// SQLSTATE of a cancelled statement, as by a timeout.
const QUERY_CANCELED: &str = "57014";

/// An error.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`; see `code`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The HTTP status as text.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Error code; stable across versions.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// What is wrong and what to do.
    pub detail: String,
    /// The invalid fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The request ID, as in the header X-Request-Id and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Box<str>>,
}

/// An invalid field.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Its path, as in `[3].priority`.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// A problem that names no field.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let status = code.status();
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            errors: Vec::new(),
            request_id: None,
        }
    }

    /// A problem with one field.
    pub fn field(code: ErrorCode, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        let mut problem = Self::new(code, format!("{field}: {detail}"));
        problem.errors.push(FieldError { field, detail });
        problem
    }

    /// A field of the body is missing, unknown or invalid.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::field(ErrorCode::InvalidField, field, detail)
    }

    /// A query parameter or a header is unknown or invalid.
    pub fn invalid_parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::field(ErrorCode::InvalidParameter, name, detail)
    }

    /// A filter is unknown or its value is invalid.
    pub fn invalid_filter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::field(ErrorCode::InvalidFilter, name, detail)
    }

    /// The same of a field that lies below another, as `tasks[0]`.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        match self.errors.into_iter().next() {
            Some(error) => Self::invalid_field(format!("{path}.{}", error.field), error.detail),
            None => Self::invalid_field(path, self.detail),
        }
    }

    /// The object does not exist.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, what)
    }

    /// The JSON of the response.
    pub(super) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.body()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // Also in the extensions, for the layer that adds the request ID.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<BadFilter> for Problem {
    fn from(bad: BadFilter) -> Self {
        Self::field(ErrorCode::InvalidFilter, bad.field, bad.detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, field) = match &refusal {
            Refusal::NoTask(_) => (ErrorCode::TaskNotFound, None),
            Refusal::NoWorker(_) => (ErrorCode::WorkerNotFound, None),
            Refusal::NoSchedule(_) => (ErrorCode::ScheduleNotFound, None),
            Refusal::NoBulk(_) => (ErrorCode::BulkNotFound, None),
            Refusal::WorkerStopped(_) => (ErrorCode::WorkerStopped, None),
            Refusal::WorkerManaged(_) => (ErrorCode::WorkerManaged, None),
            Refusal::IdTaken(_) | Refusal::HasChildren(_) => (ErrorCode::IdTaken, None),
            Refusal::KeyTaken => (ErrorCode::UniqueKeyTaken, None),
            Refusal::NoParent(_) => (ErrorCode::InvalidField, Some("parent_task_id")),
            Refusal::TooNested(_) => (ErrorCode::ParentsTooDeep, Some("parent_task_id")),
            Refusal::OwnAncestor(_) => (ErrorCode::ParentCycle, Some("parent_task_id")),
            Refusal::NoDependency(_) => (ErrorCode::InvalidField, Some("depends_on")),
            Refusal::Cycle(_) => (ErrorCode::DependencyCycle, Some("depends_on")),
            Refusal::TooDeep(_) => (ErrorCode::DependenciesTooDeep, Some("depends_on")),
            Refusal::ManyConnectors(_) => (ErrorCode::TooManyConnectors, Some("connectors")),
            Refusal::Transition(error) => (error.into(), None),
        };
        match field {
            Some(field) => Self::field(code, field, refusal.to_string()),
            None => Self::new(code, refusal.to_string()),
        }
    }
}

impl From<&TransitionError> for ErrorCode {
    fn from(error: &TransitionError) -> Self {
        match error {
            TransitionError::Changed => Self::TaskChanged,
            TransitionError::Observed { .. } => Self::TaskObserved,
            TransitionError::Managed => Self::TaskManaged,
            TransitionError::Group { .. } => Self::TaskIsParent,
            TransitionError::Illegal { .. } => Self::IllegalTransition,
            TransitionError::Fenced { .. } => Self::LeaseLost,
            TransitionError::Cancelled => Self::TaskCancelled,
        }
    }
}

impl From<LimitReached> for ErrorCode {
    fn from(full: LimitReached) -> Self {
        match full {
            LimitReached::Total => Self::TooManyStreams,
            LimitReached::Address => Self::TooManyStreamsPerAddress,
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let code = match error {
            WriteError::Refused(refusal) => return refusal.into(),
            WriteError::Busy => ErrorCode::Busy,
            WriteError::Unavailable => ErrorCode::DatabaseUnavailable,
            WriteError::NotWriting(_) => ErrorCode::NotWriting,
            WriteError::TooSlow => ErrorCode::CommandTooSlow,
            WriteError::Internal => ErrorCode::Internal,
            WriteError::Database(_) => {
                // The message may contain table names; it is in the log.
                let detail = "the database rejected the write; see the server log";
                return Self::new(ErrorCode::NotCommitted, detail);
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "database read failed");
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.as_deref() == Some(QUERY_CANCELED) {
            let detail = "the search timed out; narrow it by status, queue or task type";
            return Self::new(ErrorCode::SearchTooSlow, detail);
        }
        Self::new(ErrorCode::DatabaseUnavailable, "database timeout; retry in a second")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use uuid::Uuid;

    use crate::model::{Name, Status};

    #[test]
    fn a_problem_names_its_field_in_its_detail_too() {
        let problem = Problem::invalid_field("[3].priority", "must be an integer between 0 and 9");
        let json: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        let right = serde_json::json!({
            "type": "about:blank",
            "title": "Unprocessable Entity",
            "status": 422,
            "code": "invalid_field",
            "detail": "[3].priority: must be an integer between 0 and 9",
            "errors": [{ "field": "[3].priority", "detail": "must be an integer between 0 and 9" }],
        });
        assert_eq!(json, right);
        assert_eq!(Problem::invalid_parameter("wait", "x").status(), StatusCode::BAD_REQUEST);
        assert_eq!(Problem::invalid_filter("queue", "x").code.as_str(), "invalid_filter");
    }

    #[test]
    fn only_what_will_pass_is_worth_another_try() {
        for (code, again) in [
            (ErrorCode::Busy, true),
            (ErrorCode::Stopping, true),
            (ErrorCode::DatabaseUnavailable, true),
            (ErrorCode::LeaseLost, false),
            (ErrorCode::Internal, false),
            (ErrorCode::InvalidJson, false),
        ] {
            let response = Problem::new(code, "x").into_response();
            assert_eq!(response.status(), code.status());
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), again, "{code:?}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert!(response.extensions().get::<Problem>().is_some_and(|problem| problem.code == code));
        }
    }

    #[test]
    fn a_refusal_about_a_field_names_it() {
        let id = Uuid::nil();
        for (refusal, status, field) in [
            (Refusal::NoTask(id), 404, None),
            (Refusal::NoWorker(id), 404, None),
            (Refusal::NoSchedule(Name::literal("s")), 404, None),
            (Refusal::NoBulk(id), 404, None),
            (Refusal::WorkerStopped(id), 409, None),
            (Refusal::WorkerManaged(id), 409, None),
            (Refusal::IdTaken(id), 409, None),
            (Refusal::HasChildren(id), 409, None),
            (Refusal::KeyTaken, 409, None),
            (Refusal::NoParent(id), 422, Some("parent_task_id")),
            (Refusal::TooNested(id), 422, Some("parent_task_id")),
            (Refusal::OwnAncestor(id), 422, Some("parent_task_id")),
            (Refusal::NoDependency(id), 422, Some("depends_on")),
            (Refusal::Cycle(vec![id, id]), 422, Some("depends_on")),
            (Refusal::TooDeep(id), 422, Some("depends_on")),
            (Refusal::ManyConnectors(id), 422, Some("connectors")),
        ] {
            let problem = Problem::from(refusal.clone());
            assert_eq!(problem.status().as_u16(), status, "{refusal:?}");
            assert_eq!(problem.errors.first().map(|error| error.field.as_str()), field, "{refusal:?}");
            assert!(problem.detail.ends_with(&refusal.to_string()));
        }
    }

    #[test]
    fn each_refusal_of_the_state_machine_has_a_code_of_its_own() {
        let codes = [
            TransitionError::Changed,
            TransitionError::Observed { wanted: "x" },
            TransitionError::Managed,
            TransitionError::Group { wanted: "x" },
            TransitionError::Illegal { status: Status::Failed, wanted: "x" },
            TransitionError::Fenced { attempt: 1, current: 2, status: Status::Failed },
            TransitionError::Cancelled,
        ]
        .map(|error| Problem::from(Refusal::from(error)).code.as_str());
        let right = [
            "task_changed",
            "task_observed",
            "task_managed",
            "task_is_parent",
            "illegal_transition",
            "lease_lost",
            "task_cancelled",
        ];
        assert_eq!(codes, right);
    }

    #[test]
    fn what_the_database_said_is_not_told() {
        let rejected = Problem::from(WriteError::Database("column secret of table tasks".to_owned()));
        assert!(!rejected.detail.contains("secret"), "{}", rejected.detail);
        assert_eq!(rejected.code, ErrorCode::NotCommitted);
        let failed = Problem::from(sqlx::Error::Protocol("secret".to_owned()));
        assert!(failed.code == ErrorCode::DatabaseUnavailable && !failed.detail.contains("secret"));
    }

    #[test]
    fn a_write_that_failed_says_whether_anything_was_written() {
        for (error, status, words) in [
            (WriteError::Busy, 503, "retry in a second"),
            (WriteError::Unavailable, 503, "the outcome is unknown"),
            (WriteError::NotWriting("the disk is full".to_owned()), 503, "writes are not possible: the disk is full"),
            (WriteError::TooSlow, 503, "was rolled back"),
            (WriteError::Internal, 500, "nothing was committed"),
            (WriteError::Refused(Refusal::KeyTaken), 409, "unique_key is already used"),
        ] {
            let problem = Problem::from(error);
            assert!(problem.status().as_u16() == status && problem.detail.contains(words), "{problem:?}");
        }
    }
}
