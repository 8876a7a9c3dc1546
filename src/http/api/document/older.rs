//! Converts the document to OpenAPI 3.0, whose schemas have neither lists of types nor constants.

use serde_json::{Map, Value, json};

/// Keys whose values are not schemas and are kept unchanged.
const LITERAL: [&str; 4] = ["example", "examples", "default", "enum"];
/// Keys whose values map names to objects, so the keys of that map are not keywords.
const NAMED: [&str; 6] = ["properties", "schemas", "responses", "headers", "parameters", "paths"];
/// JSON Schema keywords that OpenAPI 3.0 does not have.
const UNKNOWN: [&str; 9] = [
    "dependentRequired",
    "patternProperties",
    "propertyNames",
    "contentMediaType",
    "contentSchema",
    "if",
    "then",
    "else",
    "x-itemSchema",
];

/// Converts an OpenAPI 3.1 document.
pub(super) fn convert(mut document: Value) -> Value {
    walk(&mut document);
    document["openapi"] = "3.0.3".into();
    if let Some(license) = document["info"]["license"].as_object_mut() {
        license.remove("identifier");
    }
    document
}

fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(fields) => {
            for (key, inner) in fields.iter_mut() {
                match inner {
                    Value::Object(named) if NAMED.contains(&key.as_str()) => named.values_mut().for_each(walk),
                    _ if LITERAL.contains(&key.as_str()) => {}
                    _ => walk(inner),
                }
            }
            schema(fields);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Converts one schema; other objects contain none of these keywords.
fn schema(fields: &mut Map<String, Value>) {
    if fields.contains_key("patternProperties") && fields.get("additionalProperties") == Some(&json!(false)) {
        fields.insert("additionalProperties".to_owned(), json!({ "type": "string" }));
    }
    fields.retain(|key, _| !UNKNOWN.contains(&key.as_str()));
    if let Some(constant) = fields.remove("const") {
        let kind = if constant.is_number() { "integer" } else { "string" };
        fields.entry("type").or_insert_with(|| kind.into());
        fields.insert("enum".to_owned(), json!([constant]));
    }
    if let Some(Value::Array(types)) = fields.get("type").cloned() {
        let named: Vec<_> = types.iter().filter(|name| *name != "null").cloned().collect();
        if named.len() < types.len() {
            fields.insert("nullable".to_owned(), true.into());
        }
        match <[Value; 1]>::try_from(named) {
            Ok([one]) => drop(fields.insert("type".to_owned(), one)),
            Err(several) => {
                fields.remove("type");
                fields.remove("nullable");
                let several: Vec<_> = several.into_iter().map(|name| json!({ "type": name })).collect();
                fields.insert("anyOf".to_owned(), several.into());
            }
        }
    }
    for word in ["oneOf", "anyOf"] {
        let Some(Value::Array(choices)) = fields.get_mut(word) else { continue };
        let before = choices.len();
        choices.retain(|choice| choice["type"] != "null");
        if choices.len() < before {
            let left = std::mem::take(choices);
            let word = if left.len() == 1 { "allOf" } else { word };
            fields.retain(|key, _| key != "oneOf" && key != "anyOf");
            // In OpenAPI 3.0 `nullable` requires `type`; no response contains such a null, and no request needs one.
            fields.insert(word.to_owned(), left.into());
        }
    }
    if fields.len() > 1
        && let Some(Value::String(target)) = fields.get("$ref").cloned()
    {
        fields.remove("$ref");
        fields.insert("allOf".to_owned(), json!([{ "$ref": target }]));
    }
    if fields.get("examples").is_some_and(Value::is_array)
        && let Some(Value::Array(examples)) = fields.remove("examples")
        && let Some(first) = examples.into_iter().next()
    {
        fields.insert("example".to_owned(), first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_newer_version_are_translated() {
        let converted = convert(json!({
            "openapi": "3.1.0",
            "components": { "schemas": { "a": {
                "properties": {
                    "type": { "type": ["string", "null"], "examples": ["x"] },
                    "const": { "const": 7 },
                    "either": { "oneOf": [{ "type": "null" }, { "$ref": "#/b" }] },
                    "said": { "$ref": "#/b", "description": "d" },
                    "many": { "type": ["string", "integer"] },
                }
            } } },
        }));
        let properties = &converted["components"]["schemas"]["a"]["properties"];
        assert_eq!(properties["type"], json!({ "type": "string", "nullable": true, "example": "x" }));
        assert_eq!(properties["const"], json!({ "type": "integer", "enum": [7] }));
        assert_eq!(properties["either"], json!({ "allOf": [{ "$ref": "#/b" }] }));
        assert_eq!(properties["said"], json!({ "allOf": [{ "$ref": "#/b" }], "description": "d" }));
        assert_eq!(properties["many"], json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] }));
        assert_eq!(converted["openapi"], "3.0.3");
    }
}
