//! CloudEvents 1.0: structured, batch and binary mode, with a native report as data.
//!
//! Mapping: `type` (its last component) to `event_type`, `time` to `ts`, `source` to `source`, and `subject` to
//! `task_id` or, in reports of workers, to `worker_id`; fields in the data take precedence.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::{
    super::fields::Unique,
    native::{NAMESPACE, Wrong},
};
use crate::{
    event::envelope::rfc3339,
    http::{codes::ErrorCode, input::parse, problem::Problem},
    model::Timestamp,
};

/// Attributes with a meaning here; others are extensions, which are allowed and ignored.
const ATTRIBUTES: [&str; 6] = ["specversion", "type", "source", "id", "time", "subject"];

/// A CloudEvent as JSON.
#[derive(Debug, Deserialize)]
pub(super) struct CloudEvent {
    specversion: String,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    id: String,
    time: Option<Timestamp>,
    subject: Option<String>,
    data: Option<Box<RawValue>>,
    data_base64: Option<String>,
}

type Fields = BTreeMap<String, Box<RawValue>>;

impl CloudEvent {
    /// The native report in it, as JSON.
    pub(super) fn unwrapped(self) -> Result<String, Wrong> {
        if self.specversion != "1.0" {
            return Err(("specversion", "must be 1.0".to_owned()));
        }
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if value.is_empty() {
                return Err((name, "must not be empty".to_owned()));
            }
        }
        let mut fields = data(self.data, self.data_base64)?;
        let text = |text: &str| to_raw_value(text).map_err(|error| ("data", error.to_string()));
        let kind = self.kind.rsplit('.').next().unwrap_or_default();
        fields.insert("event_type".to_owned(), text(kind)?);
        // A source is a URI and may be long; a hash suffices, since it only has to be stable.
        let source = if self.source.len() <= 128 {
            self.source
        } else {
            Uuid::new_v5(&NAMESPACE, self.source.as_bytes()).to_string()
        };
        fields.entry("source".to_owned()).or_insert(text(&source)?);
        if let Some(time) = self.time {
            fields.entry("ts".to_owned()).or_insert(text(&rfc3339(time.get()))?);
        }
        let about = if kind.starts_with("task_") { "task_id" } else { "worker_id" };
        if let Some(subject) = self.subject {
            fields.entry(about.to_owned()).or_insert(text(&subject)?);
        }
        serde_json::to_string(&fields).map_err(|error| ("data", error.to_string()))
    }
}

/// The fields of the report: data must be an object or absent.
fn data(data: Option<Box<RawValue>>, base64: Option<String>) -> Result<Fields, Wrong> {
    let wrong = |field, problem: &Problem| (field, format!("must be a JSON object, the report: {}", problem.detail));
    match (data, base64) {
        (Some(_), Some(_)) => Err(("data_base64", "must not be combined with data".to_owned())),
        (None, None) => Ok(Fields::new()),
        (Some(data), None) => {
            let fields: Unique<String, Box<RawValue>> =
                parse(data.get().as_bytes(), "").map_err(|problem| wrong("data", &problem))?;
            Ok(fields.0)
        }
        (None, Some(text)) => {
            let bytes = STANDARD
                .decode(&text)
                .map_err(|error| ("data_base64", format!("must be base64 (RFC 4648): {error}")))?;
            let fields: Unique<String, Box<RawValue>> =
                parse(&bytes, "").map_err(|problem| wrong("data_base64", &problem))?;
            Ok(fields.0)
        }
    }
}

/// Converts an event in binary mode to structured mode: attributes from the headers, data from the body. `None` if the
/// headers contain no event.
pub(super) fn binary(headers: &HeaderMap, body: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    let mut event = BTreeMap::new();
    for name in ATTRIBUTES {
        let mut given = headers.get_all(format!("ce-{name}")).iter();
        let Some(value) = given.next() else { continue };
        let wrong = |detail: &str| Problem::invalid_field(format!("ce-{name}"), detail);
        if given.next().is_some() {
            return Err(wrong("given more than once"));
        }
        let text = attribute(value.as_bytes()).ok_or_else(|| wrong("must be UTF-8, percent-encoded"))?;
        event.insert(name, to_raw_value(&text).map_err(|error| wrong(&error.to_string()))?);
    }
    if event.is_empty() {
        return Ok(None);
    }
    if let Some(name) = ["specversion", "type", "source", "id"].into_iter().find(|name| !event.contains_key(name)) {
        let detail = "required in a CloudEvent in binary mode";
        return Err(Problem::invalid_field(format!("ce-{name}"), detail));
    }
    if !body.is_empty() {
        event.insert("data", parse(body, "data")?);
    }
    serde_json::to_vec(&event).map(Some).map_err(|error| Problem::invalid_field("data", error.to_string()))
}

/// Whether the headers contain an event in binary mode.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    ATTRIBUTES.iter().any(|name| headers.contains_key(format!("ce-{name}")))
}

/// Checks that the data of an event in binary mode is JSON, which is the default content type.
pub(super) fn check_data_is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).map_or(Some("application/json"), |kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || kind == "text/json" || kind.ends_with("+json") {
        return Ok(());
    }
    let detail = "the data of a CloudEvent must be JSON; use Content-Type: application/json, or omit it";
    Err(Problem::new(ErrorCode::UnsupportedMediaType, detail))
}

/// Decodes an attribute header: unquoted, then percent-decoded (HTTP binding of CloudEvents, 3.1.3.2).
fn attribute(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let mut bytes = Vec::with_capacity(value.len());
    match quoted {
        Some(quoted) => {
            let mut rest = quoted.iter();
            while let Some(byte) = rest.next() {
                bytes.push(if *byte == b'\\' { *rest.next().unwrap_or(byte) } else { *byte });
            }
        }
        None => bytes.extend_from_slice(value),
    }
    String::from_utf8(percent_decoded(&bytes)).ok()
}

/// A percent sign not followed by two hex digits is kept.
fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let hex = |digits: &[u8]| {
        let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
        u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match bytes.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(hex) {
            Some(escaped) => {
                decoded.push(escaped);
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn attributes_are_unquoted_then_decoded_once() {
        for (value, right) in [
            ("plain", Some("plain")),
            ("j%C3%B6b%2017", Some("jöb 17")),
            ("100%25", Some("100%")),
            ("100%", Some("100%")),
            ("a%2525", Some("a%25")),
            ("\"quoted \\\"x\\\" %41\"", Some("quoted \"x\" A")),
            ("%ff", None),
            ("%ED%A0%BD", None),
        ] {
            assert_eq!(attribute(value.as_bytes()).as_deref(), right, "{value}");
        }
        assert_eq!(attribute("jöb".as_bytes()).as_deref(), Some("jöb"));
        assert_eq!(attribute(b"j\xf6b"), None);
    }

    fn event() -> Value {
        json!({ "specversion": "1.0", "type": "org.example.task_started", "source": "/cron", "id": "e-1" })
    }

    fn with(changes: Value) -> Value {
        let mut event = event();
        if let Value::Object(changes) = changes {
            event.as_object_mut().unwrap().extend(changes);
        }
        event
    }

    /// The native report, or the field that is wrong.
    fn unwrapped(event: &Value) -> Result<Value, &'static str> {
        let event: CloudEvent = parse(event.to_string().as_bytes(), "").unwrap();
        event.unwrapped().map(|text| serde_json::from_str(&text).unwrap()).map_err(|(field, _)| field)
    }

    #[test]
    fn attributes_become_fields_of_a_report() {
        let plain = json!({ "event_type": "task_started", "source": "/cron" });
        assert_eq!(unwrapped(&event()), Ok(plain));
        let full = with(json!({ "time": "2026-11-20T17:05:00+01:00", "subject": "job-17", "extension": [1] }));
        let report = unwrapped(&full).unwrap();
        assert_eq!((&report["ts"], &report["task_id"]), (&json!("2026-11-20T16:05:00.000000Z"), &json!("job-17")));
        assert!(report.get("extension").is_none());
        let worker = unwrapped(&with(json!({ "type": "worker_stopped", "subject": "w-1" }))).unwrap();
        assert_eq!((&worker["worker_id"], worker.get("task_id")), (&json!("w-1"), None));
    }

    #[test]
    fn data_is_the_report_and_takes_precedence_except_for_the_type() {
        let data = json!({ "event_type": "task_failed", "task_id": 7, "source": "mine", "ts": "2026-01-01T00:00:00Z" });
        let all = with(json!({ "data": data, "subject": "job-17", "time": "2026-11-20T16:05:00Z" }));
        let right =
            json!({ "event_type": "task_started", "task_id": 7, "source": "mine", "ts": "2026-01-01T00:00:00Z" });
        assert_eq!(unwrapped(&all), Ok(right));
    }

    #[test]
    fn data_may_come_as_base64() {
        let encoded = |text: &str| with(json!({ "data_base64": STANDARD.encode(text) }));
        assert_eq!(unwrapped(&encoded(r#"{"task_id":"a"}"#)).unwrap()["task_id"], "a");
        assert_eq!(unwrapped(&encoded("\u{feff}{}")), unwrapped(&event()));
        for wrong in [encoded("[1]"), encoded(""), encoded(r#"{"a":1,"a":2}"#), with(json!({ "data_base64": "e30" }))] {
            assert_eq!(unwrapped(&wrong), Err("data_base64"), "{wrong}");
        }
        assert_eq!(unwrapped(&with(json!({ "data": {}, "data_base64": "e30=" }))), Err("data_base64"), "not both");
    }

    #[test]
    fn data_is_an_object_without_repeated_fields() {
        for wrong in [json!([]), json!("text"), json!(7)] {
            assert_eq!(unwrapped(&with(json!({ "data": wrong }))), Err("data"));
        }
        let repeated = event().to_string().replacen('{', r#"{"data":{"task_id":1,"task_id":2},"#, 1);
        let repeated: CloudEvent = parse(repeated.as_bytes(), "").unwrap();
        let (field, detail) = repeated.unwrapped().unwrap_err();
        assert!(field == "data" && detail.contains("given more than once"), "{detail}");
    }

    #[test]
    fn the_required_attributes_are_there_and_not_empty() {
        assert_eq!(unwrapped(&with(json!({ "specversion": "0.3" }))), Err("specversion"));
        for name in ["id", "source", "type"] {
            assert_eq!(unwrapped(&with(json!({ name: "" }))), Err(name));
        }
        for name in ["specversion", "id", "source", "type"] {
            let mut missing = event();
            missing.as_object_mut().unwrap().remove(name);
            let problem = parse::<CloudEvent>(missing.to_string().as_bytes(), "").unwrap_err();
            assert_eq!(problem.errors[0].field, name);
        }
    }

    #[test]
    fn a_long_source_is_named_by_its_hash() {
        let source =
            |length: usize| unwrapped(&with(json!({ "source": "s".repeat(length) }))).unwrap()["source"].clone();
        assert_eq!(source(128), json!("s".repeat(128)));
        assert_eq!(source(129), source(129));
        assert_ne!(source(129), source(130));
        assert_eq!(source(129).as_str().map(str::len), Some(36));
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let required =
            [("ce-specversion", "1.0"), ("ce-type", "task_started"), ("ce-source", "/cron"), ("ce-id", "e-1")];
        let all = required.iter().chain(pairs).map(|(name, value)| {
            (name.parse::<axum::http::HeaderName>().unwrap(), value.parse::<axum::http::HeaderValue>().unwrap())
        });
        all.collect()
    }

    #[test]
    fn an_event_in_headers_is_the_same_event() {
        let read = |headers: &HeaderMap, body: &str| {
            let event = binary(headers, body.as_bytes()).unwrap().unwrap();
            unwrapped(&serde_json::from_slice(&event).unwrap()).unwrap()
        };
        let given = headers(&[("ce-subject", "j%C3%B6b%2017"), ("ce-time", "2026-11-20T16:05:00Z"), ("ce-other", "x")]);
        let right = json!({
            "event_type": "task_started",
            "source": "/cron",
            "task_id": "jöb 17",
            "ts": "2026-11-20T16:05:00.000000Z",
            "error": "e",
        });
        assert_eq!(read(&given, r#"{"error":"e"}"#), right);
        assert_eq!(read(&headers(&[]), ""), unwrapped(&event()).unwrap());
    }

    #[test]
    fn a_header_of_an_event_is_named_when_it_is_wrong() {
        let field =
            |headers: &HeaderMap, body: &str| binary(headers, body.as_bytes()).unwrap_err().errors[0].field.clone();
        assert_eq!(field(&headers(&[("ce-id", "e-2")]), ""), "ce-id");
        let mut twice = headers(&[]);
        twice.append("ce-subject", "a".parse().unwrap());
        twice.append("ce-subject", "a".parse().unwrap());
        assert_eq!(field(&twice, ""), "ce-subject");
        assert_eq!(field(&headers(&[("ce-subject", "%ff")]), ""), "ce-subject");
        assert_eq!(field(&headers(&[]), "{"), "data");
        for name in ["ce-specversion", "ce-type", "ce-source", "ce-id"] {
            let mut missing = headers(&[]);
            missing.remove(name);
            assert_eq!(field(&missing, ""), name);
        }
        assert!(binary(&HeaderMap::new(), b"{}").unwrap().is_none() && !is_binary(&HeaderMap::new()));
        assert!(is_binary(&headers(&[])));
    }

    #[test]
    fn the_data_of_an_event_in_headers_is_json() {
        let check = |kind: &str| check_data_is_json(&headers(&[("content-type", kind)])).is_ok();
        for right in ["application/json", "Text/JSON; charset=utf-8", "application/problem+json"] {
            assert!(check(right), "{right}");
        }
        for wrong in ["text/plain", "application/xml", "application/x-ndjson", ""] {
            assert!(!check(wrong), "{wrong}");
        }
        assert!(check_data_is_json(&headers(&[])).is_ok(), "that is the default");
    }
}
