//! Form handlers of the pages: they call the API with form fields in place of JSON. Forms work without JavaScript: each
//! response is the page to show next.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::{
    Form, Router,
    body::Body,
    extract::{FromRequest, Request, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::{
    api::{edits, families::steer_one, queues, schedules},
    caller::Caller,
    codes::ErrorCode,
    conditions::IfMatch,
    input::{self, Id, Json, Named, Optional},
    pages::{self, failure, plain},
    problem::Problem,
    state::AppState,
};
use crate::{
    event::{Filter, filter},
    model::bulk::BulkAction,
    page::{
        PAGES,
        done::Done,
        preferences::Preferences,
        still::{Help, Settings},
    },
};

mod bulk_actions;
mod test_client;

/// Raw fields of a form.
type Fields = Vec<(String, String)>;
/// The fields of a form, or the error in parsing them.
struct Sent(Result<Fields, Problem>);
/// Maximum size of a form, bytes.
const MAX_FORM: usize = 1024 * 1024;
/// Maximum number of fields of a form.
const MAX_FIELDS: usize = 2_000;

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        let (parts, body) = request.into_parts();
        let mut whole = Request::new(body);
        whole.extensions_mut().clone_from(&parts.extensions);
        whole.headers_mut().clone_from(&parts.headers);
        let read = async {
            let bytes = input::body_up_to(whole, MAX_FORM).await?;
            if bytes.iter().filter(|byte| **byte == b'&').count() >= MAX_FIELDS {
                let detail = format!("the form has more than {MAX_FIELDS} fields; the limit is {MAX_FIELDS}");
                return Err(Problem::new(ErrorCode::InvalidBody, detail));
            }
            let request = Request::from_parts(parts, Body::from(bytes));
            let Form(fields) = Form::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))?;
            Ok(fields)
        };
        Ok(Self(read.await))
    }
}

fn unreadable(rejection: &FormRejection) -> Problem {
    let code = match rejection {
        FormRejection::InvalidFormContentType(_) => ErrorCode::UnsupportedMediaType,
        _ => ErrorCode::InvalidBody,
    };
    Problem::new(code, format!("invalid form data: {rejection}"))
}

/// Routes of every form.
pub(super) fn router() -> Router<AppState> {
    Router::new()
        .route("/tasks/{id}/cancel", post(cancel))
        .route("/tasks/{id}/retry", post(retry))
        .route("/tasks/{id}/delete", post(delete))
        .route("/tasks/{id}/edit", post(edit))
        .route("/tasks/bulk", get(bulk_actions::preview).post(bulk_actions::begin))
        .route("/bulk/{id}/cancel", post(bulk_actions::stop))
        .route("/queues/{name}/pause", post(pause_queue))
        .route("/queues/{name}/resume", post(resume_queue))
        .route("/queues/{name}/limits", post(limit_queue))
        .route("/schedules", post(put_schedule))
        .route("/schedules/{name}/pause", post(pause_schedule))
        .route("/schedules/{name}/resume", post(resume_schedule))
        .route("/schedules/{name}/delete", post(delete_schedule))
        .route("/test-client/tasks", post(test_client::submit))
        .route("/test-client/work", post(test_client::work))
        .route("/settings", get(settings).post(save_settings))
        .route("/help", get(help))
}

/// How long the redirect waits for the board to show the change.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Redirects to the next page, which says what was done, or renders the error.
async fn redirect_or_error<T>(
    state: &AppState,
    headers: &HeaderMap,
    result: Result<T, Problem>,
    (done, next): (Option<Done>, &str),
) -> Response {
    match result {
        Ok(_) => redirect_after_write(state, &done.map_or_else(|| next.to_owned(), |done| telling(next, done))).await,
        Err(problem) => failure(state, headers, &problem, None),
    }
}

/// A URL whose page says what was done.
fn telling(url: &str, done: Done) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}done={}", done.as_str())
}

/// The page from which a form was sent, as far as it is one of ours and does not show the past; else `page`.
fn where_one_was(state: &AppState, headers: &HeaderMap, page: &str) -> String {
    let referer = headers.get(header::REFERER).and_then(|value| value.to_str().ok());
    let address = referer.and_then(|referer| reqwest::Url::parse(referer).ok());
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let known = address.filter(|url| {
        let authority = url.port().map_or_else(
            || url.host_str().unwrap_or_default().to_owned(),
            |port| format!("{}:{port}", url.host_str().unwrap_or_default()),
        );
        Some(authority.as_str()) == host
    });
    let base = state.settings.base_path.to_string();
    let path = known.as_ref().and_then(|url| url.path().strip_prefix(base.as_str()));
    match (path, &known) {
        (Some(path), Some(url)) if PAGES.iter().any(|page| page.path == path) => {
            let kept = url.query_pairs().filter(|(name, _)| !["done", "at", "play", "before"].contains(&name.as_ref()));
            let pairs: Vec<_> = kept.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            crate::page::format::address(path, &pairs)
        }
        _ => page.to_owned(),
    }
}

/// Redirects once the board is up to date with the change.
async fn redirect_after_write(state: &AppState, next: &str) -> Response {
    if let Ok(ends) = state.event_log.ends().await {
        let mut feed = state.subscriptions.follow(state.subscriptions.head(), Filter::default());
        let known = async { while state.subscriptions.head() < ends.head && feed.next().await.is_ok() {} };
        let _ = tokio::time::timeout(CATCH_UP, known).await;
    }
    Redirect::to(next).into_response()
}

fn fields(sent: Sent) -> Result<Fields, Problem> {
    let mut fields = sent.0?;
    if let Some((name, _)) = fields.first_mut() {
        // Strip a byte order mark at the start of the form.
        *name = name.trim_start_matches('\u{feff}').to_owned();
    }
    Ok(fields)
}

/// The value of a field; `None` if it is empty.
fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
}

/// The JSON type of a field.
#[derive(Clone, Copy)]
enum As {
    Text,
    /// A number, or else the raw text, so that the error message shows it.
    Number,
    /// Comma-separated names.
    List,
    /// Raw JSON.
    Json,
}

/// A JSON object with raw values: JSON typed by the user stays unchanged.
type Object = BTreeMap<String, Box<RawValue>>;

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("texts, numbers, lists and objects of them are JSON")
}

/// Builds an API object from form fields. Empty fields are omitted, or `null` if that has a meaning.
fn object(fields: &Fields, wanted: &[(&str, As)], empty_is_null: bool) -> Result<Object, Problem> {
    let mut object = Object::new();
    for (name, kind) in wanted {
        let value = match (field(fields, name), kind) {
            (None, As::List) if empty_is_null => raw(&[(); 0]),
            (None, _) if empty_is_null => raw(&()),
            (None, _) => continue,
            (Some(text), As::Text) => raw(&text),
            (Some(text), As::Number) => text.parse::<i64>().map_or_else(|_| raw(&text), |number| raw(&number)),
            (Some(text), As::List) => raw(&filter::values(text)),
            (Some(text), As::Json) => serde_json::from_str(text).map_err(|error| {
                let detail = format!("invalid JSON: {error}");
                Problem::invalid_field(*name, detail)
            })?,
        };
        object.insert((*name).to_owned(), value);
    }
    Ok(object)
}

/// The input of an API call.
fn input<T: DeserializeOwned>(object: &Object) -> Result<Json<T>, Problem> {
    input::parse(raw(object).get().as_bytes(), "").map(Json)
}

/// Applies an action to a task, and to its descendants if that was ticked; in that case the page of the bulk action is
/// next.
async fn act(
    state: &AppState,
    headers: &HeaderMap,
    caller: &Caller,
    id: Uuid,
    (action, sent): (BulkAction, Sent),
) -> Response {
    // A form with only unticked checkboxes may have an empty body.
    let children = fields(sent).is_ok_and(|fields| field(&fields, "children") == Some("true"));
    let done = steer_one(state, caller, id, &action, children).await;
    let below = done.as_ref().ok().and_then(|(_, children)| children.as_ref()?.bulk_id);
    let next = match (below, &action) {
        (Some(bulk), _) => (None, format!("/bulk/{bulk}")),
        (None, BulkAction::Delete) => (Some(Done::Deleted), "/tasks".to_owned()),
        (None, BulkAction::Cancel { .. }) => (Some(Done::Cancelled), format!("/tasks/{id}")),
        (None, _) => (Some(Done::Retried), format!("/tasks/{id}")),
    };
    redirect_or_error(state, headers, done, (next.0, &next.1)).await
}

async fn cancel(State(state): State<AppState>, headers: HeaderMap, caller: Caller, Id(id): Id, sent: Sent) -> Response {
    act(&state, &headers, &caller, id, (BulkAction::Cancel { reason: None }, sent)).await
}

async fn retry(State(state): State<AppState>, headers: HeaderMap, caller: Caller, Id(id): Id, sent: Sent) -> Response {
    act(&state, &headers, &caller, id, (BulkAction::Retry, sent)).await
}

async fn delete(State(state): State<AppState>, headers: HeaderMap, caller: Caller, Id(id): Id, sent: Sent) -> Response {
    act(&state, &headers, &caller, id, (BulkAction::Delete, sent)).await
}

async fn edit(State(state): State<AppState>, headers: HeaderMap, caller: Caller, Id(id): Id, sent: Sent) -> Response {
    const NULLABLE: [(&str, As); 4] =
        [("title", As::Text), ("assignee", As::Text), ("collaborators", As::List), ("watchers", As::List)];
    const KEPT: [(&str, As); 2] = [("priority", As::Number), ("queue", As::Text)];
    let changed = async {
        let fields = fields(sent)?;
        let mut edit = object(&fields, &NULLABLE, true)?;
        edit.extend(object(&fields, &KEPT, false)?);
        edits::edit(State(state.clone()), caller, Id(id), IfMatch(None), input(&edit)?).await
    };
    let changed = changed.await;
    redirect_or_error(&state, &headers, changed, (Some(Done::Saved), &format!("/tasks/{id}"))).await
}

/// URL of the page of a queue.
fn queue_page(name: &Named) -> String {
    format!("/queues/{}", crate::page::format::path_segment(name.0.as_str()))
}

async fn pause_queue(
    State(state): State<AppState>,
    headers: HeaderMap,
    caller: Caller,
    name: Named,
    sent: Sent,
) -> Response {
    let page = where_one_was(&state, &headers, &queue_page(&name));
    let done = async {
        let pause = object(&fields(sent)?, &[("reason", As::Text)], false)?;
        let Json(pause) = input(&pause)?;
        queues::pause(State(state.clone()), caller, name, Optional(pause)).await
    };
    let done = done.await;
    redirect_or_error(&state, &headers, done, (Some(Done::Paused), &page)).await
}

async fn resume_queue(State(state): State<AppState>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let page = where_one_was(&state, &headers, &queue_page(&name));
    let done = queues::resume(State(state.clone()), caller, name).await;
    redirect_or_error(&state, &headers, done, (Some(Done::Resumed), &page)).await
}

async fn limit_queue(
    State(state): State<AppState>,
    headers: HeaderMap,
    caller: Caller,
    name: Named,
    sent: Sent,
) -> Response {
    let page = where_one_was(&state, &headers, &queue_page(&name));
    let done = async {
        let fields = fields(sent)?;
        let mut limits = object(&fields, &[("concurrency_limit", As::Number), ("rate_limit", As::Number)], true)?;
        if field(&fields, "rate_limit").is_some() {
            limits.extend(object(&fields, &[("rate_period_seconds", As::Number)], false)?);
        }
        queues::limit(State(state.clone()), caller, name, input(&limits)?).await
    };
    let done = done.await;
    redirect_or_error(&state, &headers, done, (Some(Done::Limited), &page)).await
}

async fn put_schedule(State(state): State<AppState>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    const RECURRENCE: [(&str, As); 2] = [("cron", As::Text), ("time_zone", As::Text)];
    const TASK: [(&str, As); 4] =
        [("task_type", As::Text), ("queue", As::Text), ("priority", As::Number), ("payload", As::Json)];
    let done = async {
        let fields = fields(sent)?;
        let name = crate::model::NewName::new(field(&fields, "name").unwrap_or_default())
            .map_err(|error| Problem::invalid_field("name", error.to_string()))?;
        let mut schedule = object(&fields, &RECURRENCE, false)?;
        schedule.insert("task".to_owned(), raw(&object(&fields, &TASK, false)?));
        schedules::put(State(state.clone()), caller, Named(name.0), input(&schedule)?).await
    };
    let done = done.await;
    redirect_or_error(&state, &headers, done, (Some(Done::ScheduleSaved), "/schedules")).await
}

async fn pause_schedule(State(state): State<AppState>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = schedules::pause(State(state.clone()), caller, name).await;
    redirect_or_error(&state, &headers, done, (Some(Done::SchedulePaused), "/schedules")).await
}

async fn resume_schedule(State(state): State<AppState>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = schedules::resume(State(state.clone()), caller, name).await;
    redirect_or_error(&state, &headers, done, (Some(Done::ScheduleResumed), "/schedules")).await
}

async fn delete_schedule(State(state): State<AppState>, headers: HeaderMap, caller: Caller, name: Named) -> Response {
    let done = schedules::delete(State(state.clone()), caller, name).await;
    redirect_or_error(&state, &headers, done, (Some(Done::ScheduleDeleted), "/schedules")).await
}

async fn settings(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let preferences = pages::viewer(&state, &headers).preferences;
    plain(&state, &headers, "Settings", &Settings { preferences })
}

async fn save_settings(State(state): State<AppState>, headers: HeaderMap, sent: Sent) -> Response {
    let fields = match fields(sent) {
        Ok(fields) => fields,
        Err(problem) => return failure(&state, &headers, &problem, None),
    };
    let mut preferences: Preferences = pages::viewer(&state, &headers).preferences;
    if let Some((name, _)) = fields.iter().find(|(name, value)| !preferences.set(name, value)) {
        let problem = Problem::invalid_field(name.as_str(), "is not a valid option");
        return failure(&state, &headers, &problem, None);
    }
    let cookie = format!(
        "{}={}; Path={}/; Max-Age=31536000; SameSite=Lax; HttpOnly",
        pages::COOKIE,
        preferences.write(),
        state.settings.base_path
    );
    let mut response = Redirect::to("/settings").into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

async fn help(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let url = pages::viewer(&state, &headers).origin;
    plain(&state, &headers, "Help", &Help { url, pages: &PAGES })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use axum::http::Method;

    fn sent(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    async fn read(kind: &str, body: String) -> Result<Fields, ErrorCode> {
        let request = Request::builder().method(Method::POST).header(header::CONTENT_TYPE, kind).body(Body::from(body));
        let Ok(sent) = Sent::from_request(request.unwrap(), &()).await;
        fields(sent).map_err(|problem| problem.code)
    }

    const FORM: &str = "application/x-www-form-urlencoded";

    #[tokio::test]
    async fn a_form_is_decoded_as_browsers_encode_it() {
        let read = |body: &str| read(FORM, body.to_owned());
        assert_eq!(
            read("a=1+2%2B3&b=%C3%A4%26&b=&c").await.unwrap(),
            sent(&[("a", "1 2+3"), ("b", "ä&"), ("b", ""), ("c", "")])
        );
        assert_eq!(read("").await.unwrap(), sent(&[]));
        assert_eq!(read("%EF%BB%BFa=1&%EF%BB%BFb=2").await.unwrap(), sent(&[("a", "1"), ("\u{feff}b", "2")]));
    }

    #[tokio::test]
    async fn a_form_of_another_kind_or_size_is_refused() {
        assert_eq!(read("application/json", "{}".to_owned()).await, Err(ErrorCode::UnsupportedMediaType));
        let many = |count: usize| vec!["a=1"; count].join("&");
        assert_eq!(read(FORM, many(MAX_FIELDS)).await.map(|fields| fields.len()), Ok(MAX_FIELDS));
        assert_eq!(read(FORM, many(MAX_FIELDS + 1)).await, Err(ErrorCode::InvalidBody));
        assert_eq!(read(FORM, "x".repeat(MAX_FORM + 1)).await, Err(ErrorCode::BodyTooLarge));
    }

    #[test]
    fn an_empty_field_says_nothing() {
        let fields = sent(&[("a", " x "), ("b", " \t"), ("c", "1"), ("c", "2")]);
        assert_eq!([field(&fields, "a"), field(&fields, "b"), field(&fields, "d")], [Some("x"), None, None]);
        assert_eq!(field(&fields, "c"), Some("1"), "the first of two");
    }

    #[test]
    fn fields_become_the_json_that_a_program_would_send() {
        let fields = sent(&[
            ("title", " a \"b\" "),
            ("priority", "7"),
            ("limit", "seven"),
            ("watchers", "ann, bob,,"),
            ("payload", r#" {"n": 1e400} "#),
            ("empty", ""),
        ]);
        let wanted = [
            ("title", As::Text),
            ("priority", As::Number),
            ("limit", As::Number),
            ("watchers", As::List),
            ("payload", As::Json),
            ("empty", As::Text),
            ("none", As::List),
        ];
        let json = |empty_is_null| raw(&object(&fields, &wanted, empty_is_null).unwrap()).get().to_owned();
        let kept =
            r#"{"limit":"seven","payload":{"n": 1e400},"priority":7,"title":"a \"b\"","watchers":["ann","bob"]}"#;
        assert_eq!(json(false), kept);
        let cleared = json(true);
        assert!(cleared.contains(r#""empty":null"#) && cleared.contains(r#""none":[]"#), "{cleared}");
    }

    #[test]
    fn json_typed_wrongly_is_named_by_its_field() {
        for wrong in ["{", "{'a':1}", "1 2"] {
            let refused = object(&sent(&[("payload", wrong)]), &[("payload", As::Json)], false);
            assert_eq!(refused.unwrap_err().errors[0].field, "payload", "{wrong}");
        }
    }
}
