//! Parameters: filters from their table, IDs and names in paths, preconditions.

use serde_json::{Value, json};

use super::answers::for_each_operation;
use crate::{
    board::history::Range,
    event::{
        Kind,
        filter::{self, Source},
    },
    model::Status,
};

/// Pattern of an event ID.
pub(super) const EVENT_ID: &str = "^[0-9a-f]{8}-[0-9]{1,18}$";
/// Text without control characters that contains more than commas and spaces. How long each value may be cannot be said
/// beside: a length would be that of all values together.
const NAMES: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u0020\u007f-\u00a0,][^\u0000-\u001f\u007f-\u009f]*$|^$";
const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// Describes every parameter.
pub(super) fn complete(document: &mut Value) {
    for_each_operation(document, |method, path, operation| {
        match (method, path) {
            ("get", "/events") => add(
                operation,
                filter::ROWS
                    .iter()
                    .filter(|row| !row.is_of_tasks_only())
                    .map(of_filter)
                    .chain([labels(), last_event_id()]),
            ),
            ("get", "/api/v1/tasks") => {
                let rows = filter::ROWS.iter().filter(|row| row.column.is_some());
                add(operation, rows.map(of_filter).chain([labels(), contents(), cursor(), search()]));
            }
            ("get", "/api/v1/history") => add(operation, std::iter::once(range())),
            ("post", "/api/v1/tasks") => add(operation, [idempotency_key()].into_iter()),
            ("patch", "/api/v1/tasks/{id}") => add(operation, [if_match()].into_iter()),
            _ => {}
        }
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            if parameter["in"] == "path" {
                of_path(path, parameter);
            } else if path == "/events"
                && let Some(schema) = of_stream(parameter["name"].as_str().unwrap_or_default())
            {
                parameter["schema"] = schema;
            } else if let Some(Value::Array(types)) = parameter["schema"].get("type") {
                // A parameter is present or absent, never null.
                parameter["schema"]["type"] = types.first().cloned().unwrap_or_default();
            }
        }
    });
}

/// Adds parameters, replacing those of the same name.
fn add(operation: &mut Value, parameters: impl Iterator<Item = Value>) {
    if !operation["parameters"].is_array() {
        operation["parameters"] = json!([]);
    }
    let Some(all) = operation["parameters"].as_array_mut() else { return };
    for parameter in parameters {
        all.retain(|known| known["name"] != parameter["name"] || known["in"] != parameter["in"]);
        all.push(parameter);
    }
}

fn of_filter(row: &filter::Row) -> Value {
    // An empty value is the same as an absent parameter.
    let words = |words: Vec<&str>| format!("^(({0})(,({0}))*)?$", words.join("|"));
    let schema = match row.source {
        Source::Topics => {
            json!({ "type": "string", "pattern": words(filter::TOPICS.iter().map(|(name, _)| *name).collect()) })
        }
        Source::Types => {
            let kinds = Kind::ALL.iter().map(|kind| kind.name());
            json!({ "type": "string", "pattern": words(kinds.chain([r"task_\*", r"worker_\*", r"queue_\*", r"phase_\*"]).collect()) })
        }
        Source::Status => {
            json!({ "type": "string", "pattern": words(Status::ALL.iter().map(|status| status.as_str()).collect()) })
        }
        Source::Priority => json!({ "type": "string", "pattern": r"^([0-9]|0\.\.[0-9]|[0-9]\.\.9)?$" }),
        Source::StatsOnly => json!({ "type": "boolean" }),
        Source::Id(_) => json!({ "type": "string", "pattern": format!("^({UUID}(,{UUID})*)?$") }),
        Source::Name(_) | Source::TaskText => json!({ "type": "string", "pattern": NAMES }),
        Source::TaskTime => json!({ "type": "string", "pattern": r"^(-[1-9][0-9]{0,3}[smhd]\.\.)?$" }),
    };
    let several = if row.is_single() { "" } else { " Comma = OR." };
    let short = if row.short.is_empty() { String::new() } else { format!(" Also `{}`.", row.short) };
    let description = format!("{}.{several}{short} With `-` before its name, all but these.", row.help);
    json!({ "name": row.name, "in": "query", "required": false, "description": description, "schema": schema })
}

/// Parameters of free names: each property is a separate parameter.
fn free(name: &str, names: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "query", "required": false, "style": "form", "explode": true, "description": description,
        "schema": {
            "type": "object",
            "patternProperties": { names: { "type": "string", "pattern": NAMES } },
            "additionalProperties": false,
        },
    })
}

/// `label.<key>=value`.
fn labels() -> Value {
    let description = "Only with this label: `label.<key>=<value>`, once per key. Comma = OR.";
    free("labels", r"^label\.[a-z][a-z0-9_-]{0,30}$", description)
}

/// `payload.<path>=value` and `result.<path>=value`.
fn contents() -> Value {
    let description = "Only with this value in the payload or the result: `payload.<path>=<value>`, where the path is keys and array indexes separated by dots (`payload.order.lines.0.sku`; `\\.` is a dot in a key). Texts without quotes, numbers as written. Comma = OR. Looks at a bounded number of tasks at a time; go on with `next_cursor`.";
    free("contents", r"^(payload|result)(\.[a-z][a-z0-9_-]{0,10}){1,4}$", description)
}

/// Parameters of the stream that are not filters. An empty value is the same as an absent parameter.
fn of_stream(name: &str) -> Option<Value> {
    let moment =
        format!("^([1-9][0-9]{{0,17}}|{}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T.+)?$", &EVENT_ID[1..EVENT_ID.len() - 1]);
    let schema = match name {
        "snapshot" => json!({ "type": "string", "enum": ["auto", "always", "true", "never", "false", ""] }),
        "on_gap" => json!({ "type": "string", "enum": ["reset", "error", ""] }),
        "format" => json!({ "type": "string", "enum": ["native", "cloudevents", ""] }),
        "names" | "poll" => json!({ "type": "string", "enum": ["0", "1", ""] }),
        "speed" => json!({ "type": "string", "pattern": r"^(max|0\.[1-9]|[1-9][0-9]{0,3})?$" }),
        "from" | "until" => json!({ "type": "string", "pattern": moment }),
        _ => return None,
    };
    Some(schema)
}

fn range() -> Value {
    let words: Vec<_> = Range::ALL.iter().map(|range| range.as_str()).collect();
    json!({ "name": "range", "in": "query", "required": false, "schema": { "type": "string", "enum": words },
        "description": "Time range: `1h` (1-minute buckets, default), `24h` (15-minute) or `7d` (hourly)." })
}

fn cursor() -> Value {
    json!({ "name": "cursor", "in": "query", "required": false,
        "description": "`next_cursor` of the previous page.",
        "schema": { "type": "string", "pattern": format!("^([0-9a-f]{{1,13}}-{UUID})?$") } })
}

fn search() -> Value {
    json!({ "name": "q", "in": "query", "required": false,
        "description": "Substring of title, type or error (max 200 characters).",
        "schema": { "type": "string", "maxLength": 200, "pattern": r"^[^\u0000]*$" } })
}

fn last_event_id() -> Value {
    json!({ "name": "last_event_id", "in": "query", "required": false, "schema": { "type": "string", "maxLength": 64 },
        "description": "Same as the header Last-Event-ID, for clients that cannot set it; `lastEventId` is an alias." })
}

fn idempotency_key() -> Value {
    json!({ "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "Makes a repeated request safe: the task IDs are derived from the key, so a repeated request creates nothing and returns the same response. The same key with another body is rejected (422).",
        "schema": { "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$" } })
}

fn if_match() -> Value {
    json!({ "name": "If-Match", "in": "header", "required": false,
        "description": "An ETag of the task, or `*`. If the task has changed since, nothing is done (412).",
        "schema": { "type": "string", "pattern": r#"^(\*|"[0-9a-f]{32}")$"# } })
}

fn of_path(path: &str, parameter: &mut Value) {
    let what = match path {
        _ if path.starts_with("/api/v1/tasks/") => "task",
        _ if path.starts_with("/api/v1/workers/") => "worker",
        _ if path.starts_with("/api/v1/bulk/") => "bulk action",
        _ if path.starts_with("/api/v1/schedules/") => "schedule",
        _ if path.starts_with("/api/v1/queues/") => "queue",
        _ if path.starts_with("/api/v1/schemas/") => "schema",
        _ => "event",
    };
    match parameter["name"].as_str() {
        Some("id") => parameter["description"] = format!("ID of the {what}.").into(),
        Some("event_id") => {
            parameter["description"] = "ID of the event, `<epoch>-<position>`.".into();
            parameter["schema"] = json!({ "type": "string", "pattern": EVENT_ID });
        }
        Some("name") => {
            if what != "schema" {
                parameter["schema"] = json!({ "$ref": "#/components/schemas/Name" });
            }
            parameter["description"] = format!("Name of the {what}.").into();
        }
        _ => {}
    }
}
