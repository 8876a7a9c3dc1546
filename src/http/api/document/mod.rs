//! The OpenAPI document, from the handlers and from the tables of error codes, filters and events. As OpenAPI 3.1, and
//! converted to 3.0 for generators that do not support 3.1.

mod answers;
mod bodies;
mod examples;
mod older;
mod parameters;
mod types;

use std::str::FromStr;

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use serde_json::{Value, json};

use super::{router, schemas};
use crate::{
    base_path::BasePath,
    http::{assets, problem::Problem, state::AppState},
};

/// Text on all calls.
const IN_COMMON: &str = "A request may bring an id in `X-Request-Id` (1 to 128 letters, digits and `-_.:`); the answer, \
    problems and the log name it, or a new one. Lists and records name the `event_id` to follow from. Before a call is \
    reached the server may answer 405 (with `Allow`), and without a body 414 or 431 when the URL or the headers are too large.";

/// A version of OpenAPI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// OpenAPI 3.0.
    V30,
    /// OpenAPI 3.1.
    #[default]
    V31,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3.0" => Ok(Self::V30),
            "3.1" => Ok(Self::V31),
            other => Err(format!("'{other}' is not 3.0 or 3.1")),
        }
    }
}

/// The document of a server at a base path.
///
/// # Panics
/// Never: the document is valid JSON.
#[must_use]
pub fn document(base: &BasePath, version: Version) -> Value {
    let mut document = serde_json::to_value(router().split_for_parts().1).expect("the document is JSON");
    let described = document["info"]["description"].as_str().unwrap_or_default();
    document["info"]["description"] =
        format!("{described}\n\n{IN_COMMON}\n\n## Error codes\n\n{}", answers::table()).into();
    document["info"]["contact"] = json!({ "name": "taskwatch" });
    document["info"]["license"] = json!({ "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" });
    document["servers"] = json!([{ "url": if base.is_root() { "/".to_owned() } else { base.to_string() }, "description": "This server" }]);
    document["security"] = json!([]);
    document["components"]["headers"] = answers::header_components();
    schemas::describe(&mut document);
    bodies::complete(&mut document);
    types::complete(&mut document["components"]["schemas"]);
    parameters::complete(&mut document);
    answers::complete(&mut document);
    examples::add(&mut document);
    match version {
        Version::V31 => document,
        Version::V30 => older::convert(document),
    }
}

/// `GET /openapi.json`.
pub(in crate::http) async fn serve(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let mut version = Version::default();
    for (name, value) in &pairs {
        if name != "version" {
            return Err(Problem::invalid_parameter(name, "unknown parameter; supported: version"));
        }
        version = value.parse().map_err(|detail| Problem::invalid_parameter("version", detail))?;
    }
    let made = || assets::Document::json(&document(&state.settings.base_path, version));
    Ok(state.documents.get(version as usize, made).await.answer(&headers))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn operations_are_verbs_with_nouns_and_described() {
        let mut document = document(&BasePath::default(), Version::V31);
        let mut seen = std::collections::BTreeSet::new();
        answers::for_each_operation(&mut document, |method, path, operation| {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(id.chars().skip(1).any(char::is_uppercase) && id.starts_with(char::is_lowercase), "{id}");
            assert!(seen.insert(id), "{method} {path}");
            for field in ["summary", "description"] {
                assert!(operation[field].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}: {field}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let described = parameter["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described, "{method} {path}: {parameter}");
            }
        });
        assert!(seen.len() > 40);
    }

    #[test]
    fn words_of_workers_and_connectors_are_those_of_the_wire() {
        let document = document(&BasePath::default(), Version::V31);
        let words = |name: &str| document["components"]["schemas"][name]["enum"].clone();
        assert_eq!(words("WorkerStatus"), json!(["starting", "idle", "active", "draining", "stopped", "lost"]));
        assert_eq!(words("ConnectorStatus"), json!(["starting", "idle", "active", "error", "unknown"]));
    }

    #[test]
    fn every_filter_is_a_parameter_of_the_stream() {
        let document = document(&BasePath::default(), Version::V31);
        let parameters = document["paths"]["/events"]["get"]["parameters"].as_array().unwrap();
        let has = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
        for row in crate::event::filter::ROWS.iter().filter(|row| !row.is_of_tasks_only()) {
            assert!(has(row.name), "{}", row.name);
        }
        for name in crate::http::stream::PARAMETERS {
            assert!(has(name) || name == "lastEventId", "{name}");
        }
    }
}
