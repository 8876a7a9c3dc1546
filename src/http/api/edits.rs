//! Edits of a task.

use std::collections::HashSet;

use axum::{
    Json as Out,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{
    fields::{Labels, People},
    new_task::MAX_DEPENDENCIES,
    records::TaskResponse,
    tasks::change,
};
use crate::{
    http::{
        caller::Caller,
        conditions::{IfMatch, etag},
        input::{Id, Json, Text, present},
        problem::Problem,
        routes::Routes,
        state::AppState,
    },
    model::{Name, NewName, Priority, access::Scope, edit::Edit, transition},
};

/// New values; absent fields stay unchanged, `null` clears a field.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct EditTask {
    /// Title.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 500)]
    title: Option<Option<Text<500>>>,
    /// Description.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 16384)]
    description: Option<Option<Text<16384>>>,
    /// Priority, 0 (lowest) to 9 (highest).
    #[schema(value_type = Option<u8>, minimum = 0, maximum = 9)]
    priority: Option<Priority>,
    /// Queue; the queue of a running task cannot be changed (409).
    queue: Option<NewName>,
    /// The complete set of labels.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    labels: Option<Labels>,
    /// Assignee.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 128)]
    assignee: Option<Option<Text<128>>>,
    /// The complete list of collaborators.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    collaborators: Option<People>,
    /// The complete list of watchers.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    watchers: Option<People>,
    /// IDs of all tasks that must complete first; only a blocked task can get others (409).
    #[schema(max_items = 1000)]
    depends_on: Option<Vec<Uuid>>,
}

impl EditTask {
    fn check(self) -> Result<Edit, Problem> {
        if self.depends_on.as_ref().is_some_and(|ids| ids.len() > MAX_DEPENDENCIES) {
            let (field, detail) = ("depends_on", "must list at most 1,000 tasks");
            return Err(Problem::invalid_field(field, detail));
        }
        let mut seen = HashSet::new();
        Ok(Edit {
            title: self.title.map(|title| title.map(|text| text.0)),
            description: self.description.map(|description| description.map(|text| text.0)),
            priority: self.priority,
            queue: self.queue.map(Name::from),
            labels: self.labels.map(|labels| labels.0),
            assignee: self.assignee.map(|assignee| assignee.map(|text| text.0)),
            collaborators: self.collaborators.map(|people| people.0),
            watchers: self.watchers.map(|people| people.0),
            only_if: None,
            depends_on: self.depends_on.map(|ids| ids.into_iter().filter(|id| seen.insert(*id)).collect()),
        })
    }
}

/// The routes of this file.
pub(in crate::http) fn routes() -> Routes {
    vec![(Scope::Operate, routes!(edit))]
}

/// Edit task attributes; each change is an event with the old and new values, and the status stays the same.
#[utoipa::path(patch, path = "/api/v1/tasks/{id}", operation_id = "editTask", tag = "tasks", params(("id" = Uuid, Path)), request_body = EditTask,
    responses((status = 200, description = "OK", body = TaskResponse), (status = 404, description = "Not found", body = Problem), (status = 409, description = "Conflict: not allowed in the current status", body = Problem), (status = 412, description = "The task has changed since the version in If-Match", body = Problem), (status = 422, description = "Validation error", body = Problem)))]
pub(in crate::http) async fn edit(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    IfMatch(only_if): IfMatch,
    Json(input): Json<EditTask>,
) -> Result<Response, Problem> {
    let edit = transition::Transition::Edit(Box::new(Edit { only_if, ..input.check()? }));
    let task = change(&state, id, edit, &caller).await?;
    Ok(([etag(task.version())], Out(TaskResponse { task: task.into() })).into_response())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::http::input::parse;

    fn read(json: &str) -> Result<Edit, Problem> {
        parse::<EditTask>(json.as_bytes(), "")?.check()
    }

    #[test]
    fn null_clears_a_field_and_an_absent_one_stays() {
        assert_eq!(read("{}").unwrap(), Edit::default());
        let cleared = read(r#"{"title":null,"description":null,"assignee":null}"#).unwrap();
        let right = Edit { title: Some(None), description: Some(None), assignee: Some(None), ..Edit::default() };
        assert_eq!(cleared, right);
        let kept = read(r#"{"priority":null,"queue":null,"labels":null,"watchers":null,"depends_on":null}"#).unwrap();
        assert_eq!(kept, Edit::default(), "these cannot be cleared");
        let emptied = read(r#"{"labels":{},"collaborators":[],"depends_on":[]}"#).unwrap();
        assert_eq!(emptied.depends_on, Some(Vec::new()));
        assert_eq!((emptied.labels.map(|labels| labels.len()), emptied.collaborators), (Some(0), Some(Vec::new())));
    }

    #[test]
    fn an_edit_has_the_bounds_of_a_new_task() {
        let ids = |count: u128| serde_json::to_string(&(0..count).map(Uuid::from_u128).collect::<Vec<_>>()).unwrap();
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
        for (field, right, wrong) in [
            ("title", text(500), text(501)),
            ("description", text(16_384), text(16_385)),
            ("assignee", text(128), text(129)),
            ("priority", "9".to_owned(), "10".to_owned()),
            ("queue", text(128), text(129)),
            ("depends_on", ids(1_000), ids(1_001)),
        ] {
            assert!(read(&format!(r#"{{"{field}":{right}}}"#)).is_ok(), "{field}");
            let problem = read(&format!(r#"{{"{field}":{wrong}}}"#)).unwrap_err();
            assert_eq!(problem.errors[0].field, field);
        }
        for fixed in ["max_attempts", "status", "payload", "task_type", "only_if"] {
            let problem = read(&format!(r#"{{"{fixed}":1}}"#)).unwrap_err();
            assert_eq!(problem.errors[0].field, fixed, "it cannot be edited");
        }
    }

    #[test]
    fn a_dependency_named_twice_is_one() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let edit = read(&format!(r#"{{"depends_on":["{two}","{one}","{two}"]}}"#)).unwrap();
        assert_eq!(edit.depends_on, Some(vec![two, one]));
    }
}
