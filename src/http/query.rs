//! Query strings of lists.

use uuid::Uuid;

use super::problem::Problem;
use crate::{
    clock::Time,
    event::{
        EventId, Filter,
        filter::{self, is_known},
    },
    model::task_query::{LABEL_PREFIX, TaskQuery},
    page::{LIST_PARAMETERS, format},
};

/// Names of the filters of a task list.
pub fn task_filters() -> impl Iterator<Item = &'static str> {
    filter::ROWS.iter().filter(|row| row.column.is_some()).map(|row| row.name)
}

/// Maximum length of the search text, characters.
const MAX_SEARCH: usize = 200;

/// A query string that is safe to display: filters unchanged, other parameters only if they cannot contain a secret.
#[must_use]
pub fn shown(pairs: &[(String, String)]) -> String {
    const LONGEST: usize = 40;
    let is_plain = |value: &str| {
        value.len() <= LONGEST && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:,+".contains(c))
    };
    let is_position = |value: &str| value.parse::<EventId>().is_ok() || value.parse::<i64>().is_ok();
    let may_be_seen = |(name, value): &&(String, String)| match name.as_str() {
        "after" | "last_event_id" | "lastEventId" => matches!(value.as_str(), "now" | "earliest") || is_position(value),
        name if is_known(name) => true,
        _ => is_plain(value),
    };
    format::query(&pairs.iter().filter(may_be_seen).cloned().collect::<Vec<_>>())
}

/// Parses the filters of a task list.
///
/// # Errors
/// A 400 that names the parameter.
pub fn tasks(pairs: &[(String, String)]) -> Result<TaskQuery, Problem> {
    let known = |name: &str| {
        name.starts_with(LABEL_PREFIX) || task_filters().chain(LIST_PARAMETERS).any(|supported| supported == name)
    };
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !known(name)) {
        let valid: Vec<_> = task_filters().chain(LIST_PARAMETERS).chain(["label.<key>"]).collect();
        return Err(Problem::invalid_filter(name, format!("unknown filter; supported: {}", valid.join(", "))));
    }
    if let Some((name, _)) = LIST_PARAMETERS.iter().find_map(|name| {
        let mut given = pairs.iter().filter(|(key, value)| key == name && !value.is_empty());
        given.next().zip(given.next()).map(|(_, second)| second)
    }) {
        return Err(Problem::invalid_filter(name, "given more than once"));
    }
    let value = |name: &str| {
        pairs.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    };
    Ok(TaskQuery {
        conditions: Filter::from_query(pairs, &LIST_PARAMETERS)?.conditions(),
        text: value("q").map(search_text).transpose()?,
        since: None,
        before: value("cursor").map(read_cursor).transpose()?,
        limit: value("limit").map_or(Ok(50), limit)?,
    })
}

fn search_text(text: &str) -> Result<String, Problem> {
    if text.chars().count() > MAX_SEARCH || text.contains('\0') {
        return Err(Problem::invalid_filter(
            "q",
            format!("must be at most {MAX_SEARCH} characters and must not contain NUL"),
        ));
    }
    Ok(text.to_owned())
}

fn limit(text: &str) -> Result<i64, Problem> {
    let parsed = text.parse().ok().filter(|limit| (1..=200).contains(limit));
    parsed.ok_or_else(|| Problem::invalid_filter("limit", "must be an integer between 1 and 200"))
}

fn read_cursor(text: &str) -> Result<(Time, Uuid), Problem> {
    let parsed = text.split_once('-').and_then(|(micros, id)| {
        let at = Time::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)?;
        Some((at, Uuid::parse_str(id).ok()?))
    });
    parsed.ok_or_else(|| Problem::invalid_filter("cursor", "invalid cursor; start from the first page"))
}
