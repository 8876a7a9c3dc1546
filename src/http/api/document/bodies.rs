//! Bodies that a handler cannot say by its types: several forms of one call, and JSON put together from parts.

use serde_json::{Value, json};

use super::{answers::for_each_operation, parameters::EVENT_ID};
use crate::{http::input::MAX_ITEMS, model::worker::WorkerStatus};

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// One, or several in an array.
fn one_or_many(name: &str) -> Value {
    json!({ "oneOf": [reference(name), many(name)] })
}

fn many(name: &str) -> Value {
    json!({ "type": "array", "items": reference(name), "minItems": 1, "maxItems": MAX_ITEMS })
}

/// Event types that other systems report.
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

/// One JSON object a line. In the words of OpenAPI 3.2, which few tools read yet, as an extension of 3.1.
fn lines(name: &str) -> Value {
    let what = format!("NDJSON: one `{name}` a line, at most {MAX_ITEMS}.");
    json!({ "schema": { "type": "string", "description": what }, "x-itemSchema": reference(name) })
}

/// Completes the bodies of requests and answers.
pub(super) fn complete(document: &mut Value) {
    schemas(&mut document["components"]["schemas"]);
    let paths = &mut document["paths"];
    paths["/metrics"] = metrics();
    paths["/openapi.json"] = openapi();
    let create = &mut paths["/api/v1/tasks"]["post"];
    create["requestBody"] = json!({ "required": true, "content": {
        "application/json": { "schema": one_or_many("CreateTask") },
        "application/x-ndjson": lines("CreateTask"),
    } });
    for status in ["200", "201"] {
        create["responses"][status]["content"]["application/json"]["schema"] =
            json!({ "oneOf": [reference("OneTask"), reference("ManyTasks")] });
    }
    create["responses"]["201"]["description"] =
        "Created: `OneTask` for one object, `ManyTasks` for an array or NDJSON. Location is that of the one task."
            .into();
    paths["/api/v1/reports"]["post"]["requestBody"] = json!({ "required": true, "content": {
        "application/json": { "schema": one_or_many("Report") },
        "application/x-ndjson": lines("Report"),
    } });
    let body = json!({ "oneOf": [reference("NativeReport"), reference("CloudEvent"), {
        "type": "array", "minItems": 1, "maxItems": MAX_ITEMS,
        "items": { "anyOf": [reference("NativeReport"), reference("CloudEvent")] },
    }] });
    paths["/api/v1/events"]["post"]["requestBody"] = json!({
        "required": true,
        "description": "Native reports, or CloudEvents 1.0: structured, batch, or binary (attributes in `ce-` headers, the body is `data`).",
        "content": {
            "application/json": { "schema": body },
            "application/x-ndjson": lines("NativeReport"),
            "application/cloudevents+json": { "schema": reference("CloudEvent") },
            "application/cloudevents-batch+json": { "schema": many("CloudEvent") },
        },
    });
    paths["/api/v1/tasks/bulk"]["post"]["responses"]["200"]["content"]["application/json"]["schema"] =
        json!({ "oneOf": [reference("DoneToEach"), reference("Preview")] });
    let answer = |schema: Value| json!({ "application/json": { "schema": schema } });
    paths["/api/v1/tasks/{id}/events"]["get"]["responses"]["200"]["content"] =
        answer(json!({ "type": "array", "items": reference("Event") }));
    paths["/api/v1/events/{event_id}"]["get"]["responses"]["200"]["content"] = answer(reference("Event"));
    paths["/api/v1/snapshot"]["get"]["responses"]["200"]["content"] = answer(reference("Snapshot"));
    let streams = &mut paths["/events"]["get"]["responses"]["200"];
    for header in ["Events-Resume", "Events-Head"] {
        streams["headers"][header] = json!({ "$ref": format!("#/components/headers/{header}") });
    }
    for method in ["get", "patch"] {
        paths["/api/v1/tasks/{id}"][method]["responses"]["200"]["headers"]["ETag"] =
            json!({ "$ref": "#/components/headers/ETag" });
    }
    // These calls take no body as well.
    let cancel = &mut paths["/api/v1/tasks/{id}/cancel"]["post"]["requestBody"];
    cancel["content"]["application/json"]["schema"] = reference("Cancel");
    cancel["required"] = false.into();
    paths["/api/v1/workers/{id}/heartbeat"]["post"]["requestBody"]["required"] = false.into();
    for_each_operation(document, |_, _, operation| {
        // The summary is the first line of a comment; tools want a description as well.
        if operation["description"].as_str().is_none_or(str::is_empty) {
            operation["description"] = operation["summary"].clone();
        }
        let summary = operation["summary"].as_str().unwrap_or_default();
        operation["summary"] = summary.split(['.', ':', ';']).next().unwrap_or_default().into();
        for response in operation["responses"].as_object_mut().into_iter().flatten().map(|(_, response)| response) {
            if response["description"] == "As asked" {
                response["description"] = "Success".into();
            }
        }
    });
}

fn schemas(schemas: &mut Value) {
    schemas["CloudEvent"] = json!({
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
    });
    let items =
        |description: &str| json!({ "type": "array", "items": { "type": "object" }, "description": description });
    schemas["Snapshot"] = json!({
        "description": "The board at a position of the log.",
        "type": "object",
        "required": ["event_id", "position", "counts", "workers", "queues", "running", "parents", "completed", "failed"],
        "properties": {
            "event_id": { "type": "string", "pattern": EVENT_ID, "description": "Read `/events?after=<event_id>` to follow from here." },
            "position": { "type": "integer", "minimum": 0, "description": "Position of the last event that it shows." },
            "ts": { "type": ["string", "null"], "format": "date-time", "description": "When that event happened." },
            "counts": { "type": "object", "additionalProperties": { "type": "integer" }, "description": "Tasks by status." },
            "workers": items("Workers that are online, and the last that left."),
            "queues": items("Queues."),
            "running": items("Running tasks."),
            "parents": items("Parent tasks that are not finished."),
            "completed": items("The newest completions, as events."),
            "failed": items("The newest failures, as events."),
        },
    });
    let online = WorkerStatus::ALL.iter().filter(|status| status.is_online()).map(|status| status.as_str());
    schemas["OnlineStatus"] = json!({
        "type": "string", "enum": online.collect::<Vec<_>>(),
        "description": "What a worker that is online does.",
    });
    schemas["HeartbeatInput"]["properties"]["status"] = json!({
        "description": "What it does now. A worker leaves with DELETE.",
        "oneOf": [{ "type": "null" }, reference("OnlineStatus")],
    });
    for field in ["cron", "time_zone"] {
        schemas["PutSchedule"]["properties"][field]["minLength"] = 1.into();
    }
    schemas["LimitQueue"]["dependentRequired"] = json!({ "rate_period_seconds": ["rate_limit"] });
    let polled = &mut schemas["Polled"]["properties"];
    polled["events"]["items"] = reference("Event");
    polled["snapshot"] = reference("Snapshot");
    let foreign = |description: &str| json!({ "description": description, "oneOf": [reference("Name"), { "type": "integer" }, { "type": "null" }] });
    let report = &mut schemas["NativeReport"]["properties"];
    for field in ["task_id", "parent_task_id", "worker_id"] {
        let description = report[field]["description"].as_str().unwrap_or_default().to_owned();
        report[field] = foreign(&description);
    }
    report["event_type"]["enum"] = json!(REPORTED);
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
    // What belongs together in one line of a bulk report.
    schemas["Report"]["allOf"] =
        json!([{ "if": { "properties": { "report": { "const": "fail" } } }, "then": { "required": ["error"] } }]);
    for schema in schemas.as_object_mut().into_iter().flatten().map(|(_, schema)| schema) {
        for field in
            schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten().map(|(_, field)| field)
        {
            // Generators take a field with `default` for one that is always there, also in requests.
            if let Some(default) = field.as_object_mut().and_then(|field| field.remove("default")) {
                let said = field["description"].as_str().unwrap_or_default().to_owned();
                field["description"] = format!("{said} Default: {default}.").trim_start().into();
            }
            // No text with NUL can be stored.
            if field["maxLength"].is_number() && field["pattern"].is_null() {
                field["pattern"] = r"^[^\u0000]*$".into();
            }
        }
    }
}

fn metrics() -> Value {
    json!({ "get": {
        "operationId": "getMetrics",
        "summary": "Metrics for Prometheus",
        "description": "The text format 0.0.4, or OpenMetrics 1.0 when Accept prefers it.",
        "tags": ["watching"],
        "responses": { "200": { "description": "Success", "content": {
            "text/plain": { "schema": { "type": "string" } },
            "application/openmetrics-text": { "schema": { "type": "string" } },
        } } },
    } })
}

fn openapi() -> Value {
    json!({ "get": {
        "operationId": "getOpenapi",
        "summary": "This document",
        "description": "As OpenAPI 3.1, or converted to 3.0 for generators that read no newer one.",
        "tags": ["watching"],
        "parameters": [{ "name": "version", "in": "query", "required": false, "description": "The version of OpenAPI.",
            "schema": { "type": "string", "enum": ["3.0", "3.1"], "default": "3.1" } }],
        "responses": {
            "200": { "description": "Success", "content": { "application/json": { "schema": { "type": "object" } } } },
            "400": { "description": "A parameter is invalid" },
        },
    } })
}
