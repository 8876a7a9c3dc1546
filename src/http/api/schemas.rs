//! JSON Schemas of events and stream frames.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{Json as Out, extract::Path, http::HeaderMap, response::Response};
use serde_json::{Value, json};
use utoipa_axum::routes;

use crate::{
    event::schema,
    http::{assets::Document, problem::Problem, routes::Routes},
    model::access::Scope,
};

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Read, routes!(schemas)), (Scope::Read, routes!(schema))]
}

/// List JSON Schemas of events and stream frames.
#[utoipa::path(get, path = "/api/v1/schemas", operation_id = "listSchemas", tag = "monitoring", responses((status = 200, description = "Schema name to URL", body = BTreeMap<String, String>)))]
pub(super) async fn schemas() -> Out<BTreeMap<&'static str, String>> {
    Out(schema::names().map(|name| (name, format!("/api/v1/schemas/{name}"))).collect())
}

/// Get one JSON Schema (draft 2020-12) of an event type or stream frame.
#[utoipa::path(get, path = "/api/v1/schemas/{name}", operation_id = "getSchema", tag = "monitoring", params(("name" = String, Path, description = "An event type, or `hello`, `heartbeat` …")),
    responses((status = 200, description = "OK", body = Object, content_type = "application/schema+json"), (status = 404, description = "Not found", body = Problem)))]
pub(super) async fn schema(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    static SCHEMAS: LazyLock<BTreeMap<&'static str, Document>> = LazyLock::new(|| {
        let made = |name| Some((name, Document::new("application/schema+json", schema::named(name)?.to_string())));
        schema::names().filter_map(made).collect()
    });
    let found = SCHEMAS.get(name.as_str()).ok_or_else(|| {
        let names: Vec<_> = schema::names().collect();
        Problem::not_found(format!("unknown schema; available: {}", names.join(", ")))
    })?;
    Ok(found.answer(&headers))
}

/// Adds the schemas to the OpenAPI document, and describes the items of the stream with a keyword of OpenAPI 3.2, which
/// few tools support yet, as an extension of 3.1.
pub(super) fn describe(document: &mut Value) {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    for name in schema::names() {
        if let Some(mut schema) = schema::named(name) {
            // Within the document it has another ID.
            if let Some(fields) = schema.as_object_mut() {
                fields.remove("$id");
                fields.remove("$schema");
            }
            document["components"]["schemas"][name] = schema;
        }
    }
    let data: Vec<_> = schema::names().map(reference).collect();
    let events: Vec<_> = crate::event::Kind::ALL.iter().map(|kind| reference(kind.name())).collect();
    let target = |kind: &crate::event::Kind| format!("#/components/schemas/{}", kind.name());
    let mapping: BTreeMap<_, _> = crate::event::Kind::ALL.iter().map(|kind| (kind.name(), target(kind))).collect();
    document["components"]["schemas"]["Event"] = json!({
        "description": "Any event of the log. Newer versions may know more event types.",
        "oneOf": events,
        "discriminator": { "propertyName": "event_type", "mapping": mapping },
    });
    let content = &mut document["paths"]["/events"]["get"]["responses"]["200"]["content"];
    content["text/event-stream"] = json!({
        "schema": { "type": "string" },
        "x-itemSchema": {
            "type": "object",
            "required": ["data"],
            "properties": {
                "event": { "enum": schema::names().collect::<Vec<_>>() },
                "data": { "type": "string", "contentMediaType": "application/json", "contentSchema": { "anyOf": data } },
                "id": { "type": "string" },
                "retry": { "type": "integer", "minimum": 0 },
            },
        },
    });
    content["application/x-ndjson"] = json!({ "schema": { "type": "string" }, "x-itemSchema": reference("Event") });
}
