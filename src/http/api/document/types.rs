//! Schema details that a type cannot express: alternatives, dependent values, bounds of lists.

use serde_json::{Value, json};

use super::{bodies::reference, parameters::EVENT_ID};
use crate::model::worker::WorkerStatus;

/// Event types accepted in reports.
const REPORTED: [&str; 13] = [
    "task_created",
    "task_enqueued",
    "task_started",
    "task_progress",
    "task_completed",
    "task_retry",
    "task_failed",
    "task_cancelled",
    "worker_started",
    "worker_heartbeat",
    "worker_status_changed",
    "worker_stopped",
    "connector_status_changed",
];

/// Completes the schemas.
pub(super) fn complete(schemas: &mut Value) {
    schemas["CloudEvent"] = cloud_event();
    schemas["Snapshot"] = snapshot();
    let polled = &mut schemas["LongPollResponse"]["properties"];
    polled["events"]["items"] = reference("Event");
    polled["snapshot"] = reference("Snapshot");
    workers(schemas);
    reports(schemas);
    lists(schemas);
    for field in ["cron", "time_zone"] {
        schemas["PutSchedule"]["properties"][field]["minLength"] = 1.into();
    }
    schemas["LimitQueue"]["dependentRequired"] = json!({ "rate_period_seconds": ["rate_limit"] });
    for schema in schemas.as_object_mut().into_iter().flatten().map(|(_, schema)| schema) {
        let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
        fields.into_iter().flatten().for_each(|(_, field)| text(field));
    }
}

fn cloud_event() -> Value {
    json!({
        "description": "A CloudEvent 1.0 whose `data` has the fields of a `NativeReport`. The last part of `type` stands for `event_type`, `time` for `ts`, `source` for `source`, `subject` for `task_id`, unless `data` has them.",
        "type": "object",
        "required": ["specversion", "type", "source", "id"],
        "properties": {
            "specversion": { "const": "1.0" },
            "type": { "type": "string", "pattern": format!("(^|\\.)({})$", REPORTED.join("|")), "description": "An event type, also behind a prefix, as in `com.example.task_started`." },
            "source": { "type": "string", "minLength": 1, "description": "Which system reports." },
            "id": { "type": "string", "minLength": 1, "description": "The id of the event there." },
            "time": { "type": "string", "format": "date-time", "description": "When it happened." },
            "subject": { "type": "string", "description": "The task." },
            "data": { "type": "object", "description": "Fields of a `NativeReport`." },
        },
    })
}

fn snapshot() -> Value {
    let items =
        |description: &str| json!({ "type": "array", "items": { "type": "object" }, "description": description });
    json!({
        "description": "The board at a position of the log.",
        "type": "object",
        "required": ["event_id", "position", "counts", "workers", "queues", "running", "parents", "completed", "failed"],
        "properties": {
            "event_id": { "type": "string", "pattern": EVENT_ID, "description": "Read `/events?after=<event_id>` to follow from here." },
            "position": { "type": "integer", "minimum": 0, "description": "Position of the last event that it shows." },
            "ts": { "type": ["string", "null"], "format": "date-time", "description": "When that event happened." },
            "counts": { "type": "object", "additionalProperties": { "type": "integer" }, "description": "Tasks by status." },
            "workers": items("Online workers, and the last that left."),
            "queues": items("Queues."),
            "running": items("Running tasks."),
            "parents": items("Parent tasks that are not finished."),
            "completed": items("The newest completions, as events."),
            "failed": items("The newest failures, as events."),
        },
    })
}

fn workers(schemas: &mut Value) {
    let online = WorkerStatus::ALL.iter().filter(|status| status.is_online()).map(|status| status.as_str());
    schemas["OnlineStatus"] = json!({
        "type": "string", "enum": online.collect::<Vec<_>>(),
        "description": "What a worker that is online does.",
    });
    schemas["HeartbeatInput"]["properties"]["status"] = json!({
        "description": "What it does now. A worker leaves with DELETE.",
        "oneOf": [{ "type": "null" }, reference("OnlineStatus")],
    });
}

fn reports(schemas: &mut Value) {
    let foreign = |description: &str| json!({ "description": description, "oneOf": [reference("Name"), { "type": "integer" }, { "type": "null" }] });
    let report = &mut schemas["NativeReport"]["properties"];
    for field in ["task_id", "parent_task_id", "worker_id"] {
        let description = report[field]["description"].as_str().unwrap_or_default().to_owned();
        report[field] = foreign(&description);
    }
    report["event_type"]["enum"] = json!(REPORTED);
    // Required combinations of fields in a line of a bulk report.
    schemas["Report"]["allOf"] =
        json!([{ "if": { "properties": { "report": { "const": "fail" } } }, "then": { "required": ["error"] } }]);
}

fn lists(schemas: &mut Value) {
    for (name, field) in [("CreateTask", "labels"), ("EditTask", "labels"), ("NativeReport", "labels")] {
        let labels = &mut schemas[name]["properties"][field];
        labels["maxProperties"] = 32.into();
        labels["propertyNames"] = reference("Name");
        labels["additionalProperties"] =
            json!({ "type": "string", "maxLength": 256, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$" });
    }
    for (name, field) in [
        ("CreateTask", "phases"),
        ("CreateTask", "collaborators"),
        ("CreateTask", "watchers"),
        ("EditTask", "collaborators"),
        ("EditTask", "watchers"),
        ("NativeData", "phases"),
    ] {
        let list = &mut schemas[name]["properties"][field];
        list["items"] = reference("Name");
        (list["maxItems"], list["uniqueItems"]) = (32.into(), true.into());
    }
}

/// Rules for all fields.
fn text(field: &mut Value) {
    // Generators assume that a field with `default` is always present, also in requests.
    if let Some(default) = field.as_object_mut().and_then(|field| field.remove("default")) {
        let said = field["description"].as_str().unwrap_or_default().to_owned();
        field["description"] = format!("{said} Default: {default}.").trim_start().into();
    }
    // Postgres cannot store NUL in text.
    if field["maxLength"].is_number() && field["pattern"].is_null() {
        field["pattern"] = r"^[^\u0000]*$".into();
    }
}
