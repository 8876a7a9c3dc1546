//! Common error responses and response headers, from the table of error codes.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::http::codes::{ROWS, Scope};

/// Adds the components, and to each operation the responses that its type of call may have.
pub(super) fn complete(document: &mut Value) {
    let by_status = ROWS.iter().fold(BTreeMap::<u16, Vec<_>>::new(), |mut all, row| {
        all.entry(row.status).or_default().push(row);
        all
    });
    let mut components = Map::new();
    for (status, rows) in &by_status {
        let codes: Vec<_> =
            rows.iter().map(|row| format!("`{}` ({})", row.code, row.meaning.trim_end_matches('.'))).collect();
        let description = format!("{}. `code` is one of: {}.", reason(*status), codes.join(", "));
        components.insert(component(*status), problem(*status, &description));
    }
    let mut used = BTreeSet::new();
    for_each_operation(document, |method, path, operation| {
        let changes = method != "get";
        let has_body = operation["requestBody"].is_object();
        let in_common = ROWS.iter().filter(|row| match row.scope {
            Scope::All => path.starts_with("/api/") || path == "/events",
            Scope::Body => has_body,
            Scope::Changes => changes,
            Scope::Some => false,
        });
        let statuses: BTreeSet<_> = in_common.map(|row| row.status).collect();
        let Some(responses) = operation["responses"].as_object_mut() else { return };
        for (status, response) in &mut *responses {
            let status: u16 = status.parse().unwrap_or_default();
            if status >= 400 {
                let description = response["description"].as_str().unwrap_or_default().to_owned();
                *response = problem(status, &description);
            } else {
                add_headers(response, status);
            }
        }
        for status in statuses {
            let reference = json!({ "$ref": format!("#/components/responses/{}", component(status)) });
            responses.entry(status.to_string()).or_insert_with(|| {
                used.insert(component(status));
                reference
            });
        }
    });
    components.retain(|name, _| used.contains(name));
    document["components"]["responses"] = Value::Object(components);
}

/// Calls a closure for each operation, with method and path.
pub(super) fn for_each_operation(document: &mut Value, mut each: impl FnMut(&str, &str, &mut Value)) {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            each(method, path, operation);
        }
    }
}

/// The table of error codes as text.
pub(super) fn table() -> String {
    let rows =
        ROWS.iter().map(|row| format!("| `{}` | {} | {} | {} |\n", row.code, row.status, row.meaning, row.action));
    format!("| code | status | meaning | what to do |\n| --- | --- | --- | --- |\n{}", rows.collect::<String>())
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

fn component(status: u16) -> String {
    reason(status).split_whitespace().collect()
}

fn problem(status: u16, description: &str) -> Value {
    json!({
        "description": description,
        "headers": headers(status),
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

fn headers(status: u16) -> Value {
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
    if matches!(status, 429 | 503) {
        headers["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
    }
    if matches!(status, 201 | 202) {
        headers["Location"] = json!({ "$ref": "#/components/headers/Location" });
    }
    headers
}

fn add_headers(response: &mut Value, status: u16) {
    let mut all = headers(status);
    if let (Some(all), Some(own)) = (all.as_object_mut(), response["headers"].as_object()) {
        all.extend(own.clone());
    }
    response["headers"] = all;
}

/// The headers referenced by responses.
pub(super) fn header_components() -> Value {
    let header = |description: &str, schema: Value| json!({ "description": description, "schema": schema });
    let text = || json!({ "type": "string" });
    json!({
        "X-Request-Id": header("Request ID, as sent by the client or generated; also in the log and in problems.", text()),
        "Retry-After": header("Seconds to wait before retrying.", json!({ "type": "integer", "minimum": 0 })),
        "Location": header("URL of the created object.", json!({ "type": "string", "format": "uri-reference" })),
        "ETag": header("Version of the task, for If-Match; not changed by leases and progress.", text()),
        "Events-Resume": header("Start mode: `live`, `resumed`, `snapshot`, `reset` or `replay`.", text()),
        "Events-Head": header("Position of the newest event.", json!({ "type": "integer", "minimum": 0 })),
    })
}
