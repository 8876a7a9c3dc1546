//! What the forms on pages do: the calls of the API, with the fields of a form instead of JSON. They work without
//! scripts: each answers with the page to look at next.

use std::time::Duration;

use axum::{
    Form, Router,
    extract::{State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    api::{self, bulk, edits, queues, schedules},
    caller::Caller,
    conditions::IfMatch,
    input::{self, Id, Json, Named},
    pages::{self, failure, plain},
    problem::Problem,
    site::Site,
};
use crate::{
    event::Filter,
    model::transition,
    page::shell::{Help, Preferences, Settings},
    store::log,
};

mod many;
mod trial;

/// The fields of a form, as sent.
type Fields = Vec<(String, String)>;
/// The same as axum hands them over.
type Sent = Result<Form<Fields>, FormRejection>;

/// Routes of every form.
pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/tasks/{id}/cancel", post(cancel))
        .route("/tasks/{id}/retry", post(retry))
        .route("/tasks/{id}/delete", post(delete))
        .route("/tasks/{id}/edit", post(edit))
        .route("/tasks/bulk", get(many::preview).post(many::begin))
        .route("/bulk/{id}/cancel", post(many::stop))
        .route("/queues/{name}/pause", post(pause_queue))
        .route("/queues/{name}/resume", post(resume_queue))
        .route("/queues/{name}/limits", post(limit_queue))
        .route("/schedules", post(put_schedule))
        .route("/schedules/{name}/pause", post(pause_schedule))
        .route("/schedules/{name}/resume", post(resume_schedule))
        .route("/schedules/{name}/delete", post(delete_schedule))
        .route("/test-client/tasks", post(trial::submit))
        .route("/test-client/work", post(trial::work))
        .route("/settings", get(settings).post(save_settings))
        .route("/help", get(help))
}

/// How long the next page waits for what was just done to be shown.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The page to look at next, or the page that says what is wrong.
async fn then<T>(site: &Site, headers: &HeaderMap, done: Result<T, Problem>, next: &str) -> Response {
    match done {
        Ok(_) => goes_on(site, next).await,
        Err(problem) => failure(site, headers, &problem, None),
    }
}

/// The next page, once the board knows what was just done.
async fn goes_on(site: &Site, next: &str) -> Response {
    if let Ok(ends) = log::ends(site.store.pool()).await {
        let mut feed = site.subscriptions.follow(site.subscriptions.head(), Filter::default());
        let known = async { while site.subscriptions.head() < ends.head && feed.next().await.is_ok() {} };
        let _ = tokio::time::timeout(CATCH_UP, known).await;
    }
    Redirect::to(next).into_response()
}

fn fields(sent: Sent) -> Result<Fields, Problem> {
    let Form(fields) = sent.map_err(|rejection| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", format!("the form cannot be read: {rejection}"))
    })?;
    Ok(fields)
}

/// The value of a field; nothing when it is empty.
fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
}

/// What a field is in JSON.
#[derive(Clone, Copy)]
enum As {
    Text,
    /// A number, or what was typed, so that the error names it.
    Number,
    /// Names by commas.
    List,
    /// JSON as typed.
    Json,
}

/// An object of some fields for the API. What is empty is left out, or `null` when that means something there.
fn object(fields: &Fields, wanted: &[(&str, As)], empty_is_null: bool) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    for (name, kind) in wanted {
        let value = match (field(fields, name), kind) {
            (None, As::List) if empty_is_null => Value::Array(Vec::new()),
            (None, _) if empty_is_null => Value::Null,
            (None, _) => continue,
            (Some(text), As::Text) => text.into(),
            (Some(text), As::Number) => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            (Some(text), As::List) => {
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect()
            }
            (Some(text), As::Json) => serde_json::from_str(text).map_err(|error| {
                let detail = format!("must be JSON, as in {{\"a\": 1}}: {error}");
                Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", *name, detail)
            })?,
        };
        object.insert((*name).to_owned(), value);
    }
    Ok(object)
}

/// The input of a call of the API.
fn input<T: DeserializeOwned>(object: Map<String, Value>) -> Result<Json<T>, Problem> {
    let text = Value::Object(object).to_string();
    input::parse(text.as_bytes(), "").map(Json)
}

async fn act(site: &Site, headers: &HeaderMap, caller: &Caller, id: Uuid, command: transition::Command) -> Response {
    let next = if command == transition::Command::Delete { "/tasks".to_owned() } else { format!("/tasks/{id}") };
    then(site, headers, api::change(site, id, command, caller).await, &next).await
}

async fn cancel(State(site): State<Site>, headers: HeaderMap, caller: Caller, Id(id): Id) -> Response {
    act(&site, &headers, &caller, id, transition::Command::Cancel { reason: None }).await
}

async fn retry(State(site): State<Site>, headers: HeaderMap, caller: Caller, Id(id): Id) -> Response {
    act(&site, &headers, &caller, id, transition::Command::Retry).await
}

async fn delete(State(site): State<Site>, headers: HeaderMap, caller: Caller, Id(id): Id) -> Response {
    act(&site, &headers, &caller, id, transition::Command::Delete).await
}

async fn edit(State(site): State<Site>, headers: HeaderMap, caller: Caller, Id(id): Id, sent: Sent) -> Response {
    const NULLABLE: [(&str, As); 4] =
        [("title", As::Text), ("assignee", As::Text), ("collaborators", As::List), ("watchers", As::List)];
    const KEPT: [(&str, As); 2] = [("priority", As::Number), ("queue", As::Text)];
    let changed = async {
        let fields = fields(sent)?;
        let mut edit = object(&fields, &NULLABLE, true)?;
        edit.extend(object(&fields, &KEPT, false)?);
        edits::edit(State(site.clone()), caller, Id(id), IfMatch(None), input(edit)?).await
    };
    let changed = changed.await;
    then(&site, &headers, changed, &format!("/tasks/{id}")).await
}

async fn pause_queue(State(site): State<Site>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = queues::pause(State(site.clone()), caller, name).await;
    then(&site, &headers, done, "/queues").await
}

async fn resume_queue(State(site): State<Site>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = queues::resume(State(site.clone()), caller, name).await;
    then(&site, &headers, done, "/queues").await
}

async fn limit_queue(
    State(site): State<Site>,
    headers: HeaderMap,
    caller: Caller,
    name: Named,
    sent: Sent,
) -> Response {
    let done = async {
        let fields = fields(sent)?;
        let mut limits = object(&fields, &[("concurrency_limit", As::Number), ("rate_limit", As::Number)], true)?;
        if field(&fields, "rate_limit").is_some() {
            limits.extend(object(&fields, &[("rate_period_seconds", As::Number)], false)?);
        }
        queues::limit(State(site.clone()), caller, name, input(limits)?).await
    };
    let done = done.await;
    then(&site, &headers, done, "/queues").await
}

async fn put_schedule(State(site): State<Site>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    const WHEN: [(&str, As); 2] = [("cron", As::Text), ("time_zone", As::Text)];
    const TASK: [(&str, As); 4] =
        [("task_type", As::Text), ("queue", As::Text), ("priority", As::Number), ("payload", As::Json)];
    let done = async {
        let fields = fields(sent)?;
        let name = crate::model::Name::new(field(&fields, "name").unwrap_or_default()).map_err(|error| {
            Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "name", error.to_string())
        })?;
        let mut schedule = object(&fields, &WHEN, false)?;
        schedule.insert("task".to_owned(), Value::Object(object(&fields, &TASK, false)?));
        schedules::put(State(site.clone()), caller, Named(name), input(schedule)?).await
    };
    let done = done.await;
    then(&site, &headers, done, "/schedules").await
}

async fn pause_schedule(State(site): State<Site>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = schedules::pause(State(site.clone()), caller, name).await;
    then(&site, &headers, done, "/schedules").await
}

async fn resume_schedule(State(site): State<Site>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = schedules::resume(State(site.clone()), caller, name).await;
    then(&site, &headers, done, "/schedules").await
}

async fn delete_schedule(State(site): State<Site>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = schedules::delete(State(site.clone()), caller, name).await;
    then(&site, &headers, done, "/schedules").await
}

async fn settings(State(site): State<Site>, headers: HeaderMap) -> Response {
    let preferences = pages::viewer(&site, &headers).preferences;
    plain(&site, &headers, "Settings", &Settings { preferences })
}

async fn save_settings(State(site): State<Site>, headers: HeaderMap, sent: Sent) -> Response {
    let fields = match fields(sent) {
        Ok(fields) => fields,
        Err(problem) => return failure(&site, &headers, &problem, None),
    };
    let mut preferences: Preferences = pages::viewer(&site, &headers).preferences;
    if let Some((name, _)) = fields.iter().find(|(name, value)| !preferences.set(name, value)) {
        let problem = Problem::field(StatusCode::BAD_REQUEST, "invalid_field", name.as_str(), "is no such choice");
        return failure(&site, &headers, &problem, None);
    }
    let cookie = format!(
        "{}={}; Path={}/; Max-Age=31536000; SameSite=Lax; HttpOnly",
        pages::COOKIE,
        preferences.write(),
        site.settings.base_path
    );
    let mut response = Redirect::to("/settings").into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

async fn help(State(site): State<Site>, headers: HeaderMap) -> Response {
    let url = pages::viewer(&site, &headers).origin;
    plain(&site, &headers, "Help", &Help { url })
}
