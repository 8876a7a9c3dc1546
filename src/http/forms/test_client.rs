//! The test client: creates tasks and acts as a worker, using the same calls as programs.

use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{As, Fields, Object, Sent, failure, field, fields, input, object, raw, redirect_after_write};
use crate::http::{
    api::{claims, reports, tasks, workers},
    caller::Caller,
    codes::ErrorCode,
    conditions::IdempotencyKey,
    input::{Id, OneOrMany, parse},
    problem::Problem,
    state::AppState,
};
use crate::page::format;

/// Maximum number of tasks created at once.
const MAX_TASKS: usize = 100;

/// Maximum number of tasks that the page follows.
const FOLLOWED: usize = 200;

/// URL of the page that follows the given tasks.
fn back(tasks: &[Uuid]) -> String {
    let ids: Vec<_> = tasks.iter().map(Uuid::to_string).collect();
    let pair = (!ids.is_empty()).then(|| ("task_id".to_owned(), ids.join(",")));
    format::address("/test-client", pair.as_slice())
}

/// The tasks that the page already follows.
fn followed(fields: &Fields) -> Result<Vec<Uuid>, Problem> {
    let texts = field(fields, "task_id").unwrap_or_default().split(',').map(str::trim).filter(|text| !text.is_empty());
    let ids: Option<Vec<_>> = texts.map(|text| Uuid::parse_str(text).ok()).collect();
    ids.filter(|ids| ids.len() <= FOLLOWED).ok_or_else(|| {
        let detail = format!("must be a comma-separated list of at most {FOLLOWED} task IDs");
        Problem::invalid_field("task_id", detail)
    })
}

pub(super) async fn submit(State(state): State<AppState>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    match try_submit(&state, caller, sent).await {
        Ok(ids) => redirect_after_write(&state, &back(&ids)).await,
        Err(problem) => failure(&state, &headers, &problem, Some(("Test client", "/test-client".to_owned()))),
    }
}

async fn try_submit(state: &AppState, caller: Caller, sent: Sent) -> Result<Vec<Uuid>, Problem> {
    const TASK: [(&str, As); 6] = [
        ("task_type", As::Text),
        ("queue", As::Text),
        ("priority", As::Number),
        ("max_attempts", As::Number),
        ("title", As::Text),
        ("payload", As::Json),
    ];
    let fields = fields(sent)?;
    let count = field(&fields, "count").unwrap_or("1").parse().ok().filter(|count| (1..=MAX_TASKS).contains(count));
    let count = count.ok_or_else(|| {
        let detail = format!("must be an integer between 1 and {MAX_TASKS}");
        Problem::invalid_field("count", detail)
    })?;
    let task = object(&fields, &TASK, false)?;
    let ids: Vec<_> = (0..count).map(|_| Uuid::now_v7()).collect();
    let one = |id: &Uuid| {
        let mut task = task.clone();
        task.insert("id".to_owned(), raw(&id.to_string()));
        input(&task).map(|task| task.0)
    };
    let items = ids.iter().map(one).collect::<Result<_, _>>()?;
    tasks::create(State(state.clone()), caller, IdempotencyKey::default(), OneOrMany { items, single: false }).await?;
    Ok(ids)
}

pub(super) async fn work(State(state): State<AppState>, headers: HeaderMap, caller: Caller, sent: Sent) -> Response {
    // The next page must be known before anything is changed.
    let read = fields(sent).and_then(|fields| Ok((followed(&fields)?, fields)));
    let (mut shown, fields) = match read {
        Ok(read) => read,
        Err(problem) => return failure(&state, &headers, &problem, Some(("Test client", back(&[])))),
    };
    match try_work(&state, &caller, &fields).await {
        Ok(id) => {
            if !shown.contains(&id) {
                shown.push(id);
            }
            redirect_after_write(&state, &back(&shown)).await
        }
        Err(problem) => failure(&state, &headers, &problem, Some(("Test client", back(&shown)))),
    }
}

/// The relevant part of a claim's response.
#[derive(serde::Deserialize)]
struct Claimed {
    tasks: Vec<Taken>,
}

#[derive(serde::Deserialize)]
struct Taken {
    id: Uuid,
    attempt: u32,
}

/// Claims one task with a new worker and reports on it; returns its ID.
async fn try_work(state: &AppState, caller: &Caller, fields: &Fields) -> Result<Uuid, Problem> {
    let queue = field(fields, "queue").unwrap_or("test-client");
    if !["complete", "fail", "give_up"].contains(&field(fields, "end").unwrap_or("complete")) {
        let detail = "must be one of complete, fail, give_up";
        return Err(Problem::invalid_field("end", detail));
    }
    let worker = object_of(json!({ "name": "test-client", "machine_id": "browser", "queues": [queue] }));
    let registered = workers::register_as(state, input(&worker)?).await?;
    let worker_id = registered.worker.id;
    let done = end_one(state, caller, worker_id, queue, fields).await;
    workers::leave(State(state.clone()), caller.clone(), Id(worker_id)).await?;
    done
}

async fn end_one(
    state: &AppState,
    caller: &Caller,
    worker_id: Uuid,
    queue: &str,
    fields: &Fields,
) -> Result<Uuid, Problem> {
    let claim = object_of(json!({ "worker_id": worker_id, "queues": [queue] }));
    let claimed = claims::claim(State(state.clone()), caller.clone(), input(&claim)?).await?;
    // As text: a payload may contain valid JSON numbers outside the range of floats.
    let claimed: Claimed = parse(raw(&claimed.0).get().as_bytes(), "")?;
    let Some(Taken { id, attempt }) = claimed.tasks.into_iter().next() else {
        let detail = format!("Queue {queue} has no pending tasks. Create one, or check whether the queue is paused.");
        return Err(Problem::new(ErrorCode::NoTaskAvailable, detail));
    };
    let (state, caller) = (State(state.clone()), caller.clone());
    let mut report = object_of(json!({ "worker_id": worker_id, "attempt": attempt }));
    let end = field(fields, "end").unwrap_or("complete");
    let done = if end == "complete" {
        report.insert("result".to_owned(), raw(&json!({ "by": "test client" })));
        reports::complete(state, caller, Id(id), input(&report)?).await
    } else {
        let error = field(fields, "error").unwrap_or("Failed by the test client");
        report.insert("error".to_owned(), raw(&error));
        report.insert("retryable".to_owned(), raw(&(end == "fail")));
        reports::fail(state, caller, Id(id), input(&report)?).await
    };
    done.map(|_| id)
}

fn object_of(value: Value) -> Object {
    match value {
        Value::Object(object) => object.into_iter().map(|(name, value)| (name, raw(&value))).collect(),
        _ => Object::new(),
    }
}
