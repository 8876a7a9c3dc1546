//! Request bodies: JSON or NDJSON, validated, with the path of the invalid field.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use uuid::Uuid;

pub use super::bodies::body_up_to;
pub use super::text::{Free, Mended, Text, mend};
use super::{bodies::items, codes::ErrorCode, problem::Problem, strict::Strict};
use crate::model::Name;

/// Maximum number of items in one request.
pub const MAX_ITEMS: usize = 1_000;
/// Maximum size of a request body, bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// One JSON object.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// One JSON object, an array of them, or NDJSON.
#[derive(Debug)]
pub struct OneOrMany<T> {
    /// The items.
    pub items: Vec<T>,
    /// The body was a single object.
    pub single: bool,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let lines = is_lines(request.headers())?;
        let body = body(request).await?;
        if lines {
            return Err(Problem::new(
                ErrorCode::UnsupportedMediaType,
                "expected a single JSON object (application/json)",
            ));
        }
        parse(&body, "").map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OneOrMany<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let lines = is_lines(request.headers())?;
        let body = body(request).await?;
        let body = without_mark(&body);
        at_most(body, lines)?;
        let parsed = if lines {
            let filled = split_lines(body).enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
            let items =
                filled.map(|(index, line)| parse(line, &format!("[{index}]"))).collect::<Result<Vec<_>, _>>()?;
            Self { items, single: false }
        } else if body.trim_ascii_start().starts_with(b"[") {
            Self { items: parse(body, "")?, single: false }
        } else {
            Self { items: vec![parse(body, "")?], single: true }
        };
        match parsed.items.len() {
            0 => Err(Problem::new(ErrorCode::InvalidBody, "empty body; send at least one object")),
            _ => Ok(parsed),
        }
    }
}

/// Rejects too many items in one request before parsing.
///
/// # Errors
/// 422 with the number of items.
pub fn at_most(body: &[u8], lines: bool) -> Result<(), Problem> {
    let count = items(body, lines);
    if count <= MAX_ITEMS {
        return Ok(());
    }
    let detail = format!("{count} objects in one request; the limit is {MAX_ITEMS}");
    Err(Problem::new(ErrorCode::InvalidBody, detail))
}

/// One JSON object, or an empty body for the defaults.
#[derive(Debug)]
pub struct Optional<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let lines = is_lines(request.headers());
        let body = body(request).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        lines?;
        parse(&body, "").map(Self)
    }
}

/// Whether a body is NDJSON rather than JSON.
///
/// # Errors
/// 415 if it is neither.
pub fn is_lines(headers: &HeaderMap) -> Result<bool, Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(false),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(true),
        _ => Err(Problem::new(
            ErrorCode::UnsupportedMediaType,
            "unsupported Content-Type; use application/json (as curl --json does) or application/x-ndjson",
        )),
    }
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    body_up_to(request, MAX_BODY).await
}

/// Strips the byte order mark that some programs (PowerShell) write before UTF-8.
#[must_use]
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// The lines of NDJSON; concatenated files may contain a byte order mark at the start of any line.
pub fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(without_mark)
}

/// Parses JSON; an error contains the path of the field below `prefix`.
///
/// # Errors
/// 400 if it is not valid JSON, 422 if a value is invalid.
pub fn parse<T: DeserializeOwned>(text: &[u8], prefix: &str) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(without_mark(text));
    let parsed = serde_path_to_error::deserialize(Strict(&mut deserializer)).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." || path == "?" => String::new(),
            path => path,
        };
        let field = match (prefix.is_empty(), path.is_empty()) {
            (true, _) => path,
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}.{path}"),
        };
        refuse(field, error.inner())
    })?;
    deserializer.end().map_err(|error| refuse(prefix.to_owned(), &error))?;
    Ok(parsed)
}

fn refuse(field: String, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    if error.is_data() {
        let detail = text.split(" at line ").next().unwrap_or_default();
        // serde names an unknown, missing or repeated field only in its message.
        let about_a_field =
            ["unknown field", "missing field", "duplicate field"].into_iter().any(|words| detail.starts_with(words));
        let named = detail.split('`').nth(1).filter(|_| about_a_field);
        let field = match (named, field.as_str()) {
            (Some(named), "") => named.to_owned(),
            (Some(named), path) if !path.ends_with(named) => format!("{path}.{named}"),
            _ if field.is_empty() => "body".to_owned(),
            _ => field,
        };
        Problem::invalid_field(field, detail)
    } else {
        let field = if field.is_empty() { "body".to_owned() } else { field };
        Problem::field(ErrorCode::InvalidJson, field, text)
    }
}

/// The UUID in a path.
#[derive(Debug, Clone, Copy)]
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        Uuid::parse_str(&text)
            .map(Self)
            .map_err(|_| Problem::field(ErrorCode::InvalidId, "id", "invalid ID in the path: expected a UUID"))
    }
}

/// The name in a path, of a queue or a schedule.
#[derive(Debug, Clone)]
pub struct Named(pub Name);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        Name::new(&text).map(Self).map_err(|error| {
            Problem::field(ErrorCode::InvalidName, "name", format!("invalid name in the path: {error}"))
        })
    }
}

/// Distinguishes `null` from an absent field, with `#[serde(default, deserialize_with = "present")]`.
///
/// # Errors
/// The value is of another type.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
