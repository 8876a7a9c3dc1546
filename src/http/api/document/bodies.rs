//! Bodies that a handler's types cannot describe: alternative forms of one call, and JSON assembled from parts.

use serde_json::{Value, json};

use super::answers::for_each_operation;
use crate::http::input::MAX_ITEMS;

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A single object, or an array of them.
fn one_or_many(name: &str) -> Value {
    json!({ "oneOf": [reference(name), many(name)] })
}

fn many(name: &str) -> Value {
    json!({ "type": "array", "items": reference(name), "minItems": 1, "maxItems": MAX_ITEMS })
}

/// NDJSON. Described with a keyword of OpenAPI 3.2, which few tools support yet, as an extension of 3.1.
fn lines(name: &str) -> Value {
    let what = format!("NDJSON: one `{name}` a line, at most {MAX_ITEMS}.");
    json!({ "schema": { "type": "string", "description": what }, "x-itemSchema": reference(name) })
}

/// Completes request and response bodies.
pub(super) fn complete(document: &mut Value) {
    let paths = &mut document["paths"];
    paths["/metrics"] = metrics();
    paths["/openapi.json"] = openapi();
    requests(paths);
    answers(paths);
    words(document);
}

fn requests(paths: &mut Value) {
    let create = &mut paths["/api/v1/tasks"]["post"];
    create["requestBody"] = json!({ "required": true, "content": {
        "application/json": { "schema": one_or_many("CreateTask") },
        "application/x-ndjson": lines("CreateTask"),
    } });
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
    // These calls also accept an empty body.
    for (call, body) in [
        ("/api/v1/tasks/{id}/cancel", "Cancel"),
        ("/api/v1/tasks/{id}/retry", "WithChildren"),
        ("/api/v1/queues/{name}/pause", "PauseQueue"),
    ] {
        let request = &mut paths[call]["post"]["requestBody"];
        request["content"]["application/json"]["schema"] = reference(body);
        request["required"] = false.into();
    }
    paths["/api/v1/workers/{id}/heartbeat"]["post"]["requestBody"]["required"] = false.into();
}

fn answers(paths: &mut Value) {
    let create = &mut paths["/api/v1/tasks"]["post"];
    for status in ["200", "201"] {
        create["responses"][status]["content"]["application/json"]["schema"] =
            json!({ "oneOf": [reference("TaskResponse"), reference("TaskList")] });
    }
    create["responses"]["201"]["description"] =
        "Created: `TaskResponse` for one object, `TaskList` for an array or NDJSON. Location is that of the one task."
            .into();
    paths["/api/v1/tasks/bulk"]["post"]["responses"]["200"]["content"]["application/json"]["schema"] =
        json!({ "oneOf": [reference("BulkResults"), reference("Preview")] });
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
}

/// Ensures that every operation has a short summary and a description.
fn words(document: &mut Value) {
    for_each_operation(document, |_, _, operation| {
        // The summary is the first sentence of the doc comment; tools want a description as well.
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

fn metrics() -> Value {
    json!({ "get": {
        "operationId": "getMetrics",
        "summary": "Prometheus",
        "description": "The text format 0.0.4, or OpenMetrics 1.0 when Accept prefers it.",
        "tags": ["monitoring"],
        "x-scope": "read",
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
        "tags": ["monitoring"],
        "x-scope": "read",
        "parameters": [{ "name": "version", "in": "query", "required": false, "description": "The version of OpenAPI.",
            "schema": { "type": "string", "enum": ["3.0", "3.1"], "default": "3.1" } }],
        "responses": {
            "200": { "description": "Success", "content": { "application/json": { "schema": { "type": "object" } } } },
            "400": { "description": "A parameter is invalid" },
        },
    } })
}
