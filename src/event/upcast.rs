//! Event versions. Stored events never change: an event of an older version is upgraded on read, one of a newer version
//! (from a server that was upgraded first) is passed on unchanged.
//!
//! To change the envelope in a way that old readers would misinterpret, increment
//! [`SCHEMA_VERSION`](super::envelope::SCHEMA_VERSION) and add the step from the previous version. A new optional field
//! or a new event type needs neither.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Event, Kind, envelope::SCHEMA_VERSION};
use crate::clock::Time;

/// Upgrades an event from the version of its index to the next.
type Step = fn(&mut Map<String, Value>);

/// One step for each version that is no longer written.
const STEPS: [Step; SCHEMA_VERSION as usize] = [from_0];

/// Version 0, used by pre-release builds: no `schema_version`, the timestamp as `at`, the type as `kind`.
fn from_0(event: &mut Map<String, Value>) {
    for (old, new) in [("kind", "event_type"), ("at", "ts")] {
        if let Some(value) = event.remove(old) {
            event.entry(new).or_insert(value);
        }
    }
}

/// A stored event, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The event; of an unknown type if this version does not understand it.
    pub event: Event,
    /// Its JSON in the current version; empty if the stored text is not a JSON object.
    pub json: String,
    /// The name of its type, which may be unknown to this version.
    pub name: String,
    /// False if it is not an event of any version.
    pub intact: bool,
}

/// Decodes a stored event. Never fails: the log is immutable, so invalid events have to be tolerated.
#[must_use]
pub fn read(json: String) -> Read {
    // Fast path: nearly all events have the current version.
    match serde_json::from_str::<Event>(&json) {
        Ok(event) if event.schema_version >= SCHEMA_VERSION => {
            let name = event.event_type.name().to_owned();
            return Read { event, json, name, intact: true };
        }
        Ok(_) | Err(_) => {}
    }
    let Ok(fields) = serde_json::from_str::<Map<String, Value>>(&json) else {
        return Read { event: unknown(), json: String::new(), name: Kind::Unknown.name().to_owned(), intact: false };
    };
    detour(json, fields)
}

/// An event of another version, or one that cannot be decoded: passed on unchanged and not applied to the board.
fn detour(json: String, mut fields: Map<String, Value>) -> Read {
    let version = fields.get("schema_version").and_then(Value::as_u64).unwrap_or_default();
    let written = usize::try_from(version).unwrap_or(usize::MAX);
    for step in STEPS.iter().skip(written) {
        step(&mut fields);
    }
    let json = if written < STEPS.len() {
        fields.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
        Value::Object(fields.clone()).to_string()
    } else {
        json
    };
    let name = fields.get("event_type").and_then(Value::as_str).unwrap_or(Kind::Unknown.name()).to_owned();
    let newer = written > STEPS.len();
    let known = name.parse::<Kind>().is_ok();
    if known && let Ok(event) = Event::deserialize(&fields) {
        return Read { event, json, name, intact: true };
    }
    // A newer server may write unknown types, and known types with other fields.
    fields.retain(|field, _| ["event_id", "position", "schema_version", "ts", "task_id"].contains(&field.as_str()));
    fields.insert("event_type".to_owned(), Kind::Unknown.name().into());
    let event = Event::deserialize(&fields);
    let intact = event.is_ok() && (newer || !known);
    Read { event: event.unwrap_or_else(|_| unknown()), json, name, intact }
}

/// Placeholder for an unreadable event.
fn unknown() -> Event {
    Event::new(Kind::Unknown, Time::UNIX_EPOCH)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_old_version_is_read_as_the_present_one() {
        let old = r#"{"event_id":"5c1f09ae-7","position":7,"kind":"task_failed","at":"2026-11-20T16:05:00.123456Z","error":"x"}"#;
        let Read { event, json, name, intact } = read(old.to_owned());
        assert!(intact);
        assert_eq!((event.event_type, event.schema_version, event.position), (Kind::TaskFailed, 1, Some(7)));
        assert_eq!(name, "task_failed");
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    #[test]
    fn the_present_version_keeps_its_bytes() {
        let json = r#"{"position":7,"event_id":"5c1f09ae-7","event_type":"task_failed","schema_version":1,"ts":"2026-11-20T16:05:00.1Z"}"#;
        assert_eq!(read(json.to_owned()).json, json);
    }

    #[test]
    fn a_newer_kind_is_handed_on_as_it_is() {
        let json = r#"{"position":7,"event_type":"task_teleported","schema_version":2,"ts":"2026-11-20T16:05:00Z","status":["odd"]}"#;
        let Read { event, json: same, name, intact } = read(json.to_owned());
        assert!(intact);
        assert_eq!((event.event_type, event.position, name.as_str()), (Kind::Unknown, Some(7), "task_teleported"));
        assert_eq!(same, json);
        let odd = json.replace("task_teleported", "task_failed");
        let Read { event, json: same, name, .. } = read(odd.clone());
        assert_eq!((event.event_type, name.as_str(), same), (Kind::Unknown, "task_failed", odd));
    }

    #[test]
    fn what_is_no_event_is_survived() {
        for stored in [
            "",
            "7",
            "[]",
            "{",
            "\0",
            r#"{"ts":1}"#,
            "{}",
            r#"{"event_type":"task_failed","schema_version":1,"ts":"12000-01-01T00:00:00Z"}"#,
        ] {
            let read = read(stored.to_owned());
            assert_eq!((read.intact, read.event.event_type), (false, Kind::Unknown), "{stored}");
            assert!(read.json.is_empty() || read.json.starts_with('{'));
        }
    }

    const TS: &str = "2026-11-20T16:05:00Z";

    #[test]
    fn an_old_field_does_not_replace_a_present_one() {
        let both =
            format!(r#"{{"kind":"task_failed","event_type":"task_created","at":"2000-01-01T00:00:00Z","ts":"{TS}"}}"#);
        let read = read(both);
        assert_eq!((read.event.event_type, read.name.as_str()), (Kind::TaskCreated, "task_created"));
        assert!(read.json.contains("2026-11-20") && !read.json.contains("\"at\""), "{}", read.json);
    }

    #[test]
    fn an_upgraded_event_is_of_the_present_version_and_stays_so() {
        let old = format!(r#"{{"schema_version":0,"kind":"task_created","at":"{TS}","position":3}}"#);
        let first = read(old);
        assert_eq!(first.event.schema_version, SCHEMA_VERSION);
        let again = read(first.json.clone());
        assert_eq!(again, first);
    }

    #[test]
    fn a_newer_event_keeps_its_version_its_bytes_and_what_every_version_has() {
        let id = uuid::Uuid::from_u128(7);
        let newer = format!(
            r#"{{ "event_id":"5c1f09ae-7","position":7,"event_type":"task_failed","schema_version":65535,"ts":"{TS}","task_id":"{id}","attempt":"third" }}"#
        );
        let read = read(newer.clone());
        assert_eq!((read.intact, read.json), (true, newer));
        let event = read.event;
        assert_eq!((event.event_type, event.schema_version), (Kind::Unknown, u16::MAX));
        assert_eq!((event.position, event.task_id, event.attempt), (Some(7), Some(id), None));
    }

    #[test]
    fn a_newer_event_that_is_understood_takes_part() {
        let newer =
            format!(r#"{{"position":7,"event_type":"task_failed","schema_version":2,"ts":"{TS}","colour":"red"}}"#);
        let read = read(newer.clone());
        assert_eq!((read.event.event_type, read.intact, read.json), (Kind::TaskFailed, true, newer));
    }

    #[test]
    fn a_known_type_of_the_present_version_with_a_bad_field_is_broken() {
        let broken =
            format!(r#"{{"position":7,"event_type":"task_failed","schema_version":1,"ts":"{TS}","attempt":"third"}}"#);
        let read = read(broken);
        assert_eq!((read.intact, read.event.event_type, read.name.as_str()), (false, Kind::Unknown, "task_failed"));
        assert_eq!(read.event.position, Some(7), "readers can count it");
    }

    #[test]
    fn a_version_that_is_no_number_is_the_oldest() {
        for odd in ["\"1\"", "-1", "1.5", "null", "[1]"] {
            let json = format!(r#"{{"kind":"task_created","at":"{TS}","schema_version":{odd}}}"#);
            let read = read(json);
            assert_eq!(
                (read.event.event_type, read.event.schema_version),
                (Kind::TaskCreated, SCHEMA_VERSION),
                "{odd}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Whatever the table holds, it is read, and what was read is read again in the same way.
        #[test]
        fn no_text_stops_a_reader(text in "\\PC{0,60}|[\\[\\]{}:,\"0-9a-z_]{0,60}") {
            let first = read(text);
            if !first.json.is_empty() {
                prop_assert_eq!(&read(first.json.clone()).name, &first.name);
            }
        }

        #[test]
        fn no_field_of_any_shape_stops_a_reader(
            field in prop::sample::select(&["event_type", "schema_version", "ts", "position", "task_id", "data", "truncated", "kind", "at"][..]),
            value in prop::sample::select(&["null", "true", "-1", "1e300", "99999999999999999999", "\"\"", "\"x\"", "[]", "{}", "[[[]]]", "{\"a\":{}}"][..]),
            version in 0_u32..4,
        ) {
            let mut fields: Map<String, Value> = serde_json::from_str(&format!(
                r#"{{"event_type":"task_failed","schema_version":{version},"ts":"{TS}","position":7}}"#
            )).unwrap();
            fields.insert(field.to_owned(), serde_json::from_str(value).unwrap());
            let json = Value::Object(fields).to_string();
            let first = read(json.clone());
            let is_object = first.json.starts_with('{');
            prop_assert!(is_object);
            prop_assert!(first.intact || first.event.event_type == Kind::Unknown);
            prop_assert_eq!(read(first.json.clone()).event.event_type, first.event.event_type);
        }
    }
}
