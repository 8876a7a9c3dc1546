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
    use crate::{clock::Time, model::Status};

    #[test]
    fn reasons_are_texts() {
        let schema = named("tasks_stuck").unwrap();
        let reason = schema.pointer("/properties/data/properties/stuck/items/properties/reason").unwrap();
        assert_eq!((&reason["type"], &reason["enum"]), (&json!("string"), &json!(["ring", "waits", "no_children"])));
    }

    fn texts(value: &Value) -> Vec<&str> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
    }

    #[test]
    fn every_name_has_a_schema_that_says_whose_it_is() {
        let all: Vec<_> = names().collect();
        for name in &all {
            let schema = named(name).unwrap();
            assert_eq!(schema["title"], *name);
            assert_eq!(schema["$id"], format!("/api/v1/schemas/{name}"));
            assert!(schema["description"].as_str().unwrap().ends_with('.'), "{name}");
        }
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len(), "a control frame is never taken for an event");
    }

    #[test]
    fn what_is_not_sent_has_no_schema() {
        for name in ["", "unknown", "task_teleported", "Hello", "task_created "] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn only_stored_events_have_a_place() {
        for kind in Kind::ALL {
            let schema = of_kind(*kind);
            let required = texts(&schema["required"]);
            for field in ["event_id", "position"] {
                assert_eq!(required.contains(&field), kind.row().durable, "{kind} {field}");
                assert_eq!(schema["properties"].get(field).is_some(), kind.row().durable, "{kind} {field}");
            }
            assert!(["event_type", "schema_version", "ts"].iter().all(|field| required.contains(field)));
        }
    }

    #[test]
    fn a_type_shows_its_own_data_and_no_other() {
        for kind in Kind::ALL {
            let schema = of_kind(*kind);
            let shown: Vec<_> = schema["properties"]
                .get("data")
                .map(|data| data["properties"].as_object().unwrap().keys().map(String::as_str).collect())
                .unwrap_or_default();
            let mut known = kind.row().data.to_vec();
            known.sort_by_key(|field| Data::FIELDS.iter().position(|of_all| of_all == field));
            let mut shown_sorted = shown.clone();
            shown_sorted.sort_by_key(|field| Data::FIELDS.iter().position(|of_all| of_all == field));
            assert_eq!(shown_sorted, known, "{kind}");
        }
    }

    #[test]
    fn every_property_is_described() {
        let is_described = |(name, schema): (&String, &Value)| {
            schema.get("const").is_some()
                || schema["description"].as_str().is_some_and(|text| !text.is_empty())
                || panic!("{name}")
        };
        for kind in Kind::ALL {
            let schema = of_kind(*kind);
            let fields = schema["properties"].as_object().unwrap();
            let data = fields.get("data").and_then(|data| data["properties"].as_object());
            assert!(fields.iter().chain(data.into_iter().flatten()).all(is_described));
        }
    }

    #[test]
    fn an_event_has_no_field_that_its_schema_does_not_show() {
        let mut event = Event::new(Kind::TaskFailed, Time::UNIX_EPOCH);
        (event.position, event.event_id) = (Some(1), Some("5c1f09ae-1".to_owned()));
        (event.status, event.error) = (Some(Status::Failed), Some("e".to_owned()));
        event.data.title = Some("t".to_owned());
        event.truncated = vec!["message".to_owned()];
        let json = serde_json::to_value(&event).unwrap();
        let schema = of_kind(Kind::TaskFailed);
        for field in json.as_object().unwrap().keys() {
            assert!(schema["properties"].get(field).is_some(), "{field}");
        }
        for field in texts(&schema["required"]) {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(schema["properties"]["status"]["enum"].as_array().unwrap().len(), Status::ALL.len());
    }

    #[test]
    fn a_control_frame_shows_exactly_its_fields() {
        for control in CONTROLS {
            let schema = of_control(control);
            let mut shown: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let mut known = control.2.to_vec();
            shown.sort_unstable();
            known.sort_unstable();
            assert_eq!(shown, known, "{}", control.0);
        }
    }

    #[test]
    fn a_head_is_an_id_where_a_client_can_resume_and_a_number_elsewhere() {
        let kind_of = |name, field: &str| named(name).unwrap()["properties"][field]["type"].clone();
        assert_eq!([kind_of("hello", "head"), kind_of("reset", "head")], ["string", "string"]);
        assert_eq!([kind_of("heartbeat", "head"), kind_of("snapshot_end", "position")], ["integer", "integer"]);
    }
}
