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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use axum::body::Body;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[serde(default)]
        number: u8,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        name: Name,
    }

    /// The code, and the field that is named.
    fn refused<T: DeserializeOwned + std::fmt::Debug>(text: &[u8], prefix: &str) -> (ErrorCode, String) {
        let problem = parse::<T>(text, prefix).unwrap_err();
        (problem.code, problem.errors[0].field.clone())
    }

    fn request(kind: &str, body: &[u8]) -> Request {
        Request::builder().header(header::CONTENT_TYPE, kind).body(Body::from(body.to_vec())).unwrap()
    }

    async fn many(kind: &str, body: &[u8]) -> Result<(Vec<u8>, bool), Problem> {
        let OneOrMany { items, single } = OneOrMany::<Item>::from_request(request(kind, body), &()).await?;
        Ok((items.into_iter().map(|item| item.number).collect(), single))
    }

    #[test]
    fn the_path_of_a_wrong_field_is_named() {
        for (json, field) in [
            (r#"{"number":256}"#, "number"),
            (r#"{"number":-1}"#, "number"),
            (r#"{"number":"7"}"#, "number"),
            (r#"{"list":[{"name":"a"},{"name":""}]}"#, "list[1].name"),
            (r#"{"list":[{"name":7}]}"#, "list[0].name"),
            (r#"{"list":[{}]}"#, "list[0].name"),
            (r#"{"list":[["a"]]}"#, "list[0]"),
            (r#"{"other":1}"#, "other"),
            (r#"{"number":1,"number":2}"#, "number"),
            (r#"[7]"#, "body"),
            ("7", "body"),
            ("null", "body"),
        ] {
            assert_eq!(refused::<Item>(json.as_bytes(), ""), (ErrorCode::InvalidField, field.to_owned()), "{json}");
        }
        assert_eq!(refused::<Item>(br#"{"number":256}"#, "[3]").1, "[3].number");
        assert_eq!(refused::<Item>(br#"{"other":256}"#, "[3]").1, "[3].other");
        assert_eq!(refused::<Item>(b"[]", "[3]").1, "[3]");
    }

    #[test]
    fn what_is_no_json_is_told_from_what_is_wrong_in_it() {
        for json in
            ["", " ", "{", r#"{"number":1"#, r#"{"number":1}}"#, r#"{"number":01}"#, "{'number':1}", "{} {}", "nul"]
        {
            assert_eq!(refused::<Item>(json.as_bytes(), "").0, ErrorCode::InvalidJson, "{json}");
        }
        assert_eq!(refused::<Item>(b"{\"number\":\xff}", "").0, ErrorCode::InvalidJson);
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(refused::<serde_json::Value>(deep.as_bytes(), "").0, ErrorCode::InvalidJson, "nested too deep");
    }

    #[test]
    fn a_byte_order_mark_and_white_space_around_are_no_part_of_a_body() {
        let right = Item { number: 7, list: Vec::new() };
        for json in ["\u{feff}{\"number\":7}", " \r\n\t{\"number\":7} \n", "\u{feff} {\"number\":7.0}"] {
            assert_eq!(parse::<Item>(json.as_bytes(), "").unwrap(), right, "{json:?}");
        }
        assert_eq!(refused::<Item>("\u{feff}\u{feff}{}".as_bytes(), "").0, ErrorCode::InvalidJson, "only one");
        assert_eq!(without_mark(b"\xef\xbb"), b"\xef\xbb", "half a mark is none");
    }

    #[test]
    fn the_content_type_says_whether_a_body_is_lines() {
        let kind = |kind: &str| is_lines(request(kind, b"").headers()).map_err(|problem| problem.status().as_u16());
        for json in ["application/json", "Application/JSON; charset=utf-8", " application/json ;x=y"] {
            assert_eq!(kind(json), Ok(false), "{json}");
        }
        for lines in ["application/x-ndjson", "application/ndjson", "application/jsonl;charset=utf-8"] {
            assert_eq!(kind(lines), Ok(true), "{lines}");
        }
        for other in
            ["", "text/plain", "application/x-www-form-urlencoded", "application/json5", "application/problem+json"]
        {
            assert_eq!(kind(other), Err(415), "{other}");
        }
        assert_eq!(is_lines(&HeaderMap::new()).unwrap_err().code, ErrorCode::UnsupportedMediaType);
    }

    #[test]
    fn a_thousand_items_fit_into_one_request() {
        let array = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert!(at_most(array(MAX_ITEMS).as_bytes(), false).is_ok());
        let problem = at_most(array(MAX_ITEMS + 1).as_bytes(), false).unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidBody);
        assert_eq!(problem.detail, "1001 objects in one request; the limit is 1000");
        let lines = |count: usize| "{}\n\n".repeat(count);
        assert!(at_most(lines(MAX_ITEMS).as_bytes(), true).is_ok(), "empty lines are not counted");
        assert!(at_most(lines(MAX_ITEMS + 1).as_bytes(), true).is_err());
    }

    #[tokio::test]
    async fn many_items_come_as_an_object_an_array_or_lines() {
        let json = "application/json";
        assert_eq!(many(json, br#"{"number":1}"#).await.unwrap(), (vec![1], true));
        assert_eq!(many(json, br#" [{"number":1}, {"number":2}]"#).await.unwrap(), (vec![1, 2], false));
        assert_eq!(many(json, b"[{}]").await.unwrap(), (vec![0], false), "a list of one is a list");
        let lines = "\u{feff}{\"number\":1}\r\n\n  \n\u{feff}{\"number\":2}";
        assert_eq!(many("application/x-ndjson", lines.as_bytes()).await.unwrap(), (vec![1, 2], false));
    }

    #[tokio::test]
    async fn a_wrong_item_is_named_by_its_place() {
        let problem = many("application/x-ndjson", b"{}\n\n{\"number\":256}\n").await.unwrap_err();
        assert_eq!(problem.errors[0].field, "[2].number", "the line, counted from 0");
        let problem = many("application/json", br#"[{},{"number":256}]"#).await.unwrap_err();
        assert_eq!(problem.errors[0].field, "[1].number");
        for (kind, nothing) in
            [("application/json", &b"[]"[..]), ("application/x-ndjson", b"\n \n"), ("application/ndjson", b"")]
        {
            assert_eq!(many(kind, nothing).await.unwrap_err().code, ErrorCode::InvalidBody, "{kind}");
        }
        assert_eq!(many("application/json", b"").await.unwrap_err().code, ErrorCode::InvalidJson);
    }

    #[tokio::test]
    async fn one_object_is_not_sent_as_lines_and_may_be_left_out_where_it_is_optional() {
        let refused = Json::<Item>::from_request(request("application/x-ndjson", b"{}"), &()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::UnsupportedMediaType);
        let Optional(item) = Optional::<Item>::from_request(Request::new(Body::empty()), &()).await.unwrap();
        assert_eq!(item, Item::default(), "no body, no content type");
        let untyped = Optional::<Item>::from_request(Request::new(Body::from("{}")), &()).await.unwrap_err();
        assert_eq!(untyped.code, ErrorCode::UnsupportedMediaType);
        let Optional(item) =
            Optional::<Item>::from_request(request("application/json", br#"{"number":7}"#), &()).await.unwrap();
        assert_eq!(item.number, 7);
    }

    #[test]
    fn null_is_told_from_absent() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Edit {
            #[serde(default, deserialize_with = "present")]
            title: Option<Option<String>>,
        }
        let read = |json: &str| parse::<Edit>(json.as_bytes(), "").unwrap().title;
        assert_eq!(
            [read("{}"), read(r#"{"title":null}"#), read(r#"{"title":""}"#)],
            [None, Some(None), Some(Some(String::new()))]
        );
    }
}
