//! Old and new versions of events. What is stored never changes; whoever reads an event of an older version gets it in
//! the present one, whoever reads one of a newer version (of a server that was upgraded first) gets it as it is.
//!
//! To change the envelope in a way that old readers of it would misunderstand: raise
//! [`SCHEMA_VERSION`](super::envelope::SCHEMA_VERSION) and add the step from the version before. A new optional field or
//! a new kind needs neither.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Event, Kind, envelope::SCHEMA_VERSION};

/// Takes an event from the version of its place to the next.
type Step = fn(&mut Map<String, Value>);

/// One for each version that is no more written.
const STEPS: [Step; SCHEMA_VERSION as usize] = [from_0];

/// Version 0, of builds before the first: no `schema_version`, the time as `at`, the kind as `kind`.
fn from_0(event: &mut Map<String, Value>) {
    for (old, new) in [("kind", "event_type"), ("at", "ts")] {
        if let Some(value) = event.remove(old) {
            event.entry(new).or_insert(value);
        }
    }
}

/// Reads what is stored: the event, its JSON in the present version, and the name of its kind.
///
/// # Errors
/// When it is no event of any version.
pub fn read(json: String) -> serde_json::Result<(Event, String, String)> {
    // Nearly every event is of this version and needs no detour.
    match serde_json::from_str::<Event>(&json) {
        Ok(event) if event.schema_version >= SCHEMA_VERSION => {
            let name = event.event_type.name().to_owned();
            return Ok((event, json, name));
        }
        Ok(_) | Err(_) => {}
    }
    let mut fields: Map<String, Value> = serde_json::from_str(&json)?;
    let version = fields.get("schema_version").and_then(Value::as_u64).unwrap_or_default();
    let written = usize::try_from(version).unwrap_or(usize::MAX);
    for step in STEPS.iter().skip(written) {
        step(&mut fields);
    }
    let json = if written < STEPS.len() {
        fields.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
        serde_json::to_string(&fields)?
    } else {
        json
    };
    let name = fields.get("event_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let newer = written > STEPS.len();
    let understood = name.parse::<Kind>().is_ok() && (!newer || Event::deserialize(&fields).is_ok());
    if !understood {
        // Of a newer server: handed on as it is, and no part of what this one shows.
        fields.retain(|field, _| ["event_id", "position", "schema_version", "ts", "task_id"].contains(&field.as_str()));
        fields.insert("event_type".to_owned(), Kind::Unknown.name().into());
    }
    Ok((serde_json::from_value(Value::Object(fields))?, json, name))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn an_old_version_is_read_as_the_present_one() {
        let old = r#"{"event_id":"5c1f09ae-7","position":7,"kind":"task_failed","at":"2026-11-20T16:05:00.123456Z","error":"x"}"#;
        let (event, json, name) = read(old.to_owned()).unwrap();
        assert_eq!((event.event_type, event.schema_version, event.position), (Kind::TaskFailed, 1, Some(7)));
        assert_eq!(name, "task_failed");
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    #[test]
    fn the_present_version_keeps_its_bytes() {
        let json = r#"{"position":7,"event_id":"5c1f09ae-7","event_type":"task_failed","schema_version":1,"ts":"2026-11-20T16:05:00.1Z"}"#;
        assert_eq!(read(json.to_owned()).unwrap().1, json);
    }

    #[test]
    fn a_newer_kind_is_handed_on_as_it_is() {
        let json = r#"{"position":7,"event_type":"task_teleported","schema_version":2,"ts":"2026-11-20T16:05:00Z","status":["odd"]}"#;
        let (event, same, name) = read(json.to_owned()).unwrap();
        assert_eq!((event.event_type, event.position, name.as_str()), (Kind::Unknown, Some(7), "task_teleported"));
        assert_eq!(same, json);
        let odd = json.replace("task_teleported", "task_failed");
        let (event, same, name) = read(odd.clone()).unwrap();
        assert_eq!((event.event_type, name.as_str(), same), (Kind::Unknown, "task_failed", odd));
        assert!(read("{}".to_owned()).is_err() && read("7".to_owned()).is_err());
    }
}
