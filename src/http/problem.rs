//! Errors as RFC 9457 problem details, with a stable `code` and the invalid fields.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{command::Refusal, event::filter::BadFilter, model::transition::TransitionError, store::WriteError};

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
    pub code: &'static str,
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
    /// A problem without fields.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            code,
            detail: detail.into(),
            errors: Vec::new(),
            request_id: None,
        }
    }

    /// A problem with one field.
    pub fn field(status: StatusCode, code: &'static str, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        let mut problem = Self::new(status, code, format!("{field}: {detail}"));
        problem.errors.push(FieldError { field, detail });
        problem
    }

    /// The object does not exist.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", what)
    }

    /// The JSON of the response.
    pub(super) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
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
        Self::field(StatusCode::BAD_REQUEST, "invalid_filter", bad.field, bad.detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, code, field) = match &refusal {
            Refusal::NoTask(_) => (StatusCode::NOT_FOUND, "task_not_found", None),
            Refusal::NoWorker(_) => (StatusCode::NOT_FOUND, "worker_not_found", None),
            Refusal::NoSchedule(_) => (StatusCode::NOT_FOUND, "schedule_not_found", None),
            Refusal::NoBulk(_) => (StatusCode::NOT_FOUND, "bulk_not_found", None),
            Refusal::WorkerStopped(_) => (StatusCode::CONFLICT, "worker_stopped", None),
            Refusal::WorkerManaged(_) => (StatusCode::CONFLICT, "worker_managed", None),
            Refusal::IdTaken(_) => (StatusCode::CONFLICT, "id_taken", None),
            Refusal::KeyTaken => (StatusCode::CONFLICT, "unique_key_taken", None),
            Refusal::NoParent(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", Some("parent_task_id")),
            Refusal::TooNested(_) => (StatusCode::UNPROCESSABLE_ENTITY, "parents_too_deep", Some("parent_task_id")),
            Refusal::OwnAncestor(_) => (StatusCode::UNPROCESSABLE_ENTITY, "parent_cycle", Some("parent_task_id")),
            Refusal::NoDependency(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", Some("depends_on")),
            Refusal::Cycle(_) => (StatusCode::UNPROCESSABLE_ENTITY, "dependency_cycle", Some("depends_on")),
            Refusal::TooDeep(_) => (StatusCode::UNPROCESSABLE_ENTITY, "dependencies_too_deep", Some("depends_on")),
            Refusal::ManyConnectors(_) => (StatusCode::UNPROCESSABLE_ENTITY, "too_many_connectors", Some("connectors")),
            Refusal::Transition(error) => match error {
                TransitionError::Changed => (StatusCode::PRECONDITION_FAILED, "task_changed", None),
                TransitionError::Observed { .. } => (StatusCode::CONFLICT, "task_observed", None),
                TransitionError::Managed => (StatusCode::CONFLICT, "task_managed", None),
                TransitionError::Group { .. } => (StatusCode::CONFLICT, "task_is_group", None),
                TransitionError::Illegal { .. } => (StatusCode::CONFLICT, "illegal_transition", None),
                TransitionError::Fenced { .. } => (StatusCode::CONFLICT, "lease_lost", None),
                TransitionError::Cancelled => (StatusCode::CONFLICT, "task_cancelled", None),
            },
        };
        match field {
            Some(field) => Self::field(status, code, field, refusal.to_string()),
            None => Self::new(status, code, refusal.to_string()),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let (status, code) = match error {
            WriteError::Refused(refusal) => return refusal.into(),
            WriteError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            WriteError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable"),
            WriteError::NotWriting(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_writing"),
            WriteError::TooSlow => (StatusCode::SERVICE_UNAVAILABLE, "command_too_slow"),
            WriteError::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            WriteError::Database(_) => {
                // The message may contain table names; it is in the log.
                let detail = "the database refused to store this; the server's log says why";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "not_stored", detail);
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "a read failed");
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.as_deref() == Some(QUERY_CANCELED) {
            let detail = "the search took too long and was given up; narrow it by a state, a queue or a type of task";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "search_too_slow", detail);
        }
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database_unavailable",
            "the database did not answer in time; try again in a second",
        )
    }
}
