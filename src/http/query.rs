//! Query strings of lists.

use uuid::Uuid;

use super::{problem::Problem, state::AppState};
use crate::{
    clock::Time,
    event::{
        EventId, Filter,
        filter::{self, is_known},
    },
    feed::{self, SharedBoard},
    model::task_query::TaskQuery,
    page::{LIST_PARAMETERS, format},
};

/// Names of the filters of a task list.
pub fn task_filters() -> impl Iterator<Item = &'static str> {
    filter::ROWS.iter().filter(|row| row.column.is_some()).map(|row| row.name)
}

/// Parameter of everything that is read from the board.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes the query for the API document; `board` reads it")]
pub struct OfProjects {
    /// Only these projects, separated by commas; without it all of them.
    #[param(required = false, nullable = false)]
    project_id: Option<String>,
}

/// The board of the projects that a query names; `own` are the names of other parameters.
///
/// # Errors
/// A 400 that names the parameter.
pub fn board(state: &AppState, pairs: &[(String, String)], own: &[&str]) -> Result<SharedBoard, Problem> {
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name != filter::PROJECT && !own.contains(&name.as_str())) {
        let valid: Vec<_> = own.iter().copied().chain([filter::PROJECT]).collect();
        return Err(Problem::invalid_parameter(name, format!("unknown parameter; supported: {}", valid.join(", "))));
    }
    let projects = Filter::from_query(pairs, own)?.projects();
    Ok(feed::narrowed(&state.board, &projects))
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
    let known = |name: &str| filter::is_of_tasks(name) || LIST_PARAMETERS.contains(&name);
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !known(name)) {
        let valid: Vec<_> = task_filters().chain(LIST_PARAMETERS).chain(filter::FREE_NAMES).collect();
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::{
        http::codes::ErrorCode,
        model::{Name, NewTask, Status, task_query::Condition},
        store::search,
    };

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refused(given: &[(&str, &str)]) -> (ErrorCode, String, String) {
        let mut problem = tasks(&pairs(given)).unwrap_err();
        let error = problem.errors.remove(0);
        (problem.code, error.field, error.detail)
    }

    #[test]
    fn a_list_without_parameters_is_the_first_fifty_of_all() {
        assert_eq!(tasks(&[]).unwrap(), TaskQuery { limit: 50, ..TaskQuery::default() });
        let empty = pairs(&[("queue", ""), ("q", ""), ("limit", ""), ("cursor", ""), ("status", "")]);
        assert_eq!(tasks(&empty).unwrap(), tasks(&[]).unwrap(), "an empty value says nothing");
    }

    #[test]
    fn filters_become_conditions() {
        let query =
            tasks(&pairs(&[("status", "failed,cancelled"), ("label.team", "a b"), ("queue", "x"), ("queue", "y")]))
                .unwrap();
        assert_eq!(query.statuses(), Some(&[Status::Failed, Status::Cancelled].into()));
        assert_eq!(query.conditions["label.team"], Condition::Texts(["a b".to_owned()].into()));
        assert_eq!(query.conditions["queue"], Condition::Names([Name::literal("x"), Name::literal("y")].into()));
    }

    #[test]
    fn the_limit_is_one_to_two_hundred() {
        for (text, limit) in [("1", 1), ("200", 200), ("007", 7)] {
            assert_eq!(tasks(&pairs(&[("limit", text)])).unwrap().limit, limit);
        }
        for text in ["0", "201", "-1", "1.0", "ten", " 5", "99999999999999999999"] {
            let (code, field, detail) = refused(&[("limit", text)]);
            assert_eq!((code, field.as_str()), (ErrorCode::InvalidFilter, "limit"), "{text}");
            assert_eq!(detail, "must be an integer between 1 and 200");
        }
    }

    #[test]
    fn an_unknown_filter_is_named_and_all_that_are_known() {
        let (_, field, detail) = refused(&[("queue", "a"), ("qeue", "a")]);
        assert_eq!(field, "qeue");
        assert!(task_filters().chain(LIST_PARAMETERS).all(|name| detail.contains(name)), "{detail}");
        assert_eq!(refused(&[("limit", "5"), ("limit", "6")]).2, "given more than once");
        assert!(tasks(&pairs(&[("limit", ""), ("limit", "6")])).is_ok());
    }

    #[test]
    fn a_search_text_has_at_most_two_hundred_characters() {
        let text = |text: &str| tasks(&pairs(&[("q", text)]));
        assert_eq!(text(&"ä".repeat(200)).unwrap().text, Some("ä".repeat(200)));
        for wrong in ["ä".repeat(201), "a\0b".to_owned()] {
            assert_eq!(text(&wrong).unwrap_err().errors[0].field, "q");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for micros in [0, 1_800_000_000_123_456, 253_402_300_799_999_999] {
            let at = Time::from_timestamp_micros(micros).unwrap();
            let id = Uuid::from_u128(micros.unsigned_abs().into());
            let task = NewTask::plain(id, Name::literal("t"), Name::literal("q")).into_task(None, false, at);
            let query = tasks(&pairs(&[("cursor", &search::cursor((task.created_at, task.id)))])).unwrap();
            assert_eq!(query.before, Some((at, id)));
        }
        let nil = Uuid::nil();
        for wrong in
            ["x", "-", "1", &format!("1{nil}"), &format!("7fffffffffffffff-{nil}"), &format!("xyz-{nil}"), "1-2"]
        {
            assert_eq!(refused(&[("cursor", wrong)]).1, "cursor", "{wrong}");
        }
    }

    #[test]
    fn what_may_hold_a_secret_is_not_shown() {
        let show = |name: &str, value: &str| !shown(&pairs(&[(name, value)])).is_empty();
        assert!(show("queue", "any value, however long, is a filter of this page and no secret"));
        for (name, value) in [("heartbeat", "15"), ("after", "now"), ("after", "5c1f09ae-184"), ("last_event_id", "17")]
        {
            assert!(show(name, value), "{name}={value}");
        }
        for (name, value) in
            [("after", "token"), ("lastEventId", "now-or-never"), ("x", "a/b"), ("x", "a b"), ("x", &"a".repeat(41))]
        {
            assert!(!show(name, value), "{name}={value}");
        }
    }
}
