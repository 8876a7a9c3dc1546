//! From what someone pastes to the page about it: an ID, a key, a name.

use axum::{
    Router,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use uuid::Uuid;

use super::{pages, problem::Problem, state::AppState};
use crate::{
    feed,
    model::{Name, task_query::TaskQuery},
    page::{
        PAGES, format,
        still::{Found, JumpList},
    },
    store::{bulk, jump, schedules, search},
};

/// Maximum length of what is looked for, bytes: that of the longest name.
const MAX_TEXT: usize = 512;
/// Maximum number of pages offered.
const MAX_FOUND: usize = 20;

/// The route of this file.
pub(super) fn router() -> Router<AppState> {
    Router::new().route("/jump", get(show))
}

/// One page found is the answer; several are offered; without any the tasks are searched.
async fn show(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let text = pairs.iter().find(|(name, _)| name == "q").map_or("", |(_, value)| value.trim());
    if text.is_empty() {
        return Redirect::to("/tasks").into_response();
    }
    if text.len() > MAX_TEXT {
        let problem = Problem::invalid_parameter("q", format!("must be at most {MAX_TEXT} bytes"));
        return pages::failure(&state, &headers, &problem, None);
    }
    let mut found = match find(&state, text).await {
        Ok(found) => found,
        Err(error) => return pages::failure(&state, &headers, &error.into(), None),
    };
    found.truncate(MAX_FOUND);
    let search = format::address("/tasks", &[("q".to_owned(), text.to_owned())]);
    match found.as_slice() {
        [] => Redirect::to(&search).into_response(),
        [one] => Redirect::to(&one.url).into_response(),
        _ => pages::plain(&state, &headers, "Search", &JumpList { text, found, search }),
    }
}

async fn find(state: &AppState, text: &str) -> sqlx::Result<Vec<Found>> {
    if let Ok(id) = Uuid::parse_str(text) {
        return by_id(state, id).await;
    }
    let mut found = by_name(state, text).await?;
    let mut tasks = jump::with_key(state.store.pool(), text).await?;
    if tasks.is_empty() && found.is_empty() {
        let search = TaskQuery { text: Some(text.to_owned()), ..TaskQuery::default() };
        tasks = jump::among_newest(state.store.read_permit(&search).await?.pool(), text).await?;
    }
    found.extend(tasks.into_iter().map(|task| {
        let what = if task.is_parent { "Parent task" } else { "Task" };
        let name = task.title.unwrap_or(task.task_type);
        Found { what, name: format!("{name} {}", format::short(&task.id)), url: task_url(task.id, task.is_parent) }
    }));
    Ok(found)
}

fn task_url(id: Uuid, is_parent: bool) -> String {
    if is_parent { format!("/parents/{id}") } else { format!("/tasks/{id}") }
}

async fn by_id(state: &AppState, id: Uuid) -> sqlx::Result<Vec<Found>> {
    let found = |what, name: String, url| vec![Found { what, name, url }];
    if let Some(task) = search::some(state.store.pool(), &[id]).await?.pop() {
        return Ok(found("Task", task.task_type.to_string(), task_url(id, task.is_parent)));
    }
    let worker = feed::read(&state.board).workers.0.get(&id).map(|seen| seen.name.to_string());
    if let Some(name) = worker {
        return Ok(found("Worker", name, format!("/workers/{id}")));
    }
    if bulk::one(state.store.pool(), id).await?.is_some() {
        return Ok(found("Bulk action", id.to_string(), format!("/bulk/{id}")));
    }
    Ok(Vec::new())
}

/// Pages, queues, workers, machines, task types and schedules of exactly this name, in any case.
async fn by_name(state: &AppState, text: &str) -> sqlx::Result<Vec<Found>> {
    let is = |name: &str| name.eq_ignore_ascii_case(text);
    let filtered = |filter: &str, name: &Name| {
        format::address("/tasks", &[(filter.to_owned(), format::filter_value(name.as_str()))])
    };
    let mut found = Vec::new();
    let mut add = |what, name: String, url| found.push(Found { what, name, url });
    for page in PAGES.iter().filter(|page| !page.nav.is_empty() && is(page.nav)) {
        add("Page", page.nav.to_owned(), page.path.to_owned());
    }
    {
        let board = feed::read(&state.board);
        for name in board.queues.0.keys().filter(|name| is(name.as_str())) {
            add("Queue", name.to_string(), format!("/queues/{}", format::path_segment(name.as_str())));
        }
        for name in board.kinds.names().filter(|name| is(name.as_str())) {
            add("Task type", name.to_string(), filtered("task_type", name));
        }
        let workers = board.workers.0.iter().filter(|(_, seen)| is(seen.name.as_str()));
        for (id, seen) in workers.take(MAX_FOUND) {
            add("Worker", seen.name.to_string(), format!("/workers/{id}"));
        }
        let machine = board.workers.0.values().map(|seen| &seen.machine_id).find(|name| is(name.as_str()));
        if let Some(name) = machine {
            add("Machine", name.to_string(), filtered("machine_id", name));
        }
    }
    if let Ok(name) = Name::new(text)
        && let Some(schedule) = schedules::one(state.store.pool(), &name).await?
    {
        add("Schedule", schedule.name.to_string(), "/schedules".to_owned());
    }
    Ok(found)
}
