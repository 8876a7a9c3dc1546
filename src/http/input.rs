//! Request bodies: JSON or NDJSON, checked, with the path of the field at fault.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::value::RawValue;
use uuid::Uuid;

pub use super::bodies::body_up_to;
use super::{bodies::items, problem::Problem};
use crate::model::{Name, report::Json as KeptJson};

/// Most things in one request.
pub const MAX_ITEMS: usize = 1_000;
/// Largest request body.
const MAX_BODY: usize = 1024 * 1024;
/// Deepest nesting of free JSON.
const MAX_DEPTH: usize = 64;

/// One JSON object.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// One JSON object, an array of them, or NDJSON.
#[derive(Debug)]
pub struct OneOrMany<T> {
    /// The things.
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
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send one object as application/json",
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
        at_most(&body, lines)?;
        let parsed = if lines {
            let filled = body.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
            let items =
                filled.map(|(index, line)| parse(line, &format!("[{index}]"))).collect::<Result<Vec<_>, _>>()?;
            Self { items, single: false }
        } else if body.trim_ascii_start().starts_with(b"[") {
            Self { items: parse(&body, "")?, single: false }
        } else {
            Self { items: vec![parse(&body, "")?], single: true }
        };
        match parsed.items.len() {
            0 => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_body",
                "the body holds nothing; send at least one object",
            )),
            _ => Ok(parsed),
        }
    }
}

/// Refuses too many things in one request before anything is made of them.
///
/// # Errors
/// A 422 that says how many there are.
pub fn at_most(body: &[u8], lines: bool) -> Result<(), Problem> {
    let count = items(body, lines);
    if count <= MAX_ITEMS {
        return Ok(());
    }
    let detail = format!("the body holds {count} objects; send at most {MAX_ITEMS} in one request");
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail))
}

/// One JSON object, or an empty body for its defaults.
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
/// A 415 when it is neither.
pub fn is_lines(headers: &HeaderMap) -> Result<bool, Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(false),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(true),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send Content-Type: application/json (curl --json does) or application/x-ndjson",
        )),
    }
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    body_up_to(request, MAX_BODY).await
}

/// Parses JSON; an error names the field by its path below `prefix`.
///
/// # Errors
/// A 400 when it is no JSON, a 422 when a value does not fit.
pub fn parse<T: DeserializeOwned>(text: &[u8], prefix: &str) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
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
        // serde names an unknown or missing field in its message only.
        let named = detail
            .split('`')
            .nth(1)
            .filter(|_| detail.starts_with("unknown field") || detail.starts_with("missing field"));
        let field = match (named, field.as_str()) {
            (Some(named), "") => named.to_owned(),
            (Some(named), path) if !path.ends_with(named) => format!("{path}.{named}"),
            _ if field.is_empty() => "body".to_owned(),
            _ => field,
        };
        Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", field, detail)
    } else {
        let field = if field.is_empty() { "body".to_owned() } else { field };
        Problem::field(StatusCode::BAD_REQUEST, "invalid_json", field, text)
    }
}

/// The UUID in a path.
#[derive(Debug, Clone, Copy)]
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        Uuid::parse_str(&text).map(Self).map_err(|_| {
            Problem::field(StatusCode::BAD_REQUEST, "invalid_id", "id", "the id in the path is not a UUID")
        })
    }
}

/// The name in a path: of a queue, of a recurring task.
#[derive(Debug, Clone)]
pub struct Named(pub Name);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        Name::new(&text).map(Self).map_err(|error| {
            Problem::field(StatusCode::BAD_REQUEST, "invalid_name", "name", format!("the name in the path {error}"))
        })
    }
}

/// A text of at most `MAX` bytes without NUL (which Postgres cannot store).
#[derive(Debug, Clone)]
pub struct Text<const MAX: usize>(pub String);

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains('\0') {
            return Err(D::Error::custom("must not contain NUL"));
        }
        if text.len() > MAX {
            return Err(D::Error::custom(format!("must be at most {MAX} bytes long")));
        }
        Ok(Self(text))
    }
}

/// Tells a field that is `null` from one that is absent, with `#[serde(default, deserialize_with = "present")]`.
///
/// # Errors
/// When the value is of another type.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Free JSON, kept as it came.
#[derive(Debug, Clone)]
pub struct Free(pub KeptJson);

impl<'de> Deserialize<'de> for Free {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        check_free(raw.get()).map_err(D::Error::custom)?;
        Ok(Self(KeptJson::new(raw)))
    }
}

/// Bounds the depth and refuses NUL, escaped or not, in text known to be valid JSON.
fn check_free(json: &str) -> Result<(), String> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (index, byte) in json.bytes().enumerate() {
        match (in_text, escaped, byte) {
            (true, true, b'u') if json[index..].starts_with("u0000") => return Err("must not contain NUL".to_owned()),
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (_, false, b'"') => in_text = !in_text,
            (false, _, b'{' | b'[') => depth += 1,
            (false, _, b'}' | b']') => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("must not be nested deeper than {MAX_DEPTH}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_nul_is_found_and_its_look_alike_is_not() {
        assert!(check_free(r#"{"a":"\u0000"}"#).is_err());
        assert!(check_free(r#"{"a":"\\u0000"}"#).is_ok());
        assert!(check_free(r#"{"a":"\\\u0000"}"#).is_err());
        assert!(check_free(&"[".repeat(65)).is_err());
        assert!(check_free(r#"{"a":"[[[[\"[["}"#).is_ok());
    }
}
