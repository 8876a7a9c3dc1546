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
