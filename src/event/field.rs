//! Types of event fields and their JSON Schema.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    clock::Time,
    model::{
        Name, Priority, Status,
        edit::Changes,
        phase::Counts,
        report::{Json, WorkCounts},
        stuck::Stuck,
    },
};

/// A field: name, description and schema.
pub(super) type Field = (&'static str, &'static str, Value);

/// JSON representation of a field type.
pub(super) trait FieldType {
    /// JSON Schema of the type.
    fn schema() -> Value;
}

macro_rules! field_types {
    ($($type:ty => $schema:tt,)+) => {
        $(impl FieldType for $type {
            fn schema() -> Value {
                json!($schema)
            }
        })+
    };
}

field_types! {
    String => { "type": "string" },
    Name => { "type": "string", "minLength": 1 },
    Uuid => { "type": "string", "format": "uuid" },
    Time => { "type": "string", "format": "date-time" },
    u32 => { "type": "integer", "minimum": 0 },
    u64 => { "type": "integer", "minimum": 0 },
    f64 => { "type": "number" },
    Priority => { "type": "integer", "minimum": 0, "maximum": 9 },
    Json => {},
    Changes => { "type": "object", "additionalProperties": { "type": "array", "items": {}, "minItems": 2, "maxItems": 2 } },
}

impl FieldType for Status {
    fn schema() -> Value {
        json!({ "enum": Self::ALL.map(|status| status.to_string()) })
    }
}

impl<T: FieldType> FieldType for Vec<T> {
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

impl<T: FieldType> FieldType for BTreeMap<Name, T> {
    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// The schema of a type that is also part of the OpenAPI document.
pub(super) fn described<T: utoipa::PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).expect("a schema is JSON")
}

macro_rules! described_types {
    ($($type:ty),+) => {
        $(impl FieldType for $type {
            fn schema() -> Value {
                described::<Self>()
            }
        })+
    };
}

described_types!(Counts, WorkCounts, Stuck);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_maps_describe_what_they_hold() {
        assert_eq!(Vec::<Uuid>::schema(), json!({ "type": "array", "items": { "type": "string", "format": "uuid" } }));
        let map = BTreeMap::<Name, String>::schema();
        assert_eq!(map, json!({ "type": "object", "additionalProperties": { "type": "string" } }));
        assert_eq!(BTreeMap::<Name, Vec<u32>>::schema()["additionalProperties"]["items"], u32::schema());
    }

    #[test]
    fn bounds_are_those_of_the_type() {
        assert_eq!(
            (&Priority::schema()["minimum"], &Priority::schema()["maximum"]),
            (&json!(0), &json!(Priority::MAX))
        );
        assert_eq!((&u64::schema()["minimum"], Name::schema()["minLength"].as_u64()), (&json!(0), Some(1)));
        assert_eq!(Json::schema(), json!({}), "any JSON at all");
    }

    #[test]
    fn a_change_has_an_old_and_a_new_value() {
        let pair = &Changes::schema()["additionalProperties"];
        assert_eq!((pair["minItems"].as_u64(), pair["maxItems"].as_u64()), (Some(2), Some(2)));
    }

    #[test]
    fn every_status_is_listed() {
        let listed = Status::schema()["enum"].as_array().cloned().unwrap_or_default();
        assert_eq!(listed, Status::ALL.map(|status| json!(status)).to_vec());
    }

    #[test]
    fn counts_are_objects_with_their_fields() {
        for field in ["pending", "running", "completed", "failed", "cancelled"] {
            assert!(Counts::schema()["properties"].get(field).is_some(), "{field}");
        }
        assert!(Stuck::schema()["properties"].get("reason").is_some());
        assert!(WorkCounts::schema()["properties"].get("completed").is_some());
    }
}
