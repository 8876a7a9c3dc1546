//! JSON Schemas (draft 2020-12) of events and control frames, from the tables.

use serde_json::{Map, Value, json};

use super::{
    Event, Kind,
    envelope::{Data, SCHEMA_VERSION},
    field::Field,
};

/// The schema of an event type.
#[must_use]
pub fn of_kind(kind: Kind) -> Value {
    let row = kind.row();
    let mut properties = Map::new();
    let mut required = vec!["event_type", "schema_version", "ts"];
    if row.durable {
        required.extend(["event_id", "position"]);
        let id = json!({ "type": "string", "pattern": "^[0-9a-f]{8}-[0-9]+$", "description": "Event ID: <epoch>-<position>." });
        properties.insert("event_id".to_owned(), id);
        let position = json!({ "type": "integer", "minimum": 1, "description": "Log position, consecutive from 1." });
        properties.insert("position".to_owned(), position);
    }
    properties.insert("event_type".to_owned(), json!({ "const": row.name }));
    properties.insert("schema_version".to_owned(), json!({ "const": SCHEMA_VERSION }));
    let ts = json!({ "type": "string", "format": "date-time", "description": "Event time (UTC, microseconds)." });
    properties.insert("ts".to_owned(), ts);
    properties.extend(described_fields(Event::fields(), |_| true));
    let data = described_fields(Data::fields(), |name| row.data.contains(&name));
    if !data.is_empty() {
        let data = json!({ "type": "object", "description": "Type-specific fields.", "properties": data });
        properties.insert("data".to_owned(), data);
    }
    let truncated = json!({ "type": "array", "items": { "type": "string" },
        "description": "Fields omitted because the event was too large; the task's own record has them." });
    properties.insert("truncated".to_owned(), truncated);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("/api/v1/schemas/{}", row.name),
        "title": row.name,
        "description": row.sentence,
        "type": "object",
        "required": required,
        "properties": properties,
    })
}

fn described_fields(fields: Vec<Field>, wanted: impl Fn(&str) -> bool) -> Map<String, Value> {
    let fields = fields.into_iter().filter(|(name, _, _)| wanted(name));
    fields
        .map(|(name, says, mut schema)| {
            schema["description"] = says.trim().into();
            (name.to_owned(), schema)
        })
        .collect()
}

/// Control frames: name, description, and the fields of the data.
pub const CONTROLS: [(&str, &str, &[&str]); 8] = [
    ("hello", "Stream opened.", &["resume", "requested", "head", "oldest", "until", "heartbeat_ms", "server_version"]),
    ("snapshot", "Part of the current state.", &["part", "items"]),
    ("snapshot_end", "Snapshot complete; its id is the position it represents.", &["position", "ts"]),
    (
        "heartbeat",
        "Up to date as of its id; since when the log is unreadable, or writes fail.",
        &["ts", "position", "head", "behind", "stale_since", "not_writing_since"],
    ),
    ("lagging", "The client is more than 10 s behind; nothing is dropped.", &["behind"]),
    ("reset", "Cannot resume from the cursor; a snapshot follows.", &["reason", "requested", "oldest", "head"]),
    ("bye", "The server closes the connection; reconnect.", &["reason"]),
    ("close", "The stream is finished; do not reconnect.", &["reason"]),
];

/// The schema of a control frame.
#[must_use]
pub fn of_control((name, says, fields): (&str, &str, &[&str])) -> Value {
    let id = || json!({ "type": "string", "pattern": "^[0-9a-f]{8}-[0-9]+$" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let properties: Map<_, _> = fields
        .iter()
        .map(|field| {
            let schema = match *field {
                "head" | "position" if name == "heartbeat" || name == "snapshot_end" => count(),
                "head" | "oldest" | "until" => id(),
                "behind" | "heartbeat_ms" => count(),
                "resume" => json!({ "enum": ["live", "resumed", "snapshot", "reset", "replay"] }),
                "requested" | "ts" => json!({ "type": ["string", "null"] }),
                "items" => json!({ "type": "array", "items": {} }),
                _ => json!({ "type": "string" }),
            };
            ((*field).to_owned(), schema)
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("/api/v1/schemas/{name}"),
        "title": name,
        "description": says,
        "type": "object",
        "properties": properties,
    })
}

/// The schema with a name; `None` if it does not exist.
#[must_use]
pub fn named(name: &str) -> Option<Value> {
    let control = CONTROLS.into_iter().find(|(control, _, _)| *control == name).map(of_control);
    control.or_else(|| Kind::ALL.iter().copied().find(|kind| kind.name() == name).map(of_kind))
}

/// Names of all schemas.
pub fn names() -> impl Iterator<Item = &'static str> {
    Kind::ALL.iter().map(|kind| kind.name()).chain(CONTROLS.into_iter().map(|(name, _, _)| name))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_texts() {
        let schema = named("tasks_stuck").unwrap();
        let reason = schema.pointer("/properties/data/properties/stuck/items/properties/reason").unwrap();
        assert_eq!((&reason["type"], &reason["enum"]), (&json!("string"), &json!(["ring", "waits", "no_children"])));
    }
}
